//! Service discovery: which endpoints there are, asked in the background.

mod dns;
mod file;
mod lookup;
mod source;

use std::collections::HashSet;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Address, Deadline, MOST_ENDPOINTS};
use crate::net::resolve::resolve;
use crate::net::url::{Endpoint as Place, Host};
use crate::panics::lock;
use file::{FileState, Seen};
pub use source::SourceError;
use source::{Options, Source};

/// How often a name is asked for anew.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a file is looked at again that has changed.
const SETTLING: Duration = Duration::from_millis(250);

/// Longest that a source is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a set is held at least that is another one than before: this long at first, then twice as long each time, up
/// to the longest. What a source tells that makes up others all the time costs a bounded part of the time.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(16);

/// Most sources that are asked at the same time.
const AT_ONCE: usize = 8;

/// An endpoint that a source of [`Discovery`] names, with all that a [`Balancer`](super::Balancer) wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discovered {
    /// Where to connect to.
    pub address: Address,
    /// What the source calls it, as a Host field has it: `HOST` or `HOST:PORT`; `localhost` for a Unix socket.
    pub authority: String,
    /// What comes before each request's path: empty, or it begins with a slash and does not end with one.
    pub prefix: String,
    /// Its share of requests beside the others' of the same priority, from 1 to 65535.
    pub weight: u32,
    /// Most requests at once, if that is limited.
    pub max: Option<u32>,
    /// Those with a lower number come first; the others are for when none of them can be reached (RFC 2782). 0 for all
    /// but SRV.
    pub priority: u16,
}

impl Discovered {
    /// A name that no other endpoint of the same [`Discovery`] has: address and prefix.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.address, self.prefix)
    }
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// The source as it was given.
    pub source: String,
    /// How many endpoints it has told.
    pub endpoints: usize,
    /// Why it could not be read the last time; what it told before still counts.
    pub error: Option<String>,
}

/// The endpoints that sources name.
///
/// | source | endpoints |
/// |---|---|
/// | `http://HOST[:PORT][/PREFIX]` | every address of the name, asked for anew each 5 s |
/// | `unix:PATH` | the Unix socket |
/// | `srv://NAME[?server=IP:PORT]` | what the name server says (SRV, RFC 2782), asked for anew when its TTL is over, held between 1 s and 60 s; while each answer is another one, at least 2 s, 4 s, ... 16 s |
/// | `file:PATH` | one `http://` or `unix:` a line, read again when it changes |
///
/// Behind `http://` and `unix:` may stand `#weight=N`, `#max=N`, or both as `#weight=N&max=N`. In a file, empty lines and
/// those that begin with `#` are skipped, and a change counts once it was found twice, so that a half-written file does
/// not.
///
/// [`endpoints`](Self::endpoints) only reads memory. What asks is [`refresh`](Self::refresh), which a thread in the
/// background calls. A source that fails, or has no endpoint, keeps those that it told last. At most 256 endpoints are
/// taken, those of the first sources first.
///
/// ```
/// use plimsoll::patterns::Discovery;
/// use std::time::Instant;
///
/// let discovery = Discovery::new(["http://127.0.0.1:9000/v1#weight=2", "unix:/run/app.sock"])?;
/// assert!(discovery.endpoints().is_empty());
/// discovery.refresh(Instant::now());
/// let endpoints = discovery.endpoints();
/// assert_eq!(endpoints[0].authority, "127.0.0.1:9000");
/// assert_eq!((endpoints[0].prefix.as_str(), endpoints[0].weight), ("/v1", 2));
/// assert_eq!(endpoints[1].address.to_string(), "unix:/run/app.sock");
/// # Ok::<(), plimsoll::patterns::SourceError>(())
/// ```
pub struct Discovery {
    sources: Vec<WatchedSource>,
    current: Mutex<Arc<[Discovered]>>,
}

/// A source and what it has told.
struct WatchedSource {
    shown: String,
    source: Source,
    state: Mutex<SourceState>,
}

#[derive(Debug, Default)]
struct SourceState {
    /// The last good set.
    endpoints: Vec<Discovered>,
    /// How often in a row it has told other ones than before.
    changes: u32,
    error: Option<String>,
    /// The name of the first endpoint that is one too many.
    surplus: Option<String>,
    /// When it is to be asked again; none: at once.
    due: Option<Instant>,
    /// For a file.
    watch: FileState,
    /// When the names in a file were asked for.
    asked: Option<Instant>,
    /// What each line of a file has told.
    lines: Vec<(Source, Vec<Discovered>)>,
}

/// What a source tells.
struct Told {
    endpoints: Vec<Discovered>,
    /// How long that is good.
    good_for: Duration,
    /// What else is to be said: a line of a file whose name has no address now.
    complaint: Option<String>,
}

impl Told {
    fn new(endpoints: Vec<Discovered>, good_for: Duration) -> Self {
        Self {
            endpoints,
            good_for,
            complaint: None,
        }
    }
}

impl Discovery {
    /// One of these sources. Nothing is asked yet.
    ///
    /// # Errors
    /// The first source whose text is wrong, or the first one beyond 256.
    pub fn new(sources: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, SourceError> {
        let mut watched = Vec::new();
        for text in sources {
            let text = text.as_ref();
            let source = Source::parse(text)?;
            if watched.len() == MOST_ENDPOINTS {
                return Err(SourceError {
                    source: text.to_owned(),
                    expected: format!("at most {MOST_ENDPOINTS} sources"),
                    found: "one more".to_owned(),
                });
            }
            watched.push(WatchedSource {
                shown: text.to_owned(),
                source,
                state: Mutex::default(),
            });
        }
        Ok(Self {
            sources: watched,
            current: Mutex::new(Arc::new([])),
        })
    }

    /// The endpoints as they were told last: of each source in the order given, each address and prefix once.
    #[must_use]
    pub fn endpoints(&self) -> Arc<[Discovered]> {
        lock(&self.current).clone()
    }

    /// How each source is doing, in the order given.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStatus> {
        let status = |watched: &WatchedSource| {
            let state = lock(&watched.state);
            SourceStatus {
                source: watched.shown.clone(),
                endpoints: state.endpoints.len(),
                error: state.error.clone().or_else(|| {
                    let name = state.surplus.as_ref()?;
                    Some(format!(
                        "expected at most {MOST_ENDPOINTS} endpoints, found {name} too"
                    ))
                }),
            }
        };
        self.sources.iter().map(status).collect()
    }

    /// Asks the sources that are due at `now`, eight at a time, each for at most 5 s. Returns when the next one is due:
    /// call it again then.
    ///
    /// It blocks, so it belongs into a thread in the background. Changes and failures are logged when they begin.
    pub fn refresh(&self, now: Instant) -> Instant {
        self.refresh_with(now, || {})
    }

    /// [`refresh`](Self::refresh) that calls `changed` whenever the endpoints have changed: what one source tells is
    /// not to wait for another one that does not answer. Several threads call it.
    pub fn refresh_with(&self, now: Instant, changed: impl Fn() + Sync) -> Instant {
        self.refresh_by(now, &changed, &|watched| watched.ask(now))
    }

    fn refresh_by(
        &self,
        now: Instant,
        changed: &(dyn Fn() + Sync),
        ask: &(dyn Fn(&WatchedSource) -> Option<Result<Told, String>> + Sync),
    ) -> Instant {
        let is_due =
            |watched: &&WatchedSource| lock(&watched.state).due.is_none_or(|due| due <= now);
        let due = self.sources.iter().filter(is_due);
        let (at_hand, asked): (Vec<_>, Vec<_>) = due.partition(|one| one.source.is_at_hand());
        let known = self.endpoints();
        let learn = |watched: &WatchedSource| {
            let told = panic::catch_unwind(AssertUnwindSafe(|| ask(watched)));
            let told = told.unwrap_or_else(|_| Some(Err("asking it panicked".to_owned())));
            let interval = watched.interval();
            lock(&watched.state).learn(&watched.shown, told, interval, now);
        };
        let publish = || {
            if self.publish() {
                changed();
            }
        };
        at_hand.into_iter().for_each(learn);
        publish();
        let next = AtomicUsize::new(0);
        let ask_in_turn = || {
            while let Some(watched) = asked.get(next.fetch_add(1, Relaxed)) {
                learn(watched);
                publish();
            }
        };
        thread::scope(|scope| {
            for _ in 1..asked.len().min(AT_ONCE) {
                let name = "plimsoll-discover".to_owned();
                let helper = thread::Builder::new().name(name);
                // Without a helper it takes longer.
                let _ = helper.spawn_scoped(scope, ask_in_turn);
            }
            ask_in_turn();
        });
        let found = self.endpoints();
        if found != known {
            log::info!("known endpoints: {}", found.len());
        }
        let next = self
            .sources
            .iter()
            .map(|one| lock(&one.state).due.unwrap_or(now));
        next.min().unwrap_or(now + INTERVAL)
    }

    /// Puts together what all sources have told; whether that is something else than before.
    fn publish(&self) -> bool {
        // Held from the beginning on, so that of two threads the one that comes last has seen all.
        let mut current = lock(&self.current);
        let mut all: Vec<Discovered> = Vec::new();
        for watched in &self.sources {
            let mut state = lock(&watched.state);
            let mut surplus = None;
            for endpoint in &state.endpoints {
                let is_same = |other: &Discovered| {
                    other.address == endpoint.address && other.prefix == endpoint.prefix
                };
                if all.iter().any(is_same) {
                    continue;
                }
                if all.len() == MOST_ENDPOINTS {
                    surplus.get_or_insert_with(|| endpoint.name());
                    continue;
                }
                all.push(endpoint.clone());
            }
            if state.surplus != surplus {
                if let Some(name) = &surplus {
                    let source = &watched.shown;
                    log::warn!(
                        "{source}: expected at most {MOST_ENDPOINTS} endpoints, found {name} too"
                    );
                }
                state.surplus = surplus;
            }
        }
        let is_changed = **current != *all;
        if is_changed {
            *current = all.into();
        }
        is_changed
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("sources", &self.sources())
            .finish_non_exhaustive()
    }
}

impl SourceState {
    /// Takes what the source has told; none: a file that is the same, or is still being written.
    fn learn(
        &mut self,
        source: &str,
        told: Option<Result<Told, String>>,
        interval: Duration,
        now: Instant,
    ) {
        let next = match told {
            None => interval,
            Some(Ok(told)) if !told.endpoints.is_empty() => {
                let is_changed = self.endpoints != told.endpoints;
                self.changes = if is_changed {
                    self.changes.saturating_add(1)
                } else {
                    0
                };
                self.endpoints = told.endpoints;
                match told.complaint {
                    Some(complaint) => self.fail(source, complaint),
                    None if self.error.take().is_some() => {
                        log::info!("{source} can be read again");
                    }
                    None => {}
                }
                told.good_for.max(self.held_for()).min(interval)
            }
            Some(Ok(_)) => {
                self.fail(source, "it has no endpoint".to_owned());
                interval
            }
            Some(Err(error)) => {
                self.fail(source, error);
                interval.min(INTERVAL)
            }
        };
        self.due = Some(now + next);
    }

    /// How long what it has told is good at least.
    fn held_for(&self) -> Duration {
        let doublings = self.changes.saturating_sub(1);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        SHORTEST_HOLD.saturating_mul(factor).min(LONGEST_HOLD)
    }

    /// Notes why the source cannot be read; what it told before still counts.
    fn fail(&mut self, source: &str, error: String) {
        if self.error.as_ref() != Some(&error) {
            let kept = self.endpoints.len();
            log::warn!("{source}: {error}; endpoints kept: {kept}");
            self.error = Some(error);
        }
    }
}

impl WatchedSource {
    /// How long what it tells is good at most.
    fn interval(&self) -> Duration {
        match self.source {
            Source::Http { .. } | Source::Unix { .. } => INTERVAL,
            Source::Srv { .. } => Duration::from_secs(60),
            Source::File(_) if lock(&self.state).watch.is_changing() => SETTLING,
            Source::File(_) => FILE_INTERVAL,
        }
    }

    /// Asks; none if there is nothing new to tell.
    fn ask(&self, now: Instant) -> Option<Result<Told, String>> {
        let Source::File(path) = &self.source else {
            let before = lock(&self.state).endpoints.clone();
            return Some(tell(&self.source, &before, Deadline::after(PATIENCE)));
        };
        let found = match file::read(path) {
            Ok(found) => found,
            Err(error) => return Some(Err(error.to_string())),
        };
        let mut state = lock(&self.state);
        let seen = state.watch.see(found);
        let is_old = state.asked.is_none_or(|asked| now >= asked + INTERVAL);
        if seen == Seen::Changing || (seen == Seen::Same && !is_old) {
            return None;
        }
        state.asked = Some(now);
        let sources = source::parse_file(state.watch.text());
        drop(state);
        Some(sources.map(|sources| self.ask_lines(sources)))
    }

    /// Asks for the names in a file. A line that cannot tell now tells what it told before.
    fn ask_lines(&self, sources: Vec<Source>) -> Told {
        let deadline = Deadline::after(PATIENCE);
        let before = std::mem::take(&mut lock(&self.state).lines);
        let mut all = Told::new(Vec::new(), FILE_INTERVAL);
        let (mut lines, mut names) = (Vec::new(), HashSet::new());
        let count = sources.len();
        for (index, source) in sources.into_iter().enumerate() {
            // A name that nobody answers for leaves the others their part of the time.
            let left = deadline.remaining().unwrap_or_default();
            let still = u32::try_from(count - index).unwrap_or(u32::MAX);
            let endpoints = match tell(&source, &[], deadline.within(left / still)) {
                Ok(told) => told.endpoints,
                Err(error) => {
                    all.complaint = Some(error);
                    let same = before.iter().find(|(other, _)| *other == source);
                    same.map(|(_, endpoints)| endpoints.clone())
                        .unwrap_or_default()
                }
            };
            let new = endpoints.iter().filter(|one| names.insert(one.name()));
            all.endpoints.extend(new.cloned());
            lines.push((source, endpoints));
            if all.endpoints.len() > MOST_ENDPOINTS {
                break;
            }
        }
        lock(&self.state).lines = lines;
        all
    }
}

/// What a source other than a file tells. A service whose addresses nobody tells now has those that it had `before`.
fn tell(source: &Source, before: &[Discovered], deadline: Deadline) -> Result<Told, String> {
    match source {
        Source::Http {
            place,
            prefix,
            options,
        } => {
            let mut addresses = resolve(place, MOST_ENDPOINTS + 1, deadline.instant())
                .map_err(|error| error.to_string())?;
            // Name servers change the order with each answer, which says nothing.
            addresses.sort_unstable();
            let endpoints = addresses.into_iter().map(|address| Discovered {
                address: address.into(),
                authority: place.authority(),
                prefix: prefix.clone(),
                weight: options.weight,
                max: options.max,
                priority: 0,
            });
            Ok(Told::new(endpoints.collect(), INTERVAL))
        }
        Source::Unix {
            path,
            options: Options { weight, max },
        } => {
            let endpoint = Discovered {
                address: path.as_path().into(),
                authority: "localhost".to_owned(),
                prefix: String::new(),
                weight: *weight,
                max: *max,
                priority: 0,
            };
            Ok(Told::new(vec![endpoint], INTERVAL))
        }
        Source::Srv { name, server } => {
            let found = lookup::services(name, *server, deadline)?;
            let endpoints = found.list.iter().flat_map(|service| {
                let place = Place {
                    host: Host::Name(service.target.clone()),
                    port: service.port,
                };
                let authority = place.authority();
                let told = service.addresses.iter();
                let told = told.map(|&address| Address::Tcp((address, service.port).into()));
                let mut addresses: Vec<_> = told.collect();
                if addresses.is_empty() {
                    let before = before.iter().filter(|one| one.authority == authority);
                    addresses.extend(before.map(|one| one.address.clone()));
                }
                addresses.into_iter().map(move |address| Discovered {
                    address,
                    authority: authority.clone(),
                    prefix: String::new(),
                    // Of those with 0, RFC 2782 wants few to be chosen, but not none.
                    weight: u32::from(service.weight).max(1),
                    max: None,
                    priority: service.priority,
                })
            });
            let mut endpoints: Vec<_> = endpoints.take(MOST_ENDPOINTS + 1).collect();
            endpoints.sort_by_cached_key(|it| (it.priority, it.name(), it.authority.clone()));
            match found.complaint {
                Some(complaint) if endpoints.is_empty() => Err(complaint),
                Some(complaint) => Ok(Told {
                    complaint: Some(complaint),
                    ..Told::new(endpoints, found.ttl.min(INTERVAL))
                }),
                None => Ok(Told::new(endpoints, found.ttl)),
            }
        }
        Source::File(_) => Err("a file in a file is not read".to_owned()),
    }
}

#[cfg(test)]
mod tests;
