//! What this machine is: processors, memory, names, addresses.
//!
//! Read once when the agent starts. Invariant: nothing here fails; what cannot be read is left empty, as
//! a node without an os-release is still a node.

use std::net::{IpAddr, Ipv4Addr};

/// The machine's facts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Thousandths of a processor.
    pub millicpu: i64,
    /// Memory of the machine.
    pub memory_bytes: i64,
    /// Size of the file system that holds the state.
    pub disk_bytes: i64,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Of this boot.
    pub boot_id: String,
    /// `/sys/class/dmi/id/product_uuid`, else the machine's id.
    pub system_uuid: String,
    /// Swap of the machine.
    pub swap_bytes: i64,
    /// Sizes of huge pages, as resources name them: `2Mi`, `1Gi`.
    pub huge_pages: Vec<String>,
    /// `amd64`, `arm64`, …
    pub architecture: &'static str,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

impl Machine {
    /// Looks.
    pub fn observe(root: &std::path::Path) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let os_release = read("/etc/os-release");
        let os_image = os_release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map(|name| name.trim_matches('"').to_owned());
        let machine_id = read("/etc/machine-id");
        let uuid = read("/sys/class/dmi/id/product_uuid");
        Self {
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            swap_bytes: meminfo_bytes(&read("/proc/meminfo"), "SwapTotal:"),
            huge_pages: huge_pages(),
            millicpu: i64::try_from(processors).unwrap_or(1) * 1000,
            memory_bytes: meminfo_bytes(&read("/proc/meminfo"), "MemTotal:"),
            disk_bytes: disk_bytes(root),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image: os_image.unwrap_or_else(|| "Linux".to_owned()),
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }
}

/// The kernel's names are `hugepages-2048kB` and the like.
fn huge_pages() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut sizes: Vec<i64> =
        names.filter_map(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()).collect();
    sizes.sort_unstable();
    let text = |kib: i64| match kib {
        kib if kib % (1 << 20) == 0 => format!("{}Gi", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("{}Mi", kib >> 10),
        kib => format!("{kib}Ki"),
    };
    sizes.into_iter().map(text).collect()
}

fn meminfo_bytes(meminfo: &str, field: &str) -> i64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn disk_bytes(root: &std::path::Path) -> i64 {
    rustix::fs::statvfs(root)
        .ok()
        .and_then(|stat| i64::try_from(stat.f_blocks.saturating_mul(stat.f_frsize)).ok())
        .unwrap_or(0)
}

/// The address that packets to the outside would carry, else loopback. Nothing is sent.
pub fn primary_address() -> IpAddr {
    let find = || -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    find().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
