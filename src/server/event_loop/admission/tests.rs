#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small numbers, chosen here

use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const BUDGET: Duration = Duration::from_millis(50);
const SERVICE: Duration = Duration::from_millis(5);
const WORKERS: usize = 8;

/// Requests that fit into the budget: with one worker's share of 5 ms / 8 each, 50 ms take 80.
const FITTING: usize = 80;

const ALICE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn queue(queue_max: usize, fair: bool) -> Admission<usize> {
    Admission::new(BUDGET, queue_max, WORKERS, fair)
}

fn busy(now: Instant) -> Occupancy {
    Occupancy {
        idle: false,
        last_start: Some(now),
    }
}

/// Pushes requests of `peer` for as long as they are let in; returns how many, and why no more.
fn fill(queue: &mut Admission<usize>, peer: IpAddr, now: Instant) -> (usize, Shed) {
    let mut count = 0;
    loop {
        match queue.decide(peer, 0, busy(now), Some(SERVICE), now) {
            Ok(()) => drop(queue.push(count, peer, now)),
            Err(shed) => return (count, shed),
        }
        count += 1;
    }
}

#[test]
fn admits_as_many_as_reach_a_worker_within_the_budget() {
    let now = Instant::now();
    let mut queue = queue(1_024, false);
    assert_eq!(fill(&mut queue, ALICE, now), (FITTING, Shed::Deadline));
    let wait = queue.predicted_wait(0, busy(now), Some(SERVICE), now);
    assert_eq!(wait, SERVICE * (FITTING as u32 + 1) / WORKERS as u32);
}

#[test]
fn never_holds_more_than_the_bound_of_the_queue() {
    let now = Instant::now();
    let mut queue = queue(10, false);
    assert_eq!(fill(&mut queue, ALICE, now), (10, Shed::Queue));
}

/// A first burst of clients would otherwise be refused for want of a sample, on a server with nothing to do.
#[test]
fn a_first_burst_waits_before_any_sample() {
    let now = Instant::now();
    let mut queue = queue(1_024, false);
    for item in 0..200 {
        assert_eq!(queue.decide(ALICE, 0, busy(now), None, now), Ok(()));
        queue.push(item, ALICE, now);
    }
    let later = now + BUDGET * 3 / 4;
    let stalled = queue.decide(ALICE, 0, busy(now), None, later);
    assert_eq!(stalled, Err(Shed::Deadline), "a stall shows without one");
}

/// The system's scheduler makes gaps of some milliseconds between jobs of microseconds.
#[test]
fn a_short_gap_between_jobs_refuses_nothing() {
    let now = Instant::now();
    let short = Some(Duration::from_micros(50));
    let mut queue = queue(1_024, false);
    for item in 0..200 {
        queue.push(item, ALICE, now);
    }
    let later = now + BUDGET / 4;
    assert_eq!(queue.decide(ALICE, 0, busy(now), short, later), Ok(()));
}

/// A single slow sample could otherwise refuse everything, and no sample would ever come to correct it.
#[test]
fn an_idle_worker_admits_whatever_the_prediction() {
    let now = Instant::now();
    let queue = queue(0, true);
    let slow = Some(BUDGET * 100);
    let idle = Occupancy {
        idle: true,
        last_start: Some(now),
    };
    assert_eq!(queue.decide(ALICE, 0, idle, slow, now), Ok(()));
    assert_eq!(queue.predicted_wait(0, idle, slow, now), Duration::ZERO);
}

#[test]
fn a_stall_shows_before_any_sample_does() {
    let start = Instant::now();
    let queue = queue(1_024, false);
    let decide = |now| queue.decide(ALICE, 0, busy(start), Some(SERVICE), now);
    let limit = start + BUDGET * WORKERS as u32;
    assert_eq!(decide(limit), Ok(()));
    assert_eq!(decide(limit + SERVICE), Err(Shed::Deadline));
}

#[test]
fn extreme_numbers_do_not_overflow() {
    let now = Instant::now();
    let mut queue = queue(1_024, true);
    queue.push(0, ALICE, now);
    for predicted in [Duration::MAX, Duration::ZERO] {
        let _ = queue.decide(ALICE, 0, busy(now), Some(predicted), now);
        let _ = queue.predicted_wait(0, busy(now), Some(predicted), now);
    }
    let before = now.checked_sub(SERVICE).unwrap();
    assert_eq!(
        queue.decide(BOB, 0, busy(now), Some(SERVICE), before),
        Ok(())
    );
}

#[test]
fn the_first_in_is_the_first_out() {
    let now = Instant::now();
    let mut queue = queue(1_024, false);
    for item in 0..5 {
        queue.push(item, ALICE, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
    assert_eq!(order, [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_over_its_budget_is_refused_and_never_started() {
    let now = Instant::now();
    let mut queue = queue(1_024, false);
    assert_eq!(queue.next_timeout(), None);
    queue.push(0, ALICE, now);
    queue.push(1, ALICE, now + SERVICE);
    let timeout = queue.next_timeout().unwrap();
    assert_eq!(timeout, now + BUDGET);
    let shortly_before = now + BUDGET * 99 / 100;
    assert_eq!(queue.expire(shortly_before), None);
    assert_eq!(queue.pop(timeout), None);
    assert_eq!(queue.expire(timeout), Some(0));
    assert_eq!(queue.expire(timeout), None);
    assert_eq!(queue.next_timeout(), Some(timeout + SERVICE));
    assert_eq!(queue.pop(timeout), Some(1));
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_request_whose_client_has_gone_is_not_started_and_leaves_its_place() {
    let now = Instant::now();
    let mut queue = queue(3, false);
    let tickets = [0, 1, 2].map(|item| queue.push(item, ALICE, now));
    assert_eq!(fill(&mut queue, ALICE, now), (0, Shed::Queue));
    assert_eq!(queue.remove(tickets[1]), Some(1));
    assert_eq!(queue.remove(tickets[1]), None);
    assert_eq!(queue.len(), 2);
    assert_eq!(fill(&mut queue, ALICE, now), (1, Shed::Queue));
    assert_eq!(queue.pop(now), Some(0));
    assert_eq!(queue.remove(tickets[0]), None);
    assert_eq!(queue.pop(now), Some(2));
}

#[test]
fn a_peer_gets_no_more_than_its_share() {
    let now = Instant::now();
    let mut queue = queue(1_024, true);
    // Room for 80: half of it for a single peer, a third for each of two.
    assert_eq!(fill(&mut queue, ALICE, now), (40, Shed::Fair));
    assert_eq!(fill(&mut queue, BOB, now), (27, Shed::Fair));
    assert_eq!(fill(&mut queue, ALICE, now), (0, Shed::Fair));
}

/// A share of the budget's room alone let one peer hold every place of a short queue.
#[test]
fn a_peer_has_no_more_than_its_share_of_a_queue_that_is_shorter_than_its_budget() {
    let now = Instant::now();
    let mut queue = queue(4, true);
    assert_eq!(fill(&mut queue, ALICE, now), (2, Shed::Fair));
    assert_eq!(fill(&mut queue, BOB, now), (2, Shed::Queue));
    assert_eq!(queue.pop(now), Some(0));
    assert_eq!(fill(&mut queue, ALICE, now), (1, Shed::Queue));
}

#[test]
fn every_peer_may_have_one_request_in_the_queue() {
    let now = Instant::now();
    // Room for four, so that with four peers the share of each falls below one.
    let slow = Some(BUDGET * 2);
    let mut queue = queue(1_024, true);
    let peers = [1, 2, 3, 4].map(|last| IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)));
    for peer in peers {
        assert_eq!(queue.decide(peer, 0, busy(now), slow, now), Ok(()));
        queue.push(0, peer, now);
    }
}

#[test]
fn shares_are_given_back_however_a_request_leaves() {
    let now = Instant::now();
    let mut queue = queue(1_024, true);
    let ticket = queue.push(0, ALICE, now);
    queue.push(1, ALICE, now);
    queue.push(2, BOB, now);
    let count = |queue: &Admission<usize>, peer: IpAddr| {
        let peers = queue.peers.as_ref().unwrap();
        peers.get(&Peer::from(peer)).copied()
    };
    assert_eq!(
        (count(&queue, ALICE), count(&queue, BOB)),
        (Some(2), Some(1))
    );
    queue.remove(ticket);
    queue.remove(ticket);
    assert_eq!(count(&queue, ALICE), Some(1));
    queue.pop(now);
    assert_eq!(count(&queue, ALICE), None);
    queue.expire(now + BUDGET);
    assert_eq!(queue.peers.as_ref().unwrap().len(), 0);
}

#[test]
fn fairness_is_off_unless_asked_for() {
    let now = Instant::now();
    let mut queue = queue(1_024, false);
    assert_eq!(fill(&mut queue, ALICE, now).0, FITTING);
}

#[test]
fn one_peer_is_an_ipv4_address_or_an_ipv6_prefix() {
    let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
    assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
    assert_ne!(peer("::ffff:192.0.2.1"), peer("::ffff:192.0.2.2"));
    assert_ne!(
        peer("0.0.0.0"),
        Peer::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    );
}

/// The event loop is one thread: were a refusal dearer than this, the refusals would starve the rest of it at 50 times
/// the capacity. The least of many measurements, so that a busy machine does not matter.
#[test]
fn a_refusal_costs_less_than_ten_microseconds() {
    let now = Instant::now();
    let mut queue = queue(2_048, true);
    for host in 0..1_024 {
        let peer = IpAddr::V4(Ipv4Addr::from_bits(host));
        queue.push(0, peer, now);
    }
    queue.push(0, ALICE, now);
    queue.push(0, ALICE, now);
    // So quick that they all fit, and fairness, the last of the reasons, is the one that refuses.
    let quick = Some(Duration::from_micros(360));
    let mut retry_after = RetryAfter::new(1, now);
    let least = (0..50)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..100 {
                let decision = queue.decide(ALICE, 0, busy(now), quick, now);
                assert_eq!(decision, Err(Shed::Fair));
                retry_after.count(false, now);
                retry_after.seconds(now);
            }
            start.elapsed() / 100
        })
        .min()
        .unwrap();
    assert!(least < Duration::from_micros(10), "{least:?}");
}

fn spread(retry_after: &mut RetryAfter, now: Instant) -> (u64, u64, f64) {
    let seconds: Vec<u64> = (0..10_000).map(|_| retry_after.seconds(now)).collect();
    let mean = seconds.iter().sum::<u64>() as f64 / seconds.len() as f64;
    let (least, most) = (seconds.iter().min(), seconds.iter().max());
    (*least.unwrap(), *most.unwrap(), mean)
}

#[test]
fn retry_after_is_random_up_to_the_ratio_of_offered_to_admitted() {
    let now = Instant::now();
    for (load, offered, admitted, most, mean) in [
        ("none", 0, 0, 1, 1.0..1.01),
        ("all that comes is admitted", 100, 100, 1, 1.0..1.01),
        ("one in ten is admitted", 1_000, 100, 10, 5.3..5.7),
        ("nothing is admitted: bounded", 1_000, 0, 30, 15.0..16.0),
    ] {
        let mut retry_after = RetryAfter::new(7, now);
        for index in 0..offered {
            retry_after.count(index < admitted, now);
        }
        let told = spread(&mut retry_after, now);
        assert_eq!((told.0, told.1), (1, most), "{load}");
        assert!(mean.contains(&told.2), "{load}: {}", told.2);
    }
}

#[test]
fn retry_after_looks_back_one_second() {
    let start = Instant::now();
    let mut retry_after = RetryAfter::new(7, start);
    for _ in 0..1_000 {
        retry_after.count(false, start);
    }
    let later = start + Duration::from_millis(950);
    assert!(spread(&mut retry_after, later).1 > 1);
    retry_after.count(true, later);
    let after = start + Duration::from_millis(1_050);
    assert_eq!(spread(&mut retry_after, after), (1, 1, 1.0));
    for days in [1, 400] {
        let much_later = start + Duration::from_secs(days * 86_400);
        assert_eq!(retry_after.seconds(much_later), 1);
    }
}
