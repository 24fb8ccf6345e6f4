use super::*;
use crate::patterns::BreakerState;
use crate::random::Random;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::thread;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A balancer with the same random numbers each time.
fn balancer(way: Balance, seed: u64) -> Balancer<()> {
    let random = Mutex::new(Random::new(seed));
    Balancer::with_random(way, move || random.lock().unwrap().uniform())
}

fn set(names: &[&str]) -> Vec<Endpoint<()>> {
    names.iter().map(|name| Endpoint::new(name, ())).collect()
}

fn deadline(now: Instant) -> Deadline {
    Deadline::after_at(SECOND, now)
}

fn pick(balancer: &Balancer<()>, now: Instant) -> Pick<()> {
    balancer.pick_at(deadline(now), now).unwrap()
}

/// Picks, succeeds after `latency` and is over.
fn serve(balancer: &Balancer<()>, latency: Duration, now: Instant) -> String {
    let mut pick = pick(balancer, now);
    pick.success_at(now + latency);
    pick.name().to_string()
}

/// What an endpoint does with a request that comes at this time after the start: its latency, and whether it succeeds.
type Behaviour = fn(Duration) -> (Duration, bool);

/// A request on its way.
struct OnItsWay {
    ends: Duration,
    number: u64,
    success: bool,
    pick: Pick<()>,
}

impl Ord for OnItsWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ends, self.number).cmp(&(other.ends, other.number))
    }
}

impl PartialOrd for OnItsWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OnItsWay {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OnItsWay {}

/// Sends requests at `rate` a second, at random times, to endpoints `a`, `b`, ..., whose latencies are spread by half.
/// Returns each second's share of each endpoint.
fn simulate(
    balancer: &Balancer<()>,
    rate: u32,
    seconds: u64,
    endpoints: &[Behaviour],
) -> Vec<Vec<f64>> {
    let names: Vec<_> = ('a'..).take(endpoints.len()).map(String::from).collect();
    let start = Instant::now();
    balancer
        .replace_at(names.iter().map(|name| Endpoint::new(name, ())), start)
        .unwrap();
    let mut random = Random::new(7);
    let mut on_their_way: BinaryHeap<Reverse<OnItsWay>> = BinaryHeap::new();
    let mut counts = vec![vec![0_u32; endpoints.len()]; usize::try_from(seconds).unwrap()];
    let mut at = Duration::ZERO;
    let mut number = 0;
    while at.as_secs() < seconds {
        while on_their_way.peek().is_some_and(|first| first.0.ends <= at) {
            let Reverse(mut over) = on_their_way.pop().unwrap();
            if over.success {
                over.pick.success_at(start + over.ends);
            } else {
                over.pick.failure_at(start + over.ends);
            }
        }
        let pick = pick(balancer, start + at);
        let which = names
            .iter()
            .position(|name| **name == **pick.name())
            .unwrap();
        counts[usize::try_from(at.as_secs()).unwrap()][which] += 1;
        let (latency, success) = endpoints[which](at);
        number += 1;
        on_their_way.push(Reverse(OnItsWay {
            ends: at + latency.mul_f64(0.5 + random.uniform()),
            number,
            success,
            pick,
        }));
        at += SECOND.mul_f64(-(1.0 - random.uniform()).ln() / f64::from(rate));
    }
    let share = |second: &Vec<u32>| {
        let total: u32 = second.iter().sum();
        second
            .iter()
            .map(|count| f64::from(*count) / f64::from(total))
            .collect()
    };
    counts.iter().map(share).collect()
}

fn well(_: Duration) -> (Duration, bool) {
    (10 * MS, true)
}

#[test]
fn each_second_has_its_share_whatever_the_others_do() {
    fn slow(_: Duration) -> (Duration, bool) {
        (100 * MS, true)
    }
    fn broken(_: Duration) -> (Duration, bool) {
        (MS, false)
    }
    let any = 0.0..1.01;
    let steady = 0.1..0.6;
    for (what, endpoints, rates, expected) in [
        (
            "ten times the latency",
            [well, well, slow],
            [100, 500],
            [any.clone(), any.clone(), 0.0..0.1],
        ),
        (
            "fails at once",
            [well, broken, well],
            [100, 1000],
            [any.clone(), 0.0..0.05, any],
        ),
        (
            "nothing oscillates",
            [well, well, well],
            [100, 500],
            [steady.clone(), steady.clone(), steady],
        ),
    ] {
        for (rate, seed) in rates.into_iter().flat_map(|rate| [(rate, 1), (rate, 2)]) {
            let balancer = balancer(Balance::Latency, seed);
            let shares = simulate(&balancer, rate, 60, &endpoints);
            for (second, share) in shares.iter().enumerate() {
                let mut pairs = share.iter().zip(&expected);
                assert!(
                    pairs.all(|(share, expected)| expected.contains(share)),
                    "{what}: {rate}/s, second {second}: {share:?}"
                );
            }
        }
    }
}

#[test]
fn one_that_becomes_slow_is_left_alone_within_a_second_and_comes_back_when_it_is_quick() {
    fn slow_for_a_while(at: Duration) -> (Duration, bool) {
        let slow = (10..40).contains(&at.as_secs());
        (if slow { 100 * MS } else { 10 * MS }, true)
    }
    let shares = simulate(
        &balancer(Balance::Latency, 1),
        300,
        80,
        &[well, well, slow_for_a_while],
    );
    for (second, share) in shares.iter().enumerate().take(40).skip(10) {
        assert!(share[2] < 0.1, "second {second}: {share:?}");
    }
    for (second, share) in shares.iter().enumerate().skip(70) {
        assert!(share[2] > 0.15, "second {second}: {share:?}");
    }
}

/// A single failure kept an endpoint from all traffic for two minutes: it counts as the deadline, which decays slowly.
#[test]
fn one_that_failed_once_gets_another_request_after_5_s_alone_and_then_its_share() {
    let now = Instant::now();
    let balancer = balancer(Balance::Latency, 1);
    balancer.replace_at(set(&["a", "b"]), now).unwrap();
    for _ in 0..2 {
        let mut first = pick(&balancer, now);
        match &**first.name() {
            "a" => first.failure_at(now + MS),
            _ => first.success_at(now + MS),
        }
    }
    let count = |at: Duration| {
        let served = (0..100).map(|_| serve(&balancer, MS, now + at));
        served.filter(|name| name == "a").count()
    };
    assert_eq!(count(4900 * MS), 0);
    let mut again = pick(&balancer, now + 5001 * MS);
    assert_eq!(**again.name(), *"a");
    assert_eq!(count(5001 * MS), 0, "it is alone until it is known");
    again.failure_at(now + 5001 * MS);
    drop(again);
    assert_eq!(count(10 * SECOND), 0);
    assert!(count(10_002 * MS) > 0);
    assert!(count(30 * SECOND) > 30, "it is well");
}

#[test]
fn an_unknown_endpoint_is_tried_at_once_but_alone() {
    let now = Instant::now();
    let balancer = balancer(Balance::Latency, 1);
    balancer.replace_at(set(&["a", "b"]), now).unwrap();
    serve(&balancer, 10 * MS, now);
    serve(&balancer, 10 * MS, now);
    balancer.replace_at(set(&["a", "b", "new"]), now).unwrap();
    let mut first = pick(&balancer, now);
    assert_eq!(**first.name(), *"new");
    let others: Vec<_> = (0..50).map(|_| pick(&balancer, now)).collect();
    assert!(others.iter().all(|pick| **pick.name() != *"new"));
    first.success_at(now + MS);
    assert!((0..50).any(|_| **pick(&balancer, now + 20 * SECOND).name() == *"new"));
}

#[test]
fn when_none_is_known_all_take_part() {
    let now = Instant::now();
    let balancer = balancer(Balance::Latency, 1);
    balancer.replace_at(set(&["a", "b", "c"]), now).unwrap();
    let picks: Vec<_> = (0..30).map(|_| pick(&balancer, now)).collect();
    for status in balancer.endpoints_at(now) {
        assert!((5..16).contains(&status.pending), "{status:?}");
    }
    drop(picks);
}

#[test]
fn weight_counts_as_capacity() {
    let now = Instant::now();
    let balancer = balancer(Balance::Latency, 1);
    let mut endpoints = set(&["a", "b"]);
    endpoints.push(Endpoint::new("big", ()).weight(4));
    balancer.replace_at(endpoints, now).unwrap();
    for _ in 0..3 {
        serve(&balancer, 10 * MS, now);
    }
    let picks: Vec<_> = (0..60)
        .map(|_| pick(&balancer, now + 11 * SECOND))
        .collect();
    let pending: Vec<_> = balancer
        .endpoints_at(now)
        .iter()
        .map(|status| status.pending)
        .collect();
    assert!(
        pending[2] > 3 * pending[0] && pending[2] > 3 * pending[1],
        "{pending:?}"
    );
    drop(picks);
    assert!(
        balancer
            .endpoints_at(now)
            .iter()
            .all(|status| status.pending == 0)
    );
}

#[test]
fn round_robin_is_smooth_and_by_weight() {
    let start = Instant::now();
    let balancer = balancer(Balance::RoundRobin, 1);
    let mut endpoints = set(&["b", "c"]);
    endpoints.insert(0, Endpoint::new("a", ()).weight(5));
    balancer.replace_at(endpoints, start).unwrap();
    let now = start + 10 * SECOND;
    let order: String = (0..14).map(|_| serve(&balancer, MS, now)).collect();
    assert_eq!(order, "aabacaaaabacaa");
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let start = Instant::now();
    let balancer = balancer(Balance::RoundRobin, 1);
    balancer.replace_at(set(&["a"]), start).unwrap();
    let now = start + 60 * SECOND;
    balancer.replace_at(set(&["a", "new"]), now).unwrap();
    let share = |now| {
        (0..110)
            .filter(|_| serve(&balancer, MS, now) == "new")
            .count()
    };
    assert_eq!(share(now), 10);
    assert_eq!(share(now + 10 * SECOND), 55);
}

#[test]
fn a_key_keeps_its_endpoint_while_it_can_be_had() {
    let now = Instant::now();
    let balancer = balancer(Balance::Hash, 1);
    balancer.replace_at(set(&["a", "b", "c"]), now).unwrap();
    let of = |key: u32, avoid: &[Arc<str>]| {
        let key = key.to_be_bytes();
        let ask = Ask::by(deadline(now)).key(&key).avoid(avoid);
        Arc::clone(balancer.pick_at(ask, now).unwrap().name())
    };
    let mut counts = BTreeMap::new();
    for key in 0..300 {
        let first = of(key, &[]);
        assert_eq!(of(key, &[]), first);
        let second = of(key, &[Arc::clone(&first)]);
        assert_ne!(second, first);
        *counts.entry(first).or_insert(0) += 1;
    }
    assert!(
        counts.values().all(|count| (60..140).contains(count)),
        "{counts:?}"
    );
    // Without a key they are spread.
    let names: std::collections::BTreeSet<_> = (0..50).map(|_| serve(&balancer, MS, now)).collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn what_is_full_is_not_chosen_and_gives_its_place_back() {
    let now = Instant::now();
    let balancer = Balancer::new(Balance::Latency);
    let endpoints = ["a", "b"].map(|name| Endpoint::new(name, ()).max(2));
    balancer.replace_at(endpoints, now).unwrap();
    let mut picks: Vec<_> = (0..4).map(|_| pick(&balancer, now)).collect();
    let full = balancer.pick_at(deadline(now), now);
    assert_eq!(full.unwrap_err(), Unavailable::Full);
    let free = picks.remove(1);
    let name = Arc::clone(free.name());
    drop(free);
    assert_eq!(*pick(&balancer, now).name(), name);
}

#[test]
fn who_has_patience_gets_the_place_that_becomes_free() {
    let balancer = Balancer::new(Balance::Latency);
    balancer.replace([Endpoint::new("a", ()).max(1)]).unwrap();
    let far = Deadline::after(60 * SECOND);
    let held = balancer.pick(far).unwrap();
    let impatient = balancer.pick(Ask::by(far).patience(MS));
    assert_eq!(impatient.unwrap_err(), Unavailable::Full);
    let over = Ask::by(Deadline::after(Duration::ZERO)).patience(60 * SECOND);
    assert_eq!(balancer.pick(over).unwrap_err(), Unavailable::Full);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| balancer.pick(Ask::by(far).patience(60 * SECOND)).map(drop)))
            .collect();
        while balancer.shared.members().waiting < 3 {
            thread::yield_now();
        }
        drop(held);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
    });
    assert_eq!(balancer.endpoints()[0].pending, 0);
}

#[test]
fn kept_endpoints_keep_their_numbers_and_gone_ones_finish() {
    let now = Instant::now();
    let balancer = Balancer::new(Balance::RoundRobin);
    let numbered = |names: &[&str], data| -> Vec<_> {
        names.iter().map(|name| Endpoint::new(name, data)).collect()
    };
    balancer.replace_at(numbered(&["a", "b"], 1), now).unwrap();
    let mut picks: Vec<_> = (0..4)
        .map(|_| balancer.pick_at(deadline(now), now).unwrap())
        .collect();
    let changed = [
        Endpoint::new("c", 2),
        Endpoint::new("a", 2).weight(3),
        Endpoint::new("a", 3),
    ];
    balancer.replace_at(changed, now).unwrap();
    for pick in &mut picks {
        pick.success_at(now + MS);
    }
    let [c, a] = balancer.endpoints_at(now).try_into().unwrap();
    assert_eq!((&*a.name, *a.data, a.weight), ("a", 1, 3));
    assert_eq!((a.pending, a.successes, a.latency), (2, 2, Some(MS)));
    assert_eq!((&*c.name, *c.data, c.pending, c.successes), ("c", 2, 0, 0));
    // One that has become another under the same name is a new one.
    let other = [
        Endpoint::new("c", 5).identity("other"),
        Endpoint::new("a", 5),
    ];
    balancer.replace_at(other, now).unwrap();
    let [c, a] = balancer.endpoints_at(now).try_into().unwrap();
    assert_eq!((*c.data, *a.data), (5, 1));
    // So is one that comes back under its old name: the old one's requests are not its own.
    balancer.replace_at(numbered(&["a", "b"], 4), now).unwrap();
    drop(picks);
    for status in balancer.endpoints_at(now) {
        assert_eq!(status.pending, 0);
    }
}

#[test]
fn the_257th_endpoint_is_refused_by_name() {
    let balancer = Balancer::new(Balance::Latency);
    let endpoints = (0..257).map(|number| Endpoint::new(&format!("e{number}"), ()));
    let error = balancer.replace(endpoints).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected at most 256 endpoints, refused e256"
    );
    assert_eq!(balancer.endpoints().len(), 256);
}

#[test]
fn an_empty_set_says_so() {
    let now = Instant::now();
    let balancer = Balancer::<()>::new(Balance::Latency);
    let empty = balancer.pick_at(deadline(now), now);
    assert_eq!(empty.unwrap_err(), Unavailable::Empty);
}

#[test]
fn what_was_tried_a_higher_priority_number_and_the_last_choice_come_last_in_this_order() {
    let now = Instant::now();
    for way in [Balance::Latency, Balance::RoundRobin, Balance::Hash] {
        let balancer = balancer(way, 1);
        let mut endpoints = set(&["a", "b"]);
        endpoints.push(Endpoint::new("spare", ()).priority(1));
        endpoints.push(Endpoint::new("last", ()).max(1));
        balancer.replace_at(endpoints, now).unwrap();
        balancer.set_last_choice("last", true);
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut next = || {
            let ask = Ask::by(deadline(now)).avoid(&tried);
            let name = Arc::clone(balancer.pick_at(ask, now).unwrap().name());
            tried.push(Arc::clone(&name));
            name
        };
        let mut both = [next(), next()];
        let has_another = |tried: &[&str]| {
            let tried: Vec<_> = tried.iter().map(|name| Arc::from(*name)).collect();
            balancer.has_another_at(&tried, now)
        };
        assert!(has_another(&[]) && has_another(&["a"]) && has_another(&["a", "b"]));
        assert!(!has_another(&["a", "b", "spare"]));
        both.sort();
        assert_eq!(both.map(|name| name.to_string()), ["a", "b"]);
        assert_eq!(*next(), *"spare");
        // With nothing else untried the last choice is still the last.
        assert!(["a", "b"].contains(&&*next()));
        balancer.set_last_choice("last", false);
        assert_eq!(*next(), *"last");
    }
}

/// Three endpoints with breakers, which open after one failure.
fn with_breakers(now: Instant) -> Balancer<()> {
    let balancer = balancer(Balance::Latency, 1);
    let endpoints = ["a", "b", "c"].map(|name| {
        let breaker = CircuitBreaker::builder(name)
            .failures(1)
            .random(|| 1.0 - f64::EPSILON);
        Endpoint::new(name, ()).breaker(breaker.build())
    });
    balancer.replace_at(endpoints, now).unwrap();
    balancer
}

fn state(balancer: &Balancer<()>, which: usize, now: Instant) -> BreakerState {
    balancer.endpoints_at(now)[which].breaker.unwrap().state
}

#[test]
fn an_open_breaker_takes_an_endpoint_out_until_a_trial_which_comes_at_once_when_it_is_due() {
    let now = Instant::now();
    let balancer = with_breakers(now);
    let mut dead = pick(&balancer, now);
    dead.failure_at(now);
    let dead = Arc::clone(dead.name());
    for _ in 0..100 {
        assert_ne!(*serve(&balancer, MS, now), *dead);
    }
    let due = now + 6 * SECOND;
    let mut trial = pick(&balancer, due);
    assert!(trial.is_trial() && *trial.name() == dead);
    for _ in 0..10 {
        assert_ne!(*serve(&balancer, MS, due), *dead, "one at a time");
    }
    trial.success_at(due + MS);
    drop(trial);
    assert_eq!(*serve(&balancer, MS, due), *dead, "the second trial");
    let statuses = balancer.endpoints_at(due);
    let back = statuses.iter().find(|status| status.name == dead).unwrap();
    assert_eq!(back.breaker.unwrap().state, BreakerState::Closed);
    // What it cost before it was away is forgotten.
    assert_eq!(back.latency, Some(MS));
}

#[test]
fn with_all_breakers_open_the_refusal_says_for_how_long_and_trials_need_no_traffic() {
    let now = Instant::now();
    let balancer = with_breakers(now);
    for second in 0..3 {
        let now = now + second * SECOND;
        pick(&balancer, now).failure_at(now);
    }
    let later = now + 3 * SECOND;
    let refused = balancer.pick_at(deadline(later), later).unwrap_err();
    let Unavailable::Open { remaining } = refused else {
        panic!("{refused}");
    };
    assert!(remaining.abs_diff(2 * SECOND) < MS, "{remaining:?}");
    assert!(balancer.pick_trial_at(deadline(later), later).is_none());

    let due = now + 20 * SECOND;
    for _ in 0..3 {
        for _ in 0..2 {
            let mut trial = balancer.pick_trial_at(deadline(due), due).unwrap();
            trial.success_at(due);
        }
    }
    assert!(balancer.pick_trial_at(deadline(due), due).is_none());
    assert!((0..3).all(|which| state(&balancer, which, due) == BreakerState::Closed));
}

#[test]
fn a_pick_that_is_dropped_counts_as_nothing_and_only_the_first_report_counts() {
    let now = Instant::now();
    let balancer = with_breakers(now);
    drop(pick(&balancer, now));
    let mut twice = pick(&balancer, now);
    twice.success_at(now + MS);
    twice.failure_at(now + MS);
    drop(twice);
    let statuses = balancer.endpoints_at(now);
    let total = |number: fn(&EndpointStatus<()>) -> u64| statuses.iter().map(number).sum::<u64>();
    assert_eq!(total(|status| status.successes), 1);
    assert_eq!(total(|status| status.failures), 0);
    assert_eq!(total(|status| status.pending.into()), 0);
    assert_eq!(total(|status| status.breaker.unwrap().openings), 0);
}

#[test]
fn an_endpoint_that_hangs_is_found_out_although_every_client_leaves_before_the_deadline() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new("a");
    let balancer = balancer(Balance::Latency, 1);
    let endpoints = [
        Endpoint::new("a", ()).breaker(breaker.clone()),
        Endpoint::new("b", ()),
    ];
    balancer.replace_at(endpoints, now).unwrap();
    let not_b = [Arc::from("b")];
    let pick_a = |now| {
        let ask = Ask::by(deadline(now)).avoid(&not_b);
        balancer.pick_at(ask, now).unwrap()
    };
    pick_a(now).success_at(now + MS);
    let begun = now + 2 * MS;
    let mut excused = pick_a(begun);
    excused.excuse();
    excused.give_up(begun + 2 * SECOND);
    drop(excused);
    let mut picks: Vec<_> = (0..5).map(|_| pick_a(begun)).collect();
    for (before, pick) in picks.iter_mut().enumerate() {
        let status = breaker.status_at(begun);
        assert_eq!(
            (status.state, status.in_a_row as usize),
            (BreakerState::Closed, before)
        );
        pick.give_up(begun + 2 * SECOND);
    }
    drop(picks);
    let over = begun + 8 * SECOND;
    assert_eq!(breaker.status_at(over).openings, 1);
    let mut trial = pick_a(over);
    assert!(trial.is_trial());
    trial.give_up(over + 2 * SECOND);
    drop(trial);
    assert_eq!(breaker.status_at(over).openings, 2);
    let status = &balancer.endpoints_at(over)[0];
    assert_eq!((status.successes, status.failures), (1, 6));
}

/// Clients who have no patience for a slow page would else have all others refused.
#[test]
fn where_there_is_no_other_endpoint_a_request_that_is_given_up_counts_as_nothing() {
    let now = Instant::now();
    let (balancer, breaker) = with_breaker(now);
    for _ in 0..10 {
        pick(&balancer, now).give_up(now + 5 * SECOND);
    }
    let status = breaker.status_at(now);
    assert_eq!((status.state, status.failures), (BreakerState::Closed, 0));
}

#[test]
fn a_request_that_is_given_up_is_no_failure_after_a_short_wait_or_if_others_are_answered() {
    let now = Instant::now();
    let (balancer, breaker) = with_breaker(now);
    let mut short = pick(&balancer, now);
    short.give_up(now + 999 * MS);
    let unknown = balancer.endpoints_at(now)[0].latency;
    assert_eq!(unknown, None, "nothing was answered yet");
    let mut slow = pick(&balancer, now);
    let mut other = pick(&balancer, now);
    other.answered_at(now + 10 * MS);
    slow.give_up(now + 3 * SECOND);
    drop((short, slow, other));
    let status = breaker.status_at(now);
    assert_eq!((status.calls, status.failures), (1, 0));
    let latency = || balancer.endpoints_at(now)[0].latency;
    assert_eq!(latency(), Some(3 * SECOND), "it takes at least that long");
    let mut short = pick(&balancer, now + 3 * SECOND);
    short.give_up(now + 3 * SECOND + MS);
    assert_eq!(latency(), Some(3 * SECOND), "which says nothing");
}

#[test]
fn the_breaker_of_an_only_endpoint_knows() {
    let now = Instant::now();
    let balancer = Balancer::new(Balance::Latency);
    let breaker = CircuitBreaker::builder("a").failures(1).build();
    balancer
        .replace_at([Endpoint::new("a", ()).breaker(breaker)], now)
        .unwrap();
    pick(&balancer, now).failure_at(now);
    let status = balancer.endpoints_at(now)[0].breaker.unwrap();
    assert!(status.remaining <= SECOND && status.remaining >= 800 * MS);
}

#[test]
fn a_failure_costs_what_it_could_have_taken() {
    let now = Instant::now();
    let balancer = balancer(Balance::Latency, 1);
    balancer.replace_at(set(&["a"]), now).unwrap();
    pick(&balancer, now).failure_at(now + MS);
    assert_eq!(balancer.endpoints_at(now)[0].latency, Some(SECOND));
}

#[test]
fn threads_that_pick_and_report_leave_nothing_pending() {
    let balancer = with_breakers(Instant::now());
    let until = Deadline::after(SECOND);
    thread::scope(|scope| {
        for thread in 0..4 {
            let balancer = &balancer;
            scope.spawn(move || {
                for number in 0..500 {
                    let Ok(mut pick) = balancer.pick(until) else {
                        continue;
                    };
                    match (thread + number) % 50 {
                        0 => pick.failure(),
                        1 => {}
                        _ => pick.success(),
                    }
                }
            });
        }
    });
    assert!(
        balancer
            .endpoints()
            .iter()
            .all(|status| status.pending == 0)
    );
}

#[test]
fn what_is_full_or_open_is_not_another() {
    let now = Instant::now();
    let balancer = with_breakers(now);
    balancer
        .replace_at(
            ["a", "b", "c"].map(|name| Endpoint::new(name, ()).max(1)),
            now,
        )
        .unwrap();
    let mut failed = pick(&balancer, now);
    failed.failure_at(now);
    let tried = [Arc::clone(failed.name())];
    drop(failed);
    let held = pick(&balancer, now);
    assert!(balancer.has_another_at(&[Arc::clone(held.name())], now));
    let last = pick(&balancer, now);
    assert!(
        !balancer.has_another_at(&tried, now),
        "both others are full"
    );
    drop(last);
    assert!(balancer.has_another_at(&tried, now));
}

/// A balancer with one endpoint, and its breaker.
fn with_breaker(now: Instant) -> (Balancer<()>, CircuitBreaker) {
    let breaker = CircuitBreaker::new("a");
    let balancer = balancer(Balance::Latency, 1);
    let endpoint = Endpoint::new("a", ()).breaker(breaker.clone());
    balancer.replace_at([endpoint], now).unwrap();
    (balancer, breaker)
}

#[test]
fn an_answer_that_is_cut_is_a_failure_and_its_beginning_no_success() {
    let now = Instant::now();
    let (balancer, breaker) = with_breaker(now);
    for count in 1..=4 {
        let mut pick = pick(&balancer, now);
        pick.answered_at(now + MS);
        assert_eq!(breaker.status_at(now).calls, count - 1);
        pick.failure_at(now + 2 * MS);
        drop(pick);
        let status = breaker.status_at(now);
        assert_eq!((status.calls, status.failures), (count, count));
        assert_eq!(u64::from(status.in_a_row), count);
    }
    pick(&balancer, now).failure_at(now);
    assert_eq!(breaker.status_at(now).state, BreakerState::Open);
    let status = &balancer.endpoints_at(now)[0];
    assert_eq!((status.successes, status.failures), (0, 5));
}

#[test]
fn an_answer_that_ends_well_or_that_nobody_wants_any_more_is_a_success() {
    let now = Instant::now();
    let (balancer, breaker) = with_breaker(now);
    let mut whole = pick(&balancer, now);
    whole.answered_at(now + 10 * MS);
    whole.success_at(now + SECOND);
    let latency = balancer.endpoints_at(now)[0].latency;
    assert_eq!(latency, Some(10 * MS), "to its beginning");
    let mut unwanted = pick(&balancer, now);
    unwanted.answered_at(now + 10 * MS);
    drop(unwanted);
    drop(pick(&balancer, now));
    drop(whole);
    let status = breaker.status();
    assert_eq!((status.calls, status.failures), (2, 0));
    let status = &balancer.endpoints_at(now)[0];
    assert_eq!(
        (status.successes, status.failures, status.pending),
        (2, 0, 0)
    );
}

#[test]
fn a_trial_is_over_when_its_answer_begins_and_if_that_is_cut_the_breaker_opens_again() {
    let now = Instant::now();
    let (balancer, breaker) = with_breaker(now);
    for _ in 0..5 {
        pick(&balancer, now).failure_at(now);
    }
    let over = now + breaker.status_at(now).remaining;
    let mut trial = pick(&balancer, over);
    assert!(trial.is_trial() && !breaker.trial_due_at(over));
    trial.answered_at(over);
    assert!(
        breaker.trial_due_at(over),
        "an endless answer blocks nobody"
    );
    trial.failure_at(over);
    let status = breaker.status_at(over);
    assert_eq!((status.state, status.openings), (BreakerState::Open, 2));
}
