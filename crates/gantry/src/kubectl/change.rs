//! `scale` and `set image`: small patches.

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::access::Access;
use super::cli::{Scale, SetImage};
use super::resource;

pub(crate) async fn scale(access: &Access, options: &Scale) -> Result<()> {
    for target in resource::targets(&options.what)? {
        let name = target.name.as_deref().context("name what to scale: KIND/NAME")?;
        if !target.resource.has_subresource("scale") {
            bail!("cannot scale a {}", target.resource.singular);
        }
        let path = format!("{}/scale", resource::path(target.resource, Some(options.namespace.name()), Some(name)));
        access
            .json(
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                Some(&json!({"spec": {"replicas": options.replicas}})),
            )
            .await?;
        println!("{} scaled", resource::shown(target.resource, name));
    }
    Ok(())
}

pub(crate) async fn set_image(access: &Access, options: &SetImage) -> Result<()> {
    let target = resource::target(&options.target, None)?;
    let name = target.name.as_deref().unwrap_or_default();
    let path = resource::path(target.resource, Some(options.namespace.name()), Some(name));
    let object = access.get(&path).await?;
    let known: Vec<&str> = object["spec"]["template"]["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let mut containers: Vec<Value> = Vec::new();
    for assignment in &options.images {
        let (container, image) =
            assignment.split_once('=').with_context(|| format!("{assignment:?} is not of the form CONTAINER=IMAGE"))?;
        if !known.contains(&container) {
            bail!("error: unable to find container named {container:?}; there are: {}", known.join(", "));
        }
        containers.push(json!({"name": container, "image": image}));
    }
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    access.json(Method::PATCH, &path, "application/strategic-merge-patch+json", Some(&patch)).await?;
    println!("{} image updated", resource::shown(target.resource, name));
    Ok(())
}
