//! `.dockerignore`: which paths of a context do not belong to it.
//!
//! For contexts that no client has filtered: those that the daemon fetches. The last rule that matches decides; a rule
//! that matches a folder takes all that is in it.

use std::path::Path;

use crate::context::Root;
use crate::{BuildError, glob};

/// Removes from a fetched context what its `.dockerignore` leaves out. The Dockerfile is still needed and stays.
pub fn filter_context(dir: &Path, dockerfile: &str) -> Result<(), BuildError> {
    let root = Root::open(dir).map_err(BuildError::io("cannot open the build context", dir))?;
    for name in [&format!("{dockerfile}.dockerignore"), ".dockerignore"] {
        let text = root.read_small(name, 4 << 20).map_err(BuildError::io("cannot read", name))?;
        if let Some(text) = text {
            let ignore = Ignore::parse(&text);
            let keep = crate::context::normalise(dockerfile);
            let gone = |path: &Path| path != keep && ignore.ignores(&path.to_string_lossy());
            return root.remove_where(&gone).map_err(BuildError::io("cannot leave files out of", dir));
        }
    }
    Ok(())
}

/// Reads a text file of a context, resolving links inside it; `None` where there is none.
pub fn read_context_file(dir: &Path, name: &str, limit_bytes: u64) -> Result<Option<String>, BuildError> {
    let root = Root::open(dir).map_err(BuildError::io("cannot open the build context", dir))?;
    root.read_small(name, limit_bytes).map_err(BuildError::io("cannot read", name))
}

/// Removes one file of a context; a missing one is fine.
pub fn remove_context_file(dir: &Path, name: &str) -> Result<(), BuildError> {
    let root = Root::open(dir).map_err(BuildError::io("cannot open the build context", dir))?;
    let wanted = crate::context::normalise(name);
    root.remove_where(&|path| path == wanted).map_err(BuildError::io("cannot remove", name))
}

/// Rules of one file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: String,
    keeps: bool,
}

impl Ignore {
    /// Parses the file's text. Lines with `#` in front are comments.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rule = |line: &str| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (keeps, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let pattern = crate::context::normalise(line).to_string_lossy().into_owned();
            let pattern = if pattern.is_empty() && !keeps { "**".to_owned() } else { pattern };
            (!pattern.is_empty()).then_some(Rule { pattern, keeps })
        };
        Self { rules: text.lines().filter_map(rule).collect() }
    }

    /// The patterns as BuildKit's protocol sends them.
    pub fn patterns(&self) -> Vec<String> {
        self.rules.iter().map(|rule| format!("{}{}", if rule.keeps { "!" } else { "" }, rule.pattern)).collect()
    }

    /// Whether a path (relative, no leading slash) is left out.
    pub fn ignores(&self, path: &str) -> bool {
        self.rules.iter().fold(false, |ignored, rule| {
            // A rule is looked at only where it could change the verdict.
            if rule.keeps == ignored && rule.matches(path) { !rule.keeps } else { ignored }
        })
    }

    /// Whether something below an ignored folder may still be kept.
    pub fn may_keep_below(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| glob::path_match(&self.pattern, &path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_decides_and_folders_take_their_content() {
        let ignore = Ignore::parse("# no\n*.md\n!README.md\n/build/\n**/cache\nsecret*\n!secret-not\n");
        for (path, ignored) in [
            ("a.md", true),
            ("README.md", false),
            ("docs/a.md", false),
            ("build", true),
            ("build/x/y", true),
            ("src/cache", true),
            ("src/cache/z", true),
            ("secret1", true),
            ("secret-not", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.ignores(path), ignored, "{path}");
        }
        assert!(Ignore::parse(".").ignores("anything"));
        assert!(!Ignore::parse("").ignores("anything"));
    }
}
