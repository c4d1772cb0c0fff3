//! The verbs' options, in the original's words.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build an image from a Dockerfile
    Build(Build),
    /// Create and run a new container from an image
    Run(Run),
    /// Execute a command in a running container
    Exec(Exec),
    /// List containers
    Ps(Ps),
    /// Fetch the logs of a container
    Logs(Logs),
    /// Return low-level information on containers and images
    Inspect(Inspect),
    /// Start one or more stopped containers
    Start {
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Stop one or more running containers
    Stop {
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
        /// Seconds to wait before killing the container
        #[arg(short, long, visible_alias = "timeout", allow_hyphen_values = true)]
        time: Option<i64>,
    },
    /// Restart one or more containers
    Restart {
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Kill one or more running containers
    Kill {
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
        /// Signal to send to the container
        #[arg(short, long, default_value = "KILL")]
        signal: String,
    },
    /// Remove one or more containers
    Rm {
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
        /// Force the removal of a running container
        #[arg(short, long)]
        force: bool,
        /// Remove anonymous volumes associated with the container
        #[arg(short, long)]
        volumes: bool,
    },
    /// List images
    Images(Images),
    /// Download an image from a registry
    Pull { image: String },
    /// Upload an image to a registry
    Push { image: String },
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag {
        #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
        source: String,
        #[arg(value_name = "TARGET_IMAGE[:TAG]")]
        target: String,
    },
    /// Remove one or more images
    Rmi {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Force removal of the image
        #[arg(short, long)]
        force: bool,
    },
    /// Import the contents from a tarball to create a filesystem image
    Import(Import),
    /// Show the client's and the engine's version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The build context: a folder, or - for a Dockerfile on standard input
    #[arg(value_name = "PATH | -")]
    pub(crate) context: String,
    /// Name and optionally a tag (format: name:tag)
    #[arg(short, long)]
    pub(crate) tag: Vec<String>,
    /// Name of the Dockerfile (default: PATH/Dockerfile; - for standard input)
    #[arg(short, long)]
    pub(crate) file: Option<String>,
    /// Set build-time variables
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Set metadata for an image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Set the target build stage to build
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Always attempt to pull all referenced images
    #[arg(long)]
    pub(crate) pull: bool,
    /// Set the networking mode for the RUN instructions
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// Suppress the build output and print the image ID on success
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    pub(crate) image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// Run the container in the background and print its ID
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Assign a name to the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Publish a container's port to the host
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Bind mount a volume
    #[arg(short, long)]
    pub(crate) volume: Vec<String>,
    /// Connect the container to a network
    #[arg(long, visible_alias = "net")]
    pub(crate) network: Option<String>,
    /// Keep standard input open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a pseudo-terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Overwrite the default entry point of the image
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// User name or number
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
    /// Restart policy to apply when the container exits
    #[arg(long, default_value = "no")]
    pub(crate) restart: String,
    /// Set metadata on the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Memory limit, such as 512m
    #[arg(short, long)]
    pub(crate) memory: Option<String>,
    /// Give extended privileges to the container
    #[arg(long)]
    pub(crate) privileged: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    pub(crate) container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// Run the command in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep standard input open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a pseudo-terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set environment variables
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// User name or number
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub(crate) workdir: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only display container IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Output format
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    pub(crate) output: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    pub(crate) container: String,
    /// Follow log output
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    pub(crate) tail: String,
    /// Show timestamps
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Show all images (default hides intermediate ones)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Output format
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    pub(crate) output: String,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A tar file, or - for standard input
    #[arg(value_name = "FILE | -")]
    pub(crate) source: PathBuf,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) image: Option<String>,
    /// Apply a Dockerfile instruction to the created image
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
}
