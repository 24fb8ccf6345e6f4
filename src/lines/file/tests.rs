use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::*;

/// A file of its own, in the temporary directory; gone at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("plimsoll-lines-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).expect("it can be read")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn lines_are_appended_and_go_to_a_new_file_once_it_is_opened_anew() {
    let (place, moved) = (Place::new("rotated"), Place::new("rotated.1"));
    fs::write(place.path(), "before\n").unwrap();
    let mut sink = FileSink::open(place.path(), "a test").unwrap();
    assert_eq!(sink.write(b"1\n"), 2);
    fs::rename(place.path(), moved.path()).unwrap();
    assert_eq!(sink.write(b"2\n"), 2);
    sink.reopen();
    assert_eq!(sink.write(b"3\n"), 2);
    assert_eq!(moved.text(), "before\n1\n2\n");
    assert_eq!(place.text(), "3\n");
}

#[test]
fn a_file_that_cannot_be_opened_anew_leaves_the_old_one() {
    let place = Place::new("gone");
    let mut sink = FileSink::open(place.path(), "a test").unwrap();
    let path = std::mem::replace(&mut sink.path, "/nowhere/at/all".to_owned());
    sink.reopen();
    assert_eq!(sink.write(b"still here\n"), 11);
    assert_eq!(fs::read_to_string(path).unwrap(), "still here\n");
}

#[test]
fn what_cannot_be_opened_is_an_error_and_nothing_is_waited_for() {
    let fifo = Place::new("fifo");
    nix::unistd::mkfifo(fifo.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let directory = std::env::temp_dir();
    for path in [fifo.path(), "/nowhere/at/all", directory.to_str().unwrap()] {
        assert!(FileSink::open(path, "a test").is_err(), "{path}");
    }
}

#[test]
fn a_full_disk_is_no_more_than_lines_that_were_not_written() {
    let mut sink = FileSink::open("/dev/full", "a test").unwrap();
    for _ in 0..2 {
        assert_eq!(sink.write(b"lost\n"), 0);
        assert!(sink.failed && !sink.torn);
    }
}

/// What was written after a failure in the middle of a line would be taken for its end.
#[test]
fn a_line_that_was_torn_by_a_failure_is_ended_before_the_next() {
    let (mut reader, writer) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut sink = FileSink {
        name: "a test",
        path: String::new(),
        file,
        torn: false,
        failed: false,
    };
    let mut long = vec![b'x'; 4 * 1024 * 1024];
    *long.last_mut().unwrap() = b'\n';
    let written = sink.write(&long);
    assert!(written > 0 && written < long.len(), "{written}");
    assert_eq!(sink.write(b"no room\n"), 0);
    let mut taken = vec![0; written];
    reader.read_exact(&mut taken).unwrap();
    assert_eq!(sink.write(b"next\n"), 5);
    assert_eq!(sink.write(b"last\n"), 5);
    drop(sink);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\nnext\nlast\n");
}
