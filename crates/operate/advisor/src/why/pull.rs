//! An image that cannot be had: which of the many reasons it is.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use crate::facts::{Facts, ObjectName, list, text};

/// From a waiting container's reason and message.
pub(crate) fn finding(
    subject: &ObjectName,
    pod: &Value,
    image: &str,
    reason: &str,
    message: &str,
    facts: &Facts,
) -> Finding {
    let (cause, summary) = diagnose(image, reason, message);
    let mut finding = Finding::new(subject, cause, summary).seen("status", format!("{reason}: {message}"));
    finding = finding.event(facts.event(subject, &["Failed", "BackOff"]));
    if cause == Cause::RegistryDenied
        && let Some(missing) = missing_pull_secret(subject, pod, facts)
    {
        return finding.because([missing]);
    }
    match cause {
        Cause::ImageNotFound => finding.next("docker images").next(format!("docker pull {image}")),
        Cause::InvalidImageName => finding.next(format!("correct {image:?}: REGISTRY/NAME:TAG in lower case")),
        Cause::ImageNeverPulled => {
            finding.next(format!("docker build -t {image} .   (or set imagePullPolicy: IfNotPresent)"))
        }
        Cause::RegistryDenied => finding.next(format!(
            "kubectl create secret docker-registry NAME --docker-server={} --docker-username=… and name it in imagePullSecrets{}",
            registry(image),
            namespace_option(subject)
        )),
        Cause::RegistryUnreachable => finding.next(format!("curl -v https://{}/v2/", registry(image))),
        _ => finding.next(format!("docker pull {image}")),
    }
}

fn diagnose(image: &str, reason: &str, message: &str) -> (Cause, String) {
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match reason {
        "InvalidImageName" => return (Cause::InvalidImageName, format!("{image:?} is no valid image name")),
        "ErrImageNeverPull" => {
            return (
                Cause::ImageNeverPulled,
                format!("image {image} is not here, and imagePullPolicy Never forbids to pull it"),
            );
        }
        _ => {}
    }
    let registry = registry(image);
    if says(&["toomanyrequests", "rate limit", "429"]) {
        (Cause::RegistryRateLimit, format!("{registry} has had enough pulls for now and refuses image {image}"))
    } else if says(&[
        "no such host",
        "connection refused",
        "i/o timeout",
        "timed out",
        "unreachable",
        "dial tcp",
        "lookup ",
        "certificate",
        "tls",
    ]) {
        (Cause::RegistryUnreachable, format!("the registry {registry} of image {image} cannot be reached"))
    } else if says(&["unauthorized", "access denied", "denied:", "authentication required", "forbidden"]) {
        // Registries tell strangers this of images that do not exist, too.
        (
            Cause::RegistryDenied,
            format!("{registry} does not give image {image} to this pod: it does not exist there, or needs a login"),
        )
    } else if says(&["not found", "manifest unknown", "name unknown", "does not exist", "no such image"]) {
        (Cause::ImageNotFound, format!("image {image} exists neither here nor in {registry}"))
    } else {
        (Cause::ImagePullFailed, format!("image {image} cannot be pulled"))
    }
}

fn missing_pull_secret(subject: &ObjectName, pod: &Value, facts: &Facts) -> Option<Finding> {
    let name = list(pod, "/spec/imagePullSecrets")
        .map(|secret| text(secret, "/name"))
        .find(|name| facts.exists("Secret", &subject.namespace, name) == Some(false))?;
    Some(Finding::new(subject, Cause::PullSecretMissing, format!("its imagePullSecret {name:?} does not exist")))
}

/// The registry that an image's name means.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}
