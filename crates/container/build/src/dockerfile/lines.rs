//! Physical lines → logical lines: parser directives, continuation, comments, heredocs.
//!
//! Follows the Dockerfile reference ("Parser directives", "Format", "Here-documents"). Knows no instruction.

use std::sync::LazyLock;

/// A logical line: one instruction with its continued lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// 1-based number of the first physical line.
    pub number: usize,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
}

/// A here-document that belongs to a logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Variables are expanded in it (its name was not quoted).
    pub expand: bool,
    pub content: String,
}

/// The parser directives at the top of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// Escape character: backslash or backtick.
    pub escape: char,
    pub syntax: Option<String>,
    pub check: Option<String>,
}

/// What went wrong, and on which physical line.
pub type LineError = (usize, String);

/// A Dockerfile over this is refused before it is looked at.
pub const MAX_BYTES: usize = 4 << 20;

/// Instructions that may carry heredocs.
const HEREDOC_INSTRUCTIONS: [&str; 3] = ["RUN", "COPY", "ADD"];

/// Splits a Dockerfile.
pub fn split(text: &str) -> Result<(Directives, Vec<Line>), LineError> {
    if text.len() > MAX_BYTES {
        return Err((1, format!("the file is larger than {MAX_BYTES} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let directives = directives(&physical)?;
    let mut lines = Vec::new();
    let mut at = 0;
    while at < physical.len() {
        let start = at;
        let first = physical[at];
        if is_comment(first) || first.trim().is_empty() {
            at += 1;
            continue;
        }
        let (joined, next) = join_continued(&physical, at, directives.escape);
        at = next;
        let heredocs = if takes_heredocs(&joined) { read_heredocs(&joined, &physical, &mut at)? } else { Vec::new() };
        lines.push(Line { number: start + 1, text: joined.trim().to_owned(), heredocs });
    }
    Ok((directives, lines))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Joins a line with those that it continues on; comment and blank lines between are dropped.
fn join_continued(physical: &[&str], start: usize, escape: char) -> (String, usize) {
    let mut joined = String::new();
    let mut at = start;
    while at < physical.len() {
        let line = physical[at];
        at += 1;
        if at - 1 > start && (is_comment(line) || line.trim().is_empty()) {
            continue;
        }
        let line = if joined.is_empty() { line.trim_start() } else { line };
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(head) => joined.push_str(head),
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    (joined, at)
}

fn directives(physical: &[&str]) -> Result<Directives, LineError> {
    let mut found = Directives { escape: '\\', syntax: None, check: None };
    let mut seen: Vec<String> = Vec::new();
    for (index, line) in physical.iter().enumerate() {
        let Some((name, value)) = line.trim_start().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
        match name.as_str() {
            "escape" => match value.as_str() {
                "\\" => found.escape = '\\',
                "`" => found.escape = '`',
                other => return Err((index + 1, format!("invalid escape token '{other}' does not match ` or \\"))),
            },
            "syntax" => found.syntax = Some(value),
            "check" => found.check = Some(value),
            // Not a directive: an ordinary comment, after which no directive may come.
            _ => break,
        }
        if seen.contains(&name) {
            return Err((index + 1, format!("only one {name} parser directive can be used")));
        }
        seen.push(name);
    }
    Ok(found)
}

fn takes_heredocs(line: &str) -> bool {
    let word = |text: &str| text.split_whitespace().next().map(str::to_ascii_uppercase);
    let mut first = word(line);
    if first.as_deref() == Some("ONBUILD") {
        first = line.split_whitespace().nth(1).map(str::to_ascii_uppercase);
    }
    first.is_some_and(|word| HEREDOC_INSTRUCTIONS.contains(&word.as_str()))
}

/// A heredoc's opening in a line: its name, whether tabs are stripped, whether variables are expanded.
struct Opening {
    name: String,
    strip_tabs: bool,
    expand: bool,
}

/// Finds `<<NAME`, `<<-NAME`, `<<"NAME"` outside quotes; `<<<` is a shell's own and none of ours.
fn openings(line: &str) -> Vec<Opening> {
    let chars: Vec<char> = line.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut quote) = (0, None);
    while at < chars.len() {
        let c = chars[at];
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '\\' => at += 1,
            None if c == '<' && chars.get(at + 1) == Some(&'<') => {
                if chars.get(at + 2) == Some(&'<') {
                    at += 3;
                    continue;
                }
                if let Some((opening, next)) = opening(&chars, at + 2) {
                    found.push(opening);
                    at = next;
                    continue;
                }
            }
            None => {}
        }
        at += 1;
    }
    found
}

fn opening(chars: &[char], mut at: usize) -> Option<(Opening, usize)> {
    let strip_tabs = chars.get(at) == Some(&'-');
    at += usize::from(strip_tabs);
    let quote = chars.get(at).copied().filter(|c| *c == '\'' || *c == '"');
    at += usize::from(quote.is_some());
    let start = at;
    while chars.get(at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
        || (at > start && chars.get(at).is_some_and(|c| *c == '.' || *c == '-'))
    {
        at += 1;
    }
    let name: String = chars[start..at].iter().collect();
    // `1<<2` in shell arithmetic is no heredoc: a name does not begin with a digit.
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some(quote) = quote {
        if chars.get(at) != Some(&quote) {
            return None;
        }
        at += 1;
    }
    Some((Opening { name, strip_tabs, expand: quote.is_none() }, at))
}

fn read_heredocs(line: &str, physical: &[&str], at: &mut usize) -> Result<Vec<Heredoc>, LineError> {
    let mut read = Vec::new();
    for opening in openings(line) {
        let start = *at;
        let mut content = String::new();
        loop {
            let Some(line) = physical.get(*at) else {
                return Err((start, format!("unterminated heredoc <<{}", opening.name)));
            };
            *at += 1;
            let line = if opening.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == opening.name {
                break;
            }
            content.push_str(line);
            content.push('\n');
        }
        read.push(Heredoc { name: opening.name, expand: opening.expand, content });
    }
    Ok(read)
}

/// Every instruction of the language, for "did you mean".
pub static INSTRUCTIONS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR".split(' ').collect()
});
