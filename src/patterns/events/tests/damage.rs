use std::io::ErrorKind;

use proptest::prelude::*;

use super::super::EventDamageKind;
use super::super::event::Stored;
use super::super::log::Owner;
use super::super::reader::{Item, Reader};
use super::super::record::{self, FIRST, Header, Kind, Purpose, RecordHead};
use super::super::recover::{Damage, recover};
use super::super::segment::{Segment, Spare};
use super::super::space::Space;
use super::super::writer::Store;
use super::*;

/// Writes commits with so many events each as the writer does.
fn write(segment: &mut Segment, commits: &[usize], name: &str, filler: usize) {
    let mut number = 0;
    for events in commits {
        let mut commit = Vec::new();
        for _ in 0..*events {
            number += 1;
            let event = event(&format!("{name} {number}{}", "x".repeat(filler)));
            let body = Stored::encode(EventId::random().unwrap(), 0, None, None, &event);
            let offset = segment.position + commit.len() as u64;
            let salt = segment.header.salt;
            record::append(&mut commit, salt, offset, Kind::Event, number, &body);
        }
        segment.commit(&mut commit).unwrap();
    }
}

/// A segment with six events in three commits, and what follows them: zeros, or what the file held as another segment.
fn small_log(used_before: bool) -> Vec<u8> {
    let memory = Memory::default();
    let size = 7 * 4096;
    let mut segment = if used_before {
        let mut old = Segment::create(&memory, Purpose::Live, 9, size).unwrap();
        // Records that go over the ends of blocks, and a block of zeros.
        write(&mut old, &[7, 7, 2], "old", 1000);
        let spare = Spare::set_aside(&memory, Arc::clone(&old.file), old.header);
        drop(old);
        let spare = spare.unwrap().unwrap();
        Segment::reuse(&memory, spare, 1).unwrap().unwrap()
    } else {
        Segment::create(&memory, Purpose::Live, 1, size).unwrap()
    };
    write(&mut segment, &[3, 1, 2], "event", 0);
    let (name, bytes) = memory.files().swap_remove(0);
    assert_eq!(name, "0000000001.log");
    bytes
}

/// The same in a new file, and in one that was used before.
fn small_logs() -> [Vec<u8>; 2] {
    [false, true].map(small_log)
}

/// Keeps what a log has.
#[derive(Default)]
struct Collect(Mutex<HashMap<u32, String>>);

impl Owner for Collect {
    fn recovered(&self, slot: u32, _: u64, body: &[u8]) -> bool {
        let Some(stored) = Stored::decode(body) else {
            return false;
        };
        let text = String::from_utf8(stored.event.body).unwrap();
        lock(&self.0).insert(slot, text);
        true
    }

    fn recovered_note(&self, _: u32, _: &record::Note) {}

    fn recovered_gone(&self, slot: u32) {
        lock(&self.0).remove(&slot);
    }

    fn before_removal(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is found in a segment: the events, the kinds of damage, and where that begins.
fn texts_in(bytes: &[u8]) -> (Vec<String>, Vec<EventDamageKind>, u64) {
    let memory: Arc<Memory> = Arc::default();
    memory.put("0000000001.log", bytes);
    let store = Store {
        directory: Arc::clone(&memory) as _,
        space: Arc::new(Space::new(64 * 1024, 512 * 1024)),
        purpose: Purpose::Live,
    };
    let owner = Collect::default();
    let mut damage = Damage::default();
    let names = memory.list().unwrap();
    recover(&store, &owner, &names, &mut damage).unwrap();
    let parts = damage.parts.iter();
    assert!(parts.clone().all(|part| part.file == "0000000001.log"));
    let kinds = parts.clone().map(|part| part.what).collect();
    let first = parts.map(|part| part.offset).min().unwrap_or(0);
    let mut texts: Vec<String> = lock(&owner.0).values().cloned().collect();
    texts.sort();
    (texts, kinds, first)
}

/// Where each event's record stands.
fn records(bytes: &[u8]) -> Vec<(std::ops::Range<usize>, String)> {
    let header = record::Header::decode(&bytes[..4096]).unwrap();
    let mut reader = Reader::new(bytes, &header, bytes.len() as u64);
    let mut found = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record { offset, head, body } = item else {
            panic!("{item:?}");
        };
        let start = usize::try_from(offset).unwrap();
        let span = usize::try_from(head.span()).unwrap();
        let stored = Stored::decode(body).unwrap();
        let text = String::from_utf8(stored.event.body).unwrap();
        found.push((start..start + span, text));
    }
    found
}

#[test]
fn one_flipped_bit_anywhere_costs_at_most_the_event_that_it_hits_and_is_named() {
    for bytes in small_logs() {
        flip_each(&bytes);
    }
}

fn flip_each(bytes: &[u8]) {
    let records = records(bytes);
    let end = records.last().unwrap().0.end.next_multiple_of(4096) + 64;
    for at in 0..end {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let (texts, damage, _) = texts_in(&flipped);
        let mut expected: Vec<String> = records
            .iter()
            .filter(|(range, _)| !range.contains(&at))
            .map(|(_, text)| text.clone())
            .collect();
        // A byte that pads a record is not under its check.
        let hit = records.iter().find(|(range, _)| range.contains(&at));
        if texts.len() == records.len() {
            expected.extend(hit.map(|(_, text)| text.clone()));
            if let Some((range, _)) = hit {
                assert!(at >= range.end - 7);
            }
        } else {
            assert_eq!(damage.len(), 1, "byte {at}");
        }
        expected.sort();
        assert_eq!(texts, expected, "byte {at}");
        if at >= 4096 && hit.is_none() {
            assert_eq!(damage.len(), 1, "byte {at}");
        }
    }
}

#[test]
fn truncation_at_any_byte_costs_no_event_before_it_and_is_named() {
    for bytes in small_logs() {
        truncate_at_each(&bytes);
    }
}

fn truncate_at_each(bytes: &[u8]) {
    let records = records(bytes);
    let end = records.last().unwrap().0.end + 64;
    for length in 0..end {
        let (texts, damage, offset) = texts_in(&bytes[..length]);
        // The last 7 bytes may be padding.
        let whole = records.iter().filter(|(range, _)| range.end <= length);
        let most = records.iter().filter(|(range, _)| range.end <= length + 7);
        let whole: Vec<&String> = whole.map(|(_, text)| text).collect();
        if length < 44 {
            assert_eq!(damage, [EventDamageKind::Header]);
            continue;
        }
        assert!(whole.iter().all(|text| texts.contains(text)), "{length}");
        assert!(texts.len() <= most.count());
        assert!(damage.contains(&EventDamageKind::Truncated), "{length}");
        assert!(offset <= length as u64);
    }
}

#[test]
fn a_body_that_holds_a_record_is_no_record() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    queue.publish(&event("outer")).unwrap();
    drop(queue);
    let (_, bytes) = memory.files().swap_remove(0);
    let (range, _) = records(&bytes).swap_remove(0);

    // Whoever publishes the very bytes of a record, and then damages the head of the event that holds them.
    let mut forged = event("");
    forged.body = [vec![0; 3], bytes[range].to_vec()].concat();
    for shift in 0..8 {
        let memory: Arc<Memory> = Arc::default();
        let queue = open(&memory, small());
        forged.body.insert(0, shift);
        queue.publish(&forged).unwrap();
        drop(queue);
        let (name, mut bytes) = memory.files().swap_remove(0);
        bytes[4096] ^= 1;
        memory.put(&name, &bytes);
        let queue = open(&memory, small());
        assert_eq!(queue.stats().backlog, 0);
        assert_eq!(queue.damage().len(), 1);
    }
}

#[test]
fn a_torn_last_commit_is_cut_and_the_segment_goes_on() {
    for bytes in small_logs() {
        tear(bytes);
    }
}

fn tear(mut bytes: Vec<u8>) {
    let end = records(&bytes).last().unwrap().0.end;
    let end = end.next_multiple_of(4096);
    bytes[end..end + 4000].fill(0xA5);
    let memory: Arc<Memory> = Arc::default();
    memory.put("0000000001.log", &bytes);
    let queue = open(&memory, small());
    let kinds: Vec<_> = queue.damage().iter().map(|part| part.what).collect();
    assert_eq!(kinds, [EventDamageKind::End]);
    queue.publish(&event("next")).unwrap();
    drop(queue);
    // In the block where the torn commit was.
    assert_ne!(memory.files()[0].1[end..end + 24], [0xA5; 24]);
    assert_ne!(memory.files()[0].1[end..end + 24], [0; 24]);
    let queue = open(&memory, small());
    assert_eq!(queue.damage(), [], "it is told once");
    assert_eq!(queue.stats().backlog, 7);
}

#[test]
fn a_segment_whose_header_is_gone_is_set_aside() {
    let mut bytes = small_log(false);
    bytes[..4096].fill(0);
    let memory: Arc<Memory> = Arc::default();
    memory.put("0000000001.log", &bytes);
    let queue = open(&memory, small());
    assert_eq!(queue.damage()[0].what, EventDamageKind::Header);
    queue.publish(&event("next")).unwrap();
    let files = memory.files();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["0000000001.log.damaged", "0000000002.log"]);
}

#[test]
fn another_version_is_refused() {
    let mut bytes = small_log(false);
    for at in [0, 2048] {
        bytes[at + 8] = 9;
        let crc = crc32c::crc32c(&bytes[at..at + 40]);
        bytes[at + 40..at + 44].copy_from_slice(&crc.to_le_bytes());
    }
    let memory: Arc<Memory> = Arc::default();
    memory.put("0000000001.log", &bytes);
    let directory: Arc<dyn Directory> = memory;
    let error = EventQueue::open_in(&directory, small()).unwrap_err();
    let message = error.to_string();
    assert_eq!(
        message,
        "0000000001.log: expected format version 1, found 9"
    );
}

#[test]
fn a_queue_whose_files_cannot_be_read_does_not_open() {
    let bytes = small_log(false);
    let memory: Arc<Memory> = Arc::default();
    memory.put("0000000001.log", &bytes);
    memory.fail(|op, _| (op == memory::Op::Read).then_some(ErrorKind::Other));
    let directory: Arc<dyn Directory> = memory;
    assert!(EventQueue::open_in(&directory, small()).is_err());
}

#[test]
fn an_event_that_is_damaged_while_it_waits_is_counted_and_the_others_delivered() {
    let memory: Arc<Memory> = Arc::default();
    let queue = open(&memory, small());
    for text in ["one", "two", "three"] {
        queue.publish(&event(text)).unwrap();
    }
    memory.damage("0000000001.log", 8192 + 40);
    let mut texts: Vec<String> = deliver_all(&queue).iter().map(body).collect();
    texts.sort();
    assert_eq!(texts, ["one", "three"]);
    assert_eq!(queue.stats().lost, 1);
}

proptest! {
    #[test]
    fn a_start_with_any_bytes_as_a_segment_ends_and_holds_no_more_than_they_have(bytes: Vec<u8>) {
        super::super::invariants::segment(&bytes);
    }

    #[test]
    fn a_start_with_any_records_in_a_segment_counts_each_of_them_once(
        choice: u8,
        parts in prop::collection::vec(
            (0_u8..9, 0_u8..40, prop::sample::select(vec![0, 1, 2, 3, 127, 128, 255])), 0..40,
        ),
        bytes in prop::collection::vec(any::<u8>(), 1600),
    ) {
        let mut script = vec![choice];
        let mut bytes = &bytes[..];
        for (what, length, number) in parts {
            let (body, rest) = bytes.split_at(length.into());
            bytes = rest;
            script.extend([what, length, number]);
            script.extend(body);
        }
        super::super::invariants::segment(&script);
    }

    #[test]
    fn no_record_of_an_earlier_use_of_a_file_passes_for_one_of_the_present(
        body: Vec<u8>, salt: u64, offset in 0_u64..1 << 32, apart in 1_u32..100,
    ) {
        let mut header = Header { purpose: Purpose::Live, number: 1, salt, uses: 0, size: 8192 };
        let mut bytes = Vec::new();
        record::append(&mut bytes, salt, offset, Kind::Event, 1, &body);
        prop_assert!(RecordHead::decode(&bytes, header.salt, offset).is_some());
        for number in 0..apart {
            header = header.again(number).unwrap();
            prop_assert!(RecordHead::decode(&bytes, header.salt, offset).is_none());
        }
        header.uses = u32::MAX;
        prop_assert!(header.again(1).is_none());
    }

    #[test]
    fn a_reader_finds_every_record_that_wild_bytes_do_not_hit(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        wild in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        salt: u64,
        uses in 0_u32..2,
    ) {
        let mut bytes = vec![0; 4096];
        let mut ranges = Vec::new();
        for (body, sequence) in bodies.iter().zip(1..) {
            if sequence % 3 == 0 {
                let next = bytes.len().next_multiple_of(4096);
                bytes.resize(next, 0);
            }
            let offset = bytes.len();
            record::append(&mut bytes, salt, offset as u64, Kind::Event, sequence, body);
            ranges.push((sequence, offset..bytes.len()));
        }
        let mut hit = Vec::new();
        for (index, byte) in wild {
            let at = 4096 + index.index(bytes.len() - 4096);
            bytes[at] = byte;
            hit.push(at);
        }
        let length = bytes.len() as u64;
        let header = Header { purpose: Purpose::Live, number: 1, salt, uses, size: length };
        let mut reader = Reader::new(&bytes[..], &header, length);
        let mut found = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            if let Item::Record { offset, head, body } = item {
                prop_assert_eq!(body, &bodies[usize::try_from(head.sequence - 1).unwrap()][..]);
                prop_assert!(offset >= FIRST);
                found.push(head.sequence);
            }
        }
        for (sequence, range) in ranges {
            if !hit.iter().any(|at| range.contains(at)) {
                prop_assert!(found.contains(&sequence));
            }
        }
    }
}
