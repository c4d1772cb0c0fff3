//! `cargo xtask vm-test`: the cgroup v2 path in a virtual machine, for machines that are not v2 themselves.
//!
//! Debian's cloud kernel is unpacked, never installed; the machine's whole file system is an initramfs of busybox, the stock docker client, the
//! Gantry binary and test binaries with their libraries. Nothing of the host is mounted, no network device is made. Outside of the short CI: it
//! needs qemu and a few minutes.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::run::{has, output, root, run, run_with, target_dir};

const PACKAGES: [(&str, &str); 3] = [("qemu-system-x86_64", "qemu-system-x86"), ("cpio", "cpio"), ("ps", "procps")];
/// Depends on the newest kernel of its kind.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Where the modules that containers and networks need are, below `kernel/`.
const MODULES: [&str; 8] =
    ["net/core", "net/bridge", "net/802", "net/llc", "net/ipv4", "net/ipv6", "net/netfilter", "fs/overlayfs"];
const MORE_MODULES: [&str; 4] = ["lib", "drivers/net", "crypto", "arch/x86/crypto"];
/// Test binaries that are run as they are: crate and target.
const TESTS: [(&str, &str); 6] = [
    ("runtime-cli", "attacks"),
    ("runtime-cli", "life"),
    ("runtime-cli", "specification"),
    ("monitor", "confinement"),
    ("monitor", "life"),
    ("monitor", "survival"),
];
const BOOT: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(15 * 60);

pub(crate) fn test() -> Result<()> {
    crate::setup::install()?;
    install()?;
    let work = target_dir()?.join("vm");
    fs::create_dir_all(&work)?;
    let (kernel, modules) = kernel(&work)?;
    let binaries = build()?;
    let initramfs = initramfs(&work, &modules, &binaries)?;
    boot(&kernel, &initramfs)
}

fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.iter().filter(|(name, _)| !has(name)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let args = [vec!["install", "-y", "-qq", "--no-install-recommends"], missing].concat();
    run_with("apt-get", &args, &[("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
}

/// The kernel's file and the folder of its modules, unpacked once.
fn kernel(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let depends = output("apt-cache", &["depends", "--important", KERNEL])?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .context("apt knows no cloud kernel; apt-get update?")?;
    let release = package.trim_start_matches("linux-image-");
    let tree = work.join(package);
    let modules = tree.join("lib/modules").join(release);
    if !modules.join("modules.dep").exists() {
        let script = "rm -rf \"$1\" && mkdir -p \"$1\" && cd \"$1\" && apt-get download \"$2\" && dpkg -x *.deb . && rm *.deb && busybox depmod -b . \"$3\"";
        run("sh", &["-ec", script, "sh", text(&tree)?, package, release])?;
    }
    Ok((tree.join("boot").join(format!("vmlinuz-{release}")), modules))
}

/// Name in the machine → file: Gantry, and the tests.
fn build() -> Result<Vec<(String, PathBuf)>> {
    run("cargo", &["build", "--package", "gantry"])?;
    let mut binaries = vec![("gantry".to_owned(), target_dir()?.join("debug/gantry"))];
    let mut args = vec!["test", "--no-run", "--message-format=json"];
    for (package, target) in TESTS {
        args.extend(["--package", package, "--test", target]);
    }
    for line in output("cargo", &args)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let (Some(file), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str()) else {
            continue;
        };
        let package = message["package_id"].as_str().unwrap_or_default();
        let package = TESTS.iter().find(|(crate_, target)| *target == name && package.contains(&format!("/{crate_}#")));
        if let Some((package, _)) = package {
            binaries.push((format!("test-{package}-{name}"), PathBuf::from(file)));
        }
    }
    if binaries.len() != TESTS.len() + 1 {
        bail!("cargo names {} of {} test binaries", binaries.len() - 1, TESTS.len());
    }
    Ok(binaries)
}

fn initramfs(work: &Path, modules: &Path, binaries: &[(String, PathBuf)]) -> Result<PathBuf> {
    let tree = work.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for dir in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "var", "machine"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    // Applets are linked by the machine itself.
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("busybox")?;
    let mut libraries = BTreeSet::new();
    for (name, file) in binaries {
        let to = tree.join("bin").join(name);
        run("strip", &["-o", text(&to)?, text(file)?])?;
        libraries.extend(needed(&to)?);
    }
    for program in ["docker", "ps"] {
        let found = output("sh", &["-c", &format!("readlink -f $(command -v {program})")])?;
        fs::copy(found.trim(), tree.join("bin").join(program)).with_context(|| program.to_owned())?;
        libraries.extend(needed(Path::new(found.trim()))?);
    }
    for library in libraries {
        let to = tree.join(library.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("a library at /")?)?;
        fs::copy(&library, &to).with_context(|| library.display().to_string())?;
    }
    copy_modules(modules, &tree)?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    fs::copy(root().join("xtask/vm/init.sh"), tree.join("init"))?;
    fs::copy(root().join("xtask/vm/checks.sh"), tree.join("machine/checks.sh"))?;
    symlink("../bin/busybox", tree.join("sbin/modprobe"))?;
    let image = work.join("initramfs");
    run(
        "sh",
        &[
            "-ec",
            "chmod +x \"$1/init\"; cd \"$1\"; find . | cpio --quiet -o -H newc >\"$2\"",
            "sh",
            text(&tree)?,
            text(&image)?,
        ],
    )?;
    Ok(image)
}

fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program needs none, and ldd fails on it.
    let listed = Command::new("ldd").arg(program).output().context("ldd")?;
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(words.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy_modules(modules: &Path, tree: &Path) -> Result<()> {
    let release = modules.file_name().and_then(|name| name.to_str()).context("a kernel without a release")?;
    let to = tree.join("lib/modules").join(release);
    fs::create_dir_all(to.join("kernel"))?;
    for entry in fs::read_dir(modules)?.flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    for dir in MODULES.iter().chain(&MORE_MODULES) {
        let from = modules.join("kernel").join(dir);
        if from.exists() {
            let place = to.join("kernel").join(dir);
            fs::create_dir_all(&place)?;
            run("cp", &["-r", text(&from.join("."))?, text(&place)?])?;
        }
    }
    Ok(())
}

/// Runs the machine, with the processor's help where that works: a machine that is one itself may offer it and not have it.
fn boot(kernel: &Path, initramfs: &Path) -> Result<()> {
    let offered = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if offered
        && let Some(verdict) = run_machine(kernel, initramfs, &["-accel", "kvm", "-cpu", "host,arch-capabilities=off"])?
    {
        return verdict;
    }
    println!("vm-test: in software");
    match run_machine(kernel, initramfs, &["-accel", "tcg,thread=multi", "-cpu", "max"])? {
        Some(verdict) => verdict,
        None => bail!("the machine does not boot"),
    }
}

/// Counts what the machine says on its console; `None` when it says nothing.
fn run_machine(kernel: &Path, initramfs: &Path, processor: &[&str]) -> Result<Option<Result<()>>> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(processor)
        .args([
            "-m",
            "3072",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-x86_64")?;
    let console = qemu.stdout.take().context("no console")?;
    let (lines, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let mut deadline = Instant::now() + BOOT;
    let (mut booted, mut passed, mut failed, mut done) = (false, 0, Vec::new(), false);
    while let Ok(line) = received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        println!("{line}");
        match line.split_once(' ') {
            Some(("PASS", _)) => passed += 1,
            Some(("FAIL", name)) => failed.push(name.to_owned()),
            _ if line == "DONE" => done = true,
            _ if line == "BOOTED" => {
                booted = true;
                deadline = Instant::now() + PATIENCE;
            }
            _ => {}
        }
    }
    let _ = qemu.kill();
    qemu.wait()?;
    if !booted {
        return Ok(None);
    }
    println!("vm-test: {passed} passed, {} failed", failed.len());
    Ok(Some(match (done, failed.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(anyhow::anyhow!("failed on cgroup v2: {}", failed.join(", "))),
        (false, _) => Err(anyhow::anyhow!("the machine did not come to its end")),
    }))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
