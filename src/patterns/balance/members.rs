//! The set of endpoints and the choice among them: no lock, no clock.

use super::peak::Peak;
use super::rendezvous;
use super::{Ask, Balance, Endpoint, EndpointStatus, Unavailable};
use crate::patterns::MOST_ENDPOINTS;
use crate::patterns::breaker::NextPermit;
use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a new endpoint, or one that comes back, gets less than its share.
const SLOW_START: Duration = Duration::from_secs(10);

/// What it begins with of its weight.
const LEAST_WEIGHT: f64 = 0.1;

/// How long one is left alone whose last request failed, before it gets another one by which it can show that it is well:
/// by its latency alone, which a failure puts at that of the deadline, it would be out for minutes.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Latencies below this, in seconds, count as this, so that pending requests count also when all have decayed.
const LEAST_LATENCY: f64 = 1e-6;

/// How long a request that is given up has waited at least, before it may say that its endpoint hangs.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// What counts as the latency of one that is not known yet, in seconds, while its first request is pending: more than
/// any that is known.
const UNKNOWN_LATENCY: f64 = 1e6;

/// What tells an endpoint from all others that there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u64);

#[derive(Debug)]
pub(super) struct Member<E> {
    pub(super) id: Id,
    pub(super) endpoint: Endpoint<E>,
    hash: u64,
    peak: Peak,
    /// When its slow start began.
    since: Instant,
    /// When a request failed, if none that began later has succeeded.
    failed: Option<Instant>,
    /// When it last answered a request.
    answered: Option<Instant>,
    pending: u32,
    last_choice: bool,
    /// How far its turn has come, in round-robin.
    turn: f64,
    successes: u64,
    failures: u64,
}

impl<E> Member<E> {
    fn new(id: Id, endpoint: Endpoint<E>, now: Instant) -> Self {
        Self {
            id,
            hash: rendezvous::hash(endpoint.name.as_bytes()),
            endpoint,
            peak: Peak::default(),
            since: now,
            failed: None,
            answered: None,
            pending: 0,
            last_choice: false,
            turn: 0.0,
            successes: 0,
            failures: 0,
        }
    }

    fn is_same(&self, endpoint: &Endpoint<E>) -> bool {
        self.endpoint.name == endpoint.name && self.endpoint.identity == endpoint.identity
    }

    fn next_permit(&self, now: Instant) -> NextPermit {
        let breaker = self.endpoint.breaker.as_ref();
        breaker.map_or(NextPermit::Closed, |breaker| breaker.next_permit_at(now))
    }

    fn is_full(&self) -> bool {
        self.endpoint.max.is_some_and(|max| self.pending >= max)
    }

    /// Whether only a request can tell what it is like, and none is on its way to do so.
    fn is_fresh(&self, now: Instant) -> bool {
        let is_unknown = self.peak.read(true, now).is_none();
        let is_forgiven = self.failed.is_some_and(|at| now >= at + AFTER_FAILURE);
        self.pending == 0 && (is_unknown || is_forgiven)
            || self.next_permit(now) == NextPermit::TrialDue
    }

    /// Its weight, less while it starts.
    fn weight(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.since);
        let grown = age.as_secs_f64() / SLOW_START.as_secs_f64();
        f64::from(self.endpoint.weight) * grown.clamp(LEAST_WEIGHT, 1.0)
    }

    /// What another request would cost here: latency × (pending + 1) / weight.
    fn cost(&self, now: Instant) -> f64 {
        let latency = self.peak.read(self.pending == 0, now);
        latency.unwrap_or(UNKNOWN_LATENCY).max(LEAST_LATENCY) * f64::from(self.pending + 1)
            / self.weight(now)
    }

    fn status(&self, now: Instant) -> EndpointStatus<E> {
        let breaker = self.endpoint.breaker.as_ref();
        EndpointStatus {
            name: Arc::clone(&self.endpoint.name),
            data: Arc::clone(&self.endpoint.data),
            breaker: breaker.map(|breaker| breaker.status_at(now)),
            weight: self.endpoint.weight,
            pending: self.pending,
            latency: self
                .peak
                .read(self.pending == 0, now)
                .and_then(|latency| Duration::try_from_secs_f64(latency).ok()),
            last_choice: self.last_choice,
            successes: self.successes,
            failures: self.failures,
        }
    }
}

/// How a request to an endpoint goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// Whether the endpoint did its work; none while that is not known yet.
    pub success: Option<bool>,
    /// The time to its answer, if that was not told before; for a failure, the time that it could have taken if that is
    /// longer.
    pub seconds: Option<f64>,
    /// Whether it was a trial of the breaker. What was known before says nothing about one that comes back.
    pub trial: bool,
}

#[derive(Debug)]
pub(super) struct Members<E> {
    way: Balance,
    list: Vec<Member<E>>,
    ids: u64,
    /// Indexes that a choice is between; kept for its memory.
    candidates: Vec<usize>,
    /// How many threads wait for one that is not full.
    pub waiting: usize,
}

impl<E> Members<E> {
    pub(super) fn new(way: Balance) -> Self {
        Self {
            way,
            list: Vec::new(),
            ids: 0,
            candidates: Vec::new(),
            waiting: 0,
        }
    }

    /// Replaces the set. Returns the endpoints that left and what was not needed, and the names of those beyond the
    /// most there may be.
    pub(super) fn replace(
        &mut self,
        endpoints: Vec<Endpoint<E>>,
        now: Instant,
    ) -> (Vec<Endpoint<E>>, Vec<String>) {
        let mut old = mem::take(&mut self.list);
        let mut names = HashSet::new();
        let mut dropped = Vec::new();
        let mut refused = Vec::new();
        for endpoint in endpoints {
            if !names.insert(Arc::clone(&endpoint.name)) {
                dropped.push(endpoint);
            } else if self.list.len() == MOST_ENDPOINTS {
                refused.push(endpoint.name.to_string());
                dropped.push(endpoint);
            } else if let Some(at) = old.iter().position(|member| member.is_same(&endpoint)) {
                let mut kept = old.swap_remove(at);
                kept.endpoint.weight = endpoint.weight;
                kept.endpoint.max = endpoint.max;
                kept.endpoint.priority = endpoint.priority;
                dropped.push(endpoint);
                self.list.push(kept);
            } else {
                self.ids += 1;
                self.list.push(Member::new(Id(self.ids), endpoint, now));
            }
        }
        let only = self.list.len() == 1;
        for breaker in self
            .list
            .iter()
            .filter_map(|member| member.endpoint.breaker.as_ref())
        {
            breaker.set_only_at(only, now);
        }
        dropped.extend(old.into_iter().map(|member| member.endpoint));
        (dropped, refused)
    }

    /// Chooses an endpoint for a request and counts it as pending there.
    ///
    /// `refused` are those whose breaker changed its mind since it was asked; `random` are numbers in [0, 1).
    pub(super) fn choose(
        &mut self,
        ask: &Ask<'_>,
        refused: &[Id],
        random: [f64; 2],
        now: Instant,
    ) -> Result<&Member<E>, Unavailable> {
        self.gather(ask, refused, now)?;
        let chosen = match self.way {
            Balance::Latency => self.quickest(random, now),
            Balance::RoundRobin => self.next(now),
            Balance::Hash => self.highest(ask.key, random),
        };
        let member = &mut self.list[chosen];
        member.pending += 1;
        Ok(member)
    }

    /// Chooses an endpoint whose breaker is due for a trial, and counts a request as pending there.
    pub(super) fn choose_trial(&mut self, refused: &[Id], now: Instant) -> Option<&Member<E>> {
        let member = self.list.iter_mut().find(|member| {
            !refused.contains(&member.id) && member.next_permit(now) == NextPermit::TrialDue
        })?;
        member.pending += 1;
        Some(member)
    }

    /// Whether one that is not among those `tried` comes before them and can take a request.
    pub(super) fn has_another(&self, tried: &[Arc<str>], now: Instant) -> bool {
        self.list.iter().any(|member| {
            !member.last_choice
                && !tried.contains(&member.endpoint.name)
                && !member.is_full()
                && !matches!(member.next_permit(now), NextPermit::Refusing(_))
        })
    }

    /// Lists the endpoints that can take the request, of those the best class only: not the last choice, not tried
    /// before by this request, of the lowest priority number.
    fn gather(&mut self, ask: &Ask<'_>, refused: &[Id], now: Instant) -> Result<(), Unavailable> {
        self.candidates.clear();
        let mut best = None;
        let mut full = false;
        let mut soonest: Option<Duration> = None;
        for (index, member) in self.list.iter().enumerate() {
            let next_permit = member.next_permit(now);
            if let NextPermit::Refusing(open) = next_permit {
                soonest = Some(soonest.map_or(open.remaining, |other| other.min(open.remaining)));
                continue;
            }
            if refused.contains(&member.id) {
                soonest = Some(Duration::ZERO);
                continue;
            }
            if member.is_full() {
                full = true;
                continue;
            }
            let endpoint = &member.endpoint;
            let tried = ask.avoid.contains(&endpoint.name);
            let class = (member.last_choice, tried, endpoint.priority);
            if best.is_none_or(|best| class < best) {
                best = Some(class);
                self.candidates.clear();
            }
            if best == Some(class) {
                self.candidates.push(index);
            }
        }
        match soonest {
            _ if best.is_some() => Ok(()),
            _ if full => Err(Unavailable::Full),
            Some(remaining) => Err(Unavailable::Open { remaining }),
            None => Err(Unavailable::Empty),
        }
    }

    /// One that has to be tried, else the better of two random ones.
    fn quickest(&self, [first, second]: [f64; 2], now: Instant) -> usize {
        // From a random one on, so that several balancers do not try the same first.
        let (before, after) = self
            .candidates
            .split_at(position(first, self.candidates.len()));
        let mut all = after.iter().chain(before);
        if let Some(fresh) = all.find(|index| self.list[**index].is_fresh(now)) {
            return *fresh;
        }
        let Some(one) = self.draw(first, None) else {
            return self.candidates[0];
        };
        match self.draw(second, Some(one)) {
            Some(other) if self.list[other].cost(now) < self.list[one].cost(now) => other,
            _ => one,
        }
    }

    /// A random candidate by weight, other than `not`.
    ///
    /// If each were drawn as often as another, a large one among many small ones could never have its share.
    fn draw(&self, random: f64, not: Option<usize>) -> Option<usize> {
        let others = || self.candidates.iter().filter(|index| Some(**index) != not);
        let weight = |index: usize| f64::from(self.list[index].endpoint.weight);
        let total: f64 = others().map(|index| weight(*index)).sum();
        let mut left = random * total;
        let mut drawn = None;
        for &index in others() {
            drawn = Some(index);
            left -= weight(index);
            if left < 0.0 {
                break;
            }
        }
        drawn
    }

    /// Smooth weighted round-robin, as
    /// [nginx](https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1) does it: each gains its
    /// weight, who has most is chosen and pays for all.
    fn next(&mut self, now: Instant) -> usize {
        let mut total = 0.0;
        let mut chosen = self.candidates[0];
        for &index in &self.candidates {
            let weight = self.list[index].weight(now);
            total += weight;
            self.list[index].turn += weight;
            if self.list[index].turn > self.list[chosen].turn {
                chosen = index;
            }
        }
        self.list[chosen].turn -= total;
        chosen
    }

    /// The key's own endpoint of those that can be had; without a key, a random one by weight.
    ///
    /// There is no slow start: it would move keys a second time.
    fn highest(&self, key: Option<&[u8]>, [random, _]: [f64; 2]) -> usize {
        let key = key.map_or_else(
            || random.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15),
            rendezvous::hash,
        );
        let score = |index: usize| {
            let member = &self.list[index];
            rendezvous::score(key, member.hash, f64::from(member.endpoint.weight))
        };
        let mut chosen = self.candidates[0];
        for &index in &self.candidates[1..] {
            if score(index) > score(chosen) {
                chosen = index;
            }
        }
        chosen
    }

    /// Takes the report of a request; nothing if the endpoint has left.
    pub(super) fn report(&mut self, id: Id, report: Report, now: Instant) {
        let Some(member) = self.list.iter_mut().find(|member| member.id == id) else {
            return;
        };
        match report.success {
            Some(true) => member.successes += 1,
            Some(false) => member.failures += 1,
            None => {}
        }
        if report.success != Some(false) {
            member.answered = Some(now);
        }
        let Some(seconds) = report.seconds else {
            return;
        };
        if report.success == Some(false) {
            member.failed = Some(now);
            member.peak.observe(seconds, now);
            return;
        }
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let began_after = |failed| now.saturating_duration_since(failed) >= took;
        if report.trial || member.failed.is_some_and(began_after) {
            member.failed = None;
            member.peak.restart(seconds, now);
            member.since = now;
        } else {
            member.peak.observe(seconds, now);
        }
    }

    /// Takes note of a request that is given up at `now`, without an answer; whether that is a failure of the endpoint.
    ///
    /// It is, if the request has waited for a while, nothing was answered since it began, and there are other endpoints to
    /// ask: it may be but a slow request, for which nobody is to be refused. Else it only shows that an answer takes longer
    /// than this.
    pub(super) fn give_up(&mut self, id: Id, begun: Instant, now: Instant) -> bool {
        let has_others = self.list.len() > 1;
        let Some(member) = self.list.iter_mut().find(|member| member.id == id) else {
            return false;
        };
        let waited = now.saturating_duration_since(begun);
        let is_silent = member.answered.is_none_or(|at| at < begun);
        if has_others && waited >= HANGS_AFTER && is_silent {
            return true;
        }
        let waited = waited.as_secs_f64();
        let known = member.peak.read(true, now);
        if known.is_some_and(|latency| waited > latency) {
            member.peak.observe(waited, now);
        }
        false
    }

    /// A request is over.
    pub(super) fn end(&mut self, id: Id) {
        if let Some(member) = self.list.iter_mut().find(|member| member.id == id) {
            member.pending -= 1;
        }
    }

    pub(super) fn set_last_choice(&mut self, name: &str, last_choice: bool) {
        if let Some(member) = self
            .list
            .iter_mut()
            .find(|member| *member.endpoint.name == *name)
        {
            member.last_choice = last_choice;
        }
    }

    pub(super) fn statuses(&self, now: Instant) -> Vec<EndpointStatus<E>> {
        self.list.iter().map(|member| member.status(now)).collect()
    }
}

/// A random number in [0, 1) as one of `count` positions.
fn position(random: f64, count: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the count"
    )]
    let position = (random * count as f64) as usize;
    position.min(count - 1)
}
