//! The files that the engine gives a container (`/etc/resolv.conf`, `/etc/hosts`, `/etc/hostname`), its root
//! filesystem and its user.

use std::{
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bundle::{BindMount, MountKind, MountSpec, Propagation, UserSpec};
use monitor::RootFs;
use networking::files::{self, ResolvConfInput};
use rustix::fs::{FileType, OFlags};

use super::{
    launch::overlay,
    links::Linked,
    network::{Places, Source},
};
use crate::{
    Engine,
    disk::{self, Durability},
    error::{Error, Result},
    record::Record,
    table::Slot,
    user,
};

const FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

impl Engine {
    /// The root filesystem of a container and its user, resolved by the root's own files.
    pub(super) fn root_of(&self, record: &Record) -> Result<(RootFs, UserSpec)> {
        let mount = self.0.parts.snapshots.get(&record.id).map_err(|e| Error::system("prepare root filesystem", e))?;
        let groups = record.host.group_add.clone().unwrap_or_default();
        let user = resolve_user(&mount, &record.config.user, &groups)?;
        Ok((overlay(mount)?, user))
    }

    /// Writes what belongs to this run and answers what to mount.
    pub(super) fn write_files(
        &self,
        slot: &Arc<Slot>,
        record: &Record,
        places: &Places,
        links: &[Linked],
    ) -> Result<Vec<MountSpec>> {
        let dir = match &places.files {
            Source::Own => {
                self.write_own(&slot.dir, record, places, links)?;
                slot.dir.clone()
            }
            Source::Of(dir) => dir.clone(),
        };
        Ok(FILES.iter().map(|name| bind(dir.join(name), &format!("/etc/{name}"))).collect())
    }

    fn write_own(&self, dir: &Path, record: &Record, places: &Places, links: &[Linked]) -> Result<()> {
        let host = &record.host;
        let servers: Vec<IpAddr> = host.dns.iter().filter_map(|server| server.parse().ok()).collect();
        let node = fs::read_to_string(&self.0.parts.host_resolv_conf).unwrap_or_default();
        let resolv_conf = files::resolv_conf(&ResolvConfInput {
            host: &node,
            dns: &servers,
            search: &host.dns_search,
            options: &host.dns_options,
            embedded: places.embedded_dns,
            host_network: places.host_network,
        });
        let gateway = places.gateway.map_or_else(|| IpAddr::from([127, 0, 0, 1]), IpAddr::from);
        let mut extra = extra_hosts(host.extra_hosts.as_deref().unwrap_or_default(), gateway)?;
        for link in links {
            let names = std::iter::once(&link.alias).chain(&link.names);
            extra.extend(names.map(|name| (name.clone(), IpAddr::V4(link.address))));
        }
        let hosts = files::hosts(&record.hostname, &record.config.domainname, &places.addresses, &extra);
        for (name, text) in FILES.iter().zip([resolv_conf, hosts, files::hostname(&record.hostname)]) {
            disk::write(&dir.join(name), text.as_bytes(), 0o644, Durability::Cached)?;
        }
        Ok(())
    }
}

/// `resolv.conf` of given parts, for pods.
pub(crate) fn render_resolv_conf(dns: &crate::DnsConfig) -> String {
    let nameservers = dns.servers.iter().filter_map(|server| server.parse().ok()).collect();
    files::ResolvConf { nameservers, search: dns.searches.clone(), options: dns.options.clone() }.render()
}

fn bind(source: PathBuf, destination: &str) -> MountSpec {
    let propagation = Some(Propagation::Rprivate);
    let kind = MountKind::Bind(BindMount { source, propagation, ..BindMount::default() });
    MountSpec { destination: destination.to_owned(), read_only: false, kind }
}

/// `name:address`, with `host-gateway` for the node.
pub(crate) fn extra_hosts(lines: &[String], gateway: IpAddr) -> Result<Vec<(String, IpAddr)>> {
    let one = |line: &String| {
        let invalid = || Error::Invalid(format!("invalid IP address in add-host: \"{line}\""));
        let (name, address) = line.split_once([':', '=']).ok_or_else(invalid)?;
        let address = address.trim_matches(['[', ']']);
        let ip = if address == "host-gateway" { gateway } else { address.parse().map_err(|_| invalid())? };
        Ok((name.to_owned(), ip))
    };
    lines.iter().map(one).collect()
}

/// A user by the files in the layers of a root filesystem.
pub(crate) fn resolve_user(mount: &snapshots::Mount, wanted: &str, groups: &[String]) -> Result<UserSpec> {
    let passwd = read_layered(mount, "etc/passwd")?;
    let group = read_layered(mount, "etc/group")?;
    user::resolve(wanted, groups, &passwd, &group)
}

/// A user by the files of a running container's root.
pub(crate) fn resolve_user_of_running(pid: i32, wanted: &str, groups: &[String]) -> Result<UserSpec> {
    let root = kernel::inroot::root_of(pid).map_err(|e| Error::system("open root of the container", e))?;
    let read = |path: &str| match kernel::inroot::open(&root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => read_text(fd.into()).map_err(|e| Error::file("read", path, e)),
        Err(_) => Ok(String::new()),
    };
    user::resolve(wanted, groups, &read("etc/passwd")?, &read("etc/group")?)
}

/// A file as the overlay would show it, without mounting it: the topmost layer that has the path decides.
/// Hostile layers may make any of it a symlink or a device: the lookup stays inside its layer.
fn read_layered(mount: &snapshots::Mount, path: &str) -> Result<String> {
    for layer in mount.upper.iter().chain(&mount.lowers) {
        let failed = |e: io::Error| Error::file("read", layer.join(path), e);
        let dir = File::open(layer).map_err(failed)?;
        let Ok(fd) = kernel::inroot::open(&dir, Path::new(path), OFlags::PATH) else { continue };
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed(e.into()))?;
        return match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let fd = kernel::inroot::open(&dir, Path::new(path), OFlags::RDONLY).map_err(failed)?;
                read_text(fd.into()).map_err(failed)
            }
            // A whiteout: the layers below do not count.
            _ => Ok(String::new()),
        };
    }
    Ok(String::new())
}

fn read_text(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(user::MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
