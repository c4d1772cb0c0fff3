//! Kubernetes' protobuf form, read into JSON values; `encode` writes it. Typed Go clients (`kubectl create configmap`, helm,
//! controllers) write so and prefer to read so.
//!
//! `protobuf/fields.txt` says which field number is which JSON field: `=TYPE` opens a message, a line is
//! `NUMBER NAME SHAPE`, with `[` before a repeated shape, `{` before a map's value, `@` before a message, `^` before one
//! that JSON writes into its parent, `*` for a wrapped list of strings, and `!` after a required field. It was taken from the
//! field numbers that Kubernetes publishes.
//!
//! Invariant: no input makes this panic, recurse deeper than [`MAX_DEPTH`], or take more memory than a small multiple of
//! the input. Unknown fields are skipped, as protobuf wants it.

pub(crate) mod encode;
mod wire;

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kube_types::time;
use serde_json::{Map, Number, Value};

use wire::{Field, Reader, WireError};

pub(crate) const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;

static FIELDS: &str = include_str!("protobuf/fields.txt");

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    #[error("the body does not begin with the magic number of Kubernetes' protobuf form")]
    Magic,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("proto: {0}")]
    Wire(#[from] WireError),
    #[error("proto: nested too deeply")]
    Depth,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    Bool,
    Int,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// JSON in a wrapper.
    Raw,
    /// A message that is nothing but a list of strings.
    Strings,
    Message(&'static str),
    Inline(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Repeated,
    Map,
}

struct Known {
    name: &'static str,
    shape: Shape,
    count: Count,
    required: bool,
}

type Message = HashMap<u32, Known>;

/// Fields that Go holds by pointer: a zero that is written was meant. Any other zero is merely "not set".
const MEANT_ZEROS: [&str; 62] = [
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "manualSelector",
    "maxFailedIndexes",
    "minReplicas",
    "minReadySeconds",
    "mode",
    "nodeInclusionPolicy",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "podInfoOnMount",
    "port",
    "priority",
    "privileged",
    "procMount",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "startingDeadlineSeconds",
    "storageCapacity",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "timeoutSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "volumeName",
];

fn messages() -> &'static HashMap<&'static str, Message> {
    static MESSAGES: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let mut messages: HashMap<&'static str, Message> = HashMap::new();
        let mut current = "";
        for line in FIELDS.lines() {
            if let Some(name) = line.strip_prefix('=') {
                current = name;
                messages.entry(name).or_default();
            } else if let Some((number, known)) = parse_line(line)
                && let Some(message) = messages.get_mut(current)
            {
                message.insert(number, known);
            }
        }
        messages
    })
}

fn parse_line(line: &'static str) -> Option<(u32, Known)> {
    let mut words = line.split(' ');
    let (number, name, shape) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (shape, required) = shape.strip_suffix('!').map_or((shape, false), |shape| (shape, true));
    let (shape, count) = match shape.as_bytes().first()? {
        b'[' => (&shape[1..], Count::Repeated),
        b'{' => (&shape[1..], Count::Map),
        _ => (shape, Count::One),
    };
    let shape = match shape {
        "string" => Shape::Text,
        "bool" => Shape::Bool,
        "int32" | "int64" => Shape::Int,
        "bytes" => Shape::Bytes,
        "quantity" => Shape::Quantity,
        "intorstring" => Shape::IntOrString,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "raw" => Shape::Raw,
        "*" => Shape::Strings,
        other => match other.strip_prefix('^') {
            Some(inline) => Shape::Inline(inline),
            None => Shape::Message(other.strip_prefix('@')?),
        },
    };
    Some((number, Known { name, shape, count, required }))
}

/// The message of a kind: `apps/v1 Deployment` is `apps.v1.Deployment`.
fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    let own = format!("{group}.{version}.{kind}");
    let of_all_groups = format!("meta:{kind}");
    let name = [own, of_all_groups].into_iter().find_map(|name| messages().get_key_value(name.as_str()));
    name.map(|(name, _)| *name)
}

/// Whether objects of the kind can be written as protobuf.
pub(crate) fn knows(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

/// The object in a body: its envelope names the kind, the rest is the object's message.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for entry in Reader::new(envelope) {
        match entry? {
            (1, Field::Bytes(type_meta)) => {
                for entry in Reader::new(type_meta) {
                    match entry? {
                        (1, Field::Bytes(text)) => api_version = text_of(text),
                        (2, Field::Bytes(text)) => kind = text_of(text),
                        _ => {}
                    }
                }
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let Some(message) = message_of(&api_version, &kind) else {
        return Err(ProtobufError::Kind { api_version, kind });
    };
    let mut object = Map::new();
    read_message(message, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_message(name: &str, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let Some(message) = messages().get(name) else {
        return Ok(());
    };
    for entry in Reader::new(bytes) {
        let (number, field) = entry?;
        let Some(known) = message.get(&number) else {
            continue;
        };
        if let (Shape::Inline(inner), Field::Bytes(bytes)) = (known.shape, field) {
            read_message(inner, bytes, into, depth + 1)?;
            continue;
        }
        read_field(known, field, into, depth)?;
    }
    Ok(())
}

fn read_field(
    known: &Known,
    field: Field<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match known.count {
        Count::One => {
            let Some(value) = read_value(known.shape, field, depth)? else {
                return Ok(());
            };
            if known.required || !is_zero(&value) || MEANT_ZEROS.contains(&known.name) {
                into.insert(known.name.to_owned(), value);
            }
        }
        Count::Repeated => {
            let list = into.entry(known.name).or_insert_with(|| Value::Array(Vec::new()));
            if let (Value::Array(list), Some(value)) = (list, read_value(known.shape, field, depth)?) {
                list.push(value);
            }
        }
        Count::Map => {
            let Field::Bytes(entry) = field else {
                return Ok(());
            };
            let (mut key, mut value) = (String::new(), None);
            for part in Reader::new(entry) {
                match part? {
                    (1, Field::Bytes(text)) => key = text_of(text),
                    (2, field) => value = read_value(known.shape, field, depth)?,
                    _ => {}
                }
            }
            let map = into.entry(known.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value.unwrap_or_else(|| Value::String(String::new())));
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// One value; `None` for one that says nothing (an unset time) or is of another wire type than it should be.
fn read_value(shape: Shape, field: Field<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(match (shape, field) {
        (Shape::Text, Field::Bytes(bytes)) => Some(text_of(bytes).into()),
        (Shape::Bytes, Field::Bytes(bytes)) => Some(BASE64.encode(bytes).into()),
        (Shape::Bool, Field::Varint(number)) => Some((number != 0).into()),
        (Shape::Int, Field::Varint(number)) => Some(Value::Number(Number::from(number.cast_signed()))),
        (Shape::Message(name), Field::Bytes(bytes)) => {
            let mut object = Map::new();
            read_message(name, bytes, &mut object, depth + 1)?;
            Some(Value::Object(object))
        }
        (Shape::Quantity, Field::Bytes(bytes)) => first_text(bytes, 1)?.map(Value::String),
        (Shape::Raw, Field::Bytes(bytes)) => first_text(bytes, 1)?.and_then(|text| serde_json::from_str(&text).ok()),
        (Shape::Strings, Field::Bytes(bytes)) => {
            let mut list = Vec::new();
            for entry in Reader::new(bytes) {
                if let (1, Field::Bytes(text)) = entry? {
                    list.push(Value::String(text_of(text)));
                }
            }
            Some(Value::Array(list))
        }
        (Shape::IntOrString, Field::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Shape::Time, Field::Bytes(bytes)) => timestamp(bytes)?.map(|at| time::rfc3339(at).into()),
        (Shape::MicroTime, Field::Bytes(bytes)) => timestamp(bytes)?.map(|at| time::rfc3339_micro(at).into()),
        _ => None,
    })
}

fn first_text(bytes: &[u8], wanted: u32) -> Result<Option<String>, ProtobufError> {
    for entry in Reader::new(bytes) {
        match entry? {
            (number, Field::Bytes(text)) if number == wanted => return Ok(Some(text_of(text))),
            _ => {}
        }
    }
    Ok(None)
}

/// 1: which of the two it is, 2: the number, 3: the text.
fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for entry in Reader::new(bytes) {
        match entry? {
            (1, Field::Varint(kind)) => is_text = kind == 1,
            (2, Field::Varint(value)) => number = value.cast_signed(),
            (3, Field::Bytes(value)) => text = text_of(value),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// 1: seconds, 2: nanoseconds. An empty message is a time that is not set.
fn timestamp(bytes: &[u8]) -> Result<Option<Timestamp>, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for entry in Reader::new(bytes) {
        match entry? {
            (1, Field::Varint(value)) => seconds = Some(value.cast_signed()),
            (2, Field::Varint(value)) => nanoseconds = i32::try_from(value).unwrap_or(0),
            _ => {}
        }
    }
    Ok(seconds.and_then(|seconds| Timestamp::new(seconds, nanoseconds).ok()))
}

#[cfg(test)]
mod tests;
