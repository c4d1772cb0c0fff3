//! What the functions do, those of CEL and those of Kubernetes' libraries.
//!
//! Called by the evaluator with arguments already evaluated. Each pays for what it reads or makes before it does so.

mod net;
pub(crate) mod signatures;
mod texts;
mod times;

use crate::ast::Op;
use crate::eval::{EvalError, Run, failed};
use crate::value::{Semver, Value};
use kube_types::quantity::{self, Quantity};
use std::cmp::Ordering;
use std::sync::Arc;

pub(crate) use times::{parse_duration, show_duration};

type Found<'v> = Result<Value<'v>, EvalError>;

/// Why a function did not take its arguments.
pub(crate) fn no_overload<'v>() -> Found<'v> {
    failed("no such overload")
}

pub(crate) fn call<'v>(run: &mut Run<'_, 'v>, name: &str, receiver: Option<Value<'v>>, args: Vec<Value<'v>>) -> Found<'v> {
    let weight: u64 = receiver.iter().chain(&args).map(Value::weight).fold(0, u64::saturating_add);
    run.budget.spend(1 + weight / 10)?;
    match receiver {
        None => global(run, name, &args),
        Some(receiver) => method(run, name, &receiver, &args),
    }
}

fn global<'v>(run: &mut Run<'_, 'v>, name: &str, args: &[Value<'v>]) -> Found<'v> {
    if let Some(found) = convert(name, args)? {
        return Ok(found);
    }
    if let Some(format) = name.strip_prefix("format.") {
        return Ok(match (format, args) {
            ("named", [Value::String(wanted)]) => {
                let found = signatures::FORMATS.iter().find(|own| **own == wanted.as_ref());
                Value::Optional(found.map(|own| Arc::new(Value::Format(own))))
            }
            _ => match signatures::FORMATS.iter().find(|own| **own == format) {
                Some(own) => Value::Format(own),
                None => return no_overload(),
            },
        });
    }
    match (name, args) {
        ("size", [value]) => size(value),
        ("matches", [Value::String(text), Value::String(pattern)]) => texts::matches(run, text, pattern),
        ("jsonpatch.escapeKey", [Value::String(text)]) => Ok(Value::text(&text.replace('~', "~0").replace('/', "~1"))),
        ("strings.quote", [Value::String(text)]) => Ok(Value::text(&format!("{text:?}"))),
        ("url" | "isURL" | "ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR", [Value::String(text)]) => {
            net::global(name, text)
        }
        ("quantity", [Value::String(text)]) => match quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(error) => failed(error.to_string()),
        },
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(quantity::parse(text).is_ok())),
        ("semver" | "isSemver", [Value::String(text), rest @ ..]) => {
            let normalize = matches!(rest, [Value::Bool(true)]);
            match (parse_semver(text, normalize), name) {
                (found, "isSemver") => Ok(Value::Bool(found.is_some())),
                (Some(found), _) => Ok(Value::Semver(Arc::new(found))),
                (None, _) => failed(format!("semver parse error on conversion: invalid version {text:?}")),
            }
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => sets(run, name, a, b),
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = match value {
                Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) => true,
                Value::Double(value) => *value == 0.0,
                other => other.size() == Some(0),
            };
            Ok(if zero { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        _ => no_overload(),
    }
}

fn convert<'v>(name: &str, args: &[Value<'v>]) -> Result<Option<Value<'v>>, EvalError> {
    let [value] = args else { return Ok(None) };
    let bad = |what: &str| failed(format!("type conversion error from '{}' to '{what}'", value.type_name()));
    let made = match (name, value) {
        ("dyn", value) => value.clone(),
        ("type", value) => Value::Type(value.type_name().into()),
        ("int", Value::Int(_)) | ("uint", Value::Uint(_)) | ("double", Value::Double(_)) => value.clone(),
        ("string", Value::String(_)) | ("bytes", Value::Bytes(_)) | ("bool", Value::Bool(_)) => value.clone(),
        ("timestamp", Value::Timestamp(_)) | ("duration", Value::Duration(_)) => value.clone(),
        ("int", Value::Uint(n)) => return i64::try_from(*n).map(|n| Some(Value::Int(n))).or_else(|_| failed("integer overflow")),
        ("int", Value::Double(n)) if n.abs() < 9.2e18 => Value::Int(*n as i64),
        ("int", Value::Double(_)) => return failed("integer overflow"),
        ("int", Value::String(text)) => return text.parse().map(|n| Some(Value::Int(n))).or_else(|_| bad("int")),
        ("int", Value::Timestamp(at)) => Value::Int(at.as_second()),
        ("uint", Value::Int(n)) => return u64::try_from(*n).map(|n| Some(Value::Uint(n))).or_else(|_| failed("unsigned integer overflow")),
        ("uint", Value::Double(n)) if *n >= 0.0 && *n < 1.8e19 => Value::Uint(*n as u64),
        ("uint", Value::Double(_)) => return failed("unsigned integer overflow"),
        ("uint", Value::String(text)) => return text.parse().map(|n| Some(Value::Uint(n))).or_else(|_| bad("uint")),
        ("double", Value::Int(n)) => Value::Double(*n as f64),
        ("double", Value::Uint(n)) => Value::Double(*n as f64),
        ("double", Value::String(text)) => return text.parse().map(|n| Some(Value::Double(n))).or_else(|_| bad("double")),
        ("bool", Value::String(text)) => match text.as_ref() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
            _ => return bad("bool"),
        },
        ("bytes", Value::String(text)) => Value::Bytes(text.as_bytes().into()),
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("string", other) => match texts::shown(other) {
            Some(text) => Value::text(&text),
            None => return bad("string"),
        },
        ("timestamp", Value::String(text)) => match kube_types::time::parse(text) {
            Some(at) => Value::Timestamp(at),
            None => return bad("google.protobuf.Timestamp"),
        },
        ("timestamp", Value::Int(seconds)) => match jiff::Timestamp::from_second(*seconds) {
            Ok(at) => Value::Timestamp(at),
            Err(_) => return failed("timestamp overflow"),
        },
        ("duration", Value::String(text)) => match parse_duration(text) {
            Some(nanos) => Value::Duration(nanos),
            None => return bad("google.protobuf.Duration"),
        },
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn size<'v>(value: &Value<'v>) -> Found<'v> {
    match value.size() {
        Some(size) => Ok(Value::Int(size as i64)),
        None => no_overload(),
    }
}

fn method<'v>(run: &mut Run<'_, 'v>, name: &str, receiver: &Value<'v>, args: &[Value<'v>]) -> Found<'v> {
    if name == "size" && args.is_empty() {
        return size(receiver);
    }
    match receiver {
        Value::String(text) => texts::method(run, name, text, args),
        Value::Timestamp(at) => times::of_timestamp(name, *at, args),
        Value::Duration(nanos) => times::of_duration(name, *nanos),
        Value::Quantity(quantity) => of_quantity(name, *quantity, args),
        Value::Ip(_) | Value::Cidr(..) | Value::Url(_) => net::method(name, receiver, args),
        Value::Semver(version) => of_semver(name, version, args),
        Value::Format(format) => match (name, args) {
            ("validate", [Value::String(text)]) => Ok(texts::validate_format(format, text)),
            _ => no_overload(),
        },
        Value::Optional(inner) => of_optional(name, inner.as_deref(), args),
        Value::Authorizer(parts) => ask(run, name, parts, args),
        Value::Decision(allowed, reason) => match name {
            "allowed" => Ok(Value::Bool(*allowed)),
            "reason" => Ok(Value::String(Arc::clone(reason))),
            "errored" => Ok(Value::Bool(false)),
            "error" => Ok(Value::text("")),
            _ => no_overload(),
        },
        other => match other.items() {
            Some(items) => of_list(run, name, items, args),
            None => no_overload(),
        },
    }
}

fn of_optional<'v>(name: &str, inner: Option<&Value<'v>>, args: &[Value<'v>]) -> Found<'v> {
    match (name, inner, args) {
        ("hasValue", inner, []) => Ok(Value::Bool(inner.is_some())),
        ("value" | "orValue", Some(value), _) => Ok(value.clone()),
        ("value", None, []) => failed("optional.none() dereference"),
        ("or", Some(value), _) => Ok(Value::some(value.clone())),
        ("or" | "orValue", None, [other]) => Ok(other.clone()),
        _ => no_overload(),
    }
}

/// Puts a question to the authoriser together, or asks it.
fn ask<'v>(run: &mut Run<'_, 'v>, name: &str, parts: &[(&'static str, String)], args: &[Value<'v>]) -> Found<'v> {
    const PARTS: [&str; 8] =
        ["path", "group", "resource", "subresource", "namespace", "name", "fieldSelector", "labelSelector"];
    let texts: Vec<String> = args.iter().filter_map(|arg| if let Value::String(text) = arg { Some(text.to_string()) } else { None }).collect();
    let mut parts = parts.to_vec();
    match (name, texts.as_slice()) {
        ("serviceAccount", [namespace, account]) => {
            parts.push(("user", format!("system:serviceaccount:{namespace}:{account}")));
            Ok(Value::Authorizer(Arc::new(parts)))
        }
        ("check", [verb]) => {
            // Asking costs what it costs kube-apiserver's estimate: a third of a million steps.
            run.budget.spend(350_000)?;
            let Some(host) = run.host else { return failed("no authorizer") };
            parts.push(("verb", verb.clone()));
            let (allowed, reason) = host.authorized(&parts);
            Ok(Value::Decision(allowed, reason.into()))
        }
        (name, [text]) => match PARTS.iter().find(|own| **own == name) {
            Some(part) => {
                parts.push((part, text.clone()));
                Ok(Value::Authorizer(Arc::new(parts)))
            }
            None => no_overload(),
        },
        _ => no_overload(),
    }
}

fn of_list<'v>(run: &mut Run<'_, 'v>, name: &str, items: Vec<Value<'v>>, args: &[Value<'v>]) -> Found<'v> {
    run.budget.spend(items.len() as u64)?;
    let at = |found: Option<usize>| Ok(Value::Int(found.map_or(-1, |at| at as i64)));
    match (name, args) {
        ("join", rest) => texts::join(run, &items, rest),
        ("isSorted", []) => {
            let sorted = items.windows(2).all(|pair| pair[0].compare(&pair[1]) != Some(Ordering::Greater));
            Ok(Value::Bool(sorted))
        }
        ("sum", []) => {
            let Some(first) = items.first().cloned() else { return Ok(Value::Int(0)) };
            items.into_iter().skip(1).try_fold(first, |all, item| arithmetic(Op::Add, all, item))
        }
        ("min" | "max", []) => {
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let best = items.into_iter().reduce(|a, b| if b.compare(&a) == Some(wanted) { b } else { a });
            best.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
        }
        ("indexOf", [item]) => at(items.iter().position(|own| own.equals(item))),
        ("lastIndexOf", [item]) => at(items.iter().rposition(|own| own.equals(item))),
        ("reverse", []) => Ok(Value::list(items.into_iter().rev().collect())),
        ("distinct", []) => {
            let mut all: Vec<Value<'v>> = Vec::new();
            for item in items {
                run.budget.spend(1 + all.len() as u64)?;
                if !all.iter().any(|own| own.equals(&item)) {
                    all.push(item);
                }
            }
            Ok(Value::list(all))
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| items.get(from..to)) {
                Some(part) => Ok(Value::list(part.to_vec())),
                None => failed(format!("cannot slice({from}, {to}), list is length {}", items.len())),
            }
        }
        ("sort", []) => {
            let mut sorted = items;
            sorted.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Ok(Value::list(sorted))
        }
        ("flatten", []) => {
            Ok(Value::list(items.into_iter().flat_map(|item| item.items().unwrap_or_else(|| vec![item])).collect()))
        }
        _ => no_overload(),
    }
}

fn sets<'v>(run: &mut Run<'_, 'v>, name: &str, a: &Value<'v>, b: &Value<'v>) -> Found<'v> {
    let (Some(a), Some(b)) = (a.items(), b.items()) else { return no_overload() };
    run.budget.spend((a.len() as u64).saturating_mul(b.len() as u64))?;
    let within = |part: &[Value<'v>], all: &[Value<'v>]| part.iter().all(|item| all.iter().any(|own| own.equals(item)));
    Ok(Value::Bool(match name {
        "sets.contains" => within(&b, &a),
        "sets.equivalent" => within(&b, &a) && within(&a, &b),
        _ => b.is_empty() && a.is_empty() || a.iter().any(|item| b.iter().any(|own| own.equals(item))),
    }))
}

fn of_quantity<'v>(name: &str, own: Quantity, args: &[Value<'v>]) -> Found<'v> {
    let other = match args {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(units)] => Some(Quantity::from_units(*units, own.format())),
        _ => None,
    };
    Ok(match (name, other) {
        ("isInteger", None) => Value::Bool(own.is_integer()),
        ("asInteger", None) if own.is_integer() => Value::Int(own.value()),
        ("asInteger", None) => return failed("cannot convert value to integer"),
        ("asApproximateFloat", None) => Value::Double(own.as_f64()),
        ("sign", None) => Value::Int(if own.is_zero() { 0 } else if own.is_negative() { -1 } else { 1 }),
        ("add", Some(other)) => Value::Quantity(own + other),
        ("sub", Some(other)) => Value::Quantity(own - other),
        ("isLessThan", Some(other)) => Value::Bool(own < other),
        ("isGreaterThan", Some(other)) => Value::Bool(own > other),
        ("compareTo", Some(other)) => Value::Int(order(own.partial_cmp(&other))),
        _ => return no_overload(),
    })
}

fn order(order: Option<Ordering>) -> i64 {
    order.map_or(0, |order| order as i64)
}

fn parse_semver(text: &str, normalize: bool) -> Option<Semver> {
    let text = if normalize { text.trim_start_matches(['v', 'V']) } else { text };
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if ![pre, build].into_iter().flatten().all(|parts| parts.split('.').all(word)) {
        return None;
    }
    let mut found: Vec<u64> = Vec::new();
    for part in numbers.split('.') {
        let padded = part.len() > 1 && part.starts_with('0') && !normalize;
        found.push(part.parse().ok().filter(|_| !padded && part.chars().all(|c| c.is_ascii_digit()))?);
    }
    while normalize && found.len() < 3 {
        found.push(0);
    }
    Some(Semver { numbers: found.try_into().ok()?, pre: pre.unwrap_or_default().to_owned() })
}

fn of_semver<'v>(name: &str, own: &Semver, args: &[Value<'v>]) -> Found<'v> {
    let compared = match args {
        [other @ Value::Semver(_)] => {
            let own = Value::Semver(Arc::new(Semver { numbers: own.numbers, pre: own.pre.clone() }));
            own.compare(other)
        }
        _ => None,
    };
    Ok(match (name, compared) {
        ("major", None) => Value::Int(own.numbers[0] as i64),
        ("minor", None) => Value::Int(own.numbers[1] as i64),
        ("patch", None) => Value::Int(own.numbers[2] as i64),
        ("compareTo", Some(found)) => Value::Int(order(Some(found))),
        ("isLessThan", Some(found)) => Value::Bool(found == Ordering::Less),
        ("isGreaterThan", Some(found)) => Value::Bool(found == Ordering::Greater),
        _ => return no_overload(),
    })
}

pub(crate) fn arithmetic<'v>(op: Op, a: Value<'v>, b: Value<'v>) -> Found<'v> {
    if let (Op::Add, Some(left), Some(right)) = (op, a.items(), b.items()) {
        return Ok(Value::list(left.into_iter().chain(right).collect()));
    }
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => integers(op, a, b),
        (Value::Uint(a), Value::Uint(b)) => unsigned(op, a, b),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match op {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            _ => return no_overload(),
        })),
        (Value::String(a), Value::String(b)) if op == Op::Add => Ok(Value::text(&format!("{a}{b}"))),
        (Value::Bytes(a), Value::Bytes(b)) if op == Op::Add => Ok(Value::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        (a, b) => times::arithmetic(op, &a, &b),
    }
}

fn integers<'v>(op: Op, a: i64, b: i64) -> Found<'v> {
    let found = match op {
        Op::Add => a.checked_add(b),
        Op::Sub => a.checked_sub(b),
        Op::Mul => a.checked_mul(b),
        Op::Div if b == 0 => return failed("division by zero"),
        Op::Div => a.checked_div(b),
        Op::Rem if b == 0 => return failed("modulus by zero"),
        Op::Rem => a.checked_rem(b),
        _ => return no_overload(),
    };
    found.map_or_else(|| failed("integer overflow"), |value| Ok(Value::Int(value)))
}

fn unsigned<'v>(op: Op, a: u64, b: u64) -> Found<'v> {
    let found = match op {
        Op::Add => a.checked_add(b),
        Op::Sub => a.checked_sub(b),
        Op::Mul => a.checked_mul(b),
        Op::Div if b == 0 => return failed("division by zero"),
        Op::Div => a.checked_div(b),
        Op::Rem if b == 0 => return failed("modulus by zero"),
        Op::Rem => a.checked_rem(b),
        _ => return no_overload(),
    };
    found.map_or_else(|| failed("unsigned integer overflow"), |value| Ok(Value::Uint(value)))
}
