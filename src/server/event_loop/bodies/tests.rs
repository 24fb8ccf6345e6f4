use super::*;
use proptest::prelude::*;

const BOUND: usize = 100;

fn peer(number: u32) -> Peer {
    Peer::V4(number)
}

fn client(slot: u32) -> ClientKey {
    ClientKey {
        slot,
        generation: 0,
    }
}

/// Who is given room now, in that order.
fn given(bodies: &Arc<Bodies>) -> (Vec<u32>, Vec<Room>) {
    let next = std::iter::from_fn(|| bodies.next());
    next.map(|(client, room)| (client.slot, room)).unzip()
}

fn held(bodies: &Bodies) -> usize {
    bodies.usage().held
}

#[test]
fn bodies_have_room_up_to_the_bound_and_give_it_back() {
    let bodies = Bodies::new(BOUND);
    let first = bodies.take(peer(1), 50, client(1)).unwrap();
    let second = bodies.take(peer(2), 50, client(2)).unwrap();
    assert_eq!(held(&bodies), BOUND);
    let place = bodies.take(peer(3), 1, client(3)).unwrap_err();
    assert!(!bodies.is_ready());
    drop(first);
    assert!(bodies.is_ready());
    let (who, rooms) = given(&bodies);
    assert_eq!((who, held(&bodies)), (vec![3], 51));
    drop((rooms, second, place));
    let none = Usage {
        held: 0,
        waiting: 0,
    };
    assert_eq!(bodies.usage(), none);
    assert!(lock(&bodies.state).peers.is_empty());
}

#[test]
fn those_that_wait_are_served_in_the_order_in_which_they_came() {
    let bodies = Bodies::new(BOUND);
    let all = bodies.take(peer(0), BOUND, client(0)).unwrap();
    let large = bodies.take(peer(1), 60, client(1)).unwrap_err();
    let rest: Vec<_> = (2..8)
        .map(|number| bodies.take(peer(number), 10, client(number)).unwrap_err())
        .collect();
    drop(all);
    let (who, rooms) = given(&bodies);
    assert_eq!(who, [1, 2, 3, 4, 5]);
    // What is small does not overtake what waits for more room.
    let small = bodies.take(peer(9), 1, client(9)).unwrap_err();
    assert!(!bodies.is_ready());
    drop((rooms, large));
    assert_eq!(given(&bodies).0, [6, 7, 9]);
    drop((rest, small));
}

#[test]
fn one_peer_has_at_most_half_and_holds_nobody_else_up() {
    let bodies = Bodies::new(BOUND);
    let mut rooms: Vec<_> = (0..5)
        .map(|slot| bodies.take(peer(1), 10, client(slot)).unwrap())
        .collect();
    let greedy = bodies.take(peer(1), 10, client(5)).unwrap_err();
    let greedy_again = bodies.take(peer(1), 10, client(6)).unwrap_err();
    assert!(!bodies.is_ready());
    let other = bodies.take(peer(2), 50, client(7)).unwrap();
    drop(other);
    assert!(!bodies.is_ready(), "its share is what it waits for");
    rooms.pop();
    let (who, more) = given(&bodies);
    assert_eq!(who, [5]);
    drop((rooms, more));
    assert_eq!(given(&bodies).0, [6]);
    drop((greedy, greedy_again));
}

#[test]
fn one_body_that_fits_into_the_bound_any_peer_may_have() {
    let bodies = Bodies::new(BOUND);
    let whole = bodies.take(peer(1), BOUND, client(1)).unwrap();
    let second = bodies.take(peer(1), 1, client(2)).unwrap_err();
    drop(whole);
    assert_eq!(given(&bodies).0, [2]);
    drop(second);
}

#[test]
fn who_leaves_makes_way_for_those_behind() {
    let bodies = Bodies::new(BOUND);
    let half = bodies.take(peer(1), 50, client(1)).unwrap();
    let large = bodies.take(peer(2), 60, client(2)).unwrap_err();
    let small = bodies.take(peer(3), 10, client(3)).unwrap_err();
    assert!(!bodies.is_ready());
    drop(large);
    assert_eq!(given(&bodies).0, [3]);
    drop((half, small));
}

#[test]
fn what_a_chunked_body_did_not_need_is_for_others() {
    let bodies = Bodies::new(BOUND);
    let mut chunked = bodies.take(peer(1), BOUND, client(1)).unwrap();
    let place = bodies.take(peer(2), 90, client(2)).unwrap_err();
    chunked.shrink(10);
    chunked.shrink(20);
    assert_eq!(held(&bodies), 10);
    assert_eq!(given(&bodies).0, [2]);
    drop((chunked, place));
    assert_eq!(held(&bodies), 0);
}

proptest! {
    /// Whatever comes and goes: the bound and the shares hold, nothing leaks, and whoever could have room gets it.
    #[test]
    fn the_bounds_hold(steps in proptest::collection::vec((0u32..4, 1usize..=BOUND, 0u8..5), 1..200)) {
        let bodies = Bodies::new(BOUND);
        let (mut rooms, mut places) = (Vec::new(), Vec::new());
        for (slot, (who, size, what)) in (0..).zip(steps) {
            match what {
                0..=2 => match bodies.take(peer(who), size, client(slot)) {
                    Ok(room) => rooms.push(room),
                    Err(place) => places.push(place),
                },
                3 if !rooms.is_empty() => drop(rooms.swap_remove(size % rooms.len())),
                4 if !places.is_empty() => drop(places.swap_remove(size % places.len())),
                _ => {}
            }
            rooms.extend(given(&bodies).1);
            prop_assert_eq!(held(&bodies), rooms.iter().map(|room| room.size).sum::<usize>());
            prop_assert!(held(&bodies) <= BOUND);
            for number in 0..4 {
                let of_peer = rooms.iter().filter(|room| room.peer == peer(number));
                let (count, size) = of_peer.fold((0, 0), |(count, sum), room| (count + 1, sum + room.size));
                prop_assert!(count < 2 || size <= BOUND / 2);
            }
            if rooms.is_empty() {
                prop_assert_eq!(bodies.usage().waiting, 0);
            }
        }
        drop((rooms, places));
        let state = lock(&bodies.state);
        prop_assert!(state.peers.is_empty() && state.next.is_empty() && state.waiting == 0);
    }
}
