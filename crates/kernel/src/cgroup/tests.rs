use super::*;

const HYBRID: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn mounts_tell_the_version() {
    let hybrid = Hierarchies::parse(HYBRID);
    assert_eq!(hybrid.version(), Version::Hybrid);
    assert_eq!(hybrid.v1_mount("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
    assert_eq!(hybrid.mounts().len(), 3);
    let v2 = Hierarchies::parse("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
    assert_eq!(v2.version(), Version::V2);
    let with_systemd = Hierarchies::parse(HYBRID.lines().skip(3).collect::<Vec<_>>().join("\n").as_str());
    assert_eq!(with_systemd.version(), Version::V2, "a named hierarchy has no controllers");
}

#[test]
fn shares_map_onto_weights() {
    for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
        assert_eq!(limits_v2::weight_of_shares(shares), weight);
    }
}

#[test]
fn a_path_that_climbs_is_refused() {
    let hierarchies = Hierarchies::parse(HYBRID);
    for path in ["/gantry/../..", "", "/", "a/../b"] {
        assert!(Cgroup::new(&hierarchies, path).is_err(), "{path}");
    }
}

struct Own(Cgroup);

impl Own {
    fn new(name: &str) -> Self {
        let cgroup = Cgroup::find(&format!("/gantry-test-{}-{name}/x", std::process::id())).unwrap();
        cgroup.create().unwrap();
        Own(cgroup)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.signal_all(libc::SIGKILL, Duration::from_secs(1));
        self.0.remove();
        for dir in self.0.dirs() {
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

#[test]
fn a_process_is_limited_frozen_counted_killed_and_its_cgroup_removed() {
    let own = Own::new("life");
    let cgroup = &own.0;
    cgroup
        .limit(&Resources {
            memory_bytes: Some(64 << 20),
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            pids: Some(10),
            devices: vec![DeviceRule::all(false)],
            ..Resources::default()
        })
        .unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    cgroup.join(child.id() as i32).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [child.id() as i32]);
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen());
    let stats = cgroup.stats();
    assert_eq!((stats.pids_current, stats.pids_limit), (1, Some(10)));
    assert_eq!(stats.memory_limit_bytes, 64 << 20);
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    cgroup.signal_all(libc::SIGKILL, Duration::from_secs(2)).unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(cgroup.remove().is_empty());
    assert!(!cgroup.exists());
}
