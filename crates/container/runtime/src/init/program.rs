//! Which file is executed, with errors in the words that Docker's clients read (Go's `exec.LookPath`, then runc's).

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use kernel::process;

use crate::{Failure, FailureKind, ProcessPlan, failure::plain};

#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
}

/// Looked up in the container, from its working directory, while there are still privileges to look with.
pub(super) fn find(plan: &ProcessPlan) -> Result<Program, Failure> {
    let name = plan.args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(Program { path: PathBuf::from(name) }),
            Err(problem) => Err(problem.failure(name, true)),
        };
    }
    let path = plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    for dir in path.split(':') {
        // An empty element means the working directory; Go refuses to run from there, and so do we.
        if dir.is_empty() {
            continue;
        }
        let candidate = Path::new(dir).join(name);
        if executable(&candidate).is_ok() {
            return Ok(Program { path: candidate });
        }
    }
    Err(Failure { kind: FailureKind::NotFound, message: format!("exec: {name:?}: executable file not found in $PATH") })
}

#[derive(Debug)]
enum Problem {
    Stat(io::Error),
    Directory,
    NotExecutable,
}

impl Problem {
    fn failure(self, name: &str, named_by_path: bool) -> Failure {
        match self {
            Problem::Stat(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NotFound,
                    _other => FailureKind::NotExecutable,
                };
                let stat = if named_by_path { format!("stat {name}: ") } else { String::new() };
                Failure { kind, message: format!("exec: {name:?}: {stat}{}", plain(&error)) }
            }
            Problem::Directory => {
                Failure { kind: FailureKind::NotExecutable, message: format!("exec: {name:?}: is a directory") }
            }
            Problem::NotExecutable => {
                Failure { kind: FailureKind::NotExecutable, message: format!("exec: {name:?}: permission denied") }
            }
        }
    }
}

fn executable(path: &Path) -> Result<(), Problem> {
    let metadata = fs::metadata(path).map_err(Problem::Stat)?;
    if metadata.is_dir() {
        return Err(Problem::Directory);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Problem::NotExecutable);
    }
    Ok(())
}

impl Program {
    /// Returns only when the kernel refused.
    pub(super) fn execute(&self, plan: &ProcessPlan, home: Option<String>) -> Failure {
        let strings =
            |list: &[String]| list.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>();
        let path = CString::new(OsStr::as_bytes(self.path.as_os_str()));
        let (Ok(path), Ok(args), Ok(mut env)) = (path, strings(&plan.args), strings(&plan.env)) else {
            return Failure::invalid("args and env must not contain NUL");
        };
        env.extend(home.and_then(|home| CString::new(home).ok()));
        process::reset_signals();
        let error = process::exec(&path, &args, &env);
        let kind = match error.kind() {
            io::ErrorKind::NotFound => FailureKind::NotFound,
            _other => FailureKind::NotExecutable,
        };
        Failure { kind, message: format!("exec {}: {}", self.path.display(), plain(&error)) }
    }
}
