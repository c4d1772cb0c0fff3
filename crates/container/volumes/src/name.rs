//! The name of a volume: also the name of its directory, so it is checked before it touches a path.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A name that is safe as one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// Accepts Docker's alphabet: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes (a file name's limit).
    pub fn parse(name: &str) -> Result<Self, Error> {
        let mut bytes = name.bytes();
        let first_fits = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_fits = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first_fits && rest_fits && (2..=255).contains(&name.len()) {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::InvalidName(name.to_owned()))
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for VolumeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::parse(&name)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}
