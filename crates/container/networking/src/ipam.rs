//! Which address, which subnet (pure).
//!
//! Called by `manager` with what is taken; the answer becomes taken there before the lock is released.

use crate::{Error, Network, Subnet};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The wanted address if it can be had, otherwise the next free one after `last` (which is how an address that was just given back
/// rests for a while), wrapping around.
pub(crate) fn choose_address(
    network: &Network,
    taken: &BTreeSet<Ipv4Addr>,
    wanted: Option<Ipv4Addr>,
    last: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, Error> {
    let Some(subnet) = network.subnet else {
        return Err(Error::NoAddressLeft(network.name.clone()));
    };
    let usable = |ip: Ipv4Addr| {
        ip != subnet.address()
            && ip != subnet.broadcast()
            && Some(ip) != network.gateway
            && !network.reserved.contains(&ip)
            && !taken.contains(&ip)
    };
    if let Some(ip) = wanted {
        return match (subnet.contains(ip), usable(ip)) {
            (false, _) => Err(Error::AddressOutside(ip)),
            (true, false) => Err(Error::AddressInUse(ip)),
            (true, true) => Ok(ip),
        };
    }
    let range = network.ip_range.unwrap_or(subnet);
    let (first, end) = (u32::from(range.address()), u32::from(range.broadcast()));
    let start = last.map(u32::from).filter(|n| (first..end).contains(n)).map_or(first, |n| n + 1);
    // Only as many candidates can be unusable as there are taken ones, so this ends early.
    (start..=end)
        .chain(first..start)
        .map(Ipv4Addr::from)
        .find(|ip| usable(*ip))
        .ok_or_else(|| Error::NoAddressLeft(network.name.clone()))
}

/// The first of the pools that overlaps nothing.
pub(crate) fn choose_subnet(pools: &[Subnet], in_use: &[Subnet]) -> Result<Subnet, Error> {
    pools.iter().find(|pool| !in_use.iter().any(|used| used.overlaps(pool))).copied().ok_or(Error::NoSubnetLeft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Driver, NetworkId};

    fn network(subnet: &str) -> Network {
        let subnet: Subnet = subnet.parse().unwrap();
        Network {
            id: NetworkId("n".into()),
            name: "n".into(),
            driver: Driver::Bridge,
            created: jiff::Timestamp::UNIX_EPOCH,
            internal: false,
            attachable: false,
            interface: "br".into(),
            subnet: Some(subnet),
            ip_range: None,
            gateway: Some(subnet.first_host()),
            reserved: vec![],
            labels: Default::default(),
            options: Default::default(),
            user_defined: true,
            routed: false,
            endpoints: vec![],
        }
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn addresses_are_given_in_order_then_reused_last() {
        let network = network("10.0.0.0/29");
        let mut taken = BTreeSet::new();
        let mut last = None;
        for expected in [2, 3, 4, 5, 6] {
            let got = choose_address(&network, &taken, None, last).unwrap();
            assert_eq!(got, ip(expected));
            taken.insert(got);
            last = Some(got);
        }
        assert!(matches!(choose_address(&network, &taken, None, last), Err(Error::NoAddressLeft(_))));
        taken.remove(&ip(3));
        assert_eq!(choose_address(&network, &taken, None, last).unwrap(), ip(3));
        taken.clear();
        assert_eq!(choose_address(&network, &taken, None, Some(ip(3))).unwrap(), ip(4));
    }

    #[test]
    fn a_wanted_address_must_be_inside_and_free() {
        let network = network("10.0.0.0/29");
        let taken = [ip(4)].into();
        assert_eq!(choose_address(&network, &taken, Some(ip(5)), None).unwrap(), ip(5));
        for (wanted, outside) in [(ip(4), false), (ip(1), false), (ip(0), false), (ip(7), false), (ip(9), true)] {
            let error = choose_address(&network, &taken, Some(wanted), None).unwrap_err();
            assert_eq!(matches!(error, Error::AddressOutside(_)), outside, "{wanted}");
        }
    }

    #[test]
    fn subnets_never_overlap() {
        let pools: Vec<Subnet> = ["172.18.0.0/16", "172.19.0.0/16"].map(|s| s.parse().unwrap()).to_vec();
        assert_eq!(choose_subnet(&pools, &[]).unwrap(), pools[0]);
        assert_eq!(choose_subnet(&pools, &["172.18.5.0/24".parse().unwrap()]).unwrap(), pools[1]);
        assert!(choose_subnet(&pools, &["172.16.0.0/12".parse().unwrap()]).is_err());
    }
}
