//! The Kubernetes half: store, API server, controllers, scheduler, node agent, proxy, DNS; and when it is ready.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{ApiServer, Identity, InProcess, Pki, ServingNames};
use controller_manager::{ControllerManager, Signer};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_client::Client;
use kube_client::informer::{Cache, Scope};
use node_agent::{NodeAgent, NodeAgentConfig};
use proxy::{Proxy, ProxyConfig};
use scheduler::Scheduler;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::daemon::drain::ProxyDrain;
use crate::daemon::host::Host;
use crate::daemon::tasks::Tasks;
use crate::paths::Paths;

const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;
/// The first address of the service range is the API server's own service.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);
const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
const CLUSTER_DOMAIN: &str = "cluster.local";
const POD_RANGE: &str = "10.42.0.0/24";

/// What runs the pods: Gantry's own engine, or another runtime behind its socket.
pub(crate) struct PodRuntime {
    pub(crate) cri: Arc<dyn cri::Cri>,
    pub(crate) streaming: Arc<dyn cri::Streaming>,
    pub(crate) socket: std::path::PathBuf,
}

/// The API server over its store, not listening yet.
pub(crate) struct ControlPlane {
    server: Arc<ApiServer>,
    pki: Arc<Pki>,
    listener: TcpListener,
    kubelet: TcpListener,
}

/// The running cluster.
pub(crate) struct Cluster {
    pub(crate) url: String,
    pub(crate) node: String,
    server: Arc<ApiServer>,
    agent: NodeAgent,
    controllers: ControllerManager,
    scheduler: Scheduler,
    proxy: Arc<Proxy>,
    resolver: dns::Dns,
    stop_listener: Option<oneshot::Sender<()>>,
}

impl ControlPlane {
    /// Opens the store and the keys; the bootstrap objects exist on return.
    pub(crate) async fn open(paths: &Paths, host: &Host) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API_PORT)).await.with_context(|| {
            format!("the API server cannot listen on port {API_PORT}: end what listens there, then try again")
        })?;
        let kubelet = TcpListener::bind((Ipv4Addr::UNSPECIFIED, KUBELET_PORT)).await.with_context(|| {
            format!("the node's API cannot listen on port {KUBELET_PORT}: end what listens there, then try again")
        })?;
        let (root, names) = (paths.root.clone(), serving_names(host));
        let opened = tokio::task::spawn_blocking(move || {
            let pki = Pki::open(&root.join("pki"), &names).context("cannot open the cluster's keys")?;
            let store = crate::store::open(&root).context("cannot open the cluster's store")?;
            anyhow::Ok((store, Arc::new(pki)))
        });
        let (store, pki) = opened.await.context("opening the cluster's store")??;
        let config = apiserver::Config { advertise_address: host.address, advertise_port: API_PORT };
        // A policy in the root switches the audit log on.
        let policy = paths.root.join("audit-policy.yaml");
        let audit = policy.exists().then(|| apiserver::AuditConfig { policy, log: paths.root.join("logs/audit.log") });
        let server = ApiServer::start_audited(store, pki.clone(), config, audit.as_ref())
            .await
            .context("cannot start the API server")?;
        Ok(Self { server, pki, listener, kubelet })
    }

    fn signer(&self) -> Signer {
        let pki = self.pki.clone();
        Signer::new(move |request, usages, valid_for| {
            pki.sign(request, usages, valid_for).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
        })
    }

    fn client(&self, identity: Identity) -> Client {
        Client::new(Arc::new(InProcess::new(self.server.clone(), identity)))
    }

    /// Starts every other part; the node is Ready and DNS answers on return.
    pub(crate) async fn start(
        self,
        paths: &Paths,
        host: &Host,
        runtime: PodRuntime,
        tasks: &mut Tasks,
    ) -> Result<Cluster> {
        let url = format!("https://127.0.0.1:{API_PORT}");
        write_private(&paths.kubeconfig(), &self.pki.kubeconfig(&url))?;
        let controllers = ControllerManager::start(
            &self.client(Identity::in_process("system:kube-controller-manager")),
            controller_manager::Config {
                root_ca: self.pki.ca_pem().to_owned(),
                host: host.name.clone(),
                signer: Some(self.signer()),
                local_volumes: paths.root.join("local-volumes").display().to_string(),
                ..Default::default()
            },
        );
        let scheduler = Scheduler::start(&self.client(Identity::in_process("system:kube-scheduler")), &host.name);
        let network_client = self.client(Identity::in_process("system:kube-proxy"));
        let services: Cache<Service> = Cache::start(&network_client, Scope::default());
        let slices: Cache<EndpointSlice> = Cache::start(&network_client, Scope::default());
        let proxy = Proxy::start(ProxyConfig::for_node(&host.name), services.clone(), slices.clone())
            .await
            .context("cannot start the service proxy")?;
        let proxy = Arc::new(proxy);
        let resolver =
            dns::Dns::start(dns::DnsConfig::default(), services, slices).await.context("cannot start cluster DNS")?;
        let agent = NodeAgent::start(NodeAgentConfig {
            node_name: host.name.clone(),
            node_ips: vec![host.address.to_string()],
            root: paths.root.clone(),
            cgroup_parent: paths.cgroup_parent(),
            pod_cidr: POD_RANGE.to_owned(),
            cluster_dns: Some(CLUSTER_DNS.to_string()),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            host_resolv_conf: "/etc/resolv.conf".into(),
            client: self.client(Identity::node(&host.name)),
            cri: runtime.cri,
            streaming: runtime.streaming,
            drain: Arc::new(ProxyDrain::new(proxy.clone())),
        })
        .await
        .context("cannot start the node agent")?;
        // Not the node's own identity: nodes may not write volumes.
        let provisioner = self.client(Identity::in_process("system:kube-controller-manager"));
        let volumes = node_agent::local_volumes::run(provisioner, host.name.clone(), paths.root.join("local-volumes"));
        tasks.spawn("local volumes", async move {
            volumes.await;
            anyhow::Ok(())
        });
        self.server.connect_nodes(Arc::new(agent.clone()));
        let kubelet = node_agent::KubeletServer {
            listener: self.kubelet,
            tls: Arc::new(self.pki.server_tls().context("cannot set up the TLS of the node's API")?),
            cri_socket: runtime.socket,
        };
        let served = agent.clone();
        tasks.spawn("node's API", async move {
            node_agent::serve_kubelet(served, kubelet).await;
            anyhow::Ok(())
        });
        let (stop_listener, stopped) = oneshot::channel::<()>();
        let server = self.server.clone();
        tasks.spawn("API server", async move {
            apiserver::serve(server, self.listener, async move {
                // An error means that the sender is gone, which is a stop as well.
                let _ = stopped.await;
            })
            .await
        });
        let admin = Client::new(Arc::new(InProcess::new(self.server.clone(), Identity::in_process("gantry"))));
        node_ready(&admin, &host.name).await?;
        Ok(Cluster {
            url,
            node: host.name.clone(),
            server: self.server,
            agent,
            controllers,
            scheduler,
            proxy,
            resolver,
            stop_listener: Some(stop_listener),
        })
    }
}

impl Cluster {
    /// Stops deciding first, then serving. Containers and kernel rules stay.
    pub(crate) async fn stop(mut self) {
        self.agent.shutdown();
        self.scheduler.shutdown().await;
        self.controllers.shutdown().await;
        self.server.close_streams();
        if let Some(stop) = self.stop_listener.take() {
            // Nobody there means that it has stopped.
            let _ = stop.send(());
        }
        drop((self.proxy, self.resolver));
    }
}

fn serving_names(host: &Host) -> ServingNames {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(API_SERVICE), host.address];
    addresses.dedup();
    ServingNames { host_name: host.name.clone(), addresses }
}

/// Waits, by watch, until the node's own agent has reported it Ready.
async fn node_ready(client: &Client, name: &str) -> Result<()> {
    let nodes: Cache<Node> =
        Cache::start(client, Scope { fields: Some(format!("metadata.name={name}")), ..Scope::default() });
    let mut changes = nodes.changes();
    loop {
        let ready = nodes.get("", name).is_some_and(|node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        if ready {
            return Ok(());
        }
        changes.next().await.context("the API server ended")?;
    }
}

/// Writes a file that holds a key: readable by root alone from its first byte on, replaced atomically.
fn write_private(path: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&part, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
