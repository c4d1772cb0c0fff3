//! Digests: the names of stored bytes, of images and of stacks of layers.
//!
//! Used by every crate of the container half. A [`Digest`] in hand is always well formed (`sha256:` and 64 lower-case
//! hexadecimal characters), so that it can become a file name without a further look. Other algorithms are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The sha256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest, in the words that Docker's clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("invalid checksum digest format")]
    Format,
    #[error("unsupported digest algorithm")]
    Algorithm,
    #[error("invalid checksum digest length")]
    Length,
}

impl Digest {
    /// The digest of a whole buffer.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal characters, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The 12 characters that Docker shows.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }

    /// Parses exactly 64 lower-case hexadecimal characters.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        if text.len() != 64 {
            return Err(DigestError::Length);
        }
        if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError::Format)?;
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some((algorithm, hex)) if is_algorithm(algorithm) && !hex.is_empty() => Err(DigestError::Algorithm),
            Some(_) | None => Err(DigestError::Format),
        }
    }
}

fn is_algorithm(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'_' | b'-'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making, fed piece by piece.
#[derive(Clone, Default)]
pub struct DigestHasher(Sha256);

impl DigestHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// An image: the digest of its configuration, as Docker's classic image store names it.
    ImageId
}
digest_newtype! {
    /// A stack of layers: what a mountable root filesystem is keyed by (OCI image spec, "Layer ChainID").
    ChainId
}

impl ChainId {
    /// The stack `parent` with one more layer on top.
    pub fn on(parent: Option<&ChainId>, diff_id: Digest) -> Self {
        parent.map_or(Self(diff_id), |parent| Self(Digest::of(format!("{parent} {diff_id}").as_bytes())))
    }
}

/// The chain IDs of every prefix of the stack, lowest first. `chain_ids(d).last()` is the whole stack's.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(ChainId::on(chains.last(), *diff_id));
    }
    chains
}

/// The chain ID of the whole stack; `None` for an image without layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<ChainId> {
    chain_ids(diff_ids).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_digests_are_errors_and_never_panics() {
        let good = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(good.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), good);
        for (text, why) in [
            ("", DigestError::Format),
            ("sha256", DigestError::Format),
            ("sha256:", DigestError::Length),
            ("sha256:abc", DigestError::Length),
            (&good.to_uppercase().replace("SHA", "sha"), DigestError::Format),
            ("sha256:../../../../../../../../../../../../../../etc/passwd0000000000000000", DigestError::Length),
            (&format!("sha512:{}", "a".repeat(128)), DigestError::Algorithm),
            ("é:é", DigestError::Format),
            (&format!("sha256:{}", "é".repeat(32)), DigestError::Format),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(why), "{text}");
        }
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id_and_of_more_depends_on_order() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[a]), Some(ChainId(a)));
        assert_eq!(chain_id(&[a, b]), Some(ChainId(Digest::of(format!("{a} {b}").as_bytes()))));
        assert_ne!(chain_id(&[a, b]), chain_id(&[b, a]));
    }
}
