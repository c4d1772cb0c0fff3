//! The bytes of one log entry.

use std::io::Write;

use super::Entry;
use crate::{LogFormat, StdStream};

pub(super) fn append(format: LogFormat, entry: &Entry<'_>, to: &mut Vec<u8>) {
    match format {
        LogFormat::JsonFile => json(entry, to),
        LogFormat::Cri => cri(entry, to),
        LogFormat::None => {}
    }
}

fn name(stream: StdStream) -> &'static str {
    match stream {
        StdStream::Stdout => "stdout",
        StdStream::Stderr => "stderr",
    }
}

/// `{"log":"…\n","stream":"stdout","time":"…"}`; a piece of a line has no `\n` at its end.
fn json(entry: &Entry<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(b"{\"log\":\"");
    escape(entry.text, to);
    if entry.complete {
        to.extend_from_slice(b"\\n");
    }
    // Writing to a Vec does not fail.
    let _ = writeln!(to, "\",\"stream\":\"{}\",\"time\":\"{}\"}}", name(entry.stream), entry.time);
}

/// `<time> stdout F <line>`, `P` for a piece.
fn cri(entry: &Entry<'_>, to: &mut Vec<u8>) {
    let tag = if entry.complete { 'F' } else { 'P' };
    let _ = write!(to, "{} {} {tag} ", entry.time, name(entry.stream));
    to.extend_from_slice(entry.text);
    to.push(b'\n');
}

/// As Docker writes its log: HTML's three characters and the two line separators of Unicode are escaped, bytes that are no UTF-8 become U+FFFD.
fn escape(text: &[u8], to: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        // Nearly everything is plain and is copied in one go.
        while let Some(at) =
            rest.find(|c: char| matches!(c, '"' | '\\' | '<' | '>' | '&' | '\0'..='\x1f' | '\u{2028}' | '\u{2029}'))
        {
            let (plain, special) = rest.split_at(at);
            to.extend_from_slice(plain.as_bytes());
            let mut characters = special.chars();
            if let Some(character) = characters.next() {
                escape_one(character, to);
            }
            rest = characters.as_str();
        }
        to.extend_from_slice(rest.as_bytes());
        for _ in chunk.invalid() {
            to.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_one(character: char, to: &mut Vec<u8>) {
    match character {
        '"' => to.extend_from_slice(b"\\\""),
        '\\' => to.extend_from_slice(b"\\\\"),
        '\n' => to.extend_from_slice(b"\\n"),
        '\r' => to.extend_from_slice(b"\\r"),
        other => {
            // Writing to a Vec does not fail.
            let _ = write!(to, "\\u{:04x}", other as u32);
        }
    }
}
