//! The command line: Gantry's own commands, and the verbs of both clients beside them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{commands, docker, kubectl};

const EXAMPLES: &str = "\
Examples:
  gantry up --detach                        start everything: engine, registry, cluster
  eval \"$(gantry env)\"                      point docker and kubectl at it
  gantry build -t web . && gantry run -d -p 8000:8000 web
  gantry apply -f app.yaml && gantry get pods
  gantry rollout status deployment/web
  gantry why deployment/web                 say what is wrong with it
  gantry down                               stop everything, keep the data";

const WHY_EXAMPLES: &str = "\
Examples:
  gantry why                                everything that is not as desired
  gantry why deployment/web                 down to the container that fails, and its last words
  gantry why pod/web-0 -n shop -o json
  gantry why web                            a container of docker's";

#[derive(Debug, Parser)]
#[command(name = "gantry", version, about = "Docker and Kubernetes in one program", before_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args, Clone)]
pub(crate) struct Root {
    /// Where this instance keeps its state and its sockets
    #[arg(long, value_name = "DIR", env = "GANTRY_ROOT", default_value = crate::paths::DEFAULT_ROOT, global = true)]
    pub(crate) root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything: container engine, registry, cluster
    Up {
        #[command(flatten)]
        root: Root,
        /// Return when everything is ready, and go on in the background
        #[arg(short, long)]
        detach: bool,
        #[command(flatten)]
        door: crate::door::Door,
        /// Run pods on another CRI runtime, such as unix:///run/containerd/containerd.sock
        #[arg(long, value_name = "SOCKET")]
        container_runtime_endpoint: Option<String>,
    },
    /// Stop everything that runs on a root
    Down {
        #[command(flatten)]
        root: Root,
        /// Delete all state as well
        #[arg(long)]
        purge: bool,
    },
    /// Say what runs on a root
    Status {
        #[command(flatten)]
        root: Root,
        /// Output format
        #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
        output: String,
    },
    /// Print what points the stock clients at an instance
    Env {
        #[command(flatten)]
        root: Root,
    },
    /// Back up, restore and re-encrypt the cluster's state
    Store {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        verb: commands::store::StoreVerb,
    },
    /// Say why something is not as desired, with the evidence and what to try
    #[command(before_help = WHY_EXAMPLES)]
    Why {
        #[command(flatten)]
        root: Root,
        /// KIND/NAME of the cluster, or a container's name; everything when nothing is named
        #[arg(value_name = "KIND/NAME | CONTAINER")]
        target: Option<String>,
        /// The namespace of the object (all of them when nothing is named)
        #[arg(short, long)]
        namespace: Option<String>,
        /// Output format
        #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
        output: String,
    },
    /// Serve a registry alone, on a root of its own
    Registry {
        #[command(flatten)]
        root: Root,
        #[command(flatten)]
        options: crate::commands::registry::Options,
    },
    /// Check every stored blob against its digest, and move damaged ones away
    Fsck {
        #[command(flatten)]
        root: Root,
        /// Only look
        #[arg(long)]
        dry_run: bool,
    },
    /// Print completions for a shell
    Completion { shell: clap_complete::Shell },
    /// The runtime alone, with runc's command line, for other engines (`gantry runtime --help`)
    #[command(disable_help_flag = true)]
    Runtime {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The docker client's words, exactly
    #[command(disable_help_subcommand = true)]
    Docker {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        verb: docker::Verb,
    },
    /// The kubectl client's words, exactly
    #[command(disable_help_subcommand = true)]
    Kubectl {
        #[command(flatten)]
        root: Root,
        #[command(subcommand)]
        verb: kubectl::Verb,
    },
}

/// Verbs that both clients have: `KIND/NAME` means a cluster object, a bare name a container.
const SHARED: [&str; 2] = ["logs", "exec"];
const DOCKER: [&str; 18] = [
    "build", "run", "ps", "inspect", "start", "stop", "restart", "kill", "rm", "images", "pull", "push", "tag", "rmi",
    "import", "version", "logs", "exec",
];
const KUBECTL: [&str; 9] = ["apply", "get", "describe", "scale", "set", "rollout", "delete", "logs", "exec"];

/// Puts `docker` or `kubectl` before a verb that stands at the top level, and after a program called by that name.
pub(crate) fn normalise(mut args: Vec<String>) -> Vec<String> {
    let called =
        args.first().and_then(|name| std::path::Path::new(name).file_name()?.to_str()).unwrap_or_default().to_owned();
    if called == "docker" || called == "kubectl" {
        args[0] = "gantry".to_owned();
        args.insert(1, called);
        return args;
    }
    let Some(verb) = args.get(1).cloned() else { return args };
    let half = if SHARED.contains(&verb.as_str()) {
        // The first word that is no option names the target.
        let target = args.iter().skip(2).find(|word| !word.starts_with('-'));
        Some(if target.is_some_and(|target| target.contains('/')) { "kubectl" } else { "docker" })
    } else if DOCKER.contains(&verb.as_str()) {
        Some("docker")
    } else if KUBECTL.contains(&verb.as_str()) {
        Some("kubectl")
    } else {
        None
    };
    if let Some(half) = half {
        args.insert(1, half.to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn normal(line: &str) -> String {
        normalise(line.split(' ').map(str::to_owned).collect()).join(" ")
    }

    #[test]
    fn verbs_go_to_their_half() {
        assert_eq!(normal("gantry run -d web"), "gantry docker run -d web");
        assert_eq!(normal("gantry get pods"), "gantry kubectl get pods");
        assert_eq!(normal("gantry logs web"), "gantry docker logs web");
        assert_eq!(normal("gantry logs -f pod/web"), "gantry kubectl logs -f pod/web");
        assert_eq!(normal("gantry up --detach"), "gantry up --detach");
        assert_eq!(normal("/usr/bin/docker ps -a"), "gantry docker ps -a");
        assert_eq!(normal("kubectl get pods"), "gantry kubectl get pods");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
