//! What a container mounts: the user's many notations to one list (pure).
//!
//! `create` calls this, then makes volumes and checks sources; `spec` turns the list into bundle mounts.

use std::collections::BTreeMap;

use crate::{
    config::{Config, HostConfig, Mount},
    error::{Error, Result},
    record::{MountKind, MountPoint},
};

/// A mount that is planned; `point.source` of volumes is filled in once the volume exists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    pub(crate) point: MountPoint,
    /// Make a missing bind source (the short notation does, the long one refuses).
    pub(crate) create_source: bool,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// All mounts by destination. Precedence as Docker's: `volumes_from`, then binds and mounts, then what the
/// image or user declares as anonymous volumes where nothing else is mounted.
pub(crate) fn plan(config: &Config, host: &HostConfig, inherited: Vec<MountPoint>) -> Result<Vec<Planned>> {
    let mut all: BTreeMap<String, Planned> = BTreeMap::new();
    for point in inherited {
        all.insert(point.destination.clone(), bare(point));
    }
    let mut explicit: Vec<Planned> = Vec::new();
    for bind in host.binds.iter().flatten() {
        explicit.push(parse_bind(bind)?);
    }
    for mount in &host.mounts {
        explicit.push(long_form(mount)?);
    }
    for (destination, options) in &host.tmpfs {
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        explicit.push(bare(tmpfs(clean_destination(destination, destination)?, options)));
    }
    let mut seen = std::collections::BTreeSet::new();
    for planned in explicit {
        let destination = planned.point.destination.clone();
        if !seen.insert(destination.clone()) {
            return Err(Error::Invalid(format!("Duplicate mount point: {destination}")));
        }
        all.insert(destination, planned);
    }
    for path in config.volumes.iter().flat_map(|volumes| volumes.keys()) {
        let destination = clean_destination(path, path)?;
        all.entry(destination.clone()).or_insert_with(|| bare(volume(None, destination, true)));
    }
    Ok(all.into_values().collect())
}

fn bare(point: MountPoint) -> Planned {
    Planned { point, create_source: false, driver_opts: BTreeMap::new(), labels: BTreeMap::new() }
}

fn volume(name: Option<String>, destination: String, read_write: bool) -> MountPoint {
    MountPoint {
        kind: MountKind::Volume,
        anonymous: name.is_none(),
        name,
        source: String::new(),
        destination,
        mode: String::new(),
        read_write,
        propagation: String::new(),
        options: Vec::new(),
        non_recursive: false,
        no_copy: false,
        subpath: String::new(),
        shallow_read_only: false,
    }
}

fn tmpfs(destination: String, options: Vec<String>) -> MountPoint {
    let read_write = !options.iter().any(|o| o == "ro");
    MountPoint { kind: MountKind::Tmpfs, anonymous: false, options, read_write, ..volume(None, destination, true) }
}

/// `source:destination[:options]`, `name:destination`, or just `destination`.
fn parse_bind(text: &str) -> Result<Planned> {
    let invalid = || Error::Invalid(format!("invalid volume specification: '{text}'"));
    let mut parts = text.split(':');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if parts.next().is_some() || first.is_empty() || second == Some("") {
        return Err(invalid());
    }
    let Some(destination) = second else {
        return Ok(bare(volume(None, clean_destination(first, text)?, true)));
    };
    let destination = clean_destination(destination, text)?;
    let mut planned = if first.starts_with('/') {
        let point = MountPoint {
            kind: MountKind::Bind,
            anonymous: false,
            source: first.to_owned(),
            propagation: "rprivate".to_owned(),
            ..volume(None, destination, true)
        };
        Planned { create_source: true, ..bare(point) }
    } else {
        bare(volume(Some(first.to_owned()), destination, true))
    };
    third.unwrap_or_default().clone_into(&mut planned.point.mode);
    for option in third.unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => planned.point.read_write = false,
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" => planned.point.no_copy = true,
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                option.clone_into(&mut planned.point.propagation);
            }
            _ => return Err(Error::Invalid(format!("invalid mode: {}", third.unwrap_or_default()))),
        }
    }
    Ok(planned)
}

fn long_form(mount: &Mount) -> Result<Planned> {
    let kind = mount.r#type.as_str();
    let invalid = |reason: &str| Error::Invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let destination = clean_destination(&mount.target, &mount.target)?;
    let mut planned = match kind {
        "bind" => {
            if !mount.source.starts_with('/') {
                return Err(invalid("invalid mount path: mount path must be absolute"));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            let propagation = if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
            let point = MountPoint {
                kind: MountKind::Bind,
                anonymous: false,
                source: mount.source.clone(),
                propagation,
                non_recursive: options.non_recursive,
                shallow_read_only: options.read_only_non_recursive,
                ..volume(None, destination, true)
            };
            Planned { create_source: options.create_mountpoint, ..bare(point) }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let name = Some(mount.source.clone()).filter(|source| !source.is_empty());
            let mut point = volume(name, destination, true);
            point.no_copy = options.no_copy;
            point.subpath = options.subpath;
            let driver_opts = options.driver_config.map(|driver| driver.options).unwrap_or_default();
            Planned { driver_opts, labels: options.labels, ..bare(point) }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut list: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
            if options.size_bytes > 0 {
                list.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                list.push(format!("mode={:o}", options.mode));
            }
            bare(tmpfs(destination, list))
        }
        "image" => {
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            let point = MountPoint {
                kind: MountKind::Image,
                anonymous: false,
                source: mount.source.clone(),
                subpath: mount.image_options.clone().unwrap_or_default().subpath,
                ..volume(None, destination, false)
            };
            bare(point)
        }
        _ => return Err(Error::Invalid(format!("invalid mount config for type \"{kind}\": mount type unknown"))),
    };
    planned.point.read_write &= !mount.read_only;
    Ok(planned)
}

/// An absolute path without `.`, `..` or doubled slashes; never the root.
fn clean_destination(path: &str, whole: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::Invalid(format!(
            "invalid volume specification: '{whole}': invalid mount config for type \"volume\": invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    if parts.is_empty() {
        return Err(Error::Invalid(format!(
            "invalid volume specification: '{whole}': invalid specification: destination can't be '/'"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BindOptions, Empty, TmpfsOptions};

    fn one(bind: &str) -> MountPoint {
        parse_bind(bind).unwrap().point
    }

    #[test]
    fn the_short_notation_tells_binds_from_volumes() {
        let bind = one("/src:/dst:ro,rslave");
        assert_eq!(
            (bind.kind, bind.source.as_str(), bind.read_write, bind.propagation.as_str()),
            (MountKind::Bind, "/src", false, "rslave")
        );
        let named = one("data:/var/lib/../data//x");
        assert_eq!(
            (named.kind, named.name.as_deref(), named.destination.as_str()),
            (MountKind::Volume, Some("data"), "/var/data/x")
        );
        assert!(one("/anonymous").anonymous);
    }

    #[test]
    fn malformed_notations_are_refused() {
        for bad in ["", ":", "a:", ":/b", "a:b", "/a:/", "/a:/b:ro:x", "/a:/b:loud", "name"] {
            assert!(matches!(parse_bind(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_destination_is_mounted_once() {
        let host = HostConfig { binds: Some(vec!["/a:/x".into(), "/b:/x/".into()]), ..HostConfig::default() };
        assert_eq!(plan(&Config::default(), &host, Vec::new()).unwrap_err().to_string(), "Duplicate mount point: /x");
    }

    #[test]
    fn declared_volumes_yield_to_explicit_mounts() {
        let config = Config {
            volumes: Some([("/data".to_owned(), Empty {}), ("/more".to_owned(), Empty {})].into()),
            ..Config::default()
        };
        let host = HostConfig { binds: Some(vec!["/host:/data".into()]), ..HostConfig::default() };
        let kinds: Vec<_> = plan(&config, &host, Vec::new())
            .unwrap()
            .into_iter()
            .map(|p| (p.point.destination, p.point.kind))
            .collect();
        assert_eq!(kinds, [("/data".to_owned(), MountKind::Bind), ("/more".to_owned(), MountKind::Volume)]);
    }

    #[test]
    fn the_long_notation_keeps_its_options() {
        let tmpfs = Mount {
            r#type: "tmpfs".into(),
            target: "/t".into(),
            tmpfs_options: Some(TmpfsOptions { size_bytes: 4096, mode: 0o1777 }),
            ..Mount::default()
        };
        assert_eq!(long_form(&tmpfs).unwrap().point.options, ["noexec", "nosuid", "nodev", "size=4096", "mode=1777"]);
        let bind = Mount {
            r#type: "bind".into(),
            source: "/s".into(),
            target: "/t".into(),
            read_only: true,
            bind_options: Some(BindOptions { non_recursive: true, ..BindOptions::default() }),
            ..Mount::default()
        };
        let planned = long_form(&bind).unwrap();
        assert!(!planned.point.read_write && planned.point.non_recursive && !planned.create_source);
        assert!(
            long_form(&Mount { r#type: "bind".into(), source: "rel".into(), target: "/t".into(), ..Mount::default() })
                .is_err()
        );
    }
}
