//! A logical line's words: flags, JSON arrays, `name=value` pairs. Nothing is expanded here.

/// A flag before an instruction's arguments: `--name=value` or `--name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    /// `None` for a bare `--name`.
    pub value: Option<String>,
}

/// Takes the flags off the front of an instruction's arguments.
pub fn take_flags(mut rest: &str) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(tail) = rest.strip_prefix("--") else { return (flags, rest) };
        let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        // A lone `--` ends the flags.
        if word.is_empty() {
            return (flags, after.trim_start());
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
        flags.push(Flag { name, value });
        rest = after;
    }
}

/// The exec form: a JSON array of strings. `None` where the text is not one, which makes it the shell form.
pub fn json_array(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str::<Vec<String>>(text).ok()
}

/// Splits at white space outside quotes; quotes and escapes stay in the words (expansion removes them).
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// ENV's and LABEL's arguments: `a=b c="d e"`, or the legacy `a rest of the line`.
pub fn pairs(text: &str, escape: char, instruction: &str) -> Result<Vec<(String, String)>, String> {
    let words = split(text, escape);
    let Some(first) = words.first() else { return Err(format!("{instruction} requires at least one argument")) };
    if !first.contains('=') {
        let (name, value) =
            text.trim().split_once(char::is_whitespace).ok_or(format!("{instruction} must have two arguments"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            let (name, value) = word
                .split_once('=')
                .ok_or(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))?;
            if name.is_empty() {
                return Err(format!("{instruction} names can not be blank"));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}
