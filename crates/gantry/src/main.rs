//! Gantry: Docker and Kubernetes in one program. This file reads the command line and hands over.
//!
//! The binary is the only place that knows every part; `daemon` wires them, `commands` are Gantry's own,
//! `docker` and `kubectl` are clients that speak the two APIs like anybody else.

mod cli;
mod commands;
mod daemon;
mod docker;
mod door;
mod instance;
mod kubectl;
mod paths;
mod store;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use paths::Paths;

fn main() -> ExitCode {
    // A process that was started to be a monitor or the zygote is that and nothing else; an unpacker likewise.
    monitor::run_role_if_asked();
    // The runtime's commands neither need nor want the rest: they are called in the middle of another engine's start of a container.
    if let Some(code) = runtime_cli::run_if_asked() {
        return ExitCode::from(code);
    }
    snapshots::run_role_if_asked();
    let cli = Cli::parse_from(cli::normalise(std::env::args().collect()));
    match execute(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("gantry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<u8> {
    match command {
        Command::Up { root, detach, door, container_runtime_endpoint: endpoint } => {
            let paths = Paths::new(&root.root)?;
            // Asked here, so that a mistake is told before anything starts.
            door.parse()?;
            let runtime = endpoint.as_deref().map(commands::up::socket_of).transpose()?;
            if detach {
                commands::up::detached(&paths, &door, runtime.as_deref())?;
            } else {
                // Before any thread exists: it is forked from for the rest of this process's life.
                let zygote = monitor::Zygote::spawn()?;
                commands::up::foreground(&paths, zygote, &door, runtime.as_deref())?;
            }
            Ok(0)
        }
        Command::Down { root, purge } => commands::down::run(&Paths::new(&root.root)?, purge).map(|()| 0),
        Command::Status { root, output } => {
            // As systemctl: 3 says that nothing runs.
            Ok(if commands::status::run(&Paths::new(&root.root)?, output == "json")? { 0 } else { 3 })
        }
        Command::Env { root } => commands::env::run(&Paths::new(&root.root)?).map(|()| 0),
        Command::Store { root, verb } => commands::store::run(&Paths::new(&root.root)?, &verb).map(|()| 0),
        Command::Why { root, target, namespace, output } => {
            let options = commands::why::Options { target, namespace, json: output == "json" };
            Ok(u8::from(!commands::why::run(&Paths::new(&root.root)?, &options)?))
        }
        Command::Registry { root, options } => commands::registry::run(&Paths::new(&root.root)?, &options).map(|()| 0),
        // As e2fsck: 4 says that errors were found.
        Command::Fsck { root, dry_run } => {
            Ok(if commands::fsck::run(&Paths::new(&root.root)?, dry_run)? { 0 } else { 4 })
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut std::io::stdout());
            Ok(0)
        }
        // Taken before the command line is read; here only so that `--help` and completions know it.
        Command::Runtime { .. } => Ok(0),
        Command::Docker { root, verb } => docker::execute(verb, &Paths::new(&root.root)?.docker_socket()),
        Command::Kubectl { root, verb } => kubectl::execute(verb, &Paths::new(&root.root)?.kubeconfig()),
    }
}

/// The user's terminal in raw mode, for both clients' interactive sessions.
fn docker_terminal() -> Result<docker::Raw> {
    docker::Raw::enter()
}
