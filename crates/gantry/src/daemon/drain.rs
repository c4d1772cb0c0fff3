//! Tells the node agent when no service sends new connections to a leaving pod any more: the proxy knows.

use std::sync::Arc;

use node_agent::Drain;
use proxy::Proxy;

pub(crate) struct ProxyDrain {
    proxy: Arc<Proxy>,
}

impl ProxyDrain {
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy }
    }
}

#[async_trait::async_trait]
impl Drain for ProxyDrain {
    async fn drained(&self, pod_ips: &[String]) {
        self.proxy.released(pod_ips).await;
    }
}
