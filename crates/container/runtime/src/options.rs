//! Mount options as fstab, Docker and the OCI specification write them, sorted into what the kernel calls attributes, propagation and parameters.

use kernel::mount::{Spread, attr};

use crate::SpreadChange;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) recursive_set: u64,
    pub(crate) recursive_clear: u64,
    pub(crate) spreads: Vec<SpreadChange>,
    /// `Some(true)` for rbind.
    pub(crate) bind: Option<bool>,
    pub(crate) remount: bool,
    pub(crate) copy_up: bool,
    /// A word that is understood and cannot be had.
    pub(crate) refused: Option<String>,
    /// For the file system itself; without a value: a flag.
    pub(crate) parameters: Vec<(String, Option<String>)>,
}

/// Name, bits, whether the name sets them (or clears them). `r` before a name makes it recursive.
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", attr::READ_ONLY, true),
    ("rw", attr::READ_ONLY, false),
    ("nosuid", attr::NO_SUID, true),
    ("suid", attr::NO_SUID, false),
    ("nodev", attr::NO_DEV, true),
    ("dev", attr::NO_DEV, false),
    ("noexec", attr::NO_EXEC, true),
    ("exec", attr::NO_EXEC, false),
    ("noatime", attr::NO_ATIME, true),
    ("atime", attr::NO_ATIME, false),
    ("strictatime", attr::STRICT_ATIME, true),
    ("nostrictatime", attr::STRICT_ATIME, false),
    ("relatime", attr::ATIME_MASK, false),
    ("nodiratime", attr::NO_DIR_ATIME, true),
    ("diratime", attr::NO_DIR_ATIME, false),
    ("nosymfollow", attr::NO_SYMFOLLOW, true),
    ("symfollow", attr::NO_SYMFOLLOW, false),
];

const SPREADS: &[(&str, Spread)] = &[
    ("private", Spread::Private),
    ("slave", Spread::Slave),
    ("shared", Spread::Shared),
    ("unbindable", Spread::Unbindable),
];

/// Words that name the kernel's default, or what it does not know any more.
const NOTHING: &[&str] = &[
    "defaults",
    "norelatime",
    "rnorelatime",
    "async",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "mand",
    "nomand",
    "newinstance",
    "nolazytime",
    "notmpcopyup",
];

/// All words of the three tables above, for `features`.
pub(crate) fn known() -> Vec<String> {
    let recursive = ATTRIBUTES.iter().map(|(name, ..)| format!("r{name}"));
    let spreads = SPREADS.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]);
    let plain = ATTRIBUTES.iter().map(|(name, ..)| *name).chain(NOTHING.iter().copied());
    let more = ["bind", "rbind", "remount", "tmpcopyup", "sync", "dirsync", "lazytime"];
    let mut all: Vec<String> = plain
        .chain(more)
        .map(str::to_owned)
        .chain(recursive)
        .chain(spreads)
        .filter(|word| word != "defaults")
        .collect();
    all.sort();
    all.dedup();
    all
}

pub(crate) fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        let option = option.as_str();
        match option {
            "bind" => parsed.bind = Some(parsed.bind.unwrap_or(false)),
            "rbind" => parsed.bind = Some(true),
            "remount" => parsed.remount = true,
            "tmpcopyup" => parsed.copy_up = true,
            "idmap" | "ridmap" => parsed.refused = Some(option.to_owned()),
            word if NOTHING.contains(&word) => {}
            word => {
                if !parsed.attribute(word) && !parsed.spread(word) {
                    parsed.parameter(word);
                }
            }
        }
    }
    parsed
}

impl Options {
    fn attribute(&mut self, word: &str) -> bool {
        let find = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        let (found, recursive) = match (find(word), word.strip_prefix('r').and_then(find)) {
            (Some(found), _) => (found, false),
            (None, Some(found)) => (found, true),
            (None, None) => return false,
        };
        let (_, bits, on) = *found;
        let (set, clear) = if recursive {
            (&mut self.recursive_set, &mut self.recursive_clear)
        } else {
            (&mut self.set, &mut self.clear)
        };
        // A later word wins over an earlier one.
        if on {
            *set |= bits;
            *clear &= !bits;
        } else {
            *clear |= bits;
            *set &= !bits;
        }
        true
    }

    fn spread(&mut self, word: &str) -> bool {
        match spread(word) {
            Some(change) => self.spreads.push(change),
            None => return false,
        }
        true
    }

    fn parameter(&mut self, word: &str) {
        let parameter = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
        self.parameters.push(parameter);
    }
}

/// `rslave` and its like.
pub(crate) fn spread(word: &str) -> Option<SpreadChange> {
    let find = |name: &str| SPREADS.iter().find(|(known, _)| *known == name).map(|(_, spread)| *spread);
    match (find(word), word.strip_prefix('r').and_then(find)) {
        (Some(spread), _) => Some(SpreadChange { spread, recursive: false }),
        (None, Some(spread)) => Some(SpreadChange { spread, recursive: true }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Options {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_sorted_into_attributes_propagation_and_parameters() {
        let options = words("nosuid,noexec,ro,rbind,rprivate,mode=755,size=64k,rro");
        assert_eq!(options.set, attr::NO_SUID | attr::NO_EXEC | attr::READ_ONLY);
        assert_eq!(options.recursive_set, attr::READ_ONLY);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.spreads, [SpreadChange { spread: Spread::Private, recursive: true }]);
        assert_eq!(options.parameters.len(), 2);
    }

    #[test]
    fn a_later_word_wins() {
        let options = words("ro,rw");
        assert_eq!((options.set, options.clear), (0, attr::READ_ONLY));
        let options = words("noatime,relatime,rnoexec,rexec");
        assert_eq!((options.set, options.clear), (0, attr::ATIME_MASK));
        assert_eq!((options.recursive_set, options.recursive_clear), (0, attr::NO_EXEC));
    }

    #[test]
    fn every_known_word_is_understood_and_what_cannot_be_had_is_named() {
        for word in known() {
            assert!(words(&word).refused.is_none(), "{word}");
        }
        assert_eq!(words("ro,idmap").refused.as_deref(), Some("idmap"));
        assert!(words("remount,ro").remount && words("tmpcopyup").copy_up);
    }
}
