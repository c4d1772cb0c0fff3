//! Who may do what in which repository. Pure: the guard asks it, the token service grants by it.
//!
//! Rights are lines `WHO REPOSITORIES ACTIONS`: `WHO` is an account, `*` (everybody who logged in) or `anonymous`;
//! `*` in `REPOSITORIES` stands for a part between slashes, `**` for anything; `ACTIONS` are `pull`, `push`, `delete` or
//! `*`, parted by commas. What no line grants is refused. Without a file, accounts may do everything.

use serde::{Deserialize, Serialize};

/// What a request does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Pull,
    Push,
    Delete,
}

const ALL: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

impl Action {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        ALL.into_iter().find(|a| a.word() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Everybody,
    Account(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    who: Who,
    repositories: String,
    actions: Vec<Action>,
}

/// The rules of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights(Vec<Rule>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}; a right is written: WHO REPOSITORIES ACTIONS")]
pub struct RightsError {
    line: usize,
    problem: String,
}

impl Rights {
    /// Everything for everybody with an account; pulls for the others if `anonymous_pull`.
    pub fn open(anonymous_pull: bool) -> Self {
        let mut rights = Self(vec![rule(Who::Everybody, "**", &ALL)]);
        rights.allow_anonymous_pull(anonymous_pull);
        rights
    }

    pub fn parse(text: &str, anonymous_pull: bool) -> Result<Self, RightsError> {
        let mut rights = Self(Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                rights.0.push(parse_rule(line).map_err(|problem| RightsError { line: index + 1, problem })?);
            }
        }
        rights.allow_anonymous_pull(anonymous_pull);
        Ok(rights)
    }

    fn allow_anonymous_pull(&mut self, allow: bool) {
        if allow {
            self.0.push(rule(Who::Anonymous, "**", &[Action::Pull]));
            self.0.push(rule(Who::Everybody, "**", &[Action::Pull]));
        }
    }

    /// `account` is `None` for somebody who did not log in. What everybody may do, an account may do as well.
    pub fn allow(&self, account: Option<&str>, repository: &str, action: Action) -> bool {
        self.0.iter().any(|rule| {
            let concerns = match (&rule.who, account) {
                (Who::Anonymous, _) | (Who::Everybody, Some(_)) => true,
                (Who::Account(name), Some(account)) => name == account,
                (Who::Everybody | Who::Account(_), None) => false,
            };
            concerns && rule.actions.contains(&action) && matches(&rule.repositories, repository)
        })
    }
}

fn rule(who: Who, repositories: &str, actions: &[Action]) -> Rule {
    Rule { who, repositories: repositories.to_owned(), actions: actions.to_vec() }
}

fn parse_rule(line: &str) -> Result<Rule, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [who, repositories, actions] = words.as_slice() else {
        return Err(format!("{} words instead of three", words.len()));
    };
    let who = match *who {
        "anonymous" => Who::Anonymous,
        "*" => Who::Everybody,
        name => Who::Account(name.to_owned()),
    };
    let actions = match *actions {
        "*" => ALL.to_vec(),
        list => list
            .split(',')
            .map(|word| Action::parse(word).ok_or_else(|| format!("\"{word}\" is no action (pull, push, delete, *)")))
            .collect::<Result<_, _>>()?,
    };
    Ok(Rule { who, repositories: (*repositories).to_owned(), actions })
}

/// Part by part: `**` takes any number of parts (none, too), `*` inside a part takes any text of it.
fn matches(pattern: &str, repository: &str) -> bool {
    let (pattern, parts): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), repository.split('/').collect());
    // reach[i]: whether the pattern so far can end before part i. Linear, whatever the pattern says.
    let mut reach = vec![false; parts.len() + 1];
    reach[0] = true;
    for piece in pattern {
        let mut next = vec![false; parts.len() + 1];
        for i in 0..=parts.len() {
            if !reach[i] {
                continue;
            }
            if piece == "**" {
                next[i..].fill(true);
            } else if i < parts.len() && part_matches(piece, parts[i]) {
                next[i + 1] = true;
            }
        }
        reach = next;
    }
    reach[parts.len()]
}

fn part_matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_grant_what_their_lines_say_and_nothing_else() {
        let text =
            "# team\nalice team/** *\nbob team/*/web pull,push\n* shared/* pull # all\nanonymous public/** pull\n";
        let rights = Rights::parse(text, false).unwrap();
        for (who, repository, action, allowed) in [
            (Some("alice"), "team/a/b", Action::Delete, true),
            (Some("alice"), "team", Action::Push, true),
            (Some("alice"), "teams/a", Action::Pull, false),
            (Some("bob"), "team/x/web", Action::Push, true),
            (Some("bob"), "team/x/web", Action::Delete, false),
            (Some("bob"), "team/x/y/web", Action::Push, false),
            (Some("bob"), "shared/base", Action::Pull, true),
            (Some("bob"), "shared/base", Action::Push, false),
            (Some("bob"), "public/a", Action::Pull, true),
            (None, "public/a/b", Action::Pull, true),
            (None, "public/a/b", Action::Push, false),
            (None, "shared/base", Action::Pull, false),
        ] {
            assert_eq!(rights.allow(who, repository, action), allowed, "{who:?} {repository} {action:?}");
        }
    }

    #[test]
    fn open_rights_let_accounts_do_all_and_strangers_pull_only_if_wanted() {
        for anonymous in [false, true] {
            let rights = Rights::open(anonymous);
            assert!(rights.allow(Some("x"), "a/b", Action::Delete));
            assert_eq!(rights.allow(None, "a/b", Action::Pull), anonymous);
            assert!(!rights.allow(None, "a/b", Action::Push));
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, problem) in
            [("alice a pull\nbob team", "line 2: 2 words"), ("alice a read", "line 1: \"read\" is no action")]
        {
            let error = Rights::parse(text, false).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn stars_match_within_a_part_only() {
        for (pattern, name, fits) in [
            ("a*c", "abc", true),
            ("a*c", "a/c", false),
            ("*", "a", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "axcxb", false),
            ("**", "a/b/c", true),
            ("**/x", "x", true),
            ("a/**/x", "a/b/c/x", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
