//! A process of the control plane: a copy, and writes that it may die at.
//!
//! Invariant: after a crash nothing of the old copy or plan is left; a write that was under way was either done or not.

use crate::events::{Copy, Faults};
use crate::objects::{Key, Object};
use crate::random::Random;
use crate::store::{Part, Refused, Store};
use k8s_openapi::api::core::v1::Pod;

pub(crate) struct Actor {
    pub(crate) copy: Copy,
    pub(crate) crashed: bool,
}

/// What one turn works with.
pub(crate) struct Turn<'a> {
    pub(crate) actor: &'a mut Actor,
    pub(crate) store: &'a mut Store,
    pub(crate) faults: Faults,
    pub(crate) random: &'a mut Random,
}

/// The turn is over: the view was old, or the process died.
pub(crate) struct Over;

impl Turn<'_> {
    fn write<T>(&mut self, write: impl FnOnce(&mut Store) -> Result<T, Refused>) -> Result<T, Over> {
        let (before, after) = (self.random.chance(self.faults.crash), self.random.chance(self.faults.crash));
        if before {
            self.actor.crashed = true;
            return Err(Over);
        }
        let done = write(self.store);
        if after {
            self.actor.crashed = true;
            return Err(Over);
        }
        done.map_err(|_| Over)
    }

    fn seen(&mut self, object: Object) -> Object {
        match self.store.get(&object.key()) {
            Some(_) => self.actor.copy.observe(&object),
            None => self.actor.copy.observe_gone(&object.key(), self.store),
        }
        object
    }

    pub(crate) fn create(&mut self, object: Object) -> Result<Object, Over> {
        let made = self.write(|store| store.create(object))?;
        Ok(self.seen(made))
    }

    pub(crate) fn update(&mut self, object: Object) -> Result<Object, Over> {
        let written = self.write(|store| store.update(object, Part::Main))?;
        Ok(self.seen(written))
    }

    pub(crate) fn update_status(&mut self, object: Object) -> Result<Object, Over> {
        let written = self.write(|store| store.update(object, Part::Status))?;
        Ok(self.seen(written))
    }

    pub(crate) fn delete(&mut self, object: &Object) -> Result<(), Over> {
        let key = object.key();
        match self.write(|store| match store.delete(&key, object.uid()) {
            Err(Refused::Missing) => Ok(()),
            other => other,
        }) {
            Ok(()) => {
                self.look_again(&key);
                Ok(())
            }
            Err(over) => Err(over),
        }
    }

    fn look_again(&mut self, key: &Key) {
        match self.store.get(key).cloned() {
            Some(object) => self.actor.copy.observe(&object),
            None => self.actor.copy.observe_gone(key, self.store),
        }
    }

    pub(crate) fn bind(&mut self, pod: &Pod, node: &str) -> Result<(), Over> {
        let key = (crate::objects::Kind::Pod, pod.metadata.name.clone().unwrap_or_default());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let bound = self.write(|store| store.bind(&key, &uid, node))?;
        self.actor.copy.observe(&bound);
        Ok(())
    }
}
