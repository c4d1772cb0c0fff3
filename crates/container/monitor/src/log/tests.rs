use std::{fs, path::Path};

use super::*;

fn policy(dir: &Path, format: LogFormat, max_size_bytes: Option<u64>, max_files: u32) -> LogPolicy {
    LogPolicy { format, path: dir.join("log"), max_size_bytes, max_files }
}

fn time() -> Timestamp {
    "2026-01-02T03:04:05.120450000Z".parse().unwrap()
}

fn written(format: LogFormat, parts: &[&[u8]]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&policy(dir.path(), format, None, 1)).unwrap();
    parts.iter().for_each(|part| log.write(StdStream::Stdout, part, time()));
    log.finish(time());
    fs::read_to_string(dir.path().join("log")).unwrap()
}

#[test]
fn json_entries_are_dockers_byte_for_byte() {
    let time = r#""stream":"stdout","time":"2026-01-02T03:04:05.12045Z"}"#;
    for (output, log) in [
        (&b"hello\n"[..], r#""hello\n""#),
        (b"a\tb\"c\\d\r\n", r#""a\u0009b\"c\\d\r\n""#),
        (b"<b>&\n", r#""\u003cb\u003e\u0026\n""#),
        ("\u{2028}é\n".as_bytes(), "\"\\u2028é\\n\""),
        (b"\xff\xfe\n", r#""\ufffd\ufffd\n""#),
        (b"\n", r#""\n""#),
        (b"no newline", r#""no newline""#),
    ] {
        assert_eq!(written(LogFormat::JsonFile, &[output]), format!("{{\"log\":{log},{time}\n"));
    }
}

#[test]
fn cri_entries_carry_full_and_partial_tags() {
    assert_eq!(
        written(LogFormat::Cri, &[b"one\ntw", b"o\nrest"]),
        "2026-01-02T03:04:05.12045Z stdout F one\n2026-01-02T03:04:05.12045Z stdout F two\n2026-01-02T03:04:05.12045Z stdout P rest\n"
    );
}

#[test]
fn a_long_line_is_split_at_16_kib_and_nothing_of_it_is_lost() {
    for length in [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT, 3 * LINE_LIMIT + 7] {
        let mut line = vec![b'x'; length];
        line.push(b'\n');
        let log = written(LogFormat::Cri, &line.chunks(5000).collect::<Vec<_>>());
        let lengths: Vec<usize> = log.lines().map(|entry| entry.splitn(4, ' ').nth(3).unwrap().len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), length);
        assert_eq!(lengths.len(), length.div_ceil(LINE_LIMIT), "{length}");
        let tags: String = log.lines().map(|entry| entry.split(' ').nth(2).unwrap()).collect();
        assert!(tags.ends_with('F') && !tags[..tags.len() - 1].contains('F'), "{tags}");
    }
}

#[test]
fn rotation_keeps_the_newest_files_and_whole_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&policy(dir.path(), LogFormat::Cri, Some(300), 3)).unwrap();
    for n in 0..50 {
        log.write(StdStream::Stdout, format!("line {n}\n").as_bytes(), time());
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let all = read("log.2") + &read("log.1") + &read("log");
    assert!(!dir.path().join("log.3").exists());
    let numbers: Vec<u32> = all.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(*numbers.last().unwrap(), 49);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_reopened_log_goes_on_in_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&policy(dir.path(), LogFormat::Cri, None, 1)).unwrap();
    log.write(StdStream::Stdout, b"before\n", time());
    fs::rename(dir.path().join("log"), dir.path().join("old")).unwrap();
    log.reopen().unwrap();
    log.write(StdStream::Stderr, b"after\n", time());
    assert!(fs::read_to_string(dir.path().join("old")).unwrap().ends_with("F before\n"));
    assert!(fs::read_to_string(dir.path().join("log")).unwrap().ends_with("stderr F after\n"));
}

#[test]
fn a_link_in_the_logs_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("log")).unwrap();
    assert!(Log::open(&policy(dir.path(), LogFormat::Cri, None, 1)).is_err());
}
