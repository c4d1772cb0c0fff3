//! A CRD's structural schema → [`Schema`].
//!
//! Only what decides types and merging is taken over; value rules (patterns, ranges, CEL) stay with the caller.

use super::{FieldDef, ListShape, MapShape, Relation, Schema, Shape, TypeDef, TypeId, builtin};
use serde_json::Value;

/// Deeper schemas are refused: they only serve to exhaust the stack.
const MAX_DEPTH: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the schema at {path} {problem}")]
pub struct StructuralError {
    pub path: String,
    pub problem: &'static str,
}

impl Schema {
    /// From `spec.versions[*].schema.openAPIV3Schema`.
    pub fn from_structural(schema: &Value) -> Result<Schema, StructuralError> {
        Self::from_structural_named(schema, "custom")
    }

    /// The same, with the OpenAPI name of the resource's type.
    pub fn from_structural_named(schema: &Value, name: &str) -> Result<Schema, StructuralError> {
        let base = builtin();
        let mut maker = Maker { offset: base.types.len(), types: Vec::new() };
        let root = maker.resource(schema, name)?;
        Ok(Schema { base: Some(base), types: maker.types, root })
    }
}

struct Maker {
    offset: usize,
    types: Vec<TypeDef>,
}

impl Maker {
    fn resource(&mut self, schema: &Value, name: &str) -> Result<Shape, StructuralError> {
        let mut fields = self.properties(schema, "", 0)?;
        fields.retain(|f| !matches!(f.name.as_ref(), "apiVersion" | "kind" | "metadata"));
        let object_meta = builtin().position("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap_or_default();
        fields.push(plain_field("apiVersion", Shape::String));
        fields.push(plain_field("kind", Shape::String));
        fields.push(plain_field("metadata", Shape::Struct { id: TypeId(object_meta as u32), atomic: None }));
        let root = self.add(fields, schema);
        if let Some(made) = self.types.last_mut() {
            made.name = name.to_owned().into();
        }
        Ok(root)
    }

    fn add(&mut self, mut fields: Vec<FieldDef>, schema: &Value) -> Shape {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let id = TypeId((self.offset + self.types.len()) as u32);
        self.types.push(TypeDef {
            name: "custom".into(),
            fields,
            atomic: schema["x-kubernetes-map-type"] == "atomic",
            preserve_unknown: schema["x-kubernetes-preserve-unknown-fields"] == true,
        });
        Shape::Struct { id, atomic: None }
    }

    fn properties(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Vec<FieldDef>, StructuralError> {
        let required = schema["required"].as_array();
        let mut fields = Vec::new();
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            fields.push(FieldDef {
                name: name.clone().into(),
                shape: self.shape(child, &format!("{path}.{name}"), depth + 1)?,
                required: required.is_some_and(|list| list.iter().any(|r| r == name.as_str())),
                retain_keys: false,
                default: child["default"].as_str().map(|text| text.to_owned().into()),
            });
        }
        Ok(fields)
    }

    fn shape(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Shape, StructuralError> {
        if depth > MAX_DEPTH {
            return Err(StructuralError { path: path.to_owned(), problem: "is nested too deep" });
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return Ok(Shape::IntOrString);
        }
        Ok(match schema["type"].as_str() {
            Some("string") => Shape::String,
            Some("boolean") => Shape::Bool,
            Some("integer") if schema["format"] == "int32" => Shape::Int32,
            Some("integer") => Shape::Int64,
            Some("number") => Shape::Number,
            Some("array") => Shape::List(Box::new(ListShape {
                element: self.shape(&schema["items"], &format!("{path}.items"), depth + 1)?,
                relation: relation(schema),
                merge: None,
            })),
            Some("object") => self.object(schema, path, depth)?,
            Some(_) => {
                return Err(StructuralError { path: path.to_owned(), problem: "has an unknown type" });
            }
            None => Shape::Any,
        })
    }

    fn object(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Shape, StructuralError> {
        if let Some(value) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            let value = self.shape(value, &format!("{path}.additionalProperties"), depth + 1)?;
            return Ok(Shape::Map(Box::new(MapShape { value, atomic: schema["x-kubernetes-map-type"] == "atomic" })));
        }
        if schema["additionalProperties"] == true {
            return Ok(Shape::Any);
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            return self.resource(schema, "embedded");
        }
        let fields = self.properties(schema, path, depth)?;
        Ok(self.add(fields, schema))
    }
}

fn plain_field(name: &'static str, shape: Shape) -> FieldDef {
    FieldDef { name: name.into(), shape, required: false, retain_keys: false, default: None }
}

fn relation(schema: &Value) -> Relation {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Relation::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            Relation::Map(keys.into_iter().flatten().filter_map(|k| Some(k.as_str()?.to_owned().into())).collect())
        }
        _ => Relation::Atomic,
    }
}
