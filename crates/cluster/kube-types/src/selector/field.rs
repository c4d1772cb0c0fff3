//! Field selectors: `a=b,c==d,e!=f`, with `\` before a `,`, `=` or `\` that belongs to a value.

use super::SelectorError;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

/// A parsed field selector; all terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, operator, value) = split_operator(part)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equal: operator != "!=" });
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The names it uses, to be checked with [`crate::fields::is_selectable`].
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|t| t.field.as_str())
    }

    /// The value that a field must equal, if the selector pins it (`metadata.name=x` lets a list become a get).
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// A field that is not in `fields` reads as empty.
    pub fn matches<K: Borrow<str> + Ord>(&self, fields: &BTreeMap<K, String>) -> bool {
        self.terms.iter().all(|term| {
            let actual = fields.get(term.field.as_str()).map_or("", String::as_str);
            (actual == term.value) == term.equal
        })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{}{value}", if at > 0 { "," } else { "" }, term.field, if term.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

/// At commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// At the first operator.
fn split_operator(term: &str) -> Option<(&str, &str, &str)> {
    let at = term.find(['=', '!'])?;
    let operator = ["!=", "==", "="].into_iter().find(|op| term[at..].starts_with(op))?;
    Some((&term[..at], operator, &term[at + operator.len()..]))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next() {
                Some(next @ ('\\' | ',' | '=')) => next,
                Some(next) => {
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: \\{next}")));
                }
                None => {
                    return Err(SelectorError("invalid field selector: invalid escape sequence: \\".to_owned()));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {c}")));
            }
            other => other,
        };
        plain.push(c);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operators_and_escapes_are_read() {
        let selector = FieldSelector::parse(r"a=b,c==d,e!=f\,g\=h").unwrap();
        assert_eq!(selector.field_names().collect::<Vec<_>>(), ["a", "c", "e"]);
        assert_eq!(selector.required_value("a"), Some("b"));
        assert_eq!(selector.required_value("e"), None);
        assert!(selector.matches(&BTreeMap::from([("a", "b".into()), ("c", "d".into())])));
        assert!(!selector.matches(&BTreeMap::from([("a", "b".into()), ("c", "d".into()), ("e", "f,g=h".into())])));
        assert!(FieldSelector::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["a", "a,b", r"a=\x", r"a=b\", "a=b=c", "a!b"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_again_changes_nothing(terms in proptest::collection::vec(("[a-z.]{1,8}", r"[a-z,=\\]{0,6}", any::<bool>()), 0..4)) {
            let selector = FieldSelector { terms: terms.into_iter().map(|(field, value, equal)| Term { field, value, equal }).collect() };
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
