use super::*;

#[test]
fn order_within_a_key_holds_while_one_attempt_in_ten_fails() {
    const KEYS: usize = 10;
    const EACH: usize = 1000;
    let memory = Arc::default();
    let settings = EventSettings {
        max_bytes: 16 << 20,
        parallel: 8,
        delays: vec![Duration::from_micros(100); 100],
        ..small()
    };
    let queue = open(&memory, settings);
    let seen: Arc<Mutex<Vec<Vec<usize>>>> = Arc::new(Mutex::new(vec![Vec::new(); KEYS]));
    let record = Arc::clone(&seen);
    let count = std::sync::atomic::AtomicUsize::new(0);
    queue
        .deliver(move |delivery| {
            if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 10 == 9 {
                return failed("one in ten");
            }
            let key: usize = delivery.event.key.as_ref().unwrap().parse().unwrap();
            lock(&record)[key].push(body(delivery).parse().unwrap());
            Outcome::Delivered
        })
        .unwrap();
    thread::scope(|scope| {
        for key in 0..KEYS {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..EACH {
                    let event = Event {
                        key: Some(key.to_string()),
                        ..event(&number.to_string())
                    };
                    queue.publish(&event).unwrap();
                }
            });
        }
    });
    eventually("all is delivered", || queue.stats().backlog == 0);
    assert!(queue.stats().retried >= (KEYS * EACH / 10) as u64);
    for numbers in &*lock(&seen) {
        assert!(numbers.iter().copied().eq(0..EACH));
    }
}

#[test]
fn order_within_a_key_holds_over_a_start() {
    let memory = Arc::default();
    let settings = EventSettings {
        parallel: 8,
        ..small()
    };
    let queue = open(&memory, settings.clone());
    for number in 0..200 {
        let event = Event {
            key: Some((number % 3).to_string()),
            ..event(&number.to_string())
        };
        queue.publish(&event).unwrap();
    }
    drop(queue);
    let queue = open(&memory, settings);
    let seen = deliver_all(&queue);
    for key in 0..3 {
        let of_key = seen
            .iter()
            .filter(|delivery| delivery.event.key == Some(key.to_string()));
        let numbers: Vec<usize> = of_key
            .map(|delivery| body(delivery).parse().unwrap())
            .collect();
        assert!(
            numbers.iter().copied().eq((key..200).step_by(3)),
            "{numbers:?}"
        );
    }
}

#[test]
fn a_dead_letter_lets_the_next_of_its_key_go() {
    let memory = Arc::default();
    let queue = open(&memory, small());
    let of_key = |text| Event {
        key: Some("k".to_owned()),
        ..event(text)
    };
    let dead = queue.publish(&of_key("first")).unwrap();
    queue.publish(&of_key("second")).unwrap();
    let asked = ask(&queue);
    let (delivery, answer) = asked.recv_timeout(LONG).unwrap();
    assert_eq!(delivery.id, dead);
    let reason = String::new();
    answer.send(Outcome::Rejected { reason }).unwrap();
    let (delivery, second) = asked.recv_timeout(LONG).unwrap();
    assert_eq!(body(&delivery), "second");
    // What is replayed goes to the end of its key, so it waits for the second.
    queue.publish(&of_key("third")).unwrap();
    queue.replay(dead).unwrap();
    second.send(Outcome::Delivered).unwrap();
    for expected in ["third", "first"] {
        let (delivery, answer) = asked.recv_timeout(LONG).unwrap();
        assert_eq!(body(&delivery), expected);
        answer.send(Outcome::Delivered).unwrap();
    }
}
