//! `create` and `run`.

use std::path::{Path, PathBuf};

use kernel::{cgroup::Hierarchies, process::NamespaceFlags};
use oci::runtime_spec::Spec;
use runtime::{
    Plan,
    container::{Container, Ends, create_with},
};

use crate::{
    arguments::{Arguments, Flag, switch, value},
    bundle,
    console::{self, Console},
    error::Error,
    foreground,
    global::Global,
    lifecycle,
    record::{Place, Record, replace, start_time},
};

pub(crate) const FLAGS: &[Flag] = &[
    value("bundle", "b"),
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("pid-file", ""),
    switch("no-pivot", ""),
    switch("no-new-keyring", ""),
    value("preserve-fds", ""),
    switch("detach", "d"),
    switch("keep", ""),
    switch("no-subreaper", ""),
];

/// A container is to be made; the process stays behind at its gate.
pub(crate) fn create(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let request = Request::new(global, arguments)?;
    request.check_console(true)?;
    request.place.reserve()?;
    request.make(true).inspect_err(|_| drop(request.place.remove()))?;
    Ok(0)
}

/// Made, started, and unless it is to be detached waited for and deleted. The exit code is the program's.
pub(crate) fn run(global: &Global, arguments: &Arguments) -> Result<u8, Error> {
    let request = Request::new(global, arguments)?;
    let detached = arguments.has("detach");
    request.check_console(detached)?;
    request.place.reserve()?;
    let signals = if detached { None } else { Some(foreground::Signals::block()?) };
    let (mut container, record) = request.make(false).inspect_err(|_| drop(request.place.remove()))?;
    let started = container.start().map_err(Error::Create).and_then(|()| lifecycle::after_start(&record));
    if let Err(error) = started {
        let _ = kernel::process::signal(record.pid, 9);
        let _ = foreground::reap(record.pid);
        let _ = lifecycle::destroy(&request.place, &record);
        return Err(error);
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let code = signals.follow(record.pid, container.console.take())?;
    if !arguments.has("keep") {
        lifecycle::destroy(&request.place, &record)?;
    }
    Ok(code)
}

/// What the command line asks for.
struct Request {
    place: Place,
    id: String,
    bundle: PathBuf,
    spec: Spec,
    console: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    keep_descriptors: u32,
    no_pivot: bool,
    keep_keyring: bool,
}

impl Request {
    fn new(global: &Global, arguments: &Arguments) -> Result<Self, Error> {
        if arguments.value("pidfd-socket").is_some() {
            return Err(Error::Unsupported("--pidfd-socket"));
        }
        let id = arguments.only_id()?.to_owned();
        let bundle = PathBuf::from(arguments.value("bundle").filter(|path| !path.is_empty()).unwrap_or("."));
        let bundle = std::path::absolute(&bundle).map_err(|error| Error::io("resolve", &bundle, error))?;
        let absolute = |name: &str| {
            let path = arguments.value(name).filter(|path| !path.is_empty()).map(Path::new);
            path.map(|path| std::path::absolute(path).map_err(|error| Error::io("resolve", path, error))).transpose()
        };
        Ok(Request {
            place: Place::of(global, &id)?,
            spec: bundle::load(&bundle)?,
            console: absolute("console-socket")?,
            pid_file: absolute("pid-file")?,
            keep_descriptors: kept_descriptors(arguments)?,
            no_pivot: arguments.has("no-pivot"),
            keep_keyring: arguments.has("no-new-keyring"),
            id,
            bundle,
        })
    }

    /// A terminal needs somebody who holds its other end.
    fn check_console(&self, detached: bool) -> Result<(), Error> {
        let terminal = self.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
        console::check(terminal, detached, self.console.is_some())
    }

    fn make(&self, with_gate: bool) -> Result<(Container, Record), Error> {
        let (mut plan, spec) = bundle::plan(self.spec.clone(), &self.bundle, &self.id)?;
        plan.no_pivot = self.no_pivot;
        plan.keep_keyring = self.keep_keyring;
        pass_listeners(&mut plan);
        let gate = if with_gate { Some(self.place.make_gate()?) } else { None };
        let ends = Ends { stdio: None, gate, keep_descriptors: self.keep_descriptors };
        let mut container = create_with(&plan, &Hierarchies::detect()?, ends).map_err(Error::Create)?;
        let finished = self.finish(&mut container, plan, &spec).and_then(|record| {
            if with_gate {
                container.hand_over().map_err(Error::Create)?;
            }
            Ok(record)
        });
        finished
            .inspect_err(|_| {
                let _ = kernel::process::signal(container.pid, 9);
                let _ = foreground::reap(container.pid);
                container.cgroup.remove();
            })
            .map(|record| (container, record))
    }

    /// The record before the pid file: whoever waits for that may ask at once.
    fn finish(&self, container: &mut Container, plan: Plan, spec: &Spec) -> Result<Record, Error> {
        if let Some(socket) = &self.console
            && let Some(master) = container.console.take()
        {
            Console::send(&master, socket)?;
        }
        let record = self.record(container.pid, plan, spec)?;
        self.place.save(&record)?;
        if let Some(path) = &self.pid_file {
            replace(path, container.pid.to_string().as_bytes())?;
        }
        Ok(record)
    }

    fn record(&self, pid: i32, plan: Plan, spec: &Spec) -> Result<Record, Error> {
        let namespaces = plan.separate_namespaces();
        let process =
            spec.process().clone().ok_or_else(|| Error::Usage("process property must not be empty".to_owned()))?;
        let rootfs = spec.root().as_ref().map(|root| self.bundle.join(root.path())).unwrap_or_default();
        Ok(Record {
            oci_version: spec.version().clone(),
            id: self.id.clone(),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            bundle: self.bundle.clone(),
            rootfs,
            created: jiff::Timestamp::now().to_string(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            cgroup: plan.cgroup,
            namespaces,
            own_pids: NamespaceFlags::from_bits(plan.new_namespaces).contains(NamespaceFlags::PID),
            hooks: plan.hooks,
            process,
            seccomp: plan.seccomp,
            personality: plan.process.personality,
        })
    }
}

/// `--preserve-fds`, and the sockets that systemd handed over.
pub(crate) fn kept_descriptors(arguments: &Arguments) -> Result<u32, Error> {
    Ok(arguments.number::<u32>("preserve-fds")?.unwrap_or(0).saturating_add(listeners()))
}

fn listeners() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn pass_listeners(plan: &mut Plan) {
    let count = listeners();
    if count > 0 {
        plan.process.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    }
}
