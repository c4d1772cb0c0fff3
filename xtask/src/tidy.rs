//! The architecture's rules, checked on what cargo and the files say: floors, pure crates, headers, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{output, root};

/// Crates whose decisions must not touch the world.
const PURE: [&str; 9] =
    ["advisor", "oci", "bundle", "kube-types", "cel", "controllers", "scheduling", "pod-plan", "service-plan"];
/// What pure crates never depend on, directly or through anything.
const IMPURE: [&str; 5] = ["tokio", "hyper", "http", "mio", "rustix"];
/// The one door from the cluster half into the container half.
const DOOR: &str = "cri";
/// The only crate of the cluster half that its shells may share, beside words and decisions.
const MEETING_PLACES: [&str; 8] =
    ["kube-client", "kube-types", "cel", "store", "controllers", "scheduling", "pod-plan", "service-plan"];
/// Lines of a source file; only generated files may have more.
const MAX_LINES: usize = 800;

pub(crate) fn run() -> Result<()> {
    let metadata: Value = serde_json::from_str(&output("cargo", &["metadata", "--format-version", "1"])?)?;
    let mut complaints = Vec::new();
    let crates = own_crates(&metadata)?;
    check_floors(&crates, &mut complaints);
    check_pure(&metadata, &crates, &mut complaints)?;
    check_files(&root(), &mut complaints)?;
    if complaints.is_empty() {
        println!("tidy: {} crates", crates.len());
        return Ok(());
    }
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    bail!("{} complaints", complaints.len())
}

/// One crate of ours: where it stands and what it depends on (without its tests' dependencies).
struct Own {
    floor: Floor,
    dependencies: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Floor {
    Kernel,
    Container,
    Cluster,
    Operate,
    Top,
}

fn own_crates(metadata: &Value) -> Result<BTreeMap<String, Own>> {
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        if !package["source"].is_null() {
            continue;
        }
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let path = package["manifest_path"].as_str().unwrap_or_default();
        let floor = match path {
            // The resolver both halves' DNS servers are made of stands on the ground with the kernel.
            _ if path.contains("/crates/kernel/") || path.contains("/crates/resolver/") => Floor::Kernel,
            _ if path.contains("/crates/container/") => Floor::Container,
            _ if path.contains("/crates/cluster/") => Floor::Cluster,
            _ if path.contains("/crates/operate/") => Floor::Operate,
            _ => Floor::Top,
        };
        let dependencies = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect();
        crates.insert(name, Own { floor, dependencies });
    }
    Ok(crates)
}

fn check_floors(crates: &BTreeMap<String, Own>, complaints: &mut Vec<String>) {
    for (name, own) in crates {
        for dependency in &own.dependencies {
            let Some(other) = crates.get(dependency) else { continue };
            if other.floor > own.floor {
                complaints.push(format!(
                    "{name} ({:?}) depends on {dependency} ({:?}), which is above it",
                    own.floor, other.floor
                ));
            }
            if own.floor == Floor::Cluster && other.floor == Floor::Container && dependency != DOOR {
                complaints.push(format!(
                    "{name} reaches into the container half through {dependency}; the only door is {DOOR}"
                ));
            }
            let both_cluster = own.floor == Floor::Cluster && other.floor == Floor::Cluster;
            if both_cluster && !MEETING_PLACES.contains(&dependency.as_str()) {
                complaints.push(format!(
                    "{name} depends on {dependency}: cluster parts meet each other through kube-client alone"
                ));
            }
        }
    }
}

/// Walks the resolved graph from each pure crate.
fn check_pure(metadata: &Value, crates: &BTreeMap<String, Own>, complaints: &mut Vec<String>) -> Result<()> {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .context("no packages")?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("no resolve")? {
        let normal = |dependency: &&Value| {
            dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        let targets = node["deps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(normal)
            .filter_map(|dependency| dependency["pkg"].as_str())
            .collect();
        edges.insert(node["id"].as_str().unwrap_or_default(), targets);
    }
    for (id, name) in &names {
        if !PURE.contains(name) || !crates.contains_key(*name) {
            continue;
        }
        let mut open = vec![*id];
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            if seen.insert(at) {
                open.extend(edges.get(at).into_iter().flatten());
            }
        }
        for found in seen.iter().filter_map(|id| names.get(id)).filter(|name| IMPURE.contains(*name)) {
            complaints.push(format!("{name} is pure, yet {found} is among what it depends on"));
        }
    }
    Ok(())
}

fn check_files(root: &Path, complaints: &mut Vec<String>) -> Result<()> {
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])?;
    for file in listed.lines().map(PathBuf::from) {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        let shown = file.display();
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.ends_with("tests.rs")
            || file.components().any(|part| part.as_os_str() == "examples");
        let generated = text.lines().take(12).any(|line| line.contains("@generated"));
        if !text.starts_with("//!") && !is_test && !generated {
            complaints.push(format!("{shown}: no //! header that says what this is"));
        }
        if text.lines().count() > MAX_LINES && !generated {
            complaints.push(format!(
                "{shown}: {} lines; split it (over {MAX_LINES} only generated files)",
                text.lines().count()
            ));
        }
        let may = ["crates/kernel/", "xtask/"].iter().any(|place| shown.to_string().starts_with(place));
        if !may
            && text.lines().any(|line| {
                line.trim_start().starts_with("unsafe ") || line.contains("= unsafe {") || line.contains(" unsafe {")
            })
        {
            complaints.push(format!("{shown}: unsafe code lives in crates/kernel alone"));
        }
        for word in ["util", "utils", "helpers", "common", "core"] {
            if file.file_stem().is_some_and(|stem| stem == word) {
                complaints.push(format!("{shown}: a module called {word} says nothing"));
            }
        }
    }
    Ok(())
}
