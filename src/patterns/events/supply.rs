//! Where a log's segments come from, and where they go: made ahead of need, of files that are there if there are any, and
//! removed once nobody needs them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::error::EventError;
use super::log::Info;
use super::segment::{self, Segment, Spare};
use super::space::Use;
use super::writer::{REST, Store, Writer};

impl Writer {
    /// Sees to it that the active segment has room for a commit of this many bytes.
    pub(crate) fn make_room(
        &mut self,
        bytes: u64,
        wanted_for: Use,
        now: Instant,
    ) -> Result<(), EventError> {
        let fits = |segment: &Segment| segment.room() >= bytes;
        let admitted = self.store.space.admits(wanted_for);
        if self.active.as_ref().is_some_and(fits) {
            if admitted {
                return Ok(());
            }
            self.press();
            return Err(EventError::Full);
        }
        if let Some(ahead) = self.ahead.take() {
            if !admitted {
                self.ahead = Some(ahead);
                self.press();
                return Err(EventError::Full);
            }
            let made = ahead.join();
            let made = made.unwrap_or_else(|_| Err(io::Error::other("a panic")));
            if let Ok(segment) = self.take_in(made, now) {
                self.active = Some(segment);
                return Ok(());
            }
        }
        match self.create(wanted_for, now) {
            Ok(segment) => {
                self.active = Some(segment);
                Ok(())
            }
            Err(error) => {
                self.press();
                self.close_if_over();
                Err(error)
            }
        }
    }

    /// Closes the active segment if it is mostly written and mostly over, so that it can be copied and removed as others
    /// are: it may be all that can.
    fn close_if_over(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        let state = self.log.lock();
        let info = &state.index.segments[&active.header.number];
        let half = info.capacity() / 2;
        if active.room() < half && info.alive < half {
            drop(state);
            self.active = None;
        }
    }

    /// Space is to be won back, if there may be any.
    fn press(&mut self) {
        self.pressed |= std::mem::take(&mut self.retired);
    }

    /// A new segment, in the index already.
    fn create(&mut self, wanted_for: Use, now: Instant) -> Result<Segment, EventError> {
        let made = self.prepare(wanted_for, now)?.make();
        self.take_in(made, now)
    }

    /// What a new segment is made of, once there is space for it.
    fn prepare(&mut self, wanted_for: Use, now: Instant) -> Result<Plan, EventError> {
        if let Some((struck, error)) = &self.struck
            && self.strikes > 1
            && now.saturating_duration_since(*struck) < REST
        {
            return Err(EventError::Io(Arc::clone(error)));
        }
        if !self.store.space.take(wanted_for) {
            return Err(EventError::Full);
        }
        let spare = self.spares.pop();
        self.store.space.has_spares(self.spares.len());
        let number = self.next_number;
        // After an error too: its name may be there although that is not known to be durable.
        self.next_number = number.saturating_add(1);
        Ok(Plan {
            store: self.store.clone(),
            spare,
            number,
        })
    }

    /// Puts a new segment into the index.
    fn take_in(&mut self, made: io::Result<Segment>, now: Instant) -> Result<Segment, EventError> {
        let segment = match made {
            Ok(segment) => segment,
            Err(error) => {
                self.store.space.give_back(self.store.space.segment);
                return Err(self.strike(error, now));
            }
        };
        let info = Info::new(Arc::clone(&segment.file), segment.header);
        let number = segment.header.number;
        self.log.lock().index.segments.insert(number, info);
        Ok(segment)
    }

    /// Removes the segments that nobody needs.
    pub(crate) fn remove_dead(&mut self) {
        let now = Instant::now();
        while self.rest_until.is_none_or(|until| until <= now) {
            let dead = {
                let state = self.log.lock();
                let mut segments = state.index.segments.iter();
                let dead =
                    segments.find(|(number, info)| info.is_over() && !self.is_open(**number));
                dead.map(|(number, _)| *number)
            };
            let Some(number) = dead else {
                return;
            };
            if let Err(error) = self.remove(number) {
                log::warn!("cannot remove a segment that is not needed: {error}");
                self.rest_until = Some(now + REST);
            }
        }
    }

    fn remove(&mut self, number: u32) -> io::Result<()> {
        self.owner.before_removal()?;
        let Store {
            directory,
            space,
            purpose,
        } = &self.store;
        let file = {
            let state = self.log.lock();
            let info = &state.index.segments[&number];
            // A write to a suspect one failed, so no sync of its file can be believed.
            let usable = !info.suspect && info.header.size == space.segment;
            let wanted = usable && self.spares.len() < space.most_spares();
            wanted.then(|| (Arc::clone(&info.file), info.header))
        };
        let spare = match file {
            Some((file, header)) => Spare::set_aside(&**directory, file, header),
            None => Ok(None),
        };
        let spare = match spare {
            // It was at an earlier try, whose end was an error.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => other?,
        };
        if spare.is_none() {
            let name = segment::name(*purpose, number);
            for name in [segment::unfinished(&name), name] {
                match directory.remove(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        // What says which of its events are over may go once the segment is gone for good.
        directory.sync()?;
        let bytes = self.log.lock().index.remove_segment(number);
        space.give_back(bytes);
        self.spares.extend(spare);
        space.has_spares(self.spares.len());
        Ok(())
    }

    /// Has the next segment made once the active one is half full, so that no event waits for that.
    pub(super) fn look_ahead(&mut self) {
        let half_full = |segment: &Segment| segment.room() < segment.header.size / 2;
        if self.ahead.is_some() || !self.active.as_ref().is_some_and(half_full) {
            return;
        }
        // Without it an event waits longer, or is refused, and the reason is told then.
        let Ok(plan) = self.prepare(Use::Events, Instant::now()) else {
            return;
        };
        let name = format!("events {} ahead", self.store.purpose.extension());
        let spare = plan.spare.as_ref().map(Spare::name).map(str::to_owned);
        let Ok(making) = thread::Builder::new().name(name).spawn(|| plan.make()) else {
            if let Some(spare) = spare {
                // What cannot be removed is found at the next start.
                let _ = self.store.directory.remove(&spare);
            }
            self.store.space.give_back(self.store.space.segment);
            return;
        };
        self.ahead = Some(making);
    }
}

/// What a new segment is made of.
struct Plan {
    store: Store,
    spare: Option<Spare>,
    number: u32,
}

impl Plan {
    /// Makes it, of a file that is there if there is one.
    fn make(self) -> io::Result<Segment> {
        let Store {
            directory,
            space,
            purpose,
        } = self.store;
        if self.number == u32::MAX {
            return Err(io::Error::other("no number is left for a new segment"));
        }
        if let Some(spare) = self.spare
            && let Some(segment) = Segment::reuse(&*directory, spare, self.number)?
        {
            return Ok(segment);
        }
        Segment::create(&*directory, purpose, self.number, space.segment)
    }
}
