//! `build`: packs the context (without what .dockerignore excludes), sends it, prints what the builder says.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use globset::{GlobBuilder, GlobMatcher};
use http::Method;
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};

use super::cli::Build;
use super::client::{Client, escaped, raw_request};
use super::images::progress;

/// The name under which a Dockerfile from standard input travels in the context.
const PIPED_NAME: &str = ".dockerfile.stdin";

pub(crate) async fn run(client: &Client, options: &Build) -> Result<()> {
    let (archive, dockerfile) = context(options)?;
    let mut query = format!(
        "/build?dockerfile={}&nocache={}&pull={}&q={}&rm=1",
        escaped(&dockerfile),
        u8::from(options.no_cache),
        u8::from(options.pull),
        u8::from(options.quiet)
    );
    for tag in &options.tag {
        query.push_str(&format!("&t={}", escaped(tag)));
    }
    for (name, value) in [("target", &options.target), ("networkmode", &options.network)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    query.push_str(&format!("&buildargs={}", escaped(&build_args(&options.build_arg).to_string())));
    let labels: Map<String, Value> = options
        .label
        .iter()
        .map(|label| label.split_once('=').unwrap_or((label, "")))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    query.push_str(&format!("&labels={}", escaped(&Value::Object(labels).to_string())));
    let body = Full::new(Bytes::from(archive)).map_err(|never| match never {}).boxed();
    client.json_stream(raw_request(Method::POST, &query, "application/x-tar", body)?, progress).await
}

fn build_args(given: &[String]) -> Value {
    let one = |arg: &String| match arg.split_once('=') {
        Some((name, value)) => (name.to_owned(), json!(value)),
        // A bare name takes its value from here, if it has one.
        None => (arg.clone(), std::env::var(arg).map_or(Value::Null, Value::from)),
    };
    Value::Object(given.iter().map(one).collect())
}

/// The context as a tar archive, and the Dockerfile's name inside it.
fn context(options: &Build) -> Result<(Vec<u8>, String)> {
    let mut archive = tar::Builder::new(Vec::new());
    if options.context == "-" {
        append_text(&mut archive, "Dockerfile", &read_stdin()?)?;
        return Ok((archive.into_inner()?, "Dockerfile".to_owned()));
    }
    let root = Path::new(&options.context);
    if !root.is_dir() {
        bail!("unable to prepare context: path {:?} not found", options.context);
    }
    let name = match options.file.as_deref() {
        Some("-") => {
            append_text(&mut archive, PIPED_NAME, &read_stdin()?)?;
            PIPED_NAME.to_owned()
        }
        Some(file) => std::path::absolute(file)?
            .strip_prefix(std::path::absolute(root)?)
            .context("the Dockerfile must be within the build context")?
            .display()
            .to_string(),
        None => "Dockerfile".to_owned(),
    };
    if name != PIPED_NAME && !root.join(&name).is_file() {
        bail!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: {}: no such file or directory",
            root.join(&name).display()
        );
    }
    let ignore = Ignore::read(root)?;
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let mut entries = std::fs::read_dir(root.join(&dir))
            .with_context(|| format!("cannot read {}", root.join(&dir).display()))?
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let inside = dir.join(entry.file_name());
            let excluded =
                ignore.excludes(&inside) && inside != Path::new(&name) && inside != Path::new(".dockerignore");
            let is_dir = entry.file_type()?.is_dir();
            if is_dir && (!excluded || ignore.has_exceptions) {
                pending.push(inside.clone());
            }
            if !excluded {
                append(&mut archive, &root.join(&inside), &inside, is_dir)?;
            }
        }
    }
    Ok((archive.into_inner()?, name))
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(4 << 20)
        .read_to_string(&mut text)
        .context("cannot read the Dockerfile from standard input")?;
    Ok(text)
}

fn append_text(archive: &mut tar::Builder<Vec<u8>>, name: &str, text: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, text.as_bytes()).context("cannot pack the Dockerfile")
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &Path, inside: &Path, is_dir: bool) -> Result<()> {
    archive.follow_symlinks(false);
    let packed = if is_dir { archive.append_dir(inside, path) } else { archive.append_path_with_name(path, inside) };
    packed.with_context(|| format!("cannot pack {}", path.display()))
}

/// .dockerignore: patterns in order, the last one that matches decides.
struct Ignore {
    rules: Vec<(GlobMatcher, bool)>,
    has_exceptions: bool,
}

impl Ignore {
    fn read(root: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(root.join(".dockerignore")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context("cannot read .dockerignore"),
        };
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (pattern, excluded) = line.strip_prefix('!').map_or((line, true), |rest| (rest.trim(), false));
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .with_context(|| format!("bad pattern in .dockerignore: {line}"))?;
            rules.push((glob.compile_matcher(), excluded));
        }
        let has_exceptions = rules.iter().any(|(_, excluded)| !excluded);
        Ok(Self { rules, has_exceptions })
    }

    /// A pattern that matches a folder covers all that is in it.
    fn excludes(&self, path: &Path) -> bool {
        let matched = |glob: &GlobMatcher| {
            path.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| glob.is_match(part))
        };
        self.rules.iter().rev().find(|(glob, _)| matched(glob)).is_some_and(|(_, excluded)| *excluded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_rule_of_dockerignore_decides() {
        let ignore = Ignore::parse("# comment\n*.log\n/node_modules\n**/tmp\n!keep.log\n").unwrap();
        for (path, excluded) in [
            ("a.log", true),
            ("d/a.log", false),
            ("keep.log", false),
            ("node_modules/x/y", true),
            ("d/tmp/z", true),
            ("app.py", false),
        ] {
            assert_eq!(ignore.excludes(Path::new(path)), excluded, "{path}");
        }
    }
}
