use super::*;
use std::os::unix::fs::PermissionsExt;

fn temporary() -> PathBuf {
    std::env::temp_dir()
}

#[test]
fn the_directory_is_private_and_goes_with_the_socket() {
    let (private, listener) = PrivateSocket::bind_in(vec![temporary()]).unwrap();
    let mode = fs::metadata(&private.directory)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let directory = private.directory.clone();
    drop((private, listener));
    assert!(!directory.exists());
}

#[test]
fn places_are_tried_in_turn_and_all_named_when_none_will_do() {
    let (private, _listener) =
        PrivateSocket::bind_in(vec!["/nonexistent/a".into(), temporary()]).unwrap();
    assert!(private.path().starts_with(temporary()));
    let error = PrivateSocket::bind_in(vec!["/nonexistent/a".into(), "/proc/b".into()])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent/a") && error.contains("/proc/b"),
        "{error}"
    );
}

#[test]
fn the_environment_comes_before_the_fixed_places() {
    let found = places(|name| (name == "TMPDIR").then(|| "/elsewhere".into()));
    let expected = ["/elsewhere", "/tmp", "/run", "/dev/shm", "/"];
    assert_eq!(found, expected.map(PathBuf::from));
    assert_eq!(
        places(|_| Some("".into())),
        expected[1..].iter().map(PathBuf::from).collect::<Vec<_>>()
    );
}

#[test]
fn a_request_carries_its_number() {
    for number in [0, 1, 42, 0x1_0000, u64::MAX] {
        let mut request = Vec::new();
        push_request(&mut request, number);
        let text = String::from_utf8(request).unwrap();
        let target = text.strip_prefix("GET ").unwrap();
        let target = target.strip_suffix(" HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(carried_number(target), Some(number));
    }
    for target in ["", "/", "/x", "1", "//1"] {
        assert_eq!(carried_number(target), None, "{target}");
    }
}

/// What a killed process left behind stayed for ever.
#[test]
fn what_killed_processes_left_is_removed_and_what_is_in_use_is_not() {
    let place = temporary().join(format!("plimsoll-sweep-{}", std::process::id()));
    fs::create_dir(&place).unwrap();
    let old = SystemTime::now() - 2 * LEFT_ALONE;
    let age = |directory: &Path| {
        fs::File::open(directory)
            .unwrap()
            .set_modified(old)
            .unwrap();
    };
    let (living, _listener) = PrivateSocket::bind_at(&place).unwrap();
    age(&living.directory);
    let (left, listener) = PrivateSocket::bind_at(&place).unwrap();
    drop(listener);
    age(&left.directory);
    let (young, listener) = PrivateSocket::bind_at(&place).unwrap();
    drop(listener);
    let foreign = place.join("plimsoll-notes");
    fs::create_dir(&foreign).unwrap();
    age(&foreign);
    living.sweep(&place);
    assert!(living.path().exists() && young.path().exists() && foreign.exists());
    assert!(!left.directory.exists());
    drop((living, young));
    fs::remove_dir_all(&place).unwrap();
}
