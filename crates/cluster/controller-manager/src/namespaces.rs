//! The namespace shell: gives every namespace its default ServiceAccount and the cluster's CA, and takes a namespace
//! that is being deleted apart.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, run};
use crate::teardown;
use controllers::namespace::{self, DEFAULT_ACCOUNT, ROOT_CA, RootCa};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube_client::informer::{Change, ObjectKey};
use kube_client::{ClientError, Object};
use std::sync::Arc;
use tokio::task::JoinSet;

const WORKERS: usize = 2;

struct Namespaces(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.namespaces, &queue, own_key);
    feed(tasks, &context.caches.accounts, &queue, |change| surroundings(change, DEFAULT_ACCOUNT));
    feed(tasks, &context.caches.root_cas, &queue, |change| surroundings(change, ROOT_CA));
    // A namespace goes when its last pod has gone.
    feed(tasks, &context.caches.pods, &queue, |change| match change {
        Change::Deleted { last } => namespace_of(&**last),
        Change::Applied { .. } => Vec::new(),
    });
    run(tasks, context, &queue, Namespaces(context.clone()), WORKERS);
}

fn surroundings<K: Object>(change: &Change<K>, name: &str) -> Vec<ObjectKey> {
    let object = &**change.object();
    if object.metadata().name.as_deref() == Some(name) { namespace_of(object) } else { Vec::new() }
}

fn namespace_of<K: Object>(object: &K) -> Vec<ObjectKey> {
    object.metadata().namespace.iter().map(|ns| ObjectKey::new("", ns.clone())).collect()
}

impl Reconcile for Namespaces {
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(namespace) = self.0.caches.namespaces.get_key(key) else {
            return Ok(None);
        };
        if namespace::is_terminating(&namespace) {
            return teardown::take_apart(&self.0, &namespace).await;
        }
        self.account(&namespace).await?;
        self.root_ca(&namespace).await?;
        Ok(None)
    }
}

impl Namespaces {
    async fn account(&self, namespace: &Namespace) -> Result<(), ClientError> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let accounts = &self.0.caches.accounts;
        let present = accounts.get(name, DEFAULT_ACCOUNT).is_some();
        let Some(account) = namespace::default_account(namespace, present) else {
            return Ok(());
        };
        if let Some(made) = or_present(self.0.client.api::<ServiceAccount>().create(&account).await)? {
            accounts.observe(&made);
        }
        Ok(())
    }

    async fn root_ca(&self, namespace: &Namespace) -> Result<(), ClientError> {
        if self.0.config.root_ca.is_empty() {
            return Ok(());
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let maps = &self.0.caches.root_cas;
        let api = self.0.client.api::<ConfigMap>();
        let written = match namespace::root_ca(namespace, maps.get(name, ROOT_CA).as_deref(), &self.0.config.root_ca) {
            RootCa::Nothing => None,
            RootCa::Create(map) => or_present(api.create(&map).await)?,
            RootCa::Update(map) => Some(api.update(&map).await?),
        };
        if let Some(written) = written {
            maps.observe(&written);
        }
        Ok(())
    }
}

/// What another has made in the meantime is as good; a namespace that goes away needs nothing.
fn or_present<T>(made: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(None),
        Err(error) => Err(error),
    }
}
