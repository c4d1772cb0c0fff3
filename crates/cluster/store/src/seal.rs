//! Encryption of chosen values on disk: AES-256-GCM with keys that are rotated.
//!
//! Used by `writer` and `compaction` (seal) and by `recover` and `index` (open). In memory values are plain; what is below the
//! chosen prefixes reaches the disk sealed, in logs, snapshots and backups alike. A sealed value is
//! `key id:u32 nonce:12 ciphertext tag:16`, bound to its store key, so it cannot be moved to another one.
//! Invariant: a nonce is random and a key is used for far fewer than 2^32 values before the next rotation matters.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::log::{io_error, sync_dir};
use crate::{Result, StoreError};

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 4;

/// The keys of a store, newest first, and what they protect.
pub struct Sealer {
    keys: Vec<(u32, LessSafeKey)>,
    prefixes: Vec<Vec<u8>>,
    random: SystemRandom,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<u32> = self.keys.iter().map(|(id, _)| *id).collect();
        f.debug_struct("Sealer").field("keys", &ids).finish_non_exhaustive()
    }
}

/// One line of the key file: `ID HEX`, the newest first.
type Line = (u32, [u8; KEY_BYTES]);

impl Sealer {
    /// Reads the key file, or makes one with a first key. Values below `prefixes` will be sealed.
    pub fn open(path: &Path, prefixes: &[&str]) -> Result<Self> {
        let lines = match read(path)? {
            Some(lines) => lines,
            None => {
                let lines = vec![(1, fresh(path)?)];
                write(path, &lines)?;
                lines
            }
        };
        Self::of(path, &lines, prefixes)
    }

    /// Puts a new key before the others; says its number. What is there is sealed anew as compaction rewrites it.
    pub fn rotate(path: &Path) -> Result<u32> {
        let mut lines = read(path)?.unwrap_or_default();
        let id = lines.iter().map(|(id, _)| *id).max().unwrap_or(0) + 1;
        lines.insert(0, (id, fresh(path)?));
        write(path, &lines)?;
        Ok(id)
    }

    fn of(path: &Path, lines: &[Line], prefixes: &[&str]) -> Result<Self> {
        let mut keys = Vec::with_capacity(lines.len());
        for (id, bytes) in lines {
            let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| broken(path, "a key is not usable"))?;
            keys.push((*id, LessSafeKey::new(key)));
        }
        if keys.is_empty() {
            return Err(broken(path, "it holds no key"));
        }
        let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect();
        Ok(Self { keys, prefixes, random: SystemRandom::new() })
    }

    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    pub(crate) fn seal(&self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let (id, cipher) = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut body = value.to_vec();
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut body).ok()?;
        Some([&id.to_le_bytes()[..], &nonce, &body].concat())
    }

    /// `None`: no key of ours, or not what was sealed.
    pub(crate) fn open_value(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = sealed.split_first_chunk::<ID_BYTES>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let id = u32::from_le_bytes(*id);
        let (_, cipher) = self.keys.iter().find(|(own, _)| *own == id)?;
        let mut body = body.to_vec();
        let plain = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body)
    }
}

fn broken(path: &Path, reason: &'static str) -> StoreError {
    StoreError::Keys { path: path.to_path_buf(), reason }
}

fn fresh(path: &Path) -> Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| broken(path, "no random bytes for a key"))?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<Vec<Line>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read")(error)),
    };
    let lines: Option<Vec<Line>> = text.lines().filter(|line| !line.is_empty()).map(parse).collect();
    lines.map(Some).ok_or_else(|| broken(path, "a line is not `NUMBER KEY`"))
}

fn parse(line: &str) -> Option<Line> {
    let (id, hex) = line.split_once(' ')?;
    let mut key = [0; KEY_BYTES];
    if hex.len() != 2 * KEY_BYTES || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some((id.parse().ok()?, key))
}

fn write(path: &Path, lines: &[Line]) -> Result<()> {
    let part: PathBuf = path.with_extension("part");
    let mut text = String::new();
    for (id, key) in lines {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{id} {hex}\n"));
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part).map_err(io_error(&part, "create"))?;
    file.write_all(text.as_bytes()).map_err(io_error(&part, "write"))?;
    file.sync_all().map_err(io_error(&part, "sync"))?;
    std::fs::rename(&part, path).map_err(io_error(path, "rename the keys to"))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_under_its_own_key_with_any_key_that_is_still_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let old = Sealer::open(&path, &["/s/"]).unwrap();
        let sealed = old.seal(b"/s/a", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(Sealer::rotate(&path).unwrap(), 2);
        let new = Sealer::open(&path, &["/s/"]).unwrap();
        assert_eq!(new.open_value(b"/s/a", &sealed).unwrap(), b"secret");
        assert_eq!(new.seal(b"/s/a", b"secret").unwrap()[0], 2, "the newest key seals");
        assert!(new.open_value(b"/s/b", &sealed).is_none(), "not under another name");
        let mut bent = sealed.clone();
        bent[20] ^= 1;
        assert!(new.open_value(b"/s/a", &bent).is_none());
        assert!(new.covers(b"/s/a") && !new.covers(b"/t/a"));
        std::fs::write(&path, "1 zz").unwrap();
        assert!(Sealer::open(&path, &[]).is_err());
    }
}
