//! The README's first command: a sample application from a Dockerfile to a Service, with Gantry's own verbs alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{root, run_with, target_dir};

const ROOT: &str = "/tmp/gantry-demo";

pub(crate) fn run() -> Result<()> {
    crate::run::run("cargo", &["build", "--release", "--package", "gantry"])?;
    let gantry = target_dir()?.join("release/gantry");
    let app = sample()?;
    let demo = Demo { gantry, app };
    let outcome = demo.walk();
    say("stopping Gantry and deleting what the demo made");
    demo.gantry(&["down", "--purge"]).and(outcome)
}

fn say(text: &str) {
    println!("\n── {text}");
}

/// The sample as a build context: a static program needs no base image, so the demo needs no registry.
fn sample() -> Result<PathBuf> {
    let source = root().join("samples/hello");
    let context = target_dir()?.join("demo");
    std::fs::create_dir_all(&context)?;
    let output = context.join("hello");
    let (source_file, output) = (source.join("hello.rs"), output.to_str().context("odd path")?.to_owned());
    run_with(
        "rustc",
        &[
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-o",
            &output,
            source_file.to_str().context("odd path")?,
        ],
        &[],
    )?;
    for file in ["Dockerfile", "app.yaml"] {
        std::fs::copy(source.join(file), context.join(file))?;
    }
    Ok(context)
}

struct Demo {
    gantry: PathBuf,
    app: PathBuf,
}

impl Demo {
    fn walk(&self) -> Result<()> {
        let context = self.app.to_str().context("odd path")?;
        let manifest = self.app.join("app.yaml");
        let manifest = manifest.to_str().context("odd path")?;
        say("gantry up: the engine, the registry and the cluster in one process");
        self.gantry(&["up", "--detach"])?;
        self.gantry(&["get", "nodes"])?;
        say("the Docker half: an image from a Dockerfile, a container from the image");
        self.gantry(&["build", "-t", "hello:1.0", context])?;
        self.gantry(&["run", "-d", "--name", "hello", "-p", "8000:8000", "hello:1.0"])?;
        println!("GET http://127.0.0.1:8000/ → {}", wait_for("127.0.0.1:8000")?);
        self.gantry(&["logs", "hello"])?;
        self.gantry(&["rm", "-f", "hello"])?;
        say("the Kubernetes half: the image that was just built, three times, behind one address");
        self.gantry(&["apply", "-f", manifest])?;
        self.gantry(&["rollout", "status", "deployment/hello", "--timeout", "60s"])?;
        self.gantry(&["get", "pods,services"])?;
        let address = self.address()?;
        for _ in 0..6 {
            println!("GET http://{address}/ → {}", wait_for(&format!("{address}:80"))?);
        }
        say("scaling, and a rolling update to version 2.0 of the image");
        self.gantry(&["scale", "deployment/hello", "--replicas", "5"])?;
        std::fs::write(self.app.join("Dockerfile.2"), "FROM hello:1.0\nENV VERSION=2.0\n")?;
        let second = self.app.join("Dockerfile.2");
        self.gantry(&["build", "-t", "hello:2.0", "-f", second.to_str().context("odd path")?, context])?;
        self.gantry(&["set", "image", "deployment/hello", "hello=hello:2.0"])?;
        self.gantry(&["rollout", "status", "deployment/hello", "--timeout", "60s"])?;
        println!("GET http://{address}/ → {}", wait_for(&format!("{address}:80"))?);
        self.gantry(&["status"])?;
        self.gantry(&["delete", "-f", manifest])
    }

    fn gantry(&self, args: &[&str]) -> Result<()> {
        println!("$ gantry {}", args.join(" "));
        let status = self.command(args).status().context("cannot run gantry")?;
        if status.success() { Ok(()) } else { bail!("gantry {}: {status}", args.join(" ")) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.gantry);
        command
            .args(args)
            .env("GANTRY_ROOT", ROOT)
            .env_remove("DOCKER_HOST")
            .env_remove("KUBECONFIG")
            .current_dir(Path::new("/"));
        command
    }

    /// The Service's external address.
    fn address(&self) -> Result<String> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let output = self
                .command(&["get", "service/hello", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"])
                .output()?;
            let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if !address.is_empty() {
                return Ok(address);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the Service got no external address within 10 s")
    }
}

/// One request, tried again until the application answers.
fn wait_for(address: &str) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match get(address) {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= end => return Err(error.context(format!("{address} did not answer"))),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn get(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).context("no HTTP answer")
}
