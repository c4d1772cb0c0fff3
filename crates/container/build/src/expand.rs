//! Variable expansion as the Dockerfile reference has it ("Environment replacement"): quotes, escapes and
//! `${name}` with its modifiers. Pure; the variables come in as a look-up.

/// Depth to which a modifier's word may itself hold variables; a deeper one is refused.
const MAX_DEPTH: usize = 16;
/// An expanded text over this is refused (nested replacements can grow without end).
const MAX_BYTES: usize = 1 << 20;

/// Expands words of one instruction.
pub struct Expander<'a> {
    pub escape: char,
    /// The value of a variable; `None` where it is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// Expands and removes quotes, one word in and one word out.
    pub fn word(&self, text: &str) -> Result<String, String> {
        self.run(text, true, 0)
    }

    /// Expands variables and leaves quotes alone: heredocs.
    pub fn text(&self, text: &str) -> Result<String, String> {
        self.run(text, false, 0)
    }

    fn run(&self, text: &str, quotes: bool, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("variables are nested too deeply".to_owned());
        }
        let chars: Vec<char> = text.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut in_double = false;
        while at < chars.len() {
            let c = chars[at];
            if c == '\'' && quotes && !in_double {
                let end = find(&chars, at + 1, '\'')
                    .ok_or("unexpected end of statement while looking for matching single-quote")?;
                out.extend(&chars[at + 1..end]);
                at = end + 1;
            } else if c == '"' && quotes {
                in_double = !in_double;
                at += 1;
            } else if c == self.escape {
                at = self.escaped(&chars, at, quotes, in_double, &mut out);
            } else if c == '$' {
                at = self.variable(&chars, at, depth, &mut out)?;
            } else {
                out.push(c);
                at += 1;
            }
            if out.len() > MAX_BYTES {
                return Err("the expanded text is too long".to_owned());
            }
        }
        if in_double {
            return Err("unexpected end of statement while looking for matching double-quote".to_owned());
        }
        Ok(out)
    }

    /// An escape takes the next character as it is; inside double quotes only `"`, `$` and itself.
    fn escaped(&self, chars: &[char], at: usize, quotes: bool, in_double: bool, out: &mut String) -> usize {
        let Some(&next) = chars.get(at + 1) else {
            out.push(self.escape);
            return at + 1;
        };
        let special = next == '$' || next == self.escape || (quotes && next == '"');
        if (in_double || !quotes) && !special {
            out.push(self.escape);
        }
        out.push(next);
        at + 2
    }

    fn variable(&self, chars: &[char], at: usize, depth: usize, out: &mut String) -> Result<usize, String> {
        match chars.get(at + 1) {
            Some('{') => {
                let end =
                    matching_brace(chars, at + 2).ok_or("unexpected end of statement while looking for matching }")?;
                let inner: String = chars[at + 2..end].iter().collect();
                out.push_str(&self.braced(&inner, depth)?);
                Ok(end + 1)
            }
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                let mut end = at + 1;
                while chars.get(end).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    end += 1;
                }
                let name: String = chars[at + 1..end].iter().collect();
                out.push_str(&(self.lookup)(&name).unwrap_or_default());
                Ok(end)
            }
            _ => {
                out.push('$');
                Ok(at + 1)
            }
        }
    }

    /// What stands between the braces: a name and perhaps a modifier.
    fn braced(&self, inner: &str, depth: usize) -> Result<String, String> {
        let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, modifier) = inner.split_at(end);
        if name.is_empty() {
            return Err("bad substitution".to_owned());
        }
        let value = (self.lookup)(name);
        if modifier.is_empty() {
            return Ok(value.unwrap_or_default());
        }
        let (colon, rest) = match modifier.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, modifier),
        };
        let mut rest_chars = rest.chars();
        let operator = rest_chars.next().ok_or_else(|| format!("unsupported modifier ({modifier}) in substitution"))?;
        let word = || self.run(rest_chars.as_str(), true, depth + 1);
        let set = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match (operator, colon) {
            ('-', _) => {
                if set {
                    Ok(value.unwrap_or_default())
                } else {
                    word()
                }
            }
            ('+', _) => {
                if set {
                    word()
                } else {
                    Ok(String::new())
                }
            }
            ('?', _) if set => Ok(value.unwrap_or_default()),
            ('?', _) => {
                let message = word()?;
                Err(format!("{name}: {}", if message.is_empty() { "parameter null or not set" } else { &message }))
            }
            ('#' | '%', false) => Ok(trim(&value.unwrap_or_default(), rest, &word_of(self, rest, depth)?)),
            ('/', false) => self.replaced(&value.unwrap_or_default(), rest, depth),
            _ => Err(format!("unsupported modifier ({modifier}) in substitution")),
        }
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`.
    fn replaced(&self, value: &str, rest: &str, depth: usize) -> Result<String, String> {
        let all = rest.starts_with("//");
        let body = rest.trim_start_matches('/');
        let (pattern, with) = body.split_once('/').unwrap_or((body, ""));
        let (pattern, with) = (self.run(pattern, true, depth + 1)?, self.run(with, true, depth + 1)?);
        Ok(replace(value, &pattern, &with, all))
    }
}

fn word_of(expander: &Expander<'_>, rest: &str, depth: usize) -> Result<String, String> {
    expander.run(rest.trim_start_matches(['#', '%']), true, depth + 1)
}

fn find(chars: &[char], from: usize, wanted: char) -> Option<usize> {
    chars[from..].iter().position(|c| *c == wanted).map(|found| from + found)
}

fn matching_brace(chars: &[char], from: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, c) in chars.iter().enumerate().skip(from) {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Removes the shortest or longest match of a shell pattern at the front (`#`, `##`) or the end (`%`, `%%`).
fn trim(value: &str, operator: &str, pattern: &str) -> String {
    let front = operator.starts_with('#');
    let longest = operator.starts_with("##") || operator.starts_with("%%");
    let mut cuts: Vec<usize> = value.char_indices().map(|(index, _)| index).chain([value.len()]).collect();
    // For the front a longer prefix is the later cut, for the end the earlier one.
    if longest == front {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        if crate::glob::shell_match(pattern, if front { head } else { tail }) {
            return if front { tail } else { head }.to_owned();
        }
    }
    value.to_owned()
}

fn replace(value: &str, pattern: &str, with: &str, all: bool) -> String {
    let mut out = String::new();
    let mut rest = value;
    'outer: while !rest.is_empty() {
        let ends: Vec<usize> = rest.char_indices().map(|(index, c)| index + c.len_utf8()).collect();
        for end in ends.iter().rev() {
            if crate::glob::shell_match(pattern, &rest[..*end]) {
                out.push_str(with);
                rest = &rest[*end..];
                if all {
                    continue 'outer;
                }
                break 'outer;
            }
        }
        let first = ends[0];
        out.push_str(&rest[..first]);
        rest = &rest[first..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "PATH" => Some("/usr/bin:/bin".to_owned()),
            "FILE" => Some("app.tar.gz".to_owned()),
            _ => None,
        };
        Expander { escape: '\\', lookup: &lookup }.word(text)
    }

    #[test]
    fn expansion_follows_the_dockerfile_reference() {
        for (text, want) in [
            ("$A", "one"),
            ("${A}x", "onex"),
            ("$A-x", "one-x"),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            ("$MISSING", ""),
            ("${MISSING:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+yes}", "yes"),
            ("${MISSING:+yes}", ""),
            ("${MISSING:-$A}", "one"),
            ("${MISSING:-${A}}", "one"),
            ("${FILE%.*}", "app.tar"),
            ("${FILE%%.*}", "app"),
            ("${FILE#*.}", "tar.gz"),
            ("${FILE##*.}", "gz"),
            ("${FILE/tar/zip}", "app.zip.gz"),
            ("${PATH//bin/x}", "/usr/x:/x"),
            ("/app:$PATH", "/app:/usr/bin:/bin"),
            ("a$", "a$"),
            ("$1", "$1"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn expansion_refuses_what_the_reference_refuses() {
        assert_eq!(expand("${MISSING:?set it}"), Err("MISSING: set it".to_owned()));
        assert!(expand("${A!x}").is_err());
        assert!(expand("${A").is_err());
        assert!(expand("'a").is_err());
        assert!(expand("\"a").is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "${X:-".repeat(100) + &"}".repeat(100);
        assert!(expand(&deep).is_err());
    }
}
