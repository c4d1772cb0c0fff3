//! The everyday docker verbs as Gantry's own: `gantry run …`, `gantry docker run …`, or this binary called `docker`.
//!
//! A client like any other: it speaks the Engine API over the socket and knows nothing of the engine's inside.

mod build;
mod cli;
mod client;
mod containers;
mod images;
mod multiplex;
mod print;
mod run;
mod terminal;

pub(crate) use cli::Verb;
pub(crate) use client::Client;
pub(crate) use containers::last_lines;
pub(crate) use terminal::Raw;

use anyhow::Result;

/// Carries out one verb; returns the exit code of the command.
pub(crate) fn execute(verb: Verb, socket: &std::path::Path) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = client::Client::new(std::env::var("DOCKER_HOST").ok().as_deref(), socket)?;
    runtime.block_on(dispatch(verb, &client))
}

async fn dispatch(verb: Verb, client: &client::Client) -> Result<u8> {
    match verb {
        Verb::Build(options) => build::run(client, &options).await.map(|()| 0),
        Verb::Run(options) => run::run(client, &options).await,
        Verb::Exec(options) => run::exec(client, &options).await,
        Verb::Ps(options) => containers::list(client, &options).await.map(|()| 0),
        Verb::Logs(options) => containers::logs(client, &options).await.map(|()| 0),
        Verb::Inspect(options) => containers::inspect(client, &options).await,
        Verb::Start { containers: names } => {
            containers::each(client, &names, |name| ("POST", format!("/containers/{name}/start"))).await
        }
        Verb::Stop { containers: names, time } => {
            let query = time.map(|seconds| format!("?t={seconds}")).unwrap_or_default();
            containers::each(client, &names, |name| ("POST", format!("/containers/{name}/stop{query}"))).await
        }
        Verb::Restart { containers: names } => {
            containers::each(client, &names, |name| ("POST", format!("/containers/{name}/restart"))).await
        }
        Verb::Kill { containers: names, signal } => {
            containers::each(client, &names, |name| ("POST", format!("/containers/{name}/kill?signal={signal}"))).await
        }
        Verb::Rm { containers: names, force, volumes } => {
            containers::each(client, &names, |name| {
                ("DELETE", format!("/containers/{name}?force={}&v={}", u8::from(force), u8::from(volumes)))
            })
            .await
        }
        Verb::Images(options) => images::list(client, &options).await.map(|()| 0),
        Verb::Pull { image } => images::pull(client, &image).await.map(|()| 0),
        Verb::Push { image } => images::push(client, &image).await.map(|()| 0),
        Verb::Tag { source, target } => images::tag(client, &source, &target).await.map(|()| 0),
        Verb::Rmi { images: names, force } => images::remove(client, &names, force).await,
        Verb::Import(options) => images::import(client, &options).await.map(|()| 0),
        Verb::Version => containers::version(client).await.map(|()| 0),
    }
}
