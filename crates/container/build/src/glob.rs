//! Patterns: the shell's for `${name%pattern}`, the file system's for COPY sources (Go's `filepath.Match` plus `**`).

/// Matches a whole text; `*` and `?` match anything, also `/`.
pub(crate) fn shell_match(pattern: &str, text: &str) -> bool {
    matches(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>(), false)
}

/// Matches a whole path; `*` and `?` stop at `/`, `**` does not.
pub(crate) fn path_match(pattern: &str, path: &str) -> bool {
    matches(&pattern.chars().collect::<Vec<_>>(), &path.chars().collect::<Vec<_>>(), true)
}

/// Whether a source has to be looked up as a pattern at all.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Iterative matching with one backtrack point a star: linear times stars, no exponential blow-up on hostile patterns.
fn matches(pattern: &[char], text: &[char], paths: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a star that takes one more character; a `**` is a point of its own below a `*`.
    let mut star: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            if paths && pattern.get(p + 1) == Some(&'*') {
                // `**/` matches no folder as well.
                p += if pattern.get(p + 2) == Some(&'/') { 3 } else { 2 };
                double = Some((p, t));
                star = None;
            } else {
                p += 1;
                star = Some((p, t));
            }
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if t < text.len()
            && let Some(next) = one(pattern, p, text[t], paths)
        {
            p = next;
            t += 1;
            continue;
        }
        if let Some((after, from)) = star
            && from < text.len()
            && !(paths && text[from] == '/')
        {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else if let Some((after, from)) = double
            && from < text.len()
        {
            double = Some((after, from + 1));
            star = None;
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
}

/// Matches one character at `p`; returns the place in the pattern after it.
fn one(pattern: &[char], p: usize, c: char, paths: bool) -> Option<usize> {
    match pattern.get(p)? {
        '?' => (!(paths && c == '/')).then_some(p + 1),
        '[' => class(pattern, p, c),
        '\\' => (*pattern.get(p + 1)? == c).then_some(p + 2),
        literal => (*literal == c).then_some(p + 1),
    }
}

fn class(pattern: &[char], p: usize, c: char) -> Option<usize> {
    let mut at = p + 1;
    let negated = matches!(pattern.get(at), Some('^' | '!'));
    at += usize::from(negated);
    let mut hit = false;
    let start = at;
    while *pattern.get(at)? != ']' || at == start {
        let low = pattern[at];
        let high = if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|c| *c != ']') {
            at += 2;
            pattern[at]
        } else {
            low
        };
        hit |= (low..=high).contains(&c);
        at += 1;
    }
    (hit != negated).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_patterns_stop_at_slashes() {
        for (pattern, path, want) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("**/*.txt", "d/e/a.txt", true),
            ("**/*.txt", "a.txt", true),
            ("d/**", "d/e/f", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[", "[", false),
            ("\\*", "*", true),
            ("**/b*/c", "a/bb/x/b/c", true),
        ] {
            assert_eq!(path_match(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_patterns_end() {
        assert!(!shell_match(&"*a".repeat(200), &"a".repeat(150)));
    }
}
