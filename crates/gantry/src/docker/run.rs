//! `run` and `exec`: create, attach, start, wait.

use anyhow::{Context, Result, bail};
use http::Method;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::cli::{Exec, Run};
use super::client::{Client, escaped};
use super::{images, multiplex, terminal};

/// How long the output of a container that has ended is waited for.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(10);

/// The exit code of a command that could not be started, as the original has it.
const CANNOT_START: u8 = 125;

pub(crate) async fn run(client: &Client, options: &Run) -> Result<u8> {
    let body = create_body(options)?;
    let name = options.name.as_ref().map(|name| format!("?name={}", escaped(name))).unwrap_or_default();
    let path = format!("/containers/create{name}");
    let created = match client.json(Method::POST, &path, Some(&body)).await {
        Err(error) if error.to_string().contains("No such image") => {
            eprintln!("Unable to find image '{}' locally", options.image);
            images::pull(client, &options.image).await?;
            client.json(Method::POST, &path, Some(&body)).await?
        }
        other => other?,
    };
    let id = created["Id"].as_str().context("the engine named no container")?.to_owned();
    if options.detach {
        client.json(Method::POST, &format!("/containers/{id}/start"), None).await?;
        println!("{id}");
        return Ok(0);
    }
    attached(client, options, &id).await
}

async fn attached(client: &Client, options: &Run, id: &str) -> Result<u8> {
    let stdin = u8::from(options.interactive);
    let stream =
        client.hijack(&format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1&stdin={stdin}"), None).await?;
    // Asked before the start: a container that is removed when it ends has no exit code to ask for afterwards.
    let condition = if options.rm { "removed" } else { "next-exit" };
    let path = format!("/containers/{id}/wait?condition={condition}");
    let wait = client.json(Method::POST, &path, None);
    let session = async {
        if let Err(error) = client.json(Method::POST, &format!("/containers/{id}/start"), None).await {
            eprintln!("gantry: {error:#}");
            return Ok(Some(CANNOT_START));
        }
        if let Some((columns, rows)) = terminal::size().filter(|_| options.tty) {
            client.json(Method::POST, &format!("/containers/{id}/resize?w={columns}&h={rows}"), None).await?;
        }
        converse(stream, options.interactive, options.tty).await?;
        Ok::<_, anyhow::Error>(None)
    };
    tokio::pin!(wait, session);
    let code = tokio::select! {
        outcome = &mut session => match outcome? {
            Some(code) => return Ok(code),
            None => wait.await?,
        },
        answer = &mut wait => {
            let answer = answer?;
            // The last output may still be on its way.
            match tokio::time::timeout(LAST_WORDS, &mut session).await {
                Ok(outcome) => outcome.map(|_| answer)?,
                Err(_) => answer,
            }
        }
    };
    exit_code(&code["StatusCode"])
}

pub(crate) async fn exec(client: &Client, options: &Exec) -> Result<u8> {
    let body = json!({
        "Cmd": options.command, "Tty": options.tty, "Env": options.env, "User": options.user, "WorkingDir": options.workdir,
        "AttachStdin": options.interactive, "AttachStdout": !options.detach, "AttachStderr": !options.detach,
    });
    let created =
        client.json(Method::POST, &format!("/containers/{}/exec", escaped(&options.container)), Some(&body)).await?;
    let id = created["Id"].as_str().context("the engine named no exec")?;
    let start = json!({"Detach": options.detach, "Tty": options.tty});
    if options.detach {
        client.json(Method::POST, &format!("/exec/{id}/start"), Some(&start)).await?;
        return Ok(0);
    }
    let stream = client.hijack(&format!("/exec/{id}/start"), Some(&start)).await?;
    if let Some((columns, rows)) = terminal::size().filter(|_| options.tty) {
        client.json(Method::POST, &format!("/exec/{id}/resize?w={columns}&h={rows}"), None).await?;
    }
    converse(stream, options.interactive, options.tty).await?;
    exit_code(&client.get(&format!("/exec/{id}/json")).await?["ExitCode"])
}

/// Carries standard input in and the output out until the output ends.
async fn converse(stream: hyper::upgrade::Upgraded, interactive: bool, tty: bool) -> Result<()> {
    let (reader, mut writer) = tokio::io::split(TokioIo::new(stream));
    let _raw = if tty && interactive { Some(terminal::Raw::enter()?) } else { None };
    let input = tokio::spawn(async move {
        if interactive {
            tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await.ok();
        }
        // Half-close: the container sees the end of its input and may still answer.
        writer.shutdown().await.ok();
        // Kept open for writing until the session is over.
        std::future::pending::<()>().await;
        drop(writer);
    });
    let outcome = if tty { raw_output(reader).await } else { multiplex::demultiplex(reader).await };
    input.abort();
    outcome
}

async fn raw_output(mut reader: impl tokio::io::AsyncRead + Unpin) -> Result<()> {
    let mut stdout = tokio::io::stdout();
    tokio::io::copy(&mut reader, &mut stdout).await?;
    stdout.flush().await?;
    Ok(())
}

fn exit_code(value: &Value) -> Result<u8> {
    let code = value.as_i64().context("the engine gave no exit code")?;
    Ok(u8::try_from(code).unwrap_or(CANNOT_START))
}

fn create_body(options: &Run) -> Result<Value> {
    let (exposed, bindings) = ports(&options.publish)?;
    let (restart, retries) = options.restart.split_once(':').unwrap_or((&options.restart, "0"));
    let labels: Map<String, Value> = options
        .label
        .iter()
        .map(|label| label.split_once('=').unwrap_or((label, "")))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    Ok(json!({
        "Image": options.image,
        "Cmd": if options.command.is_empty() { Value::Null } else { json!(options.command) },
        "Entrypoint": options.entrypoint.as_ref().map(|entry| vec![entry]),
        "Env": environment(&options.env),
        "Tty": options.tty, "OpenStdin": options.interactive, "StdinOnce": options.interactive && !options.detach,
        "AttachStdin": options.interactive && !options.detach, "AttachStdout": !options.detach, "AttachStderr": !options.detach,
        "User": options.user.clone().unwrap_or_default(), "WorkingDir": options.workdir.clone().unwrap_or_default(),
        "Labels": labels, "ExposedPorts": exposed,
        "HostConfig": {
            "AutoRemove": options.rm, "Binds": options.volume, "PortBindings": bindings, "Privileged": options.privileged,
            "NetworkMode": options.network.as_deref().unwrap_or("default"),
            "RestartPolicy": {"Name": restart, "MaximumRetryCount": retries.parse::<u32>().context("--restart: the number of retries")?},
            "Memory": options.memory.as_deref().map(memory_bytes).transpose()?.unwrap_or(0),
        },
    }))
}

/// A bare name takes its value from this process's environment, as the original does.
fn environment(given: &[String]) -> Vec<String> {
    given
        .iter()
        .filter_map(|entry| {
            if entry.contains('=') {
                Some(entry.clone())
            } else {
                std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
            }
        })
        .collect()
}

/// `[[ip:]host:]container[/protocol]`, one port each.
fn ports(publish: &[String]) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let (mut exposed, mut bindings) = (Map::new(), Map::<String, Value>::new());
    for text in publish {
        let (address, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let mut parts = address.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let (host, ip) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for port in [container, host].into_iter().filter(|port| !port.is_empty()) {
            if port.parse::<u16>().is_err() {
                bail!("invalid publish: {text}: {port:?} is not a port from 1 to 65535");
            }
        }
        let key = format!("{container}/{protocol}");
        exposed.insert(key.clone(), json!({}));
        let list = bindings.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"HostIp": ip.trim_matches(['[', ']']), "HostPort": host}));
        }
    }
    Ok((exposed, bindings))
}

fn memory_bytes(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match lower[digits.len()..].trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => bail!("invalid size: {text:?}"),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
        .with_context(|| format!("invalid size: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_have_all_the_originals_forms() {
        let (exposed, bindings) = ports(&["8000:80".into(), "127.0.0.1:53:5353/udp".into(), "90".into()]).unwrap();
        assert_eq!(exposed.keys().collect::<Vec<_>>(), ["5353/udp", "80/tcp", "90/tcp"]);
        assert_eq!(bindings["80/tcp"], json!([{"HostIp": "", "HostPort": "8000"}]));
        assert_eq!(bindings["5353/udp"], json!([{"HostIp": "127.0.0.1", "HostPort": "53"}]));
        assert!(ports(&["a:80".into()]).is_err());
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(memory_bytes("512m").unwrap(), 512 << 20);
        assert_eq!(memory_bytes("1gb").unwrap(), 1 << 30);
        assert!(memory_bytes("x").is_err());
    }
}
