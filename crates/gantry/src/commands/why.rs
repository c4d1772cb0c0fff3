//! `gantry why`: fetches what an explanation needs, lets `advisor` decide, prints the chain of causes.
//!
//! Reads with the kubeconfig's own rights and changes nothing. Secrets are asked for by name only, never for their content.

use std::io::IsTerminal;
use std::path::Path;

use advisor::{Explanation, Facts, Finding, ObjectName, Question, Tail, Verdict};
use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use serde_json::Value;

use crate::docker;
use crate::kubectl::access::Access;
use crate::kubectl::resource;
use crate::paths::Paths;

/// Lines of a container's log that are looked at.
const LOG_LINES: u32 = 20;
/// Kinds whose names are enough: a wrong one is told with the one that was meant.
const BY_NAME: [&str; 3] = ["ConfigMap", "Secret", "ServiceAccount"];
/// What is gone through when nothing is named.
const SURVEYED: [&str; 9] =
    ["Node", "Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", "Service", "PersistentVolumeClaim", "Pod"];

pub(crate) struct Options {
    pub(crate) target: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) json: bool,
}

/// Returns whether all is as desired (exit code 0), or not (1).
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let explanations = match &options.target {
            Some(target) if target.contains('/') => vec![one(paths, target, options).await?],
            Some(name) => vec![container(&paths.docker_socket(), name).await?],
            None => survey(paths, options).await?,
        };
        if options.json {
            println!("{}", serde_json::to_string_pretty(&explanations)?);
        } else {
            print(&explanations, options.target.is_some());
        }
        Ok(explanations.iter().all(|explanation| explanation.verdict != Verdict::Broken))
    })
}

fn access(paths: &Paths) -> Result<Access> {
    let path = std::env::var_os("KUBECONFIG").map_or_else(|| paths.kubeconfig(), std::path::PathBuf::from);
    Access::new(&path)
}

/// One object of the cluster.
async fn one(paths: &Paths, target: &str, options: &Options) -> Result<Explanation> {
    let target = resource::target(target, None)?;
    let access = access(paths)?;
    let namespace = if target.resource.namespaced { options.namespace.as_deref().unwrap_or("default") } else { "" };
    let subject = ObjectName::new(&target.resource.kind, namespace, target.name.as_deref().unwrap_or_default());
    let mut facts = Facts::at(jiff::Timestamp::now());
    let path = resource::path(target.resource, Some(namespace), Some(&subject.name));
    if let Some(object) = access.find(&path).await? {
        facts.add(&subject.kind, object);
    }
    gather(&access, namespace, needs(&subject.kind), &mut facts).await?;
    names(&access, namespace, BY_NAME.into_iter().chain([subject.kind.as_str()]), &mut facts).await;
    answer(&access, &advisor::questions(&subject, &facts), &mut facts).await;
    Ok(advisor::explain(&subject, &facts))
}

/// Lists that an explanation of this kind goes through, beside events.
fn needs(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["Node", "PersistentVolumeClaim", "StorageClass"],
        "Deployment" | "ReplicaSet" => &["Pod", "ReplicaSet", "Node", "PersistentVolumeClaim", "StorageClass"],
        "StatefulSet" | "DaemonSet" | "ReplicationController" | "Job" | "CronJob" => {
            &["Pod", "Job", "Node", "PersistentVolumeClaim", "StorageClass"]
        }
        "Service" => &["Pod", "EndpointSlice", "Node"],
        "Ingress" => &["Service", "Pod", "EndpointSlice", "Node"],
        "PersistentVolumeClaim" => &["StorageClass", "Pod"],
        _ => &[],
    }
}

/// Everything that has no owner and is not as desired.
async fn survey(paths: &Paths, options: &Options) -> Result<Vec<Explanation>> {
    let access = access(paths)?;
    let mut facts = Facts::at(jiff::Timestamp::now());
    let kinds = [SURVEYED.as_slice(), &["ReplicaSet", "EndpointSlice", "StorageClass"]].concat();
    let namespace = options.namespace.as_deref().unwrap_or_default();
    gather(&access, namespace, &kinds, &mut facts).await?;
    let subjects: Vec<ObjectName> = SURVEYED.iter().flat_map(|kind| facts.roots(kind)).collect();
    let questions: Vec<Question> = subjects.iter().flat_map(|subject| advisor::questions(subject, &facts)).collect();
    answer(&access, &questions, &mut facts).await;
    let explained = subjects.iter().map(|subject| advisor::explain(subject, &facts));
    Ok(explained.filter(|explanation| explanation.verdict == Verdict::Broken).collect())
}

/// Fills in lists of objects and all events. An empty namespace means all of them.
async fn gather(access: &Access, namespace: &str, kinds: &[&'static str], facts: &mut Facts) -> Result<()> {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let fetch = |kind: &'static str| async move {
        let resource = resource::find(kind)?;
        let list = access.get(&resource::path(resource, namespace, None)).await?;
        anyhow::Ok((kind, list))
    };
    for fetched in join_all(kinds.iter().copied().chain(["Event"]).map(fetch)).await {
        let (kind, mut list) = fetched?;
        for object in list["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            if kind == "Event" { facts.add_event(object) } else { facts.add(kind, object) }
        }
    }
    Ok(())
}

/// The names that exist of some kinds, without their content. Whoever may not list them gets poorer advice, not an error.
async fn names(access: &Access, namespace: &str, kinds: impl Iterator<Item = &str>, facts: &mut Facts) {
    let fetch = |kind: String| async move {
        let resource = resource::find(&kind).ok()?;
        let request = Request::get(resource::path(resource, Some(namespace).filter(|name| !name.is_empty()), None))
            .header("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
            .body(Bytes::new())
            .ok()?;
        let list: Value = access.client.raw(request).await.ok()?;
        Some((kind, list))
    };
    for (kind, list) in join_all(kinds.map(str::to_owned).map(fetch)).await.into_iter().flatten() {
        for item in list["items"].as_array().into_iter().flatten() {
            if let Some(name) = item["metadata"]["name"].as_str() {
                facts.add_name(&kind, namespace, name);
            }
        }
    }
}

async fn answer(access: &Access, questions: &[Question], facts: &mut Facts) {
    let fetch = |question: &Question| {
        let Question::Log { namespace, pod, container, previous } = question.clone();
        async move {
            let path =
                format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={LOG_LINES}");
            let text = match access.text(&format!("{path}&previous={previous}")).await {
                Ok(text) => text,
                // Its last run is the one that stands now.
                Err(_) => access.text(&path).await.unwrap_or_default(),
            };
            (namespace, pod, container, Tail { lines: text.lines().map(str::to_owned).collect() })
        }
    };
    for (namespace, pod, container, tail) in join_all(questions.iter().map(fetch)).await {
        facts.add_log(&namespace, &pod, &container, tail);
    }
}

/// A container of the Docker half.
async fn container(socket: &Path, name: &str) -> Result<Explanation> {
    let client = docker::Client::new(std::env::var("DOCKER_HOST").ok().as_deref(), socket)?;
    let inspected = client.get(&format!("/containers/{}/json", crate::kubectl::access::escaped(name))).await;
    let inspected = match inspected {
        Ok(inspected) => inspected,
        Err(error) if error.to_string().contains("No such container") => {
            bail!(
                "there is no container {name:?}; for an object of the cluster say KIND/NAME, such as deployment/{name}"
            )
        }
        Err(error) => return Err(error),
    };
    let lines = docker::last_lines(&client, name, LOG_LINES).await.unwrap_or_default();
    Ok(advisor::explain_container(&inspected, &Tail { lines }))
}

fn print(explanations: &[Explanation], named: bool) {
    let style = Style { colour: std::io::stdout().is_terminal() };
    if explanations.is_empty() {
        println!("{}", style.good("everything is as desired"));
        return;
    }
    for (index, explanation) in explanations.iter().enumerate() {
        if index > 0 {
            println!();
        }
        let place = match explanation.subject.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" in {namespace}"),
        };
        let verdict = match explanation.verdict {
            Verdict::Fine => style.good("as desired"),
            Verdict::Progressing => style.mild("on its way, or as asked for"),
            Verdict::Broken => style.bad("not as desired"),
        };
        println!("{}{place}: {verdict}", style.bold(&explanation.subject.to_string()));
        for finding in &explanation.findings {
            print_finding(finding, &explanation.subject, 1, &style);
        }
    }
    if !named {
        println!("\nmore on one of them: gantry why KIND/NAME -n NAMESPACE");
    }
}

fn print_finding(finding: &Finding, above: &ObjectName, depth: usize, style: &Style) {
    let indent = "  ".repeat(depth);
    let who = if finding.subject == *above {
        String::new()
    } else {
        format!("{}: ", style.bold(&finding.subject.to_string()))
    };
    let mark = if depth == 1 { "" } else { "because " };
    println!("{indent}{mark}{who}{}", finding.summary);
    for evidence in &finding.evidence {
        let at = evidence.at.map(|at| format!("{} ", at.strftime("%H:%M:%S"))).unwrap_or_default();
        println!("{indent}  {} {at}{}", style.dim(&format!("{:<6}", evidence.source)), harmless(&evidence.text));
    }
    for below in &finding.because {
        print_finding(below, &finding.subject, depth + 1, style);
    }
    for next in &finding.next {
        println!("{indent}  {} {}", style.mild("try"), harmless(next));
    }
}

/// What a log or a message holds must not steer the terminal.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

struct Style {
    colour: bool,
}

impl Style {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }
    fn dim(&self, text: &str) -> String {
        self.wrap("2", text)
    }
    fn good(&self, text: &str) -> String {
        self.wrap("32", text)
    }
    fn mild(&self, text: &str) -> String {
        self.wrap("33", text)
    }
    fn bad(&self, text: &str) -> String {
        self.wrap("31", text)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        assert_eq!(super::harmless("a\x1b[2Jb\tc"), "a\u{fffd}[2Jb\tc");
    }
}
