//! The attributes of the `dockerfile.v0` frontend → [`BuildRequest`] (pure).

use std::collections::{BTreeMap, HashMap};

use build::BuildRequest;
use serde::Deserialize;

/// A frontend's attributes, read.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub request: BuildRequest,
    /// Empty for the client's own directory, else an address.
    pub context: String,
    pub named: BTreeMap<String, String>,
    pub keep_git_dir: bool,
    /// A question instead of a build: `frontend.lint` and its like.
    pub question: Option<String>,
}

#[derive(Deserialize)]
struct CacheImport {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: HashMap<String, String>,
}

impl Attributes {
    /// `given`: as Solve carries them; `entitlements`: what the client granted.
    pub(crate) fn parse(given: &HashMap<String, String>, entitlements: &[String]) -> Result<Self, String> {
        let mut read = Self::default();
        read.request.entitlements = entitlements.to_vec();
        for (key, value) in given {
            read.one(key, value)?;
        }
        let is_one = |value: &Option<String>| value.as_deref() == Some("1");
        let arguments = &read.request.build_args;
        read.request.inline_cache |= arguments.get("BUILDKIT_INLINE_CACHE").is_some_and(is_one);
        read.keep_git_dir = arguments.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(is_one);
        Ok(read)
    }

    fn one(&mut self, key: &str, value: &str) -> Result<(), String> {
        let request = &mut self.request;
        if let Some(name) = key.strip_prefix("build-arg:") {
            request.build_args.insert(name.to_owned(), Some(value.to_owned()));
        } else if let Some(name) = key.strip_prefix("label:") {
            request.labels.insert(name.to_owned(), value.to_owned());
        } else if let Some(name) = key.strip_prefix("context:") {
            match value.strip_prefix("docker-image://") {
                Some(image) => drop(request.named_images.insert(name.to_owned(), image.to_owned())),
                None => drop(self.named.insert(name.to_owned(), value.to_owned())),
            }
        } else {
            match key {
                "filename" => value.clone_into(&mut request.dockerfile_name),
                "target" => value.clone_into(&mut request.target),
                "platform" => value.clone_into(&mut request.platform),
                "context" => value.clone_into(&mut self.context),
                "no-cache" if value.is_empty() => request.no_cache = true,
                "no-cache" => request.no_cache_stages = list(value),
                "image-resolve-mode" => request.pull = value == "pull",
                "force-network-mode" if value == "sandbox" => {}
                "force-network-mode" => value.clone_into(&mut request.network),
                "add-hosts" => {
                    request.extra_hosts = list(value).iter().map(|host| host.replacen('=', ":", 1)).collect()
                }
                "shm-size" => {
                    request.limits.shm_size_bytes = value.parse().map_err(|_| format!("invalid shm-size {value}"))?
                }
                "cache-from" => request.cache_from.extend(list(value)),
                "cache-imports" => request.cache_from.extend(imports(value)?),
                "requestid" if !value.is_empty() => self.question = Some(value.to_owned()),
                // What this frontend does not know changes nothing, as with every older one.
                _ => {}
            }
        }
        Ok(())
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Images among the cache imports.
fn imports(json: &str) -> Result<Vec<String>, String> {
    let imports: Vec<CacheImport> =
        serde_json::from_str(json).map_err(|error| format!("failed to unmarshal cache-imports: {error}"))?;
    let image =
        |import: CacheImport| (import.kind == "registry").then(|| import.attributes.get("ref").cloned()).flatten();
    Ok(imports.into_iter().filter_map(image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_a_request() {
        let given = [
            ("filename", "sub/Dockerfile"),
            ("target", "t"),
            ("build-arg:A", "1"),
            ("build-arg:BUILDKIT_INLINE_CACHE", "1"),
            ("label:l", "v"),
            ("no-cache", "one,two"),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "host"),
            ("add-hosts", "a=1.2.3.4,b=5.6.7.8"),
            ("context:alpine", "docker-image://busybox"),
            ("context:src", "local:src"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"r/i"}},{"Type":"gha"}]"#),
            ("something-new", "x"),
        ];
        let given = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let read = Attributes::parse(&given, &["network.host".to_owned()]).unwrap();
        let request = read.request;
        assert_eq!((request.dockerfile_name.as_str(), request.target.as_str()), ("sub/Dockerfile", "t"));
        assert_eq!(request.build_args["A"].as_deref(), Some("1"));
        assert!(request.inline_cache && request.pull && !request.no_cache);
        assert_eq!(request.no_cache_stages, ["one", "two"]);
        assert_eq!(request.extra_hosts, ["a:1.2.3.4", "b:5.6.7.8"]);
        assert_eq!(request.named_images["alpine"], "busybox");
        assert_eq!(read.named["src"], "local:src");
        assert_eq!(request.cache_from, ["r/i"]);
        assert_eq!(request.network, "host");
    }

    #[test]
    fn an_empty_no_cache_means_all_of_it() {
        let given = HashMap::from([("no-cache".to_owned(), String::new())]);
        assert!(Attributes::parse(&given, &[]).unwrap().request.no_cache);
    }
}
