//! `gantry up`: runs every role in one process; with `--detach` in the background, returning when all is ready.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::commands::preflight;
use crate::door::Door;
use crate::instance::Lock;
use crate::paths::Paths;

/// Tells a waiting `up --detach` how the start went: one line, `ready …` or the error.
pub(crate) const READY_FD: &str = "GANTRY_READY_FD";

/// The path of a CRI runtime's socket, with or without `unix://` before it.
pub(crate) fn socket_of(endpoint: &str) -> Result<PathBuf> {
    let path = Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    if !path.is_absolute() {
        bail!(
            "--container-runtime-endpoint {endpoint}: give the absolute path of a Unix socket, with or without unix://"
        );
    }
    Ok(path.to_owned())
}

/// Starts in the background and waits for the word.
pub(crate) fn detached(paths: &Paths, door: &Door, runtime: Option<&Path>) -> Result<()> {
    preflight::check()?;
    paths.make()?;
    // Asked here too, so that the answer comes from the command that the user typed.
    drop(Lock::take(paths)?);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(paths.log())
        .with_context(|| format!("cannot open {}", paths.log().display()))?;
    let writer: OwnedFd = writer.into();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command
        .arg("up")
        .arg("--root")
        .arg(&paths.root)
        .args(door.arguments())
        .env(READY_FD, writer.as_raw_fd().to_string());
    if let Some(socket) = runtime {
        command.arg("--container-runtime-endpoint").arg(socket);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let child = command.spawn().context("cannot start gantry in the background")?;
    drop(writer);
    let mut line = String::new();
    BufReader::new(reader.take(4096)).read_line(&mut line)?;
    match line.trim_end().strip_prefix("ready ") {
        Some(text) => {
            println!("{text}");
            println!("point the stock clients at it:  eval \"$(gantry env{})\"", root_option(paths));
            Ok(())
        }
        None if line.trim().is_empty() => {
            bail!("gantry (process {}) ended before it was ready; see {}", child.id(), paths.log().display())
        }
        None => bail!("{}", line.trim_end()),
    }
}

/// Runs in the foreground until it is told to stop.
pub(crate) fn foreground(paths: &Paths, zygote: monitor::Zygote, door: &Door, runtime: Option<&Path>) -> Result<()> {
    let notice = Notice::take();
    let outcome = preflight::check()
        .and_then(|()| paths.make())
        .and_then(|()| Lock::take(paths))
        .and_then(|lock| crate::daemon::run(paths, zygote, &notice, lock, door, runtime));
    if let Err(error) = &outcome {
        notice.send(&format!("{error:#}"));
    }
    outcome
}

/// The pipe to a waiting `up --detach`, if there is one.
pub(crate) struct Notice(Option<std::sync::Mutex<std::fs::File>>);

impl Notice {
    fn take() -> Self {
        let number = std::env::var(READY_FD).ok().and_then(|text| text.parse().ok());
        let file = number.and_then(|number| kernel::process::adopt_descriptor(number).ok()).map(std::fs::File::from);
        Self(file.map(std::sync::Mutex::new))
    }

    /// Says it once; a foreground start has nobody to tell.
    pub(crate) fn send(&self, line: &str) {
        if let Some(file) = &self.0
            && let Ok(mut file) = file.lock()
        {
            // Nobody listening any more is no reason to stop.
            let _ = writeln!(file, "{}", line.replace('\n', " "));
        }
    }
}

fn root_option(paths: &Paths) -> String {
    if paths.root == std::path::Path::new(crate::paths::DEFAULT_ROOT) {
        String::new()
    } else {
        format!(" --root {}", paths.root.display())
    }
}
