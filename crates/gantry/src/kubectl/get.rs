//! `get` and `describe`: the server's own tables, or objects in the form that is asked for.

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::access::{Access, escaped};
use super::cli::{Describe, Get};
use super::jsonpath;
use super::resource::{self, Target};

/// What kubectl asks for: a table, or the object where a server cannot draw one.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub(crate) async fn run(access: &Access, options: &Get) -> Result<u8> {
    let targets = resource::targets(&options.what)?;
    let output = options.output.as_deref().unwrap_or("");
    match output {
        "" | "wide" => tables(access, options, &targets, output == "wide").await,
        "json" | "yaml" | "name" => objects(access, options, &targets, output).await,
        _ if output.starts_with("jsonpath=") => objects(access, options, &targets, output).await,
        other => bail!(
            "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,jsonpath=,name,wide,yaml"
        ),
    }
}

fn path(options: &Get, target: &Target) -> String {
    let namespace = (!options.all_namespaces).then(|| options.namespace.name());
    let path = resource::path(target.resource, namespace, target.name.as_deref());
    match (&options.selector, &target.name) {
        (Some(selector), None) => format!("{path}?labelSelector={}", escaped(selector)),
        _ => path,
    }
}

async fn tables(access: &Access, options: &Get, targets: &[Target], wide: bool) -> Result<u8> {
    let several_kinds = targets.windows(2).any(|pair| !std::ptr::eq(pair[0].resource, pair[1].resource));
    let mut printed = false;
    let mut code = 0;
    let mut merged: Option<Value> = None;
    for target in targets {
        let request = Request::get(path(options, target)).header("accept", TABLE).body(Bytes::new())?;
        let table = match access.client.raw(request).await {
            Ok(table) => table,
            Err(error) => {
                eprintln!(
                    "Error from server{}",
                    error.status().map_or(format!(": {error}"), |status| format!(
                        " ({}): {}",
                        status.reason.as_deref().unwrap_or_default(),
                        status.message.as_deref().unwrap_or_default()
                    ))
                );
                code = 1;
                continue;
            }
        };
        if several_kinds {
            if printed {
                println!();
            }
            printed |= print(&table, wide, options.all_namespaces, Some(target.resource));
        } else if let Some(all) = &mut merged {
            let more = table["rows"].as_array().cloned().unwrap_or_default();
            if let Some(rows) = all["rows"].as_array_mut() {
                rows.extend(more);
            }
        } else {
            merged = Some(table);
        }
    }
    if let Some(table) = merged {
        printed |= print(&table, wide, options.all_namespaces, None);
    }
    if !printed && code == 0 {
        match targets.first().filter(|target| target.resource.namespaced && !options.all_namespaces) {
            Some(_) => eprintln!("No resources found in {} namespace.", options.namespace.name()),
            None => eprintln!("No resources found"),
        }
    }
    Ok(code)
}

/// Prints a meta.k8s.io/v1 Table; returns whether there were rows. `kind`: put it before the names.
fn print(table: &Value, wide: bool, namespaces: bool, kind: Option<&kube_types::registry::Resource>) -> bool {
    let columns: Vec<(usize, String)> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(index, column)| (index, column["name"].as_str().unwrap_or_default().to_uppercase()))
        .collect();
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|(_, name)| name.clone()).collect()];
    for row in table["rows"].as_array().into_iter().flatten() {
        let mut cells: Vec<String> = columns.iter().map(|(index, _)| cell(&row["cells"][*index])).collect();
        if let (Some(kind), Some(first)) = (kind, cells.first_mut()) {
            *first = resource::shown(kind, first);
        }
        if namespaces {
            cells.insert(0, cell(&row["object"]["metadata"]["namespace"]));
        }
        lines.push(cells);
    }
    if lines.len() == 1 {
        return false;
    }
    if namespaces {
        lines[0].insert(0, "NAMESPACE".to_owned());
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in lines {
        let text: String = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        println!("{}", text.trim_end());
    }
    true
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn objects(access: &Access, options: &Get, targets: &[Target], output: &str) -> Result<u8> {
    let mut items = Vec::new();
    let mut single = targets.len() == 1;
    for target in targets {
        let answer = access.get(&path(options, target)).await?;
        match answer["items"].as_array() {
            Some(list) if target.name.is_none() => {
                single = false;
                let api_version = target.resource.api_version();
                // Items of a list carry no kind of their own; alone they need one.
                items.extend(list.iter().map(|item| with_kind(item, &api_version, &target.resource.kind)));
            }
            _ => items.push(answer),
        }
    }
    let whole = if single {
        items.swap_remove(0)
    } else {
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
    };
    match output {
        "json" => println!("{}", serde_json::to_string_pretty(&whole)?),
        "yaml" => print!("{}", serde_yaml_ng::to_string(&whole)?),
        "name" => {
            let all = whole["items"].as_array().cloned().unwrap_or_else(|| vec![whole.clone()]);
            for object in &all {
                let kind = kube_types::registry::find_by_api_version(
                    object["apiVersion"].as_str().unwrap_or_default(),
                    object["kind"].as_str().unwrap_or_default(),
                );
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                println!("{}", kind.map_or_else(|| name.to_owned(), |kind| resource::shown(kind, name)));
            }
        }
        _ => print!("{}", jsonpath::render(output.trim_start_matches("jsonpath="), &whole)?),
    }
    Ok(0)
}

fn with_kind(item: &Value, api_version: &str, kind: &str) -> Value {
    let mut item = item.clone();
    item["apiVersion"] = json!(api_version);
    item["kind"] = json!(kind);
    item
}

/// The object as YAML without its bookkeeping, then the events about it.
pub(crate) async fn describe(access: &Access, options: &Describe) -> Result<()> {
    for target in resource::targets(&options.what)? {
        let Some(name) = &target.name else { bail!("describe needs a name: KIND/NAME") };
        let mut object =
            access.get(&resource::path(target.resource, Some(options.namespace.name()), Some(name))).await?;
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        print!("{}", serde_yaml_ng::to_string(&object)?);
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let events = resource::path(resource::find("events")?, Some(options.namespace.name()), None);
        let events =
            access.get(&format!("{events}?fieldSelector={}", escaped(&format!("involvedObject.uid={uid}")))).await?;
        println!("events:");
        for event in events["items"].as_array().into_iter().flatten() {
            let text = |key: &str| event[key].as_str().unwrap_or_default();
            let count = event["count"].as_u64().unwrap_or(1);
            println!("  {:<8} {:<20} x{count:<4} {}", text("type"), text("reason"), text("message"));
        }
    }
    Ok(())
}
