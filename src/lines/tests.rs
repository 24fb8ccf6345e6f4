use super::*;
use crossbeam_channel::{Receiver, Sender};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reader that takes one batch for each permit.
struct Slow {
    permits: Receiver<io::Result<()>>,
    began: Sender<()>,
    written: Sender<String>,
}

impl Sink for Slow {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.began.send(()).unwrap();
        self.permits.recv().unwrap()?;
        let text = String::from_utf8(lines.to_vec()).unwrap();
        self.written.send(text).unwrap();
        Ok(())
    }
}

struct Reader {
    permits: Sender<io::Result<()>>,
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
        reader.permits.send(Ok(())).unwrap();
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
    reader.permits.send(Ok(())).unwrap();
    let text = reader.written.recv_timeout(PATIENCE).unwrap();
    assert_eq!(text.len(), LONGEST_LINE + 1);
    lines.push(b"lost");
    reader
        .permits
        .send(Err(io::ErrorKind::StorageFull.into()))
        .unwrap();
    assert!(lines.flush(PATIENCE));
    assert_eq!(lines.dropped(), 1);
}

#[test]
fn the_thread_writes_what_is_left_and_ends_with_the_last_handle() {
    let (lines, reader) = start();
    let other = lines.clone();
    lines.push(b"last");
    drop((lines, other));
    reader.permits.send(Ok(())).unwrap();
    assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), "last\n");
    // The thread holds the sender.
    assert!(reader.written.recv_timeout(PATIENCE).is_err());
    assert_eq!(reader.began.try_iter().count(), 1);
}
