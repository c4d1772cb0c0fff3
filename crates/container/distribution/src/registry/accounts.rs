//! Accounts from an htpasswd file with bcrypt hashes, as Docker's registry reads it.
//!
//! The file is read again when it changes. A right password is remembered (as a keyed digest) for this process's life,
//! since bcrypt is slow by design and clients send their password with every request. Unknown names take as long as
//! known ones, so that names cannot be told by time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ring::hmac;

use crate::error::{Error, Result};

/// A hash of nothing that anybody has, for names that nobody has.
const DECOY: &str = "$2y$10$Xfm6RTDPmtFFIZj9vb1ldOzZZf/b7lYKDjGP9yRyL2oTxWoLjqLHq";

pub(super) struct Accounts {
    path: PathBuf,
    key: hmac::Key,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    changed: Option<SystemTime>,
    hashes: HashMap<String, String>,
    /// What was right once: the tag over name, hash and password.
    proven: HashMap<String, hmac::Tag>,
}

impl Accounts {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| Error::Io(std::io::Error::other("no random numbers to be had")))?;
        let accounts = Self { path: path.to_owned(), key, table: Mutex::default() };
        accounts.reload()?;
        Ok(accounts)
    }

    /// Reads the file if it is not the one that was read.
    fn reload(&self) -> Result<()> {
        let failed = |source| Error::File { path: self.path.clone(), source };
        let changed = std::fs::metadata(&self.path).and_then(|m| m.modified()).map_err(failed)?;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.changed == Some(changed) {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        let hashes = parse(&text).map_err(|problem| failed(std::io::Error::other(problem)))?;
        *table = Table { changed: Some(changed), hashes, proven: HashMap::new() };
        Ok(())
    }

    /// Whether this is the account's password. Slow (bcrypt) the first time: call it off the async threads.
    pub(super) fn verify(&self, name: &str, password: &str) -> bool {
        if let Err(error) = self.reload() {
            tracing::error!(%error, "accounts cannot be read; nobody new is let in");
            return false;
        }
        let (hash, proven) = {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            (table.hashes.get(name).cloned(), table.proven.get(name).copied())
        };
        let statement = format!("{name}\0{}\0{password}", hash.as_deref().unwrap_or_default());
        if proven.is_some_and(|tag| hmac::verify(&self.key, statement.as_bytes(), tag.as_ref()).is_ok()) {
            return true;
        }
        let right = bcrypt::verify(password, hash.as_deref().unwrap_or(DECOY)).unwrap_or(false) && hash.is_some();
        if right {
            let tag = hmac::sign(&self.key, statement.as_bytes());
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.proven.insert(name.to_owned(), tag);
        }
        right
    }
}

fn parse(text: &str) -> std::result::Result<HashMap<String, String>, String> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
    let entry = |(index, line): (usize, &str)| {
        let (name, hash) =
            line.trim().split_once(':').ok_or_else(|| format!("line {}: no colon after the name", index + 1))?;
        if !["$2y$", "$2a$", "$2b$"].iter().any(|prefix| hash.starts_with(prefix)) {
            return Err(format!("line {}: not a bcrypt hash; make it with `htpasswd -B`", index + 1));
        }
        Ok((name.to_owned(), hash.to_owned()))
    };
    lines.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_htpasswd_file_opens_to_its_passwords_and_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
        let accounts = Accounts::open(&path).unwrap();
        for _ in 0..2 {
            assert!(accounts.verify("alice", "secret"));
            assert!(!accounts.verify("alice", "Secret"));
            assert!(!accounts.verify("bob", "secret"));
        }
        std::fs::write(&path, format!("alice:{}\n", bcrypt::hash("other", 4).unwrap())).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(!accounts.verify("alice", "secret"), "the old password is out");
        assert!(accounts.verify("alice", "other"));
    }

    #[test]
    fn hashes_of_other_kinds_are_refused_with_what_to_do() {
        assert!(parse("bob:$apr1$x$y").unwrap_err().contains("htpasswd -B"));
        assert!(parse("# nobody\n\nbob").unwrap_err().contains("line 3"));
    }
}
