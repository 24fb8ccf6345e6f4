//! What must hold for every input: checked by a fuzz target and the property tests.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dead::Dead;
use super::event::{Event, EventId, Stored};
use super::files::{Directory, File};
use super::keys::KeyFile;
use super::live::Live;
use super::log::{Index, NOWHERE, Owner};
use super::reader::{Item, Reader};
use super::record::{self, BLOCK, Done, FIRST, Header, Kind, Note, Purpose, to_usize};
use super::recover::{Damage, recover};
use super::schedule::Next;
use super::segment::{self, read_record};
use super::space::Space;
use super::writer::Store;

/// Any bytes as the one segment of a queue: as they are, and as a script of which records and other bytes stand in a
/// segment, since checks are hard to guess.
///
/// # Panics
///
/// When an invariant of the reader or of a start doesn't hold.
pub(crate) fn segment(data: &[u8]) {
    let any = Header {
        purpose: Purpose::Live,
        number: 1,
        salt: 0,
        uses: u32::from(data.first().is_some_and(|first| first % 2 == 1)),
        size: data.len() as u64,
    };
    read(data, &Header::decode(data).unwrap_or(any));
    start(data);
    let (header, written) = written(data);
    read(&written, &header);
    start(&written);
}

/// Reads a segment to its end.
fn read(bytes: &[u8], header: &Header) {
    let length = bytes.len() as u64;
    let mut reader = Reader::new(bytes, header, length);
    let mut position = FIRST;
    while let Some(item) = reader.next().expect("a slice can be read") {
        match item {
            Item::Record { offset, head, body } => {
                assert!(offset >= position && offset.is_multiple_of(8));
                assert!(body.len() as u64 <= length - offset);
                position = (offset + head.span()).min(length);
                let _ = Stored::decode(body);
            }
            Item::Damage(hole) => {
                assert!(hole.offset >= position && hole.length > 0);
                position = hole.offset + hole.length;
            }
        }
        assert!(position <= length.max(FIRST));
    }
    assert!(reader.held() <= bytes.len().max(64 * 1024));
}

/// A segment that a script has written: a byte that chooses the header's fields, then for each part a byte that says what
/// it is, one of its length, one of its number, and its bytes.
fn written(script: &[u8]) -> (Header, Vec<u8>) {
    let (&choice, mut rest) = script.split_first().unwrap_or((&0, &[]));
    let mut header = Header {
        purpose: [Purpose::Live, Purpose::Dead, Purpose::Keys][usize::from(choice >> 1) % 3],
        number: 1,
        salt: 7,
        uses: u32::from(choice & 1),
        size: 0,
    };
    let mut out = vec![0; to_usize(FIRST)];
    while let &[what, length, number, ref after @ ..] = rest {
        let (body, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        // The numbers at both ends.
        let sequence = i64::from(number.cast_signed()).cast_unsigned();
        let offset = out.len() as u64;
        let mut add = |kind, body: &[u8]| {
            out.resize(out.len().next_multiple_of(8), 0);
            let offset = out.len() as u64;
            record::append(&mut out, header.salt, offset, kind, sequence, body);
        };
        match what % 9 {
            0 => add(Kind::Event, body),
            1 => add(Kind::Notes, body),
            2 => add(Kind::Done, body),
            3 => add(Kind::Keys, body),
            4 => {
                let event = Event {
                    topic: String::from_utf8_lossy(body).into_owned(),
                    key: (number % 2 == 0).then(|| length.to_string()),
                    ..Event::default()
                };
                add(
                    Kind::Event,
                    &Stored::encode(EventId([number; 16]), 0, None, None, &event),
                );
            }
            5 => {
                let mut list = Vec::new();
                let note = Note {
                    due: sequence,
                    delay: length.into(),
                    attempts: 1,
                };
                note.append(&mut list, sequence);
                add(Kind::Notes, &list);
            }
            6 => {
                let mut list = Vec::new();
                let segment = (length % 3).into();
                Done { sequence, segment }.append(&mut list);
                add(Kind::Done, &list);
            }
            7 => out.extend_from_slice(body),
            _ => out.resize(to_usize(offset.next_multiple_of(BLOCK)), 0),
        }
    }
    header.size = (out.len() as u64).next_multiple_of(BLOCK);
    out[..to_usize(FIRST)].copy_from_slice(&header.encode());
    (header, out)
}

/// Has a queue that holds nothing but these bytes start.
fn start(bytes: &[u8]) {
    let purpose = Header::decode(bytes).map_or(Purpose::Live, |header| header.purpose);
    let name = segment::name(purpose, 1);
    let names = [name.clone()];
    let directory: Arc<dyn Directory> = Arc::new(One(name, bytes.to_vec()));
    let store = |purpose| Store {
        directory: Arc::clone(&directory),
        space: Arc::new(Space::new(64 * 1024, 512 * 1024)),
        purpose,
    };
    let damage = &mut Damage::default();
    let (file, keys) = KeyFile::open(store(Purpose::Keys), &names, damage).expect("no I/O fails");
    let dead = Dead::default();
    let found = found(&store(Purpose::Dead), &dead, &names, damage);
    let letters = dead.letters();
    if let Some(index) = found {
        assert!(letters.len() <= index.places.len());
    }
    let letters = letters
        .iter()
        .map(|letter| (letter.id, letter.slot, letter.died_as));
    let delays = vec![Duration::from_secs(1)];
    let live = Live::new(delays, keys, file, letters);
    let Some(index) = self::found(&store(Purpose::Live), &live, &names, damage) else {
        return;
    };
    let _ = live.twins();
    let mut schedule = live.schedule.lock().expect("nothing panics");
    schedule.start();
    // Longer than any step.
    let now = Instant::now() + Duration::from_secs(10);
    let mut left = schedule.backlog();
    assert!(left <= index.places.len());
    while let Next::Deliver(slot) = schedule.poll(now) {
        let place = index.places[slot as usize];
        let info = &index.segments[&place.segment];
        let offset = place.offset.into();
        read_record(&*info.file, info.header.salt, offset, place.length).expect("no I/O fails");
        schedule.finish(slot, true);
        left -= 1;
    }
    // What was noted may be due later, but each is there once.
    assert_eq!(left, schedule.backlog());
}

/// Reads a log, and counts again what it has counted. `None` if its only segment is refused.
fn found(store: &Store, owner: &dyn Owner, names: &[String], damage: &mut Damage) -> Option<Index> {
    let index = recover(store, owner, names, damage).ok()?.index;
    for (number, info) in &index.segments {
        let places = index.places.iter();
        let events = places.clone().filter(|place| place.segment == *number);
        let notes =
            places.filter(|place| place.segment != NOWHERE && place.note_segment == *number);
        let dones: u64 = info.dones.values().sum();
        let alive = events.map(super::log::Place::span).sum::<u64>()
            + (notes.count() * Note::SIZE) as u64
            + dones * Done::SIZE as u64;
        assert_eq!(info.alive, alive);
    }
    Some(index)
}

/// A directory with one file, which takes no changes and says that it did.
struct One(String, Vec<u8>);

struct Bytes(Vec<u8>);

impl Directory for One {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![self.0.clone()])
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Bytes(self.1.clone())))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        super::reader::Source::read_at(&self.0[..], buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
