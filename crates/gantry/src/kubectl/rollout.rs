//! `rollout`: status (waits), undo, history, restart of a Deployment.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::access::{Access, duration};
use super::cli::Rollout;
use super::resource::{self, Target};

const REVISION: &str = "deployment.kubernetes.io/revision";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

pub(crate) async fn run(access: &Access, action: &Rollout) -> Result<()> {
    match action {
        Rollout::Status { target, namespace, timeout } => {
            status(access, &deployment(target)?, namespace.name(), duration(timeout)?).await
        }
        Rollout::Undo { target, namespace, to_revision } => {
            undo(access, &deployment(target)?, namespace.name(), *to_revision).await
        }
        Rollout::History { target, namespace } => history(access, &deployment(target)?, namespace.name()).await,
        Rollout::Restart { target, namespace } => restart(access, &deployment(target)?, namespace.name()).await,
    }
}

fn deployment(word: &str) -> Result<Target> {
    let target = resource::target(word, None)?;
    if target.resource.kind != "Deployment" {
        bail!("rollouts of a {} are not supported by this command yet; use kubectl", target.resource.singular);
    }
    Ok(target)
}

fn path(target: &Target, namespace: &str) -> String {
    resource::path(target.resource, Some(namespace), target.name.as_deref())
}

fn name(target: &Target) -> &str {
    target.name.as_deref().unwrap_or_default()
}

async fn status(access: &Access, target: &Target, namespace: &str, timeout: Duration) -> Result<()> {
    let deadline = (!timeout.is_zero()).then(|| tokio::time::Instant::now() + timeout);
    let mut said = String::new();
    loop {
        let object = access.get(&path(target, namespace)).await?;
        let Some(waiting) = progress(&object)? else {
            println!("deployment {:?} successfully rolled out", name(target));
            return Ok(());
        };
        if waiting != said {
            println!("Waiting for deployment {:?} rollout to finish: {waiting}...", name(target));
            said = waiting;
        }
        if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
            bail!("timed out waiting for the condition");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a rollout still waits for; `None` when it is done, an error when it will not get there.
fn progress(object: &Value) -> Result<Option<String>> {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    if number("/metadata/generation") > number("/status/observedGeneration") {
        return Ok(Some("the deployment spec update to be observed".to_owned()));
    }
    let failed =
        |condition: &&Value| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded";
    if object["status"]["conditions"].as_array().into_iter().flatten().find(failed).is_some() {
        bail!("deployment {} exceeded its progress deadline", object["metadata"]["name"]);
    }
    let (wanted, updated) = (number("/spec/replicas"), number("/status/updatedReplicas"));
    let (replicas, available) = (number("/status/replicas"), number("/status/availableReplicas"));
    Ok(if updated < wanted {
        Some(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if replicas > updated {
        Some(format!("{} old replicas are pending termination", replicas - updated))
    } else if available < updated {
        Some(format!("{available} of {updated} updated replicas are available"))
    } else {
        None
    })
}

/// The replica sets of a deployment with their revisions, oldest first.
async fn revisions(access: &Access, object: &Value, namespace: &str) -> Result<Vec<(u64, Value)>> {
    let sets = access.get(&resource::path(resource::find("replicasets")?, Some(namespace), None)).await?;
    let uid = &object["metadata"]["uid"];
    let owned = |set: &&Value| {
        set["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
    };
    let revision = |set: &Value| set["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok());
    let mut found: Vec<(u64, Value)> = sets["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(owned)
        .filter_map(|set| Some((revision(set)?, set.clone())))
        .collect();
    found.sort_by_key(|(revision, _)| *revision);
    Ok(found)
}

async fn undo(access: &Access, target: &Target, namespace: &str, to_revision: u64) -> Result<()> {
    let object = access.get(&path(target, namespace)).await?;
    let all = revisions(access, &object, namespace).await?;
    let chosen = match to_revision {
        0 => all
            .iter()
            .rev()
            .nth(1)
            .with_context(|| format!("no rollout history found for deployment {:?}", name(target)))?,
        wanted => all
            .iter()
            .find(|(revision, _)| *revision == wanted)
            .with_context(|| format!("unable to find specified revision {wanted} in history"))?,
    };
    let mut template = chosen.1["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    // The whole template goes back, so that what the newer one added is gone again.
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    access.json(Method::PATCH, &path(target, namespace), "application/json-patch+json", Some(&patch)).await?;
    println!("{} rolled back", resource::shown(target.resource, name(target)));
    Ok(())
}

async fn history(access: &Access, target: &Target, namespace: &str) -> Result<()> {
    let object = access.get(&path(target, namespace)).await?;
    println!("{}", resource::shown(target.resource, name(target)));
    println!("{:<10}CHANGE-CAUSE", "REVISION");
    for (revision, set) in revisions(access, &object, namespace).await? {
        println!(
            "{revision:<10}{}",
            set["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str().unwrap_or("<none>")
        );
    }
    Ok(())
}

async fn restart(access: &Access, target: &Target, namespace: &str) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    let patch =
        json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    access.json(Method::PATCH, &path(target, namespace), STRATEGIC, Some(&patch)).await?;
    println!("{} restarted", resource::shown(target.resource, name(target)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_missing_in_kubectls_words() {
        let deployment = |updated: i64, replicas: i64, available: i64| json!({"metadata": {"generation": 2, "name": "web"}, "spec": {"replicas": 3}, "status": {"observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available}});
        assert_eq!(progress(&deployment(1, 3, 3)).unwrap().unwrap(), "1 out of 3 new replicas have been updated");
        assert_eq!(progress(&deployment(3, 4, 3)).unwrap().unwrap(), "1 old replicas are pending termination");
        assert_eq!(progress(&deployment(3, 3, 2)).unwrap().unwrap(), "2 of 3 updated replicas are available");
        assert_eq!(progress(&deployment(3, 3, 3)).unwrap(), None);
    }
}
