//! The everyday kubectl verbs as Gantry's own: `gantry apply …`, `gantry kubectl …`, or this binary called `kubectl`.
//!
//! A client like any other: it speaks the Kubernetes API over HTTPS with the kubeconfig's credentials.

pub(crate) mod access;
mod apply;
mod change;
mod cli;
mod delete;
mod exec;
mod get;
mod jsonpath;
mod logs;
pub(crate) mod resource;
mod rollout;

pub(crate) use cli::Verb;

use anyhow::Result;

/// Carries out one verb; returns the exit code of the command.
pub(crate) fn execute(verb: Verb, kubeconfig: &std::path::Path) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = std::env::var_os("KUBECONFIG").map_or_else(|| kubeconfig.to_owned(), std::path::PathBuf::from);
    let access = access::Access::new(&path)?;
    runtime.block_on(dispatch(verb, &access))
}

async fn dispatch(verb: Verb, access: &access::Access) -> Result<u8> {
    match verb {
        Verb::Apply(options) => apply::run(access, &options).await.map(|()| 0),
        Verb::Get(options) => get::run(access, &options).await,
        Verb::Describe(options) => get::describe(access, &options).await.map(|()| 0),
        Verb::Logs(options) => logs::run(access, &options).await.map(|()| 0),
        Verb::Exec(options) => exec::run(access, &options).await,
        Verb::Scale(options) => change::scale(access, &options).await.map(|()| 0),
        Verb::Set { what: cli::Set::Image(options) } => change::set_image(access, &options).await.map(|()| 0),
        Verb::Rollout { action } => rollout::run(access, &action).await.map(|()| 0),
        Verb::Delete(options) => delete::run(access, &options).await,
    }
}
