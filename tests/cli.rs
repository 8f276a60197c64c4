//! The commands `init` and `check` as functions: what they print, what they leave on disk, how they end.

#[path = "it/dir.rs"]
mod dir;

use std::path::Path;

use speedmimi::cli::{ExitStatus, check, init};
use speedmimi::config::load;

use dir::Dir;

/// What `check` prints, with the directory left out, and how it ends.
fn checked(directory: &Dir, path: impl AsRef<Path>) -> (String, u8) {
    let mut out = Vec::new();
    let status = check::run(Some(path.as_ref()), &mut out).unwrap();
    (String::from_utf8(out).unwrap().replace(&directory.path("").display().to_string(), ""), status.code())
}

#[test]
fn check_prints_every_fault_and_ends_with_78() {
    let directory = Dir::new("check-faults");
    let path = directory.write("f.yaml", "server: {prot: 1}\nlog: {level: loud}\nrouting: {a: {respond: {}}}\n");
    let expected = "f.yaml:1:10: server.prot: unknown key (did you mean port?)\n\
                    f.yaml:2:14: log.level: loud is not known here; allowed: error, warn, info, debug or trace\n\
                    2 faults\n";
    assert_eq!(checked(&directory, &path), (expected.to_owned(), 78));
}

#[test]
fn check_says_what_a_valid_file_holds() {
    let directory = Dir::new("check-valid");
    let path = directory.write(
        "f.yaml",
        "server: {listen: [\"unix:/run/a.sock\"], park_after: 2m}\n\
         backends: {u: [{host: a, port: 1}, {host: b, port: 1}]}\nrouting: {a: {upstream: u}}\n",
    );
    let expected = "notice: f.yaml:1:52: server.park_after: no connection is ever parked: idle ones end after \
                    server.idle_timeout, 1m15s\n\
                    f.yaml: configuration is valid (1 route, 1 upstream, 2 backends, listening on 0.0.0.0:8080, \
                    unix:/run/a.sock)\n";
    assert_eq!(checked(&directory, &path), (expected.to_owned(), 0));
}

#[test]
fn check_says_why_a_file_cannot_be_read() {
    let directory = Dir::new("check-unreadable");
    let (told, status) = checked(&directory, directory.path("none.yaml"));
    assert!(told.starts_with("none.yaml: cannot be read: ") && told.ends_with("\n1 fault\n"), "{told}");
    assert_eq!(status, 78);
    let path = directory.write("f.yaml", b"routing: {}\nlog: \xff\n");
    assert_eq!(checked(&directory, &path).0, "f.yaml: line 2 is not UTF-8 (save the file as UTF-8)\n1 fault\n");
}

#[test]
fn init_writes_a_valid_file_and_never_overwrites() {
    let directory = Dir::new("init");
    let path = directory.path("new.yaml");
    let mut out = Vec::new();
    assert_eq!(init::run(Some(&path), &mut out).unwrap(), ExitStatus::Fine);
    let (_, document) = load::load(&path).unwrap();
    assert_eq!(document.notices(), []);
    assert_eq!((document.plan().backends().len(), document.plan().routes.len()), (3, 1));

    std::fs::write(&path, "mine").unwrap();
    assert_eq!(init::run(Some(&path), &mut out).unwrap(), ExitStatus::Failed);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert!(String::from_utf8(out).unwrap().contains("is there already"));
}

#[test]
fn init_says_why_it_cannot_write() {
    let directory = Dir::new("init-unwritable");
    let mut out = Vec::new();
    assert_eq!(init::run(Some(&directory.path("none/f.yaml")), &mut out).unwrap(), ExitStatus::Failed);
    assert!(String::from_utf8(out).unwrap().contains("cannot be written"));
}
