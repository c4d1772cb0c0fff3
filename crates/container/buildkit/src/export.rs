//! What becomes of a result: an image in the store, an archive, a directory of the client's.

use std::collections::HashMap;

use base64::Engine as _;
use build::{BuildError, Built, Events};
use oci::Reference;
use tonic::Status;

use crate::jobs::Job;
use crate::progress::OwnVertex;
use crate::session::Session;
use crate::{BuildKit, Exporter, outgoing};

type Answers = HashMap<String, String>;

/// Exports a result in one way. `number`: which of the client's outputs it is.
pub(crate) async fn export(
    kit: &BuildKit,
    job: &Job,
    built: &Built,
    exporter: &Exporter,
    number: usize,
    session: Option<&Session>,
) -> Result<Answers, BuildError> {
    let shown = match exporter.kind.as_str() {
        "" => return Ok(Answers::new()),
        "image" | "moby" => "exporting to image",
        "docker" => "exporting to docker image format",
        "oci" => "exporting to oci image format",
        "local" => "exporting to client directory",
        "tar" => "exporting to client tarball",
        other => return Err(BuildError::step(format!("exporter {other:?} could not be found"))),
    };
    let vertex = job.progress.vertex(shown);
    let session = session.ok_or_else(|| BuildError::step("the client's session is not there"));
    let exported = match exporter.kind.as_str() {
        "image" | "moby" => image(kit, built, exporter, &vertex).await,
        "docker" | "oci" => match session {
            Ok(session) => archive(kit, built, exporter, number, session).await,
            Err(error) => Err(error),
        },
        kind => match session {
            Ok(session) => files(kit, built, kind, number, session).await,
            Err(error) => Err(error),
        },
    };
    match &exported {
        Ok(_) => vertex.done(),
        Err(error) => vertex.failed(&error.to_string()),
    }
    exported
}

fn told(status: Status) -> BuildError {
    BuildError::step(status.message().to_owned())
}

fn names(exporter: &Exporter) -> Vec<String> {
    let list = exporter.attributes.get("name").map_or("", String::as_str);
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Into the engine's own store.
async fn image(
    kit: &BuildKit,
    built: &Built,
    exporter: &Exporter,
    vertex: &OwnVertex<'_>,
) -> Result<Answers, BuildError> {
    if exporter.attributes.get("push").is_some_and(|push| push == "true") {
        return Err(BuildError::step("pushing from the builder is not served; load the image and push it"));
    }
    vertex.reached("exporting layers");
    let names = names(exporter);
    let id = silent_store(kit, built, &names).await?;
    let digest = id.0.to_string();
    vertex.reached(&format!("writing image {digest}"));
    for name in &names {
        if let Ok(name) = Reference::parse(name) {
            vertex.reached(&format!("naming to {}", name.or_latest()));
        }
    }
    let mut answers = Answers::from([
        ("containerimage.digest".to_owned(), digest.clone()),
        ("containerimage.config.digest".to_owned(), digest),
    ]);
    if !names.is_empty() {
        answers.insert("image.name".to_owned(), names.join(","));
    }
    Ok(answers)
}

/// Stores an image; what the builder tells of it is told by the exporter already.
async fn silent_store(kit: &BuildKit, built: &Built, names: &[String]) -> Result<oci::ImageId, BuildError> {
    let (events, mut happened) = Events::channel(16);
    let storing = async {
        let id = kit.inner.builder.store(built, names, &events).await;
        drop(events);
        id
    };
    tokio::join!(storing, async { while happened.recv().await.is_some() {} }).0
}

/// A tar archive that is a docker-archive and an OCI layout at once.
async fn archive(
    kit: &BuildKit,
    built: &Built,
    exporter: &Exporter,
    number: usize,
    session: &Session,
) -> Result<Answers, BuildError> {
    let parse = |name: &String| Reference::parse(name).map(Reference::or_latest);
    let parsed = names(exporter)
        .iter()
        .map(|name| parse(name).map_err(|_| BuildError::Reference { reference: name.clone() }))
        .collect::<Result<Vec<_>, _>>()?;
    let known = kit.inner.builder.stores().0.images().get(&image_id(built)?).is_ok();
    let id = silent_store(kit, built, &[]).await?;
    let content = kit.inner.builder.stores().0.clone();
    let store = content.clone();
    let sent = outgoing::file(session, number, move |mut out| {
        distribution::archive::save_as(&store, &id, &parsed, &mut out).map_err(|error| error.to_string())
    })
    .await
    .map_err(told);
    // The client has it; nobody asked for it to be here.
    if !known && let Err(error) = content.images().remove(&id.0.to_string(), false) {
        tracing::debug!(%error, "an exported image stays in the store");
    }
    sent?;
    let digest = id.0.to_string();
    let descriptor = serde_json::json!({"mediaType": oci::media_type::OCI_CONFIG, "digest": digest, "size": 0});
    Ok(Answers::from([
        ("containerimage.config.digest".to_owned(), digest.clone()),
        ("containerimage.digest".to_owned(), digest),
        (
            "containerimage.descriptor".to_owned(),
            base64::engine::general_purpose::STANDARD.encode(descriptor.to_string()),
        ),
    ]))
}

fn image_id(built: &Built) -> Result<oci::ImageId, BuildError> {
    let config = serde_json::to_vec(&built.config).map_err(|error| BuildError::step(error.to_string()))?;
    Ok(oci::ImageId(oci::Digest::of(&config)))
}

/// The files themselves: into a directory, or as one tar archive.
async fn files(
    kit: &BuildKit,
    built: &Built,
    kind: &str,
    number: usize,
    session: &Session,
) -> Result<Answers, BuildError> {
    let mounted = kit.inner.builder.mount(built).await?;
    let root = mounted.path().to_owned();
    let sent = if kind == "local" {
        outgoing::directory(session, number, root).await
    } else {
        outgoing::file(session, number, move |out| outgoing::write_tar(&root, out)).await
    };
    drop(mounted);
    sent.map_err(told)?;
    Ok(Answers::new())
}
