//! (first the signatures)
use crate::*;
use std::path::PathBuf;

/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Networking;

impl Networking {
    /// Makes or adopts links, tables, saved networks and endpoints; resumes the resolvers.
    pub async fn open(_config: NetworkingConfig) -> Result<Self, Error> { todo!() }
    pub async fn create_network(&self, _spec: NetworkSpec) -> Result<Network, Error> { todo!() }
    pub fn networks(&self) -> Vec<Network> { todo!() }
    /// By name, id, or the unambiguous beginning of an id.
    pub fn network(&self, _name_or_id: &str) -> Result<Network, Error> { todo!() }
    pub async fn remove_network(&self, _name_or_id: &str) -> Result<(), Error> { todo!() }
    /// A namespace from the pool, pinned at the path that is returned; `lo` is up.
    pub async fn create_namespace(&self, _id: &str) -> Result<PathBuf, Error> { todo!() }
    /// Where [`Networking::create_namespace`] pins it.
    pub fn namespace_path(&self, _id: &str) -> PathBuf { todo!() }
    /// All endpoints of a namespace, in the order of their interfaces.
    pub fn endpoints(&self, _id: &str) -> Vec<Endpoint> { todo!() }
    pub async fn connect(&self, _id: &str, _network: &str, _spec: EndpointSpec) -> Result<Endpoint, Error> { todo!() }
    pub async fn disconnect(&self, _id: &str, _network: &str, _force: bool) -> Result<(), Error> { todo!() }
    /// Also all its endpoints and ports; idempotent; goes on after a failure and returns them all.
    pub async fn remove_namespace(&self, _id: &str) -> Result<(), Vec<Error>> { todo!() }
    /// `purge` removes links, tables and namespaces; otherwise everything keeps working in the kernel.
    pub async fn shutdown(&self, _purge: bool) -> Result<(), Vec<Error>> { todo!() }
}
