//! Creating a container.
//!
//! Journaled: the intent is on disk before anything is made, and the container exists from the moment the
//! intent is renamed to its record. `adopt` undoes what stopped in between.

use std::{fs, path::Path};

use jiff::Timestamp;
use networking::Driver;

use super::log_options;
use crate::{
    Engine, blocking,
    config::{Config, HostConfig},
    disk::{self, Durability},
    error::{Error, Result},
    ids, merge, mounts, ports,
    record::{CreateContainer, CreatedContainer, Phase, Record},
    restart, signal,
    table::{RECORD, Slot},
};

/// What a create means to make; becomes the record by a rename.
pub(crate) const INTENT: &str = "intent.json";
/// Docker's smallest memory limit.
const LEAST_MEMORY: i64 = 6 << 20;
const DEFAULT_SHM: i64 = 64 << 20;

impl Engine {
    /// Makes a container: record, root filesystem, volumes. Nothing is left behind on failure.
    pub async fn create_container(&self, request: CreateContainer) -> Result<CreatedContainer> {
        let mut warnings = Vec::new();
        validate(&request, &mut warnings)?;
        let image = self.find_image(&request.config.image)?;
        let id = ids::random_id();
        let name = self.take_name(request.name.as_deref(), &id)?;
        let made = self.make(&id, &name, request, image).await;
        match made {
            Ok(record) => {
                tracing::info!(container = %record.id, name = %record.name, image = %record.config.image, "container created");
                self.container_event(&record, "create", &[]);
                Ok(CreatedContainer { id, warnings })
            }
            Err(error) => {
                self.0.table.release(&name);
                Err(error)
            }
        }
    }

    fn take_name(&self, wanted: Option<&str>, id: &str) -> Result<String> {
        if let Some(name) = wanted.filter(|name| !name.is_empty()) {
            let name = name.strip_prefix('/').unwrap_or(name);
            ids::check_name(name)?;
            self.0.table.reserve(name, id)?;
            return Ok(name.to_owned());
        }
        for attempt in 0..20 {
            let name = ids::random_name(attempt);
            if self.0.table.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        self.0.table.reserve(&name, id)?;
        Ok(name)
    }

    async fn make(&self, id: &str, name: &str, request: CreateContainer, image: content::Image) -> Result<Record> {
        let config = merge::merge(request.config, &image.config.config);
        if merge::args(&config).is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        let mut host = request.host;
        fill_defaults(&mut host);
        if let Some(links) = &host.links {
            host.links = Some(self.checked_links(links, name)?);
        }
        ports::published(&config, &host)?;
        if !config.stop_signal.is_empty() {
            signal::parse(&config.stop_signal)?;
        }
        let mut networks = request.networks;
        if request.pod.is_none() {
            self.check_networks(&host, networks.keys())?;
            networks = networks.into_iter().map(|(name, asked)| (self.network_name(name), asked)).collect();
            host.network_mode = self.network_name(host.network_mode);
        }
        let inherited = self.inherited_mounts(&host)?;
        let planned = mounts::plan(&config, &host, inherited)?;
        let hostname = hostname(&config, &host, id);
        let cgroup = self.cgroup_of(id, request.pod.as_ref(), &host)?;
        let record = Record {
            id: id.to_owned(),
            name: name.to_owned(),
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            config,
            host,
            networks,
            networks_are_all: false,
            mounts: Vec::new(),
            pod: request.pod,
            cgroup,
            hostname,
            restart_count: 0,
            stopped_by_user: false,
            started_at: None,
            start_failure: None,
        };
        let engine = self.clone();
        blocking(move || engine.put_on_disk(record, planned, &image)).await
    }

    /// The steps that touch the disk, in the order that a crash can be undone in.
    fn put_on_disk(&self, mut record: Record, planned: Vec<mounts::Planned>, image: &content::Image) -> Result<Record> {
        let dir = self.container_dir(&record.id);
        disk::make_dir(&dir)?;
        let made = (|| {
            record.mounts = self.name_volumes(&planned);
            // Before the volumes: the sweep finds anonymous ones by the intent.
            disk::write_json(&dir.join(INTENT), &record, Durability::Cached)?;
            self.make_mount_sources(&planned, &mut record.mounts)?;
            self.prepare_root(&record, image)?;
            disk::write_json(&dir.join(INTENT), &record, Durability::Synced)?;
            fs::rename(dir.join(INTENT), dir.join(RECORD)).map_err(|e| Error::file("rename to", dir.join(RECORD), e))
        })();
        if let Err(error) = made {
            self.undo_create(&record, &dir);
            return Err(error);
        }
        self.0.table.insert(Slot::new(record.clone(), Phase::Created, dir));
        Ok(record)
    }

    /// Takes away what a create made; also called at open for creates that a crash interrupted.
    pub(crate) fn undo_create(&self, record: &Record, dir: &Path) {
        if let Err(error) = self.0.parts.snapshots.remove(&record.id) {
            tracing::warn!(container = %record.id, %error, "root filesystem of an undone create not removed");
        }
        self.remove_anonymous_volumes(record);
        if let Err(error) = fs::remove_dir_all(dir) {
            tracing::warn!(container = %record.id, %error, "directory of an undone create not removed");
        }
    }

    /// Unknown networks are refused at start by Docker; a wrong mode is refused here already.
    fn check_networks<'a>(&self, host: &'a HostConfig, named: impl Iterator<Item = &'a String>) -> Result<()> {
        if let Some(other) = host.network_mode.strip_prefix("container:") {
            self.find(other)?;
            return Ok(());
        }
        let mode = Some(&host.network_mode).filter(|mode| !is_default_network(mode));
        for network in mode.into_iter().chain(named.filter(|name| !is_default_network(name))) {
            let found = self.0.parts.networking.network(network).map_err(super::network::wire)?;
            if found.driver == Driver::Host && !host.port_bindings.is_empty() {
                tracing::debug!(network, "published ports are discarded when using host network mode");
            }
        }
        Ok(())
    }

    /// A network may be named by its ID; a container knows it by its name.
    fn network_name(&self, given: String) -> String {
        let shared = is_default_network(&given) || given.starts_with("container:");
        let found = (!shared).then(|| self.0.parts.networking.network(&given).ok()).flatten();
        found.map_or(given, |network| network.name)
    }

    fn cgroup_of(&self, id: &str, pod: Option<&crate::InSandbox>, host: &HostConfig) -> Result<String> {
        if let Some(pod) = pod {
            return Ok(format!("{}/{id}", self.sandbox_cgroup(&pod.sandbox)?));
        }
        let parent = Some(host.resources.cgroup_parent.trim_matches('/')).filter(|p| !p.is_empty());
        if parent.is_some_and(|p| p.split('/').any(|part| part == "..")) {
            return Err(Error::Invalid(format!("invalid cgroup parent: {}", host.resources.cgroup_parent)));
        }
        Ok(format!("/{}/{id}", parent.unwrap_or(&self.0.parts.cgroup_parent)))
    }

    pub(crate) fn container_dir(&self, id: &str) -> std::path::PathBuf {
        self.0.parts.root.join("containers").join(id)
    }
}

pub(crate) fn is_default_network(name: &str) -> bool {
    matches!(name, "" | "default" | "bridge")
}

fn hostname(config: &Config, host: &HostConfig, id: &str) -> String {
    if !config.hostname.is_empty() {
        config.hostname.clone()
    } else if host.network_mode == "host" {
        node_hostname()
    } else {
        id[..12].to_owned()
    }
}

fn node_hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn fill_defaults(host: &mut HostConfig) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = DEFAULT_SHM;
    }
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if host.log_config.r#type.is_empty() {
        "json-file".clone_into(&mut host.log_config.r#type);
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.runtime.is_empty() {
        "runc".clone_into(&mut host.runtime);
    }
    let resources = &mut host.resources;
    // As Docker: a memory limit alone allows as much swap again.
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    host.readonly_paths.get_or_insert_with(|| READONLY_PATHS.map(str::to_owned).into());
    host.masked_paths.get_or_insert_with(|| MASKED_PATHS.map(str::to_owned).into());
    if host.privileged {
        host.readonly_paths = None;
        host.masked_paths = None;
    }
}

const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Refuses what could never run, in Docker's words.
fn validate(request: &CreateContainer, warnings: &mut Vec<String>) -> Result<()> {
    let (config, host) = (&request.config, &request.host);
    if config.image.is_empty() {
        return Err(Error::Invalid("no image specified".to_owned()));
    }
    restart::validate(&host.restart_policy, host.auto_remove)?;
    validate_resources(&host.resources)?;
    if host.shm_size < 0 {
        return Err(Error::Invalid("SHM size can not be less than 0".to_owned()));
    }
    let working_dir = &config.working_dir;
    if !working_dir.is_empty() && !working_dir.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory '{working_dir}' is invalid, it needs to be an absolute path"
        )));
    }
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::Invalid(format!("invalid environment variable: {variable}")));
        }
    }
    log_options::validate(&host.log_config)?;
    match host.runtime.as_str() {
        "" | "runc" => {}
        other => return Err(Error::Invalid(format!("unknown or invalid runtime name: {other}"))),
    }
    if host.network_mode.starts_with("container:") {
        shares_network(config, host)?;
    }
    if host.resources.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()) {
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
                .to_owned(),
        );
    }
    if host.resources.device_requests.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(Error::Invalid("could not select device driver \"\" with capabilities: [[gpu]]".to_owned()));
    }
    Ok(())
}

/// Whoever has another's network cannot ask for one of its own.
fn shares_network(config: &Config, host: &HostConfig) -> Result<()> {
    let conflict = |what: &str| Err(Error::Invalid(format!("conflicting options: {what}")));
    if !host.port_bindings.is_empty() || host.publish_all_ports {
        return conflict("port publishing and the container type network mode");
    }
    if !config.exposed_ports.is_empty() {
        return conflict("port exposing and the container type network mode");
    }
    if !config.hostname.is_empty() {
        return conflict("hostname and the network mode");
    }
    if host.links.as_ref().is_some_and(|links| !links.is_empty()) {
        return conflict("container type network can't be used with links. This would result in undefined behavior");
    }
    if !host.dns.is_empty() {
        return conflict("dns and the network mode");
    }
    if host.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
        return conflict("custom host-to-IP mapping and the network mode");
    }
    Ok(())
}

pub(super) fn validate_resources(resources: &crate::config::Resources) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if resources.memory > 0 && resources.memory < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if resources.memory > 0 && resources.memory_swap > 0 && resources.memory_swap < resources.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if resources.memory == 0 && resources.memory_swap > 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if resources.nano_cpus < 0 {
        return invalid("NanoCPUs can not be set to a negative value");
    }
    if resources.nano_cpus > 0 && (resources.cpu_period > 0 || resources.cpu_quota > 0) {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if resources.cpu_shares < 0 {
        return invalid(&format!("invalid CPU shares ({}): value must be a positive integer", resources.cpu_shares));
    }
    if resources.cpu_period != 0 && !(1_000..=1_000_000).contains(&resources.cpu_period) {
        return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}
