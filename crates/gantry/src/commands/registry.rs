//! `gantry registry`: the registry alone, on a root of its own. Thin: the registry is `distribution`'s.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use distribution::registry::{Config, Login, Registry, Rights, Scheme, tls};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::instance::Lock;
use crate::paths::Paths;

const EXAMPLES: &str = "\
Examples:
  gantry registry                                            on 127.0.0.1:5000, for everybody who reaches it
  htpasswd -Bbn alice secret > accounts
  gantry registry --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --htpasswd accounts --anonymous-pull
  gantry registry --htpasswd accounts --auth token --rights rights

A rights file has lines `WHO REPOSITORIES ACTIONS`:
  alice      team/**    *                 alice may do everything below team/
  *          shared/*   pull              every account may pull these
  anonymous  public/**  pull              everybody may";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Certificate chain (PEM); with --tls-key, TLS is served
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Accounts, one `name:bcrypt-hash` a line (htpasswd -B); without it nobody is asked who they are
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// How clients prove who they are
    #[arg(long, value_enum, default_value_t = Auth::Basic, requires = "htpasswd")]
    auth: Auth,
    /// Who may do what in which repositories; without it every account may do everything
    #[arg(long, value_name = "FILE", requires = "htpasswd")]
    rights: Option<PathBuf>,
    /// Let everybody pull everything
    #[arg(long, requires = "htpasswd")]
    anonymous_pull: bool,
    /// Take no pushes and no deletions
    #[arg(long)]
    read_only: bool,
    /// Serve Prometheus metrics on a second address, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Auth {
    Basic,
    Token,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    if options.htpasswd.is_none() && !options.listen.ip().is_loopback() && !options.read_only {
        bail!(
            "--listen {} would let everybody who reaches it write: give --htpasswd FILE (or --read-only), or listen on loopback",
            options.listen
        );
    }
    paths.make()?;
    let _lock = Lock::take(paths)?;
    crate::daemon::init_logging();
    let registry = open(paths, options)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(registry, options))
}

fn open(paths: &Paths, options: &Options) -> Result<Registry> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::load(certificate, key).context("cannot serve TLS")?),
        _ => None,
    };
    let rights = match &options.rights {
        Some(path) => {
            Rights::parse(&read(path)?, options.anonymous_pull).with_context(|| path.display().to_string())?
        }
        None => Rights::open(options.anonymous_pull),
    };
    let scheme = match options.auth {
        Auth::Basic => Scheme::Basic,
        Auth::Token => Scheme::Token,
    };
    let login = options.htpasswd.as_deref().map(|htpasswd| Login { htpasswd, rights, scheme });
    let content = content::Store::open(&paths.root).context("cannot open the content store")?;
    let config = Config { read_only: options.read_only, tls, ..Config::default() };
    Registry::with_config(content, config, login).context("cannot open the registry")
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

async fn serve(registry: Registry, options: &Options) -> Result<()> {
    let bind = async |address: SocketAddr| {
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("cannot listen on {address}: end what listens there, or choose another"))
    };
    let listener = bind(options.listen).await?;
    let metrics = match options.metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let counted = registry.clone();
    let metrics = async move {
        match metrics {
            Some(listener) => counted.serve_metrics(listener).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tracing::info!(listen = %options.listen, tls = options.tls_cert.is_some(), "registry ready");
    tokio::select! {
        ended = registry.serve(listener) => ended.context("the registry ended"),
        ended = metrics => ended.context("the metrics ended"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
