//! The type of every field of every resource, and how its lists and maps merge.
//!
//! One description feeds strict decoding, strategic merge patch, server-side apply and OpenAPI, so they cannot disagree.
//! Built-in types come from `schema/schema.txt` (made by `generate/`), read once on first use; a CRD's structural schema
//! becomes a [`Schema`] of its own. Invariant: fields are sorted by name, and every type reference resolves.
//! It says nothing about values beyond their JSON type: that is [`crate::validate`].

mod embedded;
mod structural;

use crate::custom::CustomSchema;
use crate::registry::{Resource, Text};
use std::sync::Arc;

pub use embedded::{builtin, descriptions};
pub use structural::StructuralError;

/// Where a resource's field types are described.
#[derive(Clone, Debug)]
pub enum ResourceSchema {
    /// A type of the embedded schema, by its OpenAPI name (`io.k8s.api.apps.v1.Deployment`).
    Builtin(&'static str),
    /// From a CustomResourceDefinition; see [`crate::custom`].
    Custom(Arc<CustomSchema>),
    /// Nothing is known beyond apiVersion, kind and metadata; all else is kept as it is.
    Open,
}

/// Number of a type; stable only within one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u32);

/// A set of types that refer to each other, and to the built-in ones.
#[derive(Debug)]
pub struct Schema {
    base: Option<&'static Schema>,
    types: Vec<TypeDef>,
    root: Shape,
}

/// A struct: known fields, sorted by name.
#[derive(Debug)]
pub struct TypeDef {
    pub name: Text,
    pub fields: Vec<FieldDef>,
    /// Server-side apply replaces it as a whole.
    pub atomic: bool,
    /// Fields that are not listed are kept and are no error.
    pub preserve_unknown: bool,
}

#[derive(Debug)]
pub struct FieldDef {
    pub name: Text,
    pub shape: Shape,
    pub required: bool,
    /// Strategic merge patch: `$retainKeys` applies to this object.
    pub retain_keys: bool,
    /// What a list key is when it is left out (a port's protocol).
    pub default: Option<Text>,
}

/// The type of one value.
#[derive(Debug)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Number,
    /// base64 text
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Any JSON object, kept as it is.
    Object,
    /// Any JSON at all, kept as it is.
    Any,
    Struct {
        id: TypeId,
        /// Overrides the type's own [`TypeDef::atomic`].
        atomic: Option<bool>,
    },
    List(Box<ListShape>),
    Map(Box<MapShape>),
}

#[derive(Debug)]
pub struct ListShape {
    pub element: Shape,
    /// For server-side apply.
    pub relation: Relation,
    /// For strategic merge patch; `None` replaces the list.
    pub merge: Option<MergeBy>,
}

#[derive(Debug)]
pub struct MapShape {
    pub value: Shape,
    pub atomic: bool,
}

/// How server-side apply sees a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    Atomic,
    Set,
    /// Elements are told apart by these fields.
    Map(Vec<Text>),
}

/// How strategic merge patch merges a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeBy {
    Value,
    Key(Text),
}

/// One place in a schema; cheap to copy, the way to walk down.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    schema: &'a Schema,
    pub shape: &'a Shape,
}

static ANY: Shape = Shape::Any;

impl Schema {
    fn find(&self, id: TypeId) -> &TypeDef {
        let inherited = self.base.map_or(0, |base| base.types.len());
        let at = id.0 as usize;
        match self.base {
            Some(base) if at < inherited => &base.types[at],
            _ => &self.types[at - inherited],
        }
    }

    /// The type of that name, in a schema whose types are sorted by name (the embedded one).
    pub fn type_named(&self, name: &str) -> Option<&TypeDef> {
        self.position(name).map(|at| &self.types[at])
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.types.binary_search_by(|t| t.name.as_ref().cmp(name)).ok()
    }

    pub fn types(&self) -> &[TypeDef] {
        &self.types
    }

    pub fn root(&self) -> Node<'_> {
        Node { schema: self, shape: &self.root }
    }

    pub fn node<'a>(&'a self, shape: &'a Shape) -> Node<'a> {
        Node { schema: self, shape }
    }
}

impl Resource {
    /// The type of the whole object.
    pub fn root(&self) -> Node<'_> {
        match &self.schema {
            ResourceSchema::Builtin(name) => embedded::root_of(name).unwrap_or_else(|| builtin().root()),
            ResourceSchema::Custom(custom) => custom.fields.root(),
            ResourceSchema::Open => builtin().root(),
        }
    }
}

impl<'a> Node<'a> {
    pub fn struct_type(self) -> Option<&'a TypeDef> {
        match self.shape {
            Shape::Struct { id, .. } => Some(self.schema.find(*id)),
            _ => None,
        }
    }

    /// The child under `key`: a struct's field, or a map's value. `None` for a field that the struct does not have.
    pub fn child(self, key: &str) -> Option<Node<'a>> {
        let shape = match self.shape {
            Shape::Struct { id, .. } => {
                let definition = self.schema.find(*id);
                match definition.field(key) {
                    Some(field) => &field.shape,
                    None if definition.preserve_unknown => &ANY,
                    None => return None,
                }
            }
            Shape::Map(map) => &map.value,
            Shape::Any | Shape::Object => &ANY,
            _ => return None,
        };
        Some(Node { schema: self.schema, shape })
    }

    /// As [`Node::child`], with what is unknown taken as opaque.
    pub fn child_or_any(self, key: &str) -> Node<'a> {
        self.child(key).unwrap_or(Node { schema: self.schema, shape: &ANY })
    }

    pub fn element(self) -> Node<'a> {
        let shape = match self.shape {
            Shape::List(list) => &list.element,
            _ => &ANY,
        };
        Node { schema: self.schema, shape }
    }

    pub fn list(self) -> Option<&'a ListShape> {
        match self.shape {
            Shape::List(list) => Some(list),
            _ => None,
        }
    }

    /// Server-side apply replaces the value as a whole.
    pub fn is_atomic(self) -> bool {
        match self.shape {
            Shape::Struct { id, atomic } => atomic.unwrap_or_else(|| self.schema.find(*id).atomic),
            Shape::Map(map) => map.atomic,
            Shape::List(list) => list.relation == Relation::Atomic,
            // What is opaque still merges key by key when it is an object, as an untyped map does.
            Shape::Any => false,
            Shape::Object
            | Shape::String
            | Shape::Bool
            | Shape::Int32
            | Shape::Int64
            | Shape::Number
            | Shape::Bytes
            | Shape::Quantity
            | Shape::IntOrString
            | Shape::Time
            | Shape::MicroTime => true,
        }
    }

    /// The default of the field `key`, when it has one in the schema.
    pub fn default_of(self, key: &str) -> Option<&'a str> {
        self.struct_type()?.field(key)?.default.as_deref()
    }

    /// Whether a strategic merge patch honours `$retainKeys` on the child under `key`.
    pub fn retains_keys(self, key: &str) -> bool {
        self.struct_type().and_then(|t| t.field(key)).is_some_and(|f| f.retain_keys)
    }
}

impl TypeDef {
    pub fn field(&self, name: &str) -> Option<&FieldDef> {
        self.fields.binary_search_by(|f| f.name.as_ref().cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// `Deployment` of `io.k8s.api.apps.v1.Deployment`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests;
