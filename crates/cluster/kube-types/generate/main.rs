//! Writes `schema/schema.txt` and `schema/descriptions.txt` from the source of the `k8s-openapi` crate.
//!
//! Run by hand when that crate or `generate/keys.txt` changes, never at build time:
//! `cargo run -p kube-types --example generate-schema -- <path of k8s-openapi>/src/v1_36`.
//! The source carries names, types, required fields and comments. What it does not carry (list types, map keys, merge
//! keys, patch strategies) stands in `generate/keys.txt`, and every line there must meet a field, so a typing slip fails here.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

struct Type {
    description: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    shape: String,
    required: bool,
    description: String,
}

fn main() -> Result<()> {
    let source = std::env::args().nth(1).context("usage: generate-schema <k8s-openapi>/src/v1_36")?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(Path::new(&source), &mut files)?;
    files.sort();

    let sources: Vec<String> =
        files.iter().map(|f| fs::read_to_string(f).with_context(|| f.display().to_string())).collect::<Result<_>>()?;
    let mut definitions = BTreeMap::new(); // Rust path → definition name
    for (file, text) in files.iter().zip(&sources) {
        if let (Some(name), Some(module)) = (definition(text), module_path(Path::new(&source), file)) {
            definitions.insert(format!("{module}::{}", short(name)), name.to_owned());
        }
    }
    let mut types = BTreeMap::new();
    for text in &sources {
        if let Some(name) = definition(text)
            && is_stable(name)
            && let Some(found) = parse_struct(text, &definitions)?
        {
            types.insert(name.to_owned(), found);
        }
    }
    let keys = read_keys(&fs::read_to_string(here.join("generate/keys.txt"))?, &types)?;
    fs::write(here.join("schema/schema.txt"), write_schema(&types, &keys)?)?;
    fs::write(here.join("schema/descriptions.txt"), write_descriptions(&types)?)?;
    println!("{} types", types.len());
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn definition(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix("// Generated from definition ")
}

/// Alpha and beta versions are not served.
fn is_stable(name: &str) -> bool {
    !name.split('.').any(|part| part.contains("alpha") || part.contains("beta"))
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `crate::api::core::v1` for a file of that folder.
fn module_path(root: &Path, file: &Path) -> Option<String> {
    let folder = file.parent()?.strip_prefix(root).ok()?;
    let parts: Vec<&str> = folder.iter().filter_map(|p| p.to_str()).collect();
    Some(format!("crate::{}", parts.join("::")))
}

fn parse_struct(text: &str, definitions: &BTreeMap<String, String>) -> Result<Option<Type>> {
    let Some(start) = text.find("\npub struct ") else {
        return Ok(None);
    };
    let body = &text[start + 1..];
    let header = body.lines().next().unwrap_or("");
    if header.contains('<') {
        return Ok(None); // List<T>: lists are not stored, OpenAPI makes its own
    }
    if !header.ends_with('{') {
        // A newtype (Quantity, Time, JSON, …) has a shape of its own; an empty struct has no fields.
        let empty = header.ends_with(';') && !header.contains('(');
        return Ok(empty.then(|| Type { description: doc_before(text, start), fields: Vec::new() }));
    }
    let wire = wire_names(text);
    let required = required_names(text);
    let mut fields = Vec::new();
    if text.contains("\nimpl crate::Resource for ") {
        for name in ["apiVersion", "kind"] {
            fields.push(Field {
                name: name.into(),
                shape: "string".into(),
                required: false,
                description: String::new(),
            });
        }
    }
    let mut doc = String::new();
    for line in body.lines().skip(1).take_while(|l| *l != "}") {
        if let Some(words) = line.trim_start().strip_prefix("///") {
            doc.push_str(words);
        } else if let Some(declared) = line.trim_start().strip_prefix("pub ") {
            let (rust_name, rust_type) =
                declared.trim_end_matches(',').split_once(": ").context("field without type")?;
            let name = wire.get(rust_name).with_context(|| format!("no wire name for {rust_name}"))?.clone();
            fields.push(Field {
                shape: shape(rust_type, definitions)?,
                required: required.contains(&name),
                description: first_sentence(&std::mem::take(&mut doc)),
                name,
            });
        }
    }
    Ok(Some(Type { description: doc_before(text, start), fields }))
}

/// `"hostIP" => Field::Key_host_ip,` → host_ip: hostIP.
fn wire_names(text: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        if let Some((quoted, key)) = line.trim().split_once(" => Field::Key_") {
            names.insert(key.trim_end_matches(',').to_owned(), quoted.trim_matches('"').to_owned());
        }
    }
    names
}

fn required_names(text: &str) -> Vec<String> {
    let Some(at) = text.find("\n            \"required\": [") else {
        return Vec::new();
    };
    text[at + 1..]
        .lines()
        .skip(1)
        .take_while(|l| !l.trim_start().starts_with(']'))
        .map(|l| l.trim().trim_end_matches(',').trim_matches('"').to_owned())
        .collect()
}

fn doc_before(text: &str, at: usize) -> String {
    let lines: Vec<&str> = text[..at].lines().filter_map(|l| l.strip_prefix("///")).collect();
    first_sentence(&lines.join(" "))
}

fn first_sentence(doc: &str) -> String {
    let doc = doc.trim().replace('\\', "").replace(['\t', '\n'], " ");
    let end = doc
        .match_indices(". ")
        .map(|(i, _)| i + 1)
        .find(|i| !doc[..*i].ends_with("e.g.") && !doc[..*i].ends_with("i.e."));
    let sentence = &doc[..end.unwrap_or(doc.len())];
    sentence.chars().take(400).collect()
}

fn shape(rust: &str, definitions: &BTreeMap<String, String>) -> Result<String> {
    let inner = |prefix: &str| rust.strip_prefix(prefix).and_then(|r| r.strip_suffix('>'));
    if let Some(t) = inner("Option<").or_else(|| inner("std::boxed::Box<")) {
        return shape(t, definitions);
    }
    if let Some(t) = inner("std::vec::Vec<") {
        return Ok(format!("[{}", shape(t, definitions)?));
    }
    if let Some(t) = inner("std::collections::BTreeMap<std::string::String, ") {
        return Ok(format!("{{{}", shape(t, definitions)?));
    }
    let name = match rust {
        "std::string::String" => return Ok("string".into()),
        "bool" => return Ok("bool".into()),
        "i32" => return Ok("int32".into()),
        "i64" => return Ok("int64".into()),
        "f64" => return Ok("number".into()),
        "crate::ByteString" => return Ok("bytes".into()),
        path => definitions.get(path).with_context(|| format!("unknown type {path}"))?,
    };
    Ok(match short(name) {
        "Quantity" => "quantity".into(),
        "IntOrString" => "intstr".into(),
        "Time" => "time".into(),
        "MicroTime" => "microtime".into(),
        "RawExtension" | "FieldsV1" => "object".into(),
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => "any".into(),
        _ => format!("@{name}"),
    })
}

/// `Type.field` (or `Type` alone) → its attributes, as they stand in keys.txt.
fn read_keys(text: &str, types: &BTreeMap<String, Type>) -> Result<BTreeMap<String, String>> {
    let mut keys = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (target, attributes) = line.split_once(' ').with_context(|| format!("no attributes: {line}"))?;
        let mut met = false;
        for (name, found) in types {
            // `*` stands for every type that has the field.
            let matches_type = |wanted: &str| wanted == "*" || name.ends_with(&format!(".{wanted}"));
            if matches_type(target) {
                keys.insert(name.clone(), attributes.to_owned());
                met = true;
            } else if let Some((wanted, field)) = target.rsplit_once('.')
                && matches_type(wanted)
                && found.fields.iter().any(|f| f.name == field)
            {
                keys.insert(format!("{name}.{field}"), attributes.to_owned());
                met = true;
            }
        }
        if !met {
            bail!("keys.txt: nothing is called {target}");
        }
    }
    Ok(keys)
}

fn write_schema(types: &BTreeMap<String, Type>, keys: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::new();
    for (name, found) in types {
        write!(out, "={name}")?;
        if let Some(attributes) = keys.get(name) {
            write!(out, " {attributes}")?;
        }
        out.push('\n');
        for field in &found.fields {
            write!(out, "{} {}", field.name, field.shape)?;
            if field.required {
                out.push_str(" required");
            }
            if let Some(attributes) = keys.get(&format!("{name}.{}", field.name)) {
                write!(out, " {attributes}")?;
            }
            out.push('\n');
        }
    }
    Ok(out)
}

fn write_descriptions(types: &BTreeMap<String, Type>) -> Result<String> {
    let mut out = String::new();
    for (name, found) in types {
        writeln!(out, "={name} {}", found.description)?;
        for field in found.fields.iter().filter(|f| !f.description.is_empty()) {
            writeln!(out, "{} {}", field.name, field.description)?;
        }
    }
    Ok(out)
}
