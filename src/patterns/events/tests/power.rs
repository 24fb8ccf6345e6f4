use std::collections::HashSet;

use super::*;
use crate::patterns::EventError;
use crate::random::Random;

/// Power is cut again and again while events are published, delivered, repeated and die; some blocks of what was not
/// synced are there and some not.
#[test]
fn no_acknowledged_event_is_lost_when_the_power_is_cut() {
    let mut memory: Arc<Memory> = Arc::default();
    let mut random = Random::new(7);
    let mut acknowledged: HashSet<EventId> = HashSet::new();
    let over: Arc<Mutex<HashMap<EventId, usize>>> = Arc::default();
    for round in 0..40 {
        let queue = open(&memory, small());
        let mut letters: Vec<EventId> = Vec::new();
        for letter in queue.dead_letters() {
            letters.push(letter.unwrap().id);
        }
        for id in &letters {
            *lock(&over).entry(*id).or_default() += 1;
            queue.purge(*id).unwrap();
        }
        let seen = Arc::clone(&over);
        let luck = Mutex::new(Random::new(round));
        queue
            .deliver(move |delivery| {
                let luck = lock(&luck).uniform();
                let reason = "luck".to_owned();
                if luck < 0.2 {
                    return failed("luck");
                } else if luck < 0.3 {
                    return Outcome::Rejected { reason };
                }
                *lock(&seen).entry(delivery.id).or_default() += 1;
                Outcome::Delivered
            })
            .unwrap();
        let length = (random.uniform() * 3000.0).to_string().len() * 150;
        let ids = thread::scope(|scope| {
            let publish = || {
                let mut ids = Vec::new();
                for _ in 0..20 {
                    match queue.publish(&event(&"x".repeat(length))) {
                        Ok(id) => ids.push(id),
                        Err(EventError::Full) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                ids
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(publish)).collect();
            let ids = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            ids.collect::<Vec<_>>()
        });
        acknowledged.extend(ids);
        let after = Arc::new(memory.cut_power(&mut random));
        drop(queue);
        memory = after;
        // What was copied in part may take a segment more, in each of the logs.
        assert!(memory.bytes() <= (512 + 2 * 64) * 1024);
    }
    let queue = open(&memory, small());
    let delivered = deliver_all(&queue).into_iter().map(|delivery| delivery.id);
    let mut over = lock(&over).clone();
    for id in delivered {
        *over.entry(id).or_default() += 1;
    }
    for letter in queue.dead_letters() {
        *over.entry(letter.unwrap().id).or_default() += 1;
    }
    assert!(acknowledged.len() > 1000);
    for id in &acknowledged {
        assert!(over.contains_key(id), "{id} is lost");
    }
}
