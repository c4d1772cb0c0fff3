//! The engine's memory of its containers: slots by ID, names, and the pulse that waits listen to.
//!
//! Every module finds containers here. Invariant: a name belongs to one container at a time, from the moment
//! its create began until its removal was acknowledged. Locks here are held for lookups only, never across I/O.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Engine,
    error::{Error, Result},
    exec::AttachOptions,
    record::{Health, Phase, Record},
};

/// What a wait can see of a container's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) running: bool,
    /// How often it ended.
    pub(crate) exits: u64,
    pub(crate) code: i32,
    pub(crate) removed: bool,
}

/// A client that attached before the start.
pub(crate) struct Pending {
    pub(crate) options: AttachOptions,
    pub(crate) ready: oneshot::Sender<monitor::Attached>,
}

/// The changing half of a slot.
pub(crate) struct State {
    pub(crate) record: Record,
    pub(crate) phase: Phase,
    pub(crate) handle: Option<monitor::Handle>,
    pub(crate) health: Option<Health>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) execs: Vec<String>,
    /// Delay before the last automatic restart.
    pub(crate) last_delay: Option<Duration>,
    /// What the last run left behind is being taken away; the next start waits for it.
    pub(crate) teardown: Option<JoinHandle<()>>,
    /// Background work that ends with the run: health checks, a restart's back-off.
    pub(crate) helpers: Vec<tokio::task::AbortHandle>,
}

/// One container.
pub(crate) struct Slot {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    /// One life-changing verb at a time.
    pub(crate) life: tokio::sync::Mutex<()>,
    pub(crate) pulse: watch::Sender<Pulse>,
    state: Mutex<State>,
}

impl Slot {
    pub(crate) fn new(record: Record, phase: Phase, dir: PathBuf) -> Arc<Self> {
        let code = match &phase {
            Phase::Exited(exited) | Phase::Restarting(exited) => exited.code,
            Phase::Created | Phase::Running(_) | Phase::Removing | Phase::Dead => 0,
        };
        let pulse = Pulse { running: matches!(phase, Phase::Running(_)), exits: 0, code, removed: false };
        Arc::new(Self {
            id: record.id.clone(),
            dir,
            life: tokio::sync::Mutex::default(),
            pulse: watch::Sender::new(pulse),
            state: Mutex::new(State {
                record,
                phase,
                handle: None,
                health: None,
                pending: Vec::new(),
                execs: Vec::new(),
                last_delay: None,
                teardown: None,
                helpers: Vec::new(),
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> Record {
        self.state().record.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase.clone()
    }

    /// The monitor of a running container.
    pub(crate) fn handle(&self) -> Result<monitor::Handle> {
        let state = self.state();
        match (&state.phase, &state.handle) {
            (Phase::Running(_), Some(handle)) => Ok(handle.clone()),
            _ => Err(Error::NotRunning(self.id.clone())),
        }
    }

    /// Changes the record and keeps it on disk.
    pub(crate) fn update_record(
        &self,
        durability: crate::disk::Durability,
        change: impl FnOnce(&mut Record),
    ) -> Result<()> {
        let mut state = self.state();
        change(&mut state.record);
        crate::disk::write_json(&self.dir.join(RECORD), &state.record, durability)
    }

    pub(crate) fn abort_helpers(&self) {
        self.state().helpers.drain(..).for_each(|helper| helper.abort());
    }
}

/// The record's file name in the container's directory: a container exists exactly when this does.
pub(crate) const RECORD: &str = "record.json";

/// All containers.
#[derive(Default)]
pub(crate) struct Table(RwLock<Index>);

#[derive(Default)]
struct Index {
    slots: BTreeMap<String, Arc<Slot>>,
    names: BTreeMap<String, String>,
}

impl Table {
    /// Takes a name for an ID.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = index.names.get(name) {
            return Err(Error::NameTaken { name: name.to_owned(), holder: holder.clone() });
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub(crate) fn release(&self, name: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).names.remove(name);
    }

    pub(crate) fn insert(&self, slot: Arc<Slot>) {
        let name = slot.record().name;
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.names.insert(name, slot.id.clone());
        index.slots.insert(slot.id.clone(), slot);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &str) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.slots.remove(id);
        index.names.retain(|_, holder| holder != id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).slots.values().cloned().collect()
    }

    /// By ID, name (with or without slash), or unambiguous ID prefix.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Slot>> {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        let exact = index.slots.get(wanted).or_else(|| index.names.get(name).and_then(|id| index.slots.get(id)));
        if let Some(slot) = exact {
            return Ok(Arc::clone(slot));
        }
        let missing = || Error::NoSuchContainer(wanted.to_owned());
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matches = index.slots.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, slot)), None) => Ok(Arc::clone(slot)),
            (Some(_), Some(_)) => Err(Error::Ambiguous(wanted.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

impl Engine {
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Slot>> {
        self.0.table.find(name)
    }
}
