//! `delete`: by files, by kind and name, or by selector; waits until the objects are gone.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use kube_types::registry::Resource;
use serde_json::json;

use super::access::{Access, escaped, manifests};
use super::cli::Delete;
use super::resource;

/// One object to delete.
struct Doomed {
    resource: &'static Resource,
    namespace: Option<String>,
    name: String,
}

pub(crate) async fn run(access: &Access, options: &Delete) -> Result<u8> {
    let mut doomed = Vec::new();
    if !options.filename.is_empty() {
        doomed.extend(manifests(&options.filename, options.namespace.name())?.into_iter().map(|m| Doomed {
            resource: m.resource,
            namespace: m.namespace,
            name: m.name,
        }));
    }
    if !options.what.is_empty() {
        named(access, options, &mut doomed).await?;
    }
    if doomed.is_empty() && options.selector.is_none() {
        bail!("You must provide one or more resources by argument or filename");
    }
    let mut code = 0;
    let mut gone = Vec::new();
    for object in doomed {
        let path = resource::path(object.resource, object.namespace.as_deref(), Some(&object.name));
        match access
            .json(Method::DELETE, &path, "application/json", Some(&json!({"propagationPolicy": "Background"})))
            .await
        {
            Ok(_) => {
                println!("{} \"{}\" deleted", resource::shown(object.resource, "").trim_end_matches('/'), object.name);
                gone.push(path);
            }
            Err(error) if options.ignore_not_found && error.to_string().contains("(NotFound)") => {}
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    if options.wait {
        for path in gone {
            // A client outside the cluster's own informers: a look a few times a second, until it is gone.
            while access.find(&path).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    Ok(code)
}

async fn named(access: &Access, options: &Delete, doomed: &mut Vec<Doomed>) -> Result<()> {
    let namespace = options.namespace.name();
    for target in resource::targets(&options.what)? {
        let space = target.resource.namespaced.then(|| namespace.to_owned());
        if let Some(name) = target.name {
            doomed.push(Doomed { resource: target.resource, namespace: space, name });
            continue;
        }
        let Some(selector) = &options.selector else { bail!("name what to delete, or give a selector with -l") };
        let list = access
            .get(&format!(
                "{}?labelSelector={}",
                resource::path(target.resource, Some(namespace), None),
                escaped(selector)
            ))
            .await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            doomed.push(Doomed { resource: target.resource, namespace: space.clone(), name });
        }
    }
    Ok(())
}
