//! An `audit.k8s.io/v1` Policy: the first rule that fits a request says how much of it is written down.

use serde_json::Value;

use super::{text, text_list};
use crate::identity::Identity;
use crate::request::{RequestInfo, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse]
            .into_iter()
            .find(|level| level.as_str() == text)
    }
}

struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    resources: Vec<Resources>,
    omitted: Vec<String>,
}

pub(super) struct Policy {
    rules: Vec<Rule>,
    omitted: Vec<String>,
}

impl Policy {
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        let document: Value = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        if document["kind"] != "Policy" || document["apiVersion"] != "audit.k8s.io/v1" {
            return Err("it must be of kind Policy and apiVersion audit.k8s.io/v1".to_owned());
        }
        let rules = document["rules"].as_array().ok_or("it has no rules")?;
        let rules = rules.iter().enumerate().map(|(at, rule)| Rule::parse(rule).map_err(|why| format!("rules[{at}]: {why}")));
        Ok(Self { rules: rules.collect::<Result<_, _>>()?, omitted: text_list(&document, "omitStages") })
    }

    /// How much of a request is wanted, and which stages are not.
    pub(super) fn level(&self, user: &Identity, info: &RequestInfo) -> Option<(Level, Vec<String>)> {
        let rule = self.rules.iter().find(|rule| rule.fits(user, info))?;
        let omitted = rule.omitted.iter().chain(&self.omitted).cloned().collect();
        (rule.level > Level::None).then_some((rule.level, omitted))
    }
}

impl Rule {
    fn parse(rule: &Value) -> Result<Self, String> {
        let level = text(rule, "level");
        let level = Level::parse(&level).ok_or(format!("unknown level {level:?}"))?;
        let resources = rule["resources"].as_array().into_iter().flatten();
        let resources = resources.map(|one| Resources {
            group: text(one, "group"),
            resources: text_list(one, "resources"),
            names: text_list(one, "resourceNames"),
        });
        Ok(Self {
            level,
            users: text_list(rule, "users"),
            groups: text_list(rule, "userGroups"),
            verbs: text_list(rule, "verbs"),
            namespaces: text_list(rule, "namespaces"),
            paths: text_list(rule, "nonResourceURLs"),
            resources: resources.collect(),
            omitted: text_list(rule, "omitStages"),
        })
    }

    fn fits(&self, user: &Identity, info: &RequestInfo) -> bool {
        let any = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|own| own == wanted);
        let in_groups = self.groups.is_empty() || self.groups.iter().any(|group| user.in_group(group));
        if !any(&self.users, &user.name) || !in_groups || !any(&self.verbs, info.verb) {
            return false;
        }
        let for_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match &info.target {
            Target::Other if for_resources => false,
            Target::Other => self.paths.is_empty() || self.paths.iter().any(|path| path_fits(path, &info.path)),
            Target::Resource(_) if !self.paths.is_empty() && !for_resources => false,
            Target::Resource(path) => {
                any(&self.namespaces, &path.namespace)
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|own| {
                            own.group == path.group
                                && (own.resources.is_empty() || own.resources.iter().any(|one| resource_fits(one, path)))
                                && any(&own.names, &path.name)
                        }))
            }
        }
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`
fn resource_fits(pattern: &str, path: &crate::request::ResourcePath) -> bool {
    let (resource, subresource) = match pattern.split_once('/') {
        Some((resource, subresource)) => (resource, subresource),
        None if pattern == "*" => return true,
        None => (pattern, ""),
    };
    (resource == "*" || resource == path.resource) && (subresource == "*" || subresource == path.subresource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    fn level(policy: &Policy, user: &str, method: &str, path: &str) -> Option<Level> {
        let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::default());
        policy.level(&Identity::new(user, ["team"]), &info).map(|(level, _)| level)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: None\n  users: [quiet]\n- level: Metadata\n  resources: [{group: '', resources: [secrets, pods/*]}]\n- level: RequestResponse\n  verbs: [create]\n  namespaces: [a]\n- level: Request\n  nonResourceURLs: [/version, /healthz*]\n",
        )
        .unwrap();
        for (user, method, path, expected) in [
            ("quiet", "GET", "/api/v1/secrets", None),
            ("ann", "GET", "/api/v1/secrets", Some(Level::Metadata)),
            ("ann", "GET", "/api/v1/namespaces/a/pods/p/log", Some(Level::Metadata)),
            ("ann", "POST", "/api/v1/namespaces/a/configmaps", Some(Level::RequestResponse)),
            ("ann", "POST", "/api/v1/namespaces/b/configmaps", None),
            ("ann", "GET", "/healthz/etcd", Some(Level::Request)),
            ("ann", "GET", "/apis", None),
        ] {
            assert_eq!(level(&policy, user, method, path), expected, "{user} {method} {path}");
        }
    }

    #[test]
    fn a_policy_that_is_none_is_refused() {
        for text in ["", "kind: Policy", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]"] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
