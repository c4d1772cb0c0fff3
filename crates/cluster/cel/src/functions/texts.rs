//! Functions of texts: searching, cutting, patterns, `format`.

use super::{Found, no_overload, signatures, times};
use crate::eval::{Run, failed};
use crate::value::Value;
use regex::Regex;
use std::sync::Arc;

/// The memory that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

fn pattern(run: &mut Run<'_, '_>, text: &str) -> Result<Regex, crate::eval::EvalError> {
    run.budget.spend(text.len() as u64)?;
    regex::RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .or_else(|error| failed(format!("error parsing regexp: {}", error.to_string().replace('\n', " "))))
}

pub(super) fn matches<'v>(run: &mut Run<'_, 'v>, text: &str, wanted: &str) -> Found<'v> {
    Ok(Value::Bool(pattern(run, wanted)?.is_match(text)))
}

/// As `string()` gives it; `None` for what has no text.
pub(super) fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanos) => times::show_duration(*nanos),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(address, bits) => format!("{address}/{bits}"),
        Value::Quantity(quantity) => quantity.to_string(),
        _ => return None,
    })
}

fn int<'v>(found: Option<usize>) -> Found<'v> {
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn strings<'v>(parts: impl Iterator<Item = String>) -> Value<'v> {
    Value::list(parts.map(|part| Value::text(&part)).collect())
}

pub(super) fn method<'v>(run: &mut Run<'_, 'v>, name: &str, text: &Arc<str>, args: &[Value<'v>]) -> Found<'v> {
    match (name, args) {
        ("contains", [Value::String(part)]) => Ok(Value::Bool(text.contains(part.as_ref()))),
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(text.starts_with(part.as_ref()))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(text.ends_with(part.as_ref()))),
        ("matches", [Value::String(wanted)]) => matches(run, text, wanted),
        ("find", [Value::String(wanted)]) => {
            let found = pattern(run, wanted)?.find(text).map_or("", |found| found.as_str());
            Ok(Value::text(found))
        }
        ("findAll", [Value::String(wanted), limit @ ..]) => {
            let most = if let [Value::Int(most)] = limit { usize::try_from(*most).unwrap_or(usize::MAX) } else { usize::MAX };
            let pattern = pattern(run, wanted)?;
            Ok(strings(pattern.find_iter(text).take(most).map(|found| found.as_str().to_owned())))
        }
        ("lowerAscii", []) => Ok(Value::text(&text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(&text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("reverse", []) => Ok(Value::text(&text.chars().rev().collect::<String>())),
        ("charAt", [Value::Int(at)]) => char_at(text, *at),
        ("indexOf" | "lastIndexOf", [Value::String(part), rest @ ..]) => index_of(name, text, part, rest),
        ("replace", [Value::String(from), Value::String(to), rest @ ..]) => {
            let count = text.matches(from.as_ref()).count() as u64;
            run.budget.spend(count.saturating_mul(to.len() as u64))?;
            Ok(Value::text(&match rest {
                [Value::Int(most)] if *most >= 0 => text.replacen(from.as_ref(), to, *most as usize),
                _ => text.replace(from.as_ref(), to),
            }))
        }
        ("split", [Value::String(by), rest @ ..]) => split(text, by, rest),
        ("substring", [Value::Int(from), rest @ ..]) => substring(text, *from, rest),
        ("format", [list]) => match list.items() {
            Some(items) => format(text, &items),
            None => no_overload(),
        },
        _ => no_overload(),
    }
}

fn char_at<'v>(text: &str, at: i64) -> Found<'v> {
    let length = text.chars().count();
    match usize::try_from(at) {
        Ok(at) if at < length => Ok(Value::text(&text.chars().skip(at).take(1).collect::<String>())),
        Ok(at) if at == length => Ok(Value::text("")),
        _ => failed(format!("index out of range: {at}")),
    }
}

fn index_of<'v>(name: &str, text: &str, part: &str, rest: &[Value<'v>]) -> Found<'v> {
    let chars: Vec<char> = text.chars().collect();
    let wanted: Vec<char> = part.chars().collect();
    let last = chars.len().saturating_sub(wanted.len());
    let bound = match rest {
        [Value::Int(at)] => match usize::try_from(*at) {
            Ok(at) if at <= chars.len() => Some(at),
            _ => return failed(format!("index out of range: {at}")),
        },
        _ => None,
    };
    if wanted.len() > chars.len() {
        return int(None);
    }
    let here = |at: &usize| chars[*at..].starts_with(&wanted);
    if name == "indexOf" {
        return int((bound.unwrap_or(0)..=last).find(here));
    }
    int((0..=bound.unwrap_or(last).min(last)).rev().find(here))
}

fn split<'v>(text: &str, by: &str, rest: &[Value<'v>]) -> Found<'v> {
    let most = if let [Value::Int(most)] = rest { *most } else { -1 };
    let own = |part: &str| part.to_owned();
    Ok(match (most, by.is_empty()) {
        (0, _) => Value::list(Vec::new()),
        (_, true) => {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let chars: Vec<char> = text.chars().collect();
            let single = chars.len().min(most.saturating_sub(1));
            let tail: String = chars[single..].iter().collect();
            strings(chars[..single].iter().map(char::to_string).chain((!tail.is_empty()).then_some(tail)))
        }
        (most, false) if most > 0 => strings(text.splitn(most as usize, by).map(own)),
        _ => strings(text.split(by).map(own)),
    })
}

fn substring<'v>(text: &str, from: i64, rest: &[Value<'v>]) -> Found<'v> {
    let length = text.chars().count() as i64;
    let to = if let [Value::Int(to)] = rest { *to } else { length };
    if from < 0 || from > length || to < 0 || to > length {
        let at = if from < 0 || from > length { from } else { to };
        return failed(format!("index out of range: {at}"));
    }
    if from > to {
        return failed(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(Value::text(&text.chars().skip(from as usize).take((to - from) as usize).collect::<String>()))
}

pub(super) fn join<'v>(run: &mut Run<'_, 'v>, items: &[Value<'v>], args: &[Value<'v>]) -> Found<'v> {
    let by = match args {
        [] => "",
        [Value::String(by)] => by.as_ref(),
        _ => return no_overload(),
    };
    run.budget.spend((by.len() as u64).saturating_mul(items.len() as u64) / 10)?;
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        let Value::String(text) = item else { return no_overload() };
        parts.push(text.as_ref());
    }
    Ok(Value::text(&parts.join(by)))
}

/// `"%s and %d".format([…])`
fn format<'v>(template: &str, items: &[Value<'v>]) -> Found<'v> {
    let mut out = String::new();
    let mut next = items.iter();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.strip_prefix('.').map_or(0, |after| after.chars().take_while(char::is_ascii_digit).count());
        let precision = if digits > 0 { rest[1..=digits].parse::<usize>().ok().filter(|n| *n <= 100) } else { None };
        if digits > 0 {
            rest = &rest[digits + 1..];
        }
        let Some(verb) = rest.chars().next() else { return failed("unexpected end of string") };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = next.next() else { return failed("index out of range") };
        let number = match value {
            Value::Int(n) => Some(*n as f64),
            Value::Uint(n) => Some(*n as f64),
            Value::Double(n) => Some(*n),
            _ => None,
        };
        match (verb, value, number) {
            ('s', value, _) => out.push_str(&any(value)),
            ('d', Value::Int(_) | Value::Uint(_), _) => out.push_str(&any(value)),
            ('f', _, Some(n)) => out.push_str(&format!("{n:.*}", precision.unwrap_or(6))),
            ('e', _, Some(n)) => out.push_str(&format!("{n:.*e}", precision.unwrap_or(6))),
            ('b', Value::Int(n), _) => out.push_str(&format!("{n:b}")),
            ('b', Value::Bool(b), _) => out.push(if *b { '1' } else { '0' }),
            ('o', Value::Int(n), _) => out.push_str(&format!("{n:o}")),
            ('x', Value::Int(n), _) => out.push_str(&format!("{n:x}")),
            ('X', Value::Int(n), _) => out.push_str(&format!("{n:X}")),
            ('x', Value::String(text), _) => text.bytes().for_each(|b| out.push_str(&format!("{b:02x}"))),
            _ => return failed(format!("unrecognized formatting clause \"{verb}\"")),
        }
    }
    out.push_str(rest);
    Ok(Value::text(&out))
}

/// Any value as `%s` shows it.
fn any(value: &Value<'_>) -> String {
    if let Some(text) = shown(value) {
        return text;
    }
    if let Some(items) = value.items() {
        return format!("[{}]", items.iter().map(any).collect::<Vec<_>>().join(", "));
    }
    if let Some(entries) = value.entries() {
        let pairs: Vec<String> = entries.iter().map(|(key, value)| format!("{}: {}", any(key), any(value))).collect();
        return format!("{{{}}}", pairs.join(", "));
    }
    match value {
        Value::Type(name) => name.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => "null".to_owned(),
    }
}

/// `format.X().validate(text)`: none when it is valid, else what is wrong.
pub(super) fn validate_format<'v>(format: &str, text: &str) -> Value<'v> {
    use kube_types::names;
    debug_assert!(signatures::FORMATS.contains(&format));
    let prefix = |rule: fn(&str) -> Vec<String>| rule(&format!("{}a", text.trim_end_matches('-')));
    let problems = match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "dns1123LabelPrefix" => prefix(names::dns1123_label),
        "dns1123SubdomainPrefix" => prefix(names::dns1123_subdomain),
        "dns1035LabelPrefix" => prefix(names::dns1035_label),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        other if kube_types::custom::has_format(other, text) => Vec::new(),
        "uri" => vec!["invalid URI".to_owned()],
        "uuid" => vec!["does not match the UUID format".to_owned()],
        "byte" => vec!["invalid base64".to_owned()],
        "date" => vec!["invalid date".to_owned()],
        "datetime" => vec!["invalid datetime".to_owned()],
        other => vec![format!("invalid {other}")],
    };
    if problems.is_empty() { Value::Optional(None) } else { Value::some(strings(problems.into_iter())) }
}
