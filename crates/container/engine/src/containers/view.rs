//! What others see of containers: snapshots of their slots, with the network as it is now.

use crate::{
    Engine, blocking,
    disk::Durability,
    error::{Error, Result},
    ids,
    record::{Attachment, Container, Exited, Phase, Published},
    table::Slot,
};

impl Engine {
    /// One container by name, ID or unambiguous prefix.
    pub fn container(&self, name: &str) -> Result<Container> {
        Ok(self.view(&*self.find(name)?))
    }

    /// All containers of both halves, newest first.
    pub fn containers(&self) -> Vec<Container> {
        let mut all: Vec<_> = self.0.table.all().iter().map(|slot| self.view(slot)).collect();
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created).then_with(|| a.record.id.cmp(&b.record.id)));
        all
    }

    fn view(&self, slot: &Slot) -> Container {
        let (record, phase, health, execs) = {
            let state = slot.state();
            (state.record.clone(), state.phase.clone(), state.health.clone(), state.execs.clone())
        };
        // A container in a pod has the pod's network: `cri` reports that of the sandbox.
        let endpoints = match phase {
            Phase::Running(_) if record.pod.is_none() => self.0.parts.networking.endpoints(&record.id),
            _ => Vec::new(),
        };
        let published = endpoints.iter().flat_map(|endpoint| &endpoint.ports).map(|port| Published {
            container_port: port.container_port,
            protocol: port.protocol.as_str(),
            host_ip: port.host_ip,
            host_port: port.host_port,
        });
        let published = published.collect();
        let log_path = match &record.pod {
            Some(pod) => pod.log_path.clone(),
            // Only json-file's is meant to be read by others.
            None => super::log_options::log_file(&record, &slot.dir).filter(|_| record.host.log_config.r#type == "json-file"),
        };
        Container {
            attachments: endpoints
                .into_iter()
                .map(|endpoint| Attachment {
                    network: endpoint.network_name,
                    network_id: endpoint.network.to_string(),
                    endpoint_id: endpoint.id,
                    ip: Some(endpoint.address),
                    prefix_len: endpoint.prefix_len,
                    gateway: endpoint.gateway,
                    mac: endpoint.mac.to_string(),
                    aliases: endpoint.aliases,
                })
                .collect(),
            published,
            phase: with_failure(phase, &record),
            log_path,
            dir: slot.dir.clone(),
            execs: self.running_execs(&execs),
            health,
            record,
        }
    }

    /// Gives it another name.
    pub async fn rename_container(&self, name: &str, new: &str) -> Result<()> {
        let slot = self.find(name)?;
        let new = new.strip_prefix('/').unwrap_or(new);
        if new.is_empty() {
            return Err(Error::Invalid("Neither old nor new names may be empty".to_owned()));
        }
        ids::check_name(new)?;
        let _life = slot.life.lock().await;
        let old = slot.record().name;
        if old == new {
            return Err(Error::Invalid("Renaming a container with the same name as its current name".to_owned()));
        }
        self.0.table.reserve(new, &slot.id)?;
        if let Err(error) = slot.update_record(Durability::Synced, |record| new.clone_into(&mut record.name)) {
            slot.state().record.name.clone_from(&old);
            self.0.table.release(new);
            return Err(error);
        }
        self.0.table.release(&old);
        self.container_event(&slot.record(), "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Bytes that the container itself wrote.
    pub async fn container_size(&self, name: &str) -> Result<u64> {
        let (engine, id) = (self.clone(), self.find(name)?.id.clone());
        blocking(move || engine.0.parts.snapshots.usage(&id).map_err(|e| Error::system("measure root filesystem", e)))
            .await
    }
}

/// A start that failed is told by a container that never ran as well: as the exit of its phase.
fn with_failure(phase: Phase, record: &crate::record::Record) -> Phase {
    match (phase, &record.start_failure, record.started_at) {
        (Phase::Exited(exited), Some((code, error)), Some(_)) => {
            Phase::Exited(Exited { code: *code, error: error.clone(), ..exited })
        }
        (phase, ..) => phase,
    }
}
