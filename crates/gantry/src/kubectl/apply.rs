//! `apply`: server-side apply of every object of the files, in their order.

use anyhow::Result;
use http::Method;

use super::access::{Access, manifests};
use super::cli::Apply;
use super::resource;

pub(crate) async fn run(access: &Access, options: &Apply) -> Result<()> {
    for manifest in manifests(&options.filename, options.namespace.name())? {
        let path = resource::path(manifest.resource, manifest.namespace.as_deref(), Some(&manifest.name));
        let before = access.find(&path).await?;
        let query = format!("{path}?fieldManager=gantry&force={}&fieldValidation=Strict", options.force_conflicts);
        let after = access.json(Method::PATCH, &query, "application/apply-patch+yaml", Some(&manifest.object)).await?;
        let word = match before {
            None => "created",
            Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => {
                "unchanged"
            }
            Some(_) => "configured",
        };
        println!("{} {word}", resource::shown(manifest.resource, &manifest.name));
    }
    Ok(())
}
