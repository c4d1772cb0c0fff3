//! RUN: its key, its mounts, its process, its layer.

use crate::BuildError;
use crate::cache::CacheKey;
use crate::config::{self, command_args};
use crate::dockerfile::{Command, Heredoc, Run};
use crate::events::BuildEvent;
use crate::layer::Scratch;
use crate::mounts;
use crate::runner::RunStep;
use crate::stage;
use crate::step::StageRun;
use crate::stubs::Stubs;

impl StageRun<'_, '_> {
    pub(crate) async fn run(&mut self, run: &Run) -> Result<(), BuildError> {
        let session = self.session;
        let config = self.record.config.config.clone();
        let working_dir = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
        let script = script(run);
        let args = run_args(run, script, config.shell.as_deref());
        let build_args = self.scope.run_args(&config.env);
        let network = run.network.clone().unwrap_or_else(|| session.request.network.clone());
        let expand = |text: &str| self.expand(text);
        let planned = mounts::plan(session, run, self.index, working_dir, &expand, &self.events).await?;
        let mounted = mounts::key_part(&planned).await?;
        let body = script.map(|heredoc| &heredoc.content);
        let shown = serde_json::to_vec(&(&args, &build_args, &network, run.insecure, body)).unwrap_or_default();
        let key = self.layer_key(&[b"run", &shown, &mounted]);
        if self.cached(key).await? {
            return Ok(());
        }
        let mut mounted = mounts::prepare(session, planned).await?;
        if let Some(heredoc) = script {
            mounted.script(script_path(heredoc), &heredoc.content)?;
        }
        let scratch = Scratch::prepare(&session.builder.snapshots, self.chain()).await?;
        let step = RunStep {
            id: scratch.id().to_owned(),
            root: scratch.mount().clone(),
            args: args.clone(),
            env: [stage::predefined(&session.request.build_args), build_args, config.env.clone(), mounted.env.clone()]
                .concat(),
            user: config.user.clone(),
            working_dir: working_dir.to_owned(),
            network,
            insecure: run.insecure,
            extra_hosts: session.request.extra_hosts.clone(),
            limits: session.request.limits.clone(),
            mounts: mounted.mounts.clone(),
        };
        self.execute(step, scratch, format!("RUN {}", args.join(" "))).await
    }

    async fn execute(&mut self, step: RunStep, scratch: Scratch, created_by: String) -> Result<(), BuildError> {
        let targets: Vec<String> = step.mounts.iter().map(|mount| mount.target.clone()).collect();
        let stubs = scratch.in_root(move |root| Ok(Stubs::before(root, targets.iter().map(String::as_str)))).await?;
        let (container, command) = (step.id.clone(), step.args.join(" "));
        self.events.tell(BuildEvent::RunningIn { container: container.clone() }).await?;
        let code = self.session.builder.runner.run(step, &self.events).await?;
        self.events.tell(BuildEvent::Removed { container }).await?;
        if code != 0 {
            return Err(BuildError::Exit { command, code });
        }
        scratch
            .in_root(move |root| {
                stubs.remove(root);
                Ok(())
            })
            .await?;
        self.commit(scratch, created_by).await
    }

    /// The key of a step that makes a layer: a reproducible build's layers have times of their own.
    pub(crate) fn layer_key(&self, parts: &[&[u8]]) -> CacheKey {
        let key = self.key.then(parts);
        match self.session.request.epoch() {
            Some(epoch) => key.then(&[b"epoch", epoch.as_second().to_string().as_bytes()]),
            None => key,
        }
    }
}

/// The only heredoc of `RUN <<EOF` where it says by `#!` what runs it.
fn script(run: &Run) -> Option<&Heredoc> {
    sole_heredoc(run).filter(|heredoc| heredoc.content.starts_with("#!"))
}

fn script_path(heredoc: &Heredoc) -> String {
    format!("/dev/pipes/{}", heredoc.name)
}

/// `RUN <<EOF`: the document is the command itself.
fn sole_heredoc(run: &Run) -> Option<&Heredoc> {
    let (Command::Shell(text), [only]) = (&run.command, run.heredocs.as_slice()) else { return None };
    let name = text.trim().strip_prefix("<<")?.trim_start_matches('-').trim_matches(['"', '\'']);
    (name == only.name).then_some(only)
}

/// The argument vector of a RUN with its heredocs.
fn run_args(run: &Run, script: Option<&Heredoc>, shell: Option<&[String]>) -> Vec<String> {
    if let Some(heredoc) = script {
        return vec![script_path(heredoc)];
    }
    let Command::Shell(text) = &run.command else { return command_args(&run.command, shell) };
    let script = match sole_heredoc(run) {
        Some(only) => only.content.clone(),
        None if run.heredocs.is_empty() => text.clone(),
        // Otherwise the shell reads the documents from its own input, as they were written.
        None => run
            .heredocs
            .iter()
            .fold(format!("{text}\n"), |script, heredoc| format!("{script}{}{}\n", heredoc.content, heredoc.name)),
    };
    config::shell_of(shell).into_iter().chain([script]).collect()
}
