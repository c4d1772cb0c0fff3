//! The text of a container's `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` (pure).
//!
//! The engine writes them. Invariant: a value that could break out of its line is left out, never written.

use std::net::{IpAddr, Ipv4Addr};

/// Docker's resolver inside a namespace of user-defined networks.
pub const EMBEDDED_DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What a resolv.conf says. Unknown lines are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // An IPv6 scope (`fe80::1%eth0`) names an interface that a container does not have.
                Some("nameserver") => conf.nameservers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                // The last `search` or `domain` line wins: resolv.conf(5).
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                Some(_) | None => {}
            }
        }
        conf
    }

    pub fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for (key, words) in [("search", &self.search), ("options", &self.options)] {
            let words: Vec<&str> = words.iter().map(String::as_str).filter(|w| is_one_word(w)).collect();
            if !words.is_empty() {
                text.push_str(&format!("{key} {}\n", words.join(" ")));
            }
        }
        text
    }
}

/// How a container's resolv.conf comes about.
#[derive(Clone, Debug, Default)]
pub struct ResolvConfInput<'a> {
    /// The node's file.
    pub host: &'a str,
    /// `--dns`, `--dns-search`, `--dns-option`; an empty list means the node's. A search of `.` alone means none.
    pub dns: &'a [IpAddr],
    pub search: &'a [String],
    pub options: &'a [String],
    /// The container is on a user-defined network: its resolver is [`EMBEDDED_DNS`].
    pub embedded: bool,
    /// The container shares the node's network: the node's loopback resolvers work there.
    pub host_network: bool,
}

/// Loopback resolvers of the node are unreachable from a namespace: they are left out, and public ones stand in when
/// none is left, as Docker does.
pub fn resolv_conf(input: &ResolvConfInput<'_>) -> String {
    let host = ResolvConf::parse(input.host);
    let or_host = |own: &[String], host: Vec<String>| if own.is_empty() { host } else { own.to_vec() };
    let mut search = or_host(input.search, host.search);
    if search == ["."] {
        search.clear();
    }
    let mut options = or_host(input.options, host.options);
    let nameservers = if input.embedded {
        if !options.iter().any(|o| o.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
        vec![IpAddr::V4(EMBEDDED_DNS)]
    } else if !input.dns.is_empty() {
        input.dns.to_vec()
    } else {
        let reachable: Vec<IpAddr> = host
            .nameservers
            .into_iter()
            .filter(|ip| input.host_network || (!ip.is_loopback() && ip.is_ipv4()))
            .collect();
        if reachable.is_empty() {
            vec![Ipv4Addr::new(8, 8, 8, 8).into(), Ipv4Addr::new(8, 8, 4, 4).into()]
        } else {
            reachable
        }
    };
    ResolvConf { nameservers, search, options }.render()
}

/// `/etc/hosts`: the fixed lines, the extra ones (`--add-host`, name and address), then the container's own addresses.
pub fn hosts(hostname: &str, domainname: &str, own: &[Ipv4Addr], extra: &[(String, IpAddr)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, ip) in extra.iter().filter(|(name, _)| is_one_word(name)) {
        text.push_str(&format!("{ip}\t{name}\n"));
    }
    if is_one_word(hostname) {
        let names =
            if is_one_word(domainname) { format!("{hostname}.{domainname} {hostname}") } else { hostname.to_owned() };
        for ip in own {
            text.push_str(&format!("{ip}\t{names}\n"));
        }
    }
    text
}

/// `/etc/hostname`.
pub fn hostname(name: &str) -> String {
    if is_one_word(name) { format!("{name}\n") } else { "localhost\n".to_owned() }
}

fn is_one_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && c != '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_resolvers_of_the_node_are_replaced_in_a_namespace() {
        let host = "nameserver 127.0.0.53\nsearch example.org\noptions edns0 # comment\n";
        let input = ResolvConfInput { host, ..Default::default() };
        assert_eq!(resolv_conf(&input), "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch example.org\noptions edns0\n");
        let input = ResolvConfInput { host, host_network: true, ..Default::default() };
        assert_eq!(resolv_conf(&input), "nameserver 127.0.0.53\nsearch example.org\noptions edns0\n");
    }

    #[test]
    fn user_defined_networks_use_the_embedded_resolver() {
        let input = ResolvConfInput { host: "nameserver 10.0.0.1\n", embedded: true, ..Default::default() };
        assert_eq!(resolv_conf(&input), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_hostile_name_cannot_add_a_line() {
        let text = hosts(
            "web",
            "",
            &[Ipv4Addr::new(172, 17, 0, 2)],
            &[("bad\n6.6.6.6 bank".into(), Ipv4Addr::LOCALHOST.into())],
        );
        assert!(!text.contains("bank"));
        assert!(text.ends_with("172.17.0.2\tweb\n"));
        let search = ["a\nnameserver 6.6.6.6".to_owned()];
        assert!(!resolv_conf(&ResolvConfInput { search: &search, ..Default::default() }).contains("6.6.6.6"));
    }
}
