use super::*;
use crossbeam_channel::{Receiver, Sender};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reader that takes one batch for each permit, up to so many bytes of it.
struct Slow {
    permits: Receiver<usize>,
    began: Sender<()>,
    written: Sender<String>,
}

impl Sink for Slow {
    fn write(&mut self, lines: &[u8]) -> usize {
        self.began.send(()).unwrap();
        let taken = self.permits.recv().unwrap().min(lines.len());
        let text = String::from_utf8(lines[..taken].to_vec()).unwrap();
        self.written.send(text).unwrap();
        taken
    }
}

struct Reader {
    permits: Sender<usize>,
    began: Receiver<()>,
    written: Receiver<String>,
}

fn start() -> (Lines, Reader) {
    let (permits, permitted) = crossbeam_channel::unbounded();
    let (start, started) = crossbeam_channel::unbounded();
    let (written, reading) = crossbeam_channel::unbounded();
    let sink = Slow {
        permits: permitted,
        began: start,
        written,
    };
    let reader = Reader {
        permits,
        began: started,
        written: reading,
    };
    (Lines::start("a test", sink).unwrap(), reader)
}

#[test]
fn a_reader_that_stops_costs_lines_and_no_waiting() {
    let (lines, reader) = start();
    lines.push(b"first");
    reader.began.recv_timeout(PATIENCE).unwrap();
    assert!(!lines.flush(Duration::from_millis(1)), "nobody reads");
    let line = [b'x'; 1023];
    let room = (CAPACITY / 1024) as u64;
    for _ in 0..room + 7 {
        lines.push(&line);
    }
    assert_eq!(lines.dropped(), 7);
    for _ in 0..2 {
        reader.permits.send(usize::MAX).unwrap();
    }
    assert!(lines.flush(PATIENCE));
    assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), "first\n");
    let rest = reader.written.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rest.lines().count() as u64, room);
    assert!(rest.lines().all(|line| line.len() == 1023));
}

#[test]
fn a_long_line_is_cut_and_what_could_not_be_written_counts_as_dropped() {
    let (lines, reader) = start();
    lines.push(&[b'x'; LONGEST_LINE + 5]);
    reader.permits.send(usize::MAX).unwrap();
    let text = reader.written.recv_timeout(PATIENCE).unwrap();
    assert_eq!(text.len(), LONGEST_LINE + 1);
    lines.push(b"lost");
    reader.permits.send(3).unwrap();
    assert!(lines.flush(PATIENCE));
    assert_eq!(lines.dropped(), 1);
}

#[test]
fn the_thread_writes_what_is_left_and_ends_with_the_last_handle() {
    let (lines, reader) = start();
    let other = lines.clone();
    lines.push(b"last");
    drop((lines, other));
    reader.permits.send(usize::MAX).unwrap();
    assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), "last\n");
    // The thread holds the sender.
    assert!(reader.written.recv_timeout(PATIENCE).is_err());
    assert_eq!(reader.began.try_iter().count(), 1);
}

/// Goes on in another place, and says so where it writes.
struct Moving {
    moves: usize,
    written: Sender<String>,
}

impl Sink for Moving {
    fn write(&mut self, lines: &[u8]) -> usize {
        let text = String::from_utf8(lines.to_vec()).unwrap();
        for line in text.lines() {
            self.written
                .send(format!("{}: {line}", self.moves))
                .unwrap();
        }
        lines.len()
    }

    fn reopen(&mut self) {
        self.moves += 1;
        self.written.send(format!("{}", self.moves)).unwrap();
    }
}

#[test]
fn the_sink_moves_at_once_and_what_comes_later_goes_there() {
    let (written, reading) = crossbeam_channel::unbounded();
    let lines = Lines::start("a test", Moving { moves: 0, written }).unwrap();
    lines.push(b"a");
    assert_eq!(reading.recv_timeout(PATIENCE).unwrap(), "0: a");
    lines.reopen();
    assert_eq!(reading.recv_timeout(PATIENCE).unwrap(), "1");
    lines.push(b"b");
    assert_eq!(reading.recv_timeout(PATIENCE).unwrap(), "1: b");
}

#[test]
fn after_the_end_nothing_is_queued() {
    let (lines, reader) = start();
    reader.permits.send(usize::MAX).unwrap();
    lines.push(b"last");
    assert!(lines.close(PATIENCE));
    lines.push(b"too late");
    assert_eq!(lines.dropped(), 1);
    assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), "last\n");
    assert!(
        reader.written.recv_timeout(PATIENCE).is_err(),
        "it has ended"
    );
}
