//! Making, stopping, removing and adopting sandboxes.
//!
//! The record is written before the namespaces are made, with `ready: false`; a crash in between leaves a
//! record that the next open removes with all that it may have made.

use std::{fs, time::Duration};

use jiff::Timestamp;
use networking::{EndpointSpec, HostPort, POD_NETWORK, Protocol, PublishedPort};

use super::{PortMapping, Sandbox, SandboxRecord, SandboxSpec, namespaces};
use crate::{
    Engine, RemoveOptions, Subject, blocking,
    containers::{network_error, render_resolv_conf},
    disk::{self, Durability},
    error::{Error, Result},
    ids,
};

const RECORD: &str = "sandbox.json";
/// Stands while a sandbox is being made or removed.
const UNFINISHED: &str = "unfinished";

impl Engine {
    /// Makes a sandbox: namespaces, address, files. Nothing is left behind on failure.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        if spec.shared_pid {
            return Err(Error::Unsupported(
                "a PID namespace shared by the containers of a pod is not offered yet".to_owned(),
            ));
        }
        if spec.cgroup_parent.split('/').any(|part| part == "..") || spec.uid.contains('/') {
            return Err(Error::Invalid("invalid cgroup parent of the sandbox".to_owned()));
        }
        let id = ids::random_id();
        let mut record = SandboxRecord { id: id.clone(), spec, created_at: Timestamp::now(), ip: None, ready: false };
        match self.make_sandbox(&mut record).await {
            Ok(()) => {
                let view = self.sandbox_view(&record);
                tracing::info!(sandbox = %id, pod = %record.spec.name, namespace = %record.spec.namespace, "sandbox created");
                self.0.sandboxes.insert(record);
                self.publish(Subject::Sandbox, "create", &id, Default::default());
                Ok(view)
            }
            Err(error) => {
                self.unmake_sandbox(&id).await;
                Err(error)
            }
        }
    }

    async fn make_sandbox(&self, record: &mut SandboxRecord) -> Result<()> {
        let (dir, spec) = (self.sandbox_dir(&record.id), record.spec.clone());
        disk::make_dir(&dir)?;
        disk::write(&dir.join(UNFINISHED), b"", 0o600, Durability::Cached)?;
        let shared = {
            let (dir, spec) = (dir.clone(), spec.clone());
            blocking(move || namespaces::make(&dir, &spec))
        };
        let (shared, ip) = tokio::join!(shared, self.sandbox_network(&record.id, &spec));
        shared?;
        record.ip = ip?;
        self.write_sandbox_files(record)?;
        if !spec.host_network && spec.sysctls.keys().any(|key| key.starts_with("net.")) {
            let path = self.0.parts.networking.namespace_path(&record.id);
            let sysctls = spec.sysctls.clone();
            blocking(move || namespaces::network_sysctls(&path, &sysctls)).await?;
        }
        record.ready = true;
        disk::write_json(&dir.join(RECORD), record, Durability::Cached)?;
        fs::remove_file(dir.join(UNFINISHED)).map_err(|e| Error::file("remove", dir.join(UNFINISHED), e))
    }

    async fn sandbox_network(&self, id: &str, spec: &SandboxSpec) -> Result<Option<std::net::Ipv4Addr>> {
        if spec.host_network {
            return Ok(None);
        }
        let networking = &self.0.parts.networking;
        networking.create_namespace(id).await.map_err(network_error)?;
        let ports = spec.ports.iter().filter(|port| port.host_port != 0).map(published).collect::<Result<_>>()?;
        let endpoint = EndpointSpec { name: spec.name.clone(), ports, ..EndpointSpec::default() };
        let endpoint = networking.connect(id, POD_NETWORK, endpoint).await.map_err(network_error)?;
        Ok(Some(endpoint.address))
    }

    fn write_sandbox_files(&self, record: &SandboxRecord) -> Result<()> {
        let (dir, spec) = (self.sandbox_dir(&record.id), &record.spec);
        let resolv_conf = match &spec.dns {
            Some(dns) => render_resolv_conf(dns),
            None => fs::read_to_string(&self.0.parts.host_resolv_conf).unwrap_or_default(),
        };
        let (hosts, hostname) = if spec.host_network {
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            (read("/etc/hosts"), read("/etc/hostname"))
        } else {
            let own: Vec<_> = record.ip.into_iter().collect();
            (networking::files::hosts(&spec.hostname, "", &own, &[]), networking::files::hostname(&spec.hostname))
        };
        for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts), ("hostname", hostname)] {
            disk::write(&dir.join(name), text.as_bytes(), 0o644, Durability::Cached)?;
        }
        Ok(())
    }

    /// Kills the sandbox's containers and takes its network away. Idempotent.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let Ok(entry) = self.0.sandboxes.find(id) else { return Ok(()) };
        let _life = entry.life.lock().await;
        let record = entry.record().clone();
        let members = self.members(&record.id);
        let kills = members.iter().map(|container| self.stop_container(container, Some(Duration::ZERO)));
        for killed in futures_util::future::join_all(kills).await {
            match killed {
                Ok(()) | Err(Error::NotModified(_) | Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if !record.ready {
            return Ok(());
        }
        {
            let mut record = entry.record();
            record.ready = false;
            disk::write_json(&self.sandbox_dir(&record.id).join(RECORD), &*record, Durability::Cached)?;
        }
        self.remove_sandbox_network(&record.id).await;
        self.publish(Subject::Sandbox, "stop", &record.id, Default::default());
        Ok(())
    }

    /// Stops and removes the sandbox and its containers. Idempotent.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Ok(entry) = self.0.sandboxes.find(id) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        let _life = entry.life.lock().await;
        let record = entry.record().clone();
        let options = RemoveOptions { force: true, volumes: true };
        for container in self.members(&record.id) {
            match self.remove_container(&container, options).await {
                Ok(()) | Err(Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let marker = self.sandbox_dir(&record.id).join(UNFINISHED);
        disk::write(&marker, b"", 0o600, Durability::Cached)?;
        self.0.sandboxes.all().remove(&record.id);
        tracing::info!(sandbox = %record.id, pod = %record.spec.name, "sandbox removed");
        self.unmake_sandbox(&record.id).await;
        self.publish(Subject::Sandbox, "destroy", &record.id, Default::default());
        Ok(())
    }

    fn members(&self, sandbox: &str) -> Vec<String> {
        let slots = self.0.table.all();
        let inside = slots.iter().filter(|slot| slot.record().pod.is_some_and(|pod| pod.sandbox == sandbox));
        inside.map(|slot| slot.id.clone()).collect()
    }

    async fn remove_sandbox_network(&self, id: &str) {
        if let Err(errors) = self.0.parts.networking.remove_namespace(id).await {
            errors.iter().for_each(|error| tracing::warn!(sandbox = id, %error, "network leftover"));
        }
    }

    /// Takes everything away that a sandbox may have made; its directory goes last.
    async fn unmake_sandbox(&self, id: &str) {
        self.remove_sandbox_network(id).await;
        let dir = self.sandbox_dir(id);
        let cgroup =
            fs::read(dir.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice::<SandboxRecord>(&bytes).ok());
        let cgroup = cgroup.map(|record| match record.spec.cgroup_parent.as_str() {
            "" => format!("/{}/pod{}", self.0.parts.cgroup_parent, record.spec.uid),
            parent => format!("/{}", parent.trim_matches('/')),
        });
        let id = id.to_owned();
        let unmade = blocking(move || {
            namespaces::unmake(&dir);
            if let Some(cgroup) = cgroup {
                namespaces::remove_empty_cgroup(&cgroup);
            }
            fs::remove_dir_all(&dir).map_err(|e| Error::file("remove", &dir, e))
        });
        if let Err(error) = unmade.await {
            tracing::warn!(sandbox = %id, %error, "sandbox leftover");
        }
    }

    /// Finds the sandboxes again; finishes what a crash interrupted.
    pub(crate) async fn adopt_sandboxes(&self) -> Result<()> {
        let dir = self.0.parts.root.join("sandboxes");
        for entry in fs::read_dir(&dir).map_err(|e| Error::file("read", &dir, e))? {
            let path = entry.map_err(|e| Error::file("read", &dir, e))?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let record = disk::read_json::<SandboxRecord>(&path.join(RECORD)).ok().flatten();
            match record.filter(|_| !path.join(UNFINISHED).exists()) {
                Some(mut record) => {
                    // After a reboot the pins are plain files: the pod gets a new sandbox.
                    let stands = record.spec.host_network
                        || kernel::netns::is_pinned(&self.0.parts.networking.namespace_path(&record.id));
                    record.ready &= stands;
                    self.0.sandboxes.insert(record);
                }
                None => self.unmake_sandbox(id).await,
            }
        }
        Ok(())
    }
}

fn published(port: &PortMapping) -> Result<PublishedPort> {
    let protocol = match port.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(Error::Invalid(format!("host port protocol {other} is not supported"))),
    };
    let host_port = HostPort::Fixed(port.host_port);
    Ok(PublishedPort { protocol, container_port: port.container_port, host_ip: port.host_ip, host_port })
}
