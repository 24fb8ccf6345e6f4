//! Lines that nobody may wait for: a bounded queue, and a thread that writes.
//!
//! Whoever adds a line copies it under a lock that is held for nothing else, so a reader that has stopped reading holds
//! up the thread alone. What finds no room is dropped and counted. Once the thread can write again, a line in the log
//! says how many were lost.

pub(crate) mod file;
#[cfg(feature = "binary")]
pub(crate) mod stderr;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crate::panics::lock;

/// Bytes that may wait to be written: some thousand lines, for a thread that gets no processor for a moment.
const CAPACITY: usize = 1024 * 1024;

/// A longer line is cut: what a client sends must not fill the queue at once.
pub(crate) const LONGEST_LINE: usize = 8 * 1024;

/// A buffer keeps no more than this while nothing is written.
const KEEP_BUFFER: usize = 16 * 1024;

/// Where lines go.
pub(crate) trait Sink: Send + 'static {
    /// Writes whole lines; returns how many bytes of them it has written, fewer than all after a failure. It may block.
    fn write(&mut self, lines: &[u8]) -> usize;

    /// Goes on in another place, if there are several.
    fn reopen(&mut self) {}
}

/// The near end of the queue. The thread ends when it is closed, or the last of them is dropped, and everything is
/// written.
#[derive(Debug, Clone)]
pub(crate) struct Lines(Arc<Near>);

/// Tells the thread, when it is dropped, that nothing more will come.
#[derive(Debug)]
struct Near(Arc<Far>);

#[derive(Debug)]
struct Far {
    name: &'static str,
    queue: Mutex<Queue>,
    /// Something has come, or nothing more will.
    changed: Condvar,
    /// The queue is empty and nothing is being written.
    settled: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Lines in `bytes`.
    count: u64,
    /// Lines dropped that the log has not told of.
    untold: u64,
    writing: bool,
    reopen: bool,
    closed: bool,
}

impl Lines {
    /// Starts the thread; `name` is what the log calls the lines.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(name: &'static str, sink: impl Sink) -> io::Result<Self> {
        let shared = Arc::new(Far {
            name,
            queue: Mutex::default(),
            changed: Condvar::new(),
            settled: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let far = shared.clone();
        Builder::new()
            .name("plimsoll-lines".into())
            .spawn(move || far.write_all(sink))?;
        Ok(Self(Arc::new(Near(shared))))
    }

    /// Adds a line, without its end. Never waits.
    pub(crate) fn push(&self, line: &[u8]) {
        let line = &line[..line.len().min(LONGEST_LINE)];
        let shared = &self.0.0;
        let mut queue = lock(&shared.queue);
        if queue.closed || queue.bytes.len() + line.len() >= CAPACITY {
            queue.untold += 1;
            shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.bytes.push(b'\n');
        queue.count += 1;
        let sleeps = queue.count == 1 && !queue.writing;
        drop(queue);
        if sleeps {
            shared.changed.notify_one();
        }
    }

    /// Has the sink go on in another place: what was added after this goes there.
    pub(crate) fn reopen(&self) {
        lock(&self.0.0.queue).reopen = true;
        self.0.0.changed.notify_one();
    }

    /// How many lines were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.0.dropped.load(Relaxed)
    }

    /// Takes no more lines, has the thread end, and waits until everything is written, at most that long; false when it
    /// is not.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        self.0.0.close();
        self.flush(patience)
    }

    /// Waits until everything is written, at most that long; false when it is not.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let shared = &self.0.0;
        let queue = lock(&shared.queue);
        let waited = shared
            .settled
            .wait_timeout_while(queue, patience, |queue| queue.writing || queue.count > 0);
        let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(queue);
        !timeout.timed_out()
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Far {
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.changed.notify_one();
    }

    fn write_all(&self, mut sink: impl Sink) {
        let mut batch = Vec::new();
        loop {
            let mut queue = lock(&self.queue);
            queue.writing = false;
            if queue.count == 0 {
                self.settled.notify_all();
            }
            let idle = |queue: &mut Queue| queue.count == 0 && !queue.reopen && !queue.closed;
            let waited = self.changed.wait_while(queue, idle);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            if queue.count == 0 && !queue.reopen {
                return;
            }
            queue.writing = true;
            let reopen = std::mem::take(&mut queue.reopen);
            std::mem::swap(&mut queue.bytes, &mut batch);
            queue.count = 0;
            let untold = std::mem::take(&mut queue.untold);
            drop(queue);
            if reopen {
                sink.reopen();
            }
            let written = if batch.is_empty() {
                0
            } else {
                sink.write(&batch)
            };
            if written == batch.len() {
                if untold > 0 {
                    log::warn!(
                        "{untold} lines of {} were dropped: they could not be written in time",
                        self.name
                    );
                }
            } else {
                let lost = batch[written..].split_inclusive(|byte| *byte == b'\n');
                let lost = lost.count() as u64;
                self.dropped.fetch_add(lost, Relaxed);
                // To tell of it now might be one more line that can't be written.
                lock(&self.queue).untold += untold + lost;
            }
            batch.clear();
            batch.shrink_to(KEEP_BUFFER);
        }
    }
}

#[cfg(test)]
mod tests;
