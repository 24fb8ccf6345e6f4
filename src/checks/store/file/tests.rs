use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::super::{Store, UrlPart};
use super::*;
use crate::checks::Check;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("plimsoll-file-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    /// A file in it.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).expect("a list").count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(scheme: &str, path: &Path, options: &str) -> Result<(), String> {
    let store: Store = format!("{scheme}:{}{options}", path.display())
        .parse()
        .expect("a good URL");
    let deadline = Instant::now() + Duration::from_secs(30);
    store.check(deadline).map_err(|error| error.to_string())
}

/// Whether permissions hold for this process: they do not for root.
fn permissions_hold(directory: &Directory) -> bool {
    let path = directory.file("forbidden", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("permissions");
    File::open(path).is_err()
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    for (url, part) in [
        ("file:", UrlPart::Path),
        ("file:?writable", UrlPart::Path),
        ("file:/a#b", UrlPart::Path),
        ("file:/a%00", UrlPart::Path),
        ("file:/a%g0", UrlPart::Path),
        ("file:/a\nb", UrlPart::Url),
        ("file://host/a", UrlPart::Host),
        ("sqlite:///a", UrlPart::Path),
        ("file:a?", UrlPart::Option),
        ("file:a?write", UrlPart::Option),
        ("file:a?writable=1", UrlPart::Option),
        ("file:a?writable&writable", UrlPart::Option),
        ("file:a?writable&", UrlPart::Option),
        ("file:a?free", UrlPart::Option),
        ("file:a?free=", UrlPart::Option),
        ("file:a?free=1MB", UrlPart::Option),
        ("file:a?free=-1", UrlPart::Option),
        ("file:a?free=99999999TiB", UrlPart::Option),
        ("file:a?free=1&free=2", UrlPart::Option),
    ] {
        let error = url.parse::<Store>().expect_err(url);
        assert_eq!(error.part, part, "{url}: {error}");
    }
    let error = "file:a?free=1MB".parse::<Store>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "option: expected a size after free=, such as 100MiB, 1GiB or 4096, found \"free=1MB\""
    );
}

#[test]
fn paths_and_options_are_read() {
    let files = |text| Files::new(&Scheme::split(text, "").unwrap(), Kind::Any).unwrap();
    let read = files("file:da%20ta%3F%ff?free=2KiB&writable");
    assert_eq!(read.path.as_os_str().as_encoded_bytes(), b"da ta?\xff");
    assert_eq!((read.free, read.writable), (Some(2048), true));
    assert_eq!(files("file:///a/b").path, Path::new("/a/b"));
    assert_eq!(files("file:/a").path, Path::new("/a"));
    assert_eq!(files("file:ä b").path, Path::new("ä b"));
    let store: Store = "sqlite:./a.db?writable".parse().unwrap();
    assert_eq!(store.to_string(), "sqlite:./a.db?writable");
}

#[test]
fn files_and_directories_that_can_be_read_serve() {
    let directory = Directory::new("read");
    assert_eq!(check("file", &directory.0, ""), Ok(()));
    assert_eq!(check("file", &directory.file("empty", b""), ""), Ok(()));
    assert_eq!(check("file", &directory.file("full", b"x"), ""), Ok(()));
    let gone = directory.0.join("gone");
    let error = check("file", &gone, "").unwrap_err();
    assert!(
        error.starts_with(&format!("cannot read {gone:?}: No such file")),
        "{error}"
    );
    symlink("nowhere", directory.0.join("link")).expect("a link");
    assert!(check("file", &directory.0.join("link"), "").is_err());
}

#[test]
fn what_is_neither_a_file_nor_a_directory_is_not_opened() {
    let directory = Directory::new("pipe");
    let pipe = directory.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let error = check("file", &pipe, "").unwrap_err();
    assert!(
        error.ends_with("expected a file or a directory, found something else"),
        "{error}"
    );
}

#[test]
fn a_database_is_known_by_its_header() {
    let directory = Directory::new("sqlite");
    let good = directory.file("good", b"SQLite format 3\0\x10\0\x01\x01");
    assert_eq!(check("sqlite", &good, "?writable&free=1"), Ok(()));
    assert_eq!(check("sqlite", &directory.file("fresh", b""), ""), Ok(()));
    for content in [
        &b"SQLite format 3"[..],
        b"SQLite format 2\0",
        b"PK\x03\x04and so on, and so on",
    ] {
        let error = check("sqlite", &directory.file("bad", content), "").unwrap_err();
        assert!(
            error.ends_with("expected an SQLite database, found something else"),
            "{error}"
        );
    }
    assert!(
        check("sqlite", &directory.0, "")
            .unwrap_err()
            .contains("expected a file,")
    );
}

#[test]
fn writing_leaves_no_trace() {
    let directory = Directory::new("write");
    let file = directory.file("file", b"content");
    let before = fs::metadata(&file)
        .expect("it is there")
        .modified()
        .expect("a time");
    assert_eq!(check("file", &directory.0, "?writable"), Ok(()));
    assert_eq!(check("file", &file, "?writable"), Ok(()));
    assert_eq!(directory.entries(), 1);
    assert_eq!(fs::read(&file).expect("it is there"), b"content");
    assert_eq!(
        fs::metadata(&file)
            .expect("it is there")
            .modified()
            .expect("a time"),
        before
    );
}

#[test]
fn what_may_not_be_written_or_read_is_told() {
    let directory = Directory::new("forbidden");
    // The system's own: not even root may write here.
    let error = check("file", Path::new("/proc/self"), "?writable").unwrap_err();
    assert!(
        error.starts_with("cannot write in \"/proc/self\": "),
        "{error}"
    );
    if !permissions_hold(&directory) {
        return;
    }
    let error = check("file", &directory.0.join("forbidden"), "").unwrap_err();
    assert!(error.starts_with("cannot read "), "{error}");
    let read_only = directory.file("read-only", b"");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o400)).expect("permissions");
    assert_eq!(check("file", &read_only, ""), Ok(()));
    let error = check("file", &read_only, "?writable").unwrap_err();
    assert!(error.starts_with("cannot write "), "{error}");
}

#[test]
fn free_space_is_measured() {
    let directory = Directory::new("free");
    assert_eq!(check("file", &directory.0, "?free=4096"), Ok(()));
    let error = check("file", &directory.0, "?free=8388607TiB").unwrap_err();
    assert!(error.contains("bytes of free space, found "), "{error}");
}

#[test]
fn free_space_beyond_32_bits_is_counted_where_the_system_counts_in_32() {
    assert_eq!(bytes(u32::MAX, 4096_u32), 4096 * u64::from(u32::MAX));
    assert_eq!(bytes(u64::MAX, 4096_u32), u64::MAX);
}

#[test]
fn what_takes_longer_than_the_deadline_is_an_error() {
    let directory = Directory::new("late");
    let store: Store = format!("file:{}", directory.0.display()).parse().unwrap();
    let error = store.check(Instant::now()).unwrap_err();
    assert!(error.to_string().ends_with("no answer in time"), "{error}");
}

#[test]
fn an_error_is_one_line_whatever_the_path_holds() {
    let store: Store = "file:/no%0Asuch%1b[1m".parse().unwrap();
    let error = store.check(Instant::now()).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read \"/no\\nsuch\\u{1b}[1m\": "),
        "{error}"
    );
}
