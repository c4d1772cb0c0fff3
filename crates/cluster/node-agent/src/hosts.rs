//! /etc/hosts of a pod.
//!
//! One file a pod, mounted into its containers; not made for pods on the node's own network without aliases.

use k8s_openapi::api::core::v1::Pod;

use crate::sandbox_config::hostname;

pub(crate) fn render(pod: &Pod, pod_ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|spec| spec.host_network) == Some(true);
    let mut out = if on_host {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let mut out = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let name = hostname(pod, cluster_domain);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|text| !text.is_empty());
        for ip in pod_ips {
            match subdomain {
                Some(subdomain) if !name.contains('.') => {
                    out.push_str(&format!("{ip}\t{name}.{subdomain}.{namespace}.svc.{cluster_domain}\t{name}\n"))
                }
                _ => out.push_str(&format!("{ip}\t{name}\n")),
            }
        }
        out
    };
    let aliases: Vec<_> = spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()).collect();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            out.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    out
}
