//! Addresses for Services of type LoadBalancer, out of one pool.
//!
//! Called by the controller manager's shell with every Service. Invariants: an address belongs to one Service at a
//! time; a Service keeps its address for as long as it is a LoadBalancer, because the address stands in its own
//! status and nowhere else (so it survives every restart); an address is free again once its Service is gone.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Addresses from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

impl Default for Pool {
    fn default() -> Self {
        Pool { first: Ipv4Addr::new(10, 44, 0, 1), last: Ipv4Addr::new(10, 44, 0, 254) }
    }
}

impl Pool {
    fn contains(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&ip)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Nothing,
    /// Write this load balancer status.
    SetStatus(LoadBalancerStatus),
    /// No address can be given; the text is for an event.
    Unavailable(String),
}

/// `services` are all Services, this one among them.
pub fn decide(service: &Service, services: &[Arc<Service>], pool: Pool) -> Decision {
    let current = status(service);
    if !is_ours(service) {
        return if current.is_some() && service.metadata.deletion_timestamp.is_none() && !is_load_balancer(service) {
            Decision::SetStatus(LoadBalancerStatus::default())
        } else {
            Decision::Nothing
        };
    }
    let taken: BTreeSet<Ipv4Addr> = services
        .iter()
        .filter(|other| other.metadata.uid != service.metadata.uid && is_ours(other))
        .filter_map(|other| address(other))
        .collect();
    let held = address(service).filter(|ip| pool.contains(*ip) && !taken.contains(ip));
    let asked = match service.spec.as_ref().and_then(|s| s.load_balancer_ip.as_deref()).filter(|ip| !ip.is_empty()) {
        None => None,
        Some(text) => match text.parse().ok().filter(|ip| pool.contains(*ip)) {
            Some(ip) => Some(ip),
            None => {
                return Decision::Unavailable(format!("the address {text} is not in the pool {pool}"));
            }
        },
    };
    match (asked, held) {
        (Some(asked), held) if held == Some(asked) => Decision::Nothing,
        (Some(asked), _) if taken.contains(&asked) => {
            Decision::Unavailable(format!("the address {asked} is in use by another service"))
        }
        (Some(asked), _) => give(asked),
        (None, Some(_)) => Decision::Nothing,
        (None, None) => match free(pool, &taken) {
            Some(ip) => give(ip),
            None => Decision::Unavailable(format!("no address is free in the pool {pool}")),
        },
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer")
}

/// Another class is another controller's.
fn is_ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|s| s.load_balancer_class.as_ref());
    is_load_balancer(service) && class.is_none() && service.metadata.deletion_timestamp.is_none()
}

fn status(service: &Service) -> Option<&LoadBalancerIngress> {
    service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()
}

fn address(service: &Service) -> Option<Ipv4Addr> {
    status(service)?.ip.as_ref()?.parse().ok()
}

fn free(pool: Pool, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    (u32::from(pool.first)..=u32::from(pool.last)).map(Ipv4Addr::from).find(|ip| !taken.contains(ip))
}

fn give(ip: Ipv4Addr) -> Decision {
    let ingress =
        LoadBalancerIngress { ip: Some(ip.to_string()), ip_mode: Some("VIP".into()), ..LoadBalancerIngress::default() };
    Decision::SetStatus(LoadBalancerStatus { ingress: Some(vec![ingress]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, type_: &str, ip: Option<&str>) -> Arc<Service> {
        let mut value = json!({"metadata": {"name": name, "uid": name}, "spec": {"type": type_}});
        if let Some(ip) = ip {
            value["status"] = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn given(decision: &Decision) -> Option<String> {
        match decision {
            Decision::SetStatus(status) => status.ingress.as_ref()?.first()?.ip.clone(),
            Decision::Nothing | Decision::Unavailable(_) => None,
        }
    }

    const POOL: Pool = Pool { first: Ipv4Addr::new(10, 44, 0, 1), last: Ipv4Addr::new(10, 44, 0, 2) };

    #[test]
    fn each_load_balancer_gets_an_address_of_its_own_and_keeps_it() {
        let a = service("a", "LoadBalancer", Some("10.44.0.1"));
        let b = service("b", "LoadBalancer", None);
        let all = [a.clone(), b.clone()];
        assert_eq!(decide(&a, &all, POOL), Decision::Nothing);
        assert_eq!(given(&decide(&b, &all, POOL)).unwrap(), "10.44.0.2");
        assert_eq!(
            given(&decide(&b, std::slice::from_ref(&b), POOL)).unwrap(),
            "10.44.0.1",
            "freed when its service is gone"
        );
    }

    #[test]
    fn a_full_pool_is_said_and_not_shared() {
        let all = [
            service("a", "LoadBalancer", Some("10.44.0.1")),
            service("b", "LoadBalancer", Some("10.44.0.2")),
            service("c", "LoadBalancer", None),
        ];
        assert!(matches!(decide(&all[2], &all, POOL), Decision::Unavailable(m) if m.contains("no address is free")));
    }

    #[test]
    fn a_service_that_stops_being_a_load_balancer_gives_its_address_back() {
        let a = service("a", "ClusterIP", Some("10.44.0.1"));
        assert_eq!(decide(&a, std::slice::from_ref(&a), POOL), Decision::SetStatus(LoadBalancerStatus::default()));
        let plain = service("a", "ClusterIP", None);
        assert_eq!(decide(&plain, std::slice::from_ref(&plain), POOL), Decision::Nothing);
    }
}
