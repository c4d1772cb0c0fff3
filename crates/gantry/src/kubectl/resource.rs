//! Kinds as users type them: `po`, `deployments.apps`, `Service`.

use anyhow::{Result, bail};
use kube_types::registry::{self, Resource};

/// One object or all of a kind.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) resource: &'static Resource,
    pub(crate) name: Option<String>,
}

/// Finds a kind by plural, singular, kind or short name, with or without its group; says what was meant where nothing fits.
pub(crate) fn find(word: &str) -> Result<&'static Resource> {
    let lower = word.to_ascii_lowercase();
    let (name, group) = lower.split_once('.').map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
    let named = |resource: &&Resource| {
        let group_fits = group.is_none_or(|group| resource.group.eq_ignore_ascii_case(group));
        let name_fits = resource.plural == name
            || resource.singular == name
            || resource.short_names.iter().any(|short| *short == name);
        group_fits && name_fits && resource.is_stored()
    };
    if let Some(found) = registry::all().iter().find(named) {
        return Ok(found);
    }
    let nearest = registry::all()
        .iter()
        .flat_map(|resource| [&resource.plural, &resource.singular])
        .min_by_key(|known| strsim::osa_distance(known, name))
        .filter(|known| strsim::osa_distance(known, name) <= 2);
    match nearest {
        Some(known) => bail!("the server doesn't have a resource type {word:?} (did you mean {known:?}?)"),
        None => bail!("the server doesn't have a resource type {word:?}"),
    }
}

/// `KIND/NAME…`, `KIND`, `KIND NAME…`, `KIND,KIND`.
pub(crate) fn targets(words: &[String]) -> Result<Vec<Target>> {
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| target(word, None)).collect();
    }
    let Some((kinds, names)) = words.split_first() else { bail!("name a kind, such as `pods`, or KIND/NAME") };
    let mut found = Vec::new();
    for kind in kinds.split(',') {
        let resource = find(kind)?;
        if names.is_empty() {
            found.push(Target { resource, name: None });
        }
        found.extend(names.iter().map(|name| Target { resource, name: Some(name.clone()) }));
    }
    Ok(found)
}

/// `KIND/NAME`; a bare name is of the `default` kind, where there is one.
pub(crate) fn target(word: &str, default: Option<&str>) -> Result<Target> {
    match (word.split_once('/'), default) {
        (Some((kind, name)), _) if !name.is_empty() => {
            Ok(Target { resource: find(kind)?, name: Some(name.to_owned()) })
        }
        (None, Some(kind)) => Ok(Target { resource: find(kind)?, name: Some(word.to_owned()) }),
        _ => bail!("{word:?} is not of the form KIND/NAME"),
    }
}

/// The path of a collection or an object.
pub(crate) fn path(resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> String {
    let base = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let namespace = namespace
        .filter(|_| resource.namespaced)
        .map(|namespace| format!("/namespaces/{namespace}"))
        .unwrap_or_default();
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("{base}{namespace}/{}{name}", resource.plural)
}

/// `deployment.apps/web`, as kubectl names what it did something to.
pub(crate) fn shown(resource: &Resource, name: &str) -> String {
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    format!("{}{group}/{name}", resource.singular)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_all_their_names() {
        for word in ["deploy", "deployment", "Deployments", "deployments.apps"] {
            assert_eq!(find(word).unwrap().kind, "Deployment", "{word}");
        }
        assert_eq!(find("svc").unwrap().kind, "Service");
        let error = find("deploymnt").err().unwrap().to_string();
        assert!(error.contains("did you mean \"deployment\"?"), "{error}");
    }

    #[test]
    fn paths_have_group_and_namespace() {
        assert_eq!(path(find("deploy").unwrap(), Some("x"), Some("web")), "/apis/apps/v1/namespaces/x/deployments/web");
        assert_eq!(path(find("nodes").unwrap(), Some("x"), None), "/api/v1/nodes");
    }

    #[test]
    fn a_kind_may_stand_before_several_names() {
        let words = ["pods".to_owned(), "a".to_owned(), "b".to_owned()];
        assert_eq!(targets(&words).unwrap().len(), 2);
        assert!(target("web", None).is_err());
    }
}
