//! Pulling an image for a container.
//!
//! Invariant: credentials come from the pod's imagePullSecrets and are never logged; the first secret that
//! names the registry wins.

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Secret};
use pod_plan::{EventKind, Outcome, PodEvent};

use crate::act::Scene;

/// The annotation by which the engine tells that an image was built, imported or loaded here.
const ORIGIN: &str = "gantry.dev/origin";

pub(crate) fn is_local(image: &v1::Image) -> bool {
    let annotations = image.spec.as_ref().map(|spec| &spec.annotations);
    annotations.and_then(|all| all.get(ORIGIN)).is_some_and(|origin| origin == "local")
}

pub(crate) async fn pull(scene: &Scene, container: &Container, spec: v1::ImageSpec) -> Outcome {
    let image = spec.image.clone();
    let text = format!("Pulling image \"{image}\"");
    let event = PodEvent::of_container(EventKind::Normal, "Pulling", text, &container.name);
    scene.shared.tell(&scene.pod, &event);
    let began = std::time::Instant::now();
    let auth = credentials(scene, &image).await;
    let cri = &scene.shared.config.cri;
    match cri.pull_image(spec.clone(), auth).await {
        Ok(image_ref) => {
            let size = cri.image_status(&spec).await.ok().flatten().map_or(0, |found| found.size);
            let took = format!("{:.3}s", began.elapsed().as_secs_f64());
            Outcome::ImageReady {
                image_ref,
                message: format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
                ),
            }
        }
        Err(cri::CriError::InvalidArgument(text)) => {
            Outcome::ImageFailed { reason: "InvalidImageName".to_owned(), message: text }
        }
        Err(error) => Outcome::ImageFailed {
            reason: "ErrImagePull".to_owned(),
            message: format!("Failed to pull image \"{image}\": {error}"),
        },
    }
}

/// `registry/` of an image name, as docker config files name it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => "docker.io",
    }
}

async fn credentials(scene: &Scene, image: &str) -> Option<v1::AuthConfig> {
    let wanted = registry(image);
    let spec = scene.pod.spec.as_ref()?;
    for reference in spec.image_pull_secrets.iter().flatten() {
        if let Some(secret) = scene.held.secret(&reference.name).await
            && let Some(auth) = from_secret(&secret, wanted)
        {
            return Some(auth);
        }
    }
    None
}

fn from_secret(secret: &Secret, wanted: &str) -> Option<v1::AuthConfig> {
    let data = secret.data.as_ref()?;
    let auths: serde_json::Value = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(bytes), _) => {
            let config: serde_json::Value = serde_json::from_slice(&bytes.0).ok()?;
            config.get("auths")?.clone()
        }
        (None, Some(bytes)) => serde_json::from_slice(&bytes.0).ok()?,
        (None, None) => return None,
    };
    let (_, entry) = auths.as_object()?.iter().find(|(server, _)| {
        let host = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        host == wanted || (wanted == "docker.io" && host == "index.docker.io")
    })?;
    let text = |name: &str| entry.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    Some(v1::AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        server_address: wanted.to_owned(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    })
}
