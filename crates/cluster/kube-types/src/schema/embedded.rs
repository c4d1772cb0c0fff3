//! Reads the embedded schema text into types, once.
//!
//! The format (see `generate/main.rs`): `=TYPE attributes` opens a type, each further line is `FIELD SHAPE attributes`.
//! A shape is a word, `[` and a shape for a list, `{` and a shape for a map, or `@` and a type's name.

use super::{FieldDef, ListShape, MapShape, MergeBy, Node, Relation, Schema, Shape, TypeDef, TypeId};
use std::collections::HashMap;
use std::sync::OnceLock;

static TEXT: &str = include_str!("../../schema/schema.txt");
static DESCRIPTIONS: &str = include_str!("../../schema/descriptions.txt");

/// Type of a resource of which only the metadata is known. Sorts after `io.k8s…`, so the table stays in order.
const OPEN: &str = "=open\napiVersion string\nkind string\nmetadata @io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta\n";

/// All built-in types, sorted by name. Its root is the open resource.
pub fn builtin() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| load(&[TEXT, OPEN]))
}

/// The root of one built-in resource's type.
pub(super) fn root_of(name: &str) -> Option<Node<'static>> {
    static ROOTS: OnceLock<Vec<Shape>> = OnceLock::new();
    let schema = builtin();
    let roots = ROOTS.get_or_init(|| {
        (0..schema.types.len()).map(|at| Shape::Struct { id: TypeId(at as u32), atomic: None }).collect()
    });
    schema.position(name).map(|at| Node { schema, shape: &roots[at] })
}

/// Short descriptions for `kubectl explain`: type name → (its own, field → text). Made anew on each call, because it is
/// wanted once per OpenAPI document and would otherwise stay in memory.
pub fn descriptions() -> HashMap<&'static str, (&'static str, HashMap<&'static str, &'static str>)> {
    let mut found = HashMap::new();
    let mut current = "";
    for line in DESCRIPTIONS.lines() {
        let (head, text) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(name) = head.strip_prefix('=') {
            current = name;
            found.insert(name, (text, HashMap::new()));
        } else if let Some((_, fields)) = found.get_mut(current) {
            fields.insert(head, text);
        }
    }
    found
}

fn load(texts: &[&'static str]) -> Schema {
    let names: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix('='))
        .map(|line| line.split(' ').next().unwrap_or(line))
        .collect();
    let ids: HashMap<&str, u32> = names.iter().zip(0u32..).map(|(name, id)| (*name, id)).collect();
    let mut types: Vec<TypeDef> = Vec::with_capacity(names.len());
    for line in texts.iter().flat_map(|text| text.lines()) {
        if let Some(head) = line.strip_prefix('=') {
            let (name, attributes) = head.split_once(' ').unwrap_or((head, ""));
            types.push(TypeDef {
                name: name.into(),
                fields: Vec::new(),
                atomic: attributes.contains("map=atomic"),
                preserve_unknown: name == "open",
            });
        } else if let Some(current) = types.last_mut() {
            current.fields.push(field(line, &ids));
        }
    }
    for found in &mut types {
        found.fields.sort_by(|a, b| a.name.cmp(&b.name));
        found.fields.shrink_to_fit();
    }
    let root = Shape::Struct { id: TypeId(ids["open"]), atomic: None };
    Schema { base: None, types, root }
}

#[derive(Default)]
struct Attributes {
    relation: Option<Relation>,
    merge: Option<MergeBy>,
    atomic: Option<bool>,
    required: bool,
    retain_keys: bool,
    default: Option<&'static str>,
}

fn attributes(words: &'static str) -> Attributes {
    let mut found = Attributes::default();
    for word in words.split_whitespace() {
        match word.split_once('=') {
            None => found.required = word == "required",
            Some(("list", kind)) => found.relation = Some(relation(kind)),
            Some(("map", kind)) => found.atomic = Some(kind == "atomic"),
            Some(("default", value)) => found.default = Some(value),
            Some(("patch", strategy)) => {
                let (strategy, key) = strategy.split_once(':').map_or((strategy, None), |(s, k)| (s, Some(k)));
                found.retain_keys = strategy.contains("retainKeys");
                found.merge =
                    strategy.contains("merge").then(|| key.map_or(MergeBy::Value, |key| MergeBy::Key(key.into())));
            }
            Some(_) => {}
        }
    }
    found
}

fn relation(kind: &'static str) -> Relation {
    match kind.split_once(':') {
        Some((_, keys)) => Relation::Map(keys.split(',').map(Into::into).collect()),
        None if kind == "set" => Relation::Set,
        None => Relation::Atomic,
    }
}

fn field(line: &'static str, ids: &HashMap<&str, u32>) -> FieldDef {
    let (name, rest) = line.split_once(' ').unwrap_or((line, "any"));
    let (shape_text, words) = rest.split_once(' ').unwrap_or((rest, ""));
    let attributes = attributes(words);
    FieldDef {
        name: name.into(),
        shape: shape(shape_text, &attributes, ids),
        required: attributes.required,
        retain_keys: attributes.retain_keys,
        default: attributes.default.map(Into::into),
    }
}

fn shape(text: &str, attributes: &Attributes, ids: &HashMap<&str, u32>) -> Shape {
    let plain = Attributes::default();
    if let Some(element) = text.strip_prefix('[') {
        // A list with a merge key and no list type counts as associative for apply too.
        let from_merge = attributes.merge.as_ref().map(|merge| match merge {
            MergeBy::Value => Relation::Set,
            MergeBy::Key(key) => Relation::Map(vec![key.clone()]),
        });
        let relation = attributes.relation.clone().or(from_merge).unwrap_or(Relation::Atomic);
        return Shape::List(Box::new(ListShape {
            element: shape(element, &plain, ids),
            relation,
            merge: attributes.merge.clone(),
        }));
    }
    if let Some(value) = text.strip_prefix('{') {
        return Shape::Map(Box::new(MapShape {
            value: shape(value, &plain, ids),
            atomic: attributes.atomic.unwrap_or(false),
        }));
    }
    if let Some(name) = text.strip_prefix('@') {
        return ids.get(name).map_or(Shape::Any, |id| Shape::Struct { id: TypeId(*id), atomic: attributes.atomic });
    }
    match text {
        "string" => Shape::String,
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "number" => Shape::Number,
        "bytes" => Shape::Bytes,
        "quantity" => Shape::Quantity,
        "intstr" => Shape::IntOrString,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "object" => Shape::Object,
        _ => Shape::Any,
    }
}
