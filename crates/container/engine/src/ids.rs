//! Identifiers and names of containers.

use crate::error::{Error, Result};

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

const LEFT: &[&str] = &[
    "amber", "brave", "calm", "clever", "cosmic", "dapper", "eager", "fair", "gentle", "happy", "honest", "jolly",
    "keen", "lively", "lucid", "merry", "modest", "nimble", "patient", "quiet", "rapid", "serene", "sharp", "steady",
    "sunny", "tidy", "vivid", "warm", "wise", "witty", "young", "zesty",
];
const RIGHT: &[&str] = &[
    "archimedes",
    "babbage",
    "boole",
    "cerf",
    "curie",
    "darwin",
    "dijkstra",
    "einstein",
    "euler",
    "faraday",
    "fermi",
    "franklin",
    "gauss",
    "goodall",
    "hamilton",
    "hopper",
    "hypatia",
    "kepler",
    "knuth",
    "lamport",
    "lovelace",
    "maxwell",
    "meitner",
    "newton",
    "noether",
    "pascal",
    "ritchie",
    "shannon",
    "tesla",
    "thompson",
    "turing",
    "wiles",
];

/// A name for a container that was given none; a number is added from the second try on.
pub(crate) fn random_name(attempt: u32) -> String {
    let pick = |words: &[&'static str]| words[usize::from(rand::random::<u16>()) % words.len()];
    match attempt {
        0 => format!("{}_{}", pick(LEFT), pick(RIGHT)),
        n => format!("{}_{}{n}", pick(LEFT), pick(RIGHT)),
    }
}

/// Checks a container name as Docker does.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && (2..=200).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::Invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_alphabet() {
        for good in ["web", "a1", "my_app.v-2"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", "-web", ".web", "we b", "wéb", "a/b", "../x"] {
            assert!(check_name(bad).unwrap_err().to_string().starts_with("Invalid container name ("), "{bad}");
        }
    }

    #[test]
    fn made_up_names_are_valid_names() {
        for attempt in 0..50 {
            check_name(&random_name(attempt)).unwrap();
        }
        assert_eq!(random_id().len(), 64);
    }
}
