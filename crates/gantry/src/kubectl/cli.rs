//! The verbs' options, in the original's words.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Apply a configuration to a resource by file name or standard input
    Apply(Apply),
    /// Display one or many resources
    Get(Get),
    /// Show details of a resource and its events
    Describe(Describe),
    /// Print the logs for a container in a pod
    Logs(Logs),
    /// Execute a command in a container
    Exec(Exec),
    /// Set a new size for a deployment or replica set
    Scale(Scale),
    /// Set specific features on objects
    Set {
        #[command(subcommand)]
        what: Set,
    },
    /// Manage the rollout of a resource
    Rollout {
        #[command(subcommand)]
        action: Rollout,
    },
    /// Delete resources by file names, or by kind and name
    Delete(Delete),
}

#[derive(Debug, Args, Clone)]
pub(crate) struct Namespace {
    /// The namespace of the request
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Files, folders, or - for standard input
    #[arg(short, long, required = true)]
    pub(crate) filename: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Take over fields that others manage
    #[arg(long)]
    pub(crate) force_conflicts: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// KIND, KIND/NAME, or KIND NAME…
    #[arg(required = true, value_name = "KIND[/NAME]")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// List across all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Label selector
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Output format: wide, name, json, yaml, jsonpath=TEMPLATE
    #[arg(short, long)]
    pub(crate) output: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    #[arg(required = true, value_name = "KIND[/NAME]")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// POD, or KIND/NAME of what owns pods
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// The container, where the pod has several
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Stream the logs
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Logs of the container's previous instance
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Lines of recent log to display
    #[arg(long)]
    pub(crate) tail: Option<u64>,
    /// Show timestamps
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// POD, or KIND/NAME of what owns pods
    pub(crate) target: String,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// The container, where the pod has several
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Pass standard input to the container
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    #[arg(required = true, value_name = "KIND/NAME")]
    pub(crate) what: Vec<String>,
    /// The new desired number of replicas
    #[arg(long)]
    pub(crate) replicas: u32,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Set {
    /// Update the image of a pod template's containers
    Image(SetImage),
}

#[derive(Debug, Args)]
pub(crate) struct SetImage {
    #[arg(value_name = "KIND/NAME")]
    pub(crate) target: String,
    #[arg(required = true, value_name = "CONTAINER=IMAGE")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Show the status of the rollout, and wait for its end
    Status {
        target: String,
        #[command(flatten)]
        namespace: Namespace,
        /// Give up after this long, such as 60s; 0s waits for ever
        #[arg(long, default_value = "0s")]
        timeout: String,
    },
    /// Undo a previous rollout
    Undo {
        target: String,
        #[command(flatten)]
        namespace: Namespace,
        /// The revision to roll back to; 0 is the last one
        #[arg(long, default_value_t = 0)]
        to_revision: u64,
    },
    /// View rollout history
    History {
        target: String,
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Restart a resource
    Restart {
        target: String,
        #[command(flatten)]
        namespace: Namespace,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) what: Vec<String>,
    /// Files, folders, or - for standard input
    #[arg(short, long)]
    pub(crate) filename: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Label selector
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Return when the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) wait: bool,
    /// Treat "not found" as a success
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}
