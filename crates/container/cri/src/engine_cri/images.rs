//! Images: the shared store as CRI shows it.
//!
//! Invariant: an image made here (built, imported, loaded) carries the annotation `gantry.dev/origin: local`, and
//! pulling it succeeds without asking anybody.

use std::sync::Arc;

use content::{Image, Origin};
use oci::Reference;

use super::EngineCri;
use crate::{CriError, Result, v1};

const ORIGIN: &str = "gantry.dev/origin";

impl EngineCri {
    pub(super) fn all_images(&self) -> Vec<v1::Image> {
        self.engine.content().images().list().iter().map(describe).collect()
    }

    pub(super) fn find_image(&self, name: &str) -> Result<Option<v1::Image>> {
        match self.engine.find_image(name) {
            Ok(image) => Ok(Some(describe(&image))),
            Err(error) if error.kind() == engine::Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn pull(&self, name: &str, auth: Option<v1::AuthConfig>) -> Result<String> {
        let reference = Reference::parse(name).map_err(|error| CriError::InvalidArgument(error.to_string()))?;
        let auth = auth.map(credentials).transpose()?;
        let image = self.engine.pull_image(&reference, auth.as_ref(), Arc::new(|_| {})).await?;
        Ok(image.id.to_string())
    }

    pub(super) fn image_usage(&self) -> v1::ImageFsInfoResponse {
        let used: u64 = self.engine.content().images().list().iter().map(|image| image.size).sum();
        let mountpoint = self.engine.root().join("content").to_string_lossy().into_owned();
        let usage = v1::FilesystemUsage {
            timestamp: super::nanos(jiff::Timestamp::now()),
            fs_id: Some(v1::FilesystemIdentifier { mountpoint }),
            used_bytes: Some(v1::UInt64Value { value: used }),
            inodes_used: None,
        };
        v1::ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] }
    }
}

fn credentials(auth: v1::AuthConfig) -> Result<distribution::client::Auth> {
    let mut out = distribution::client::Auth {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    };
    if out.username.is_empty() && !auth.auth.is_empty() {
        use base64::Engine;
        let wrong = || CriError::InvalidArgument("the auth of a registry is not base64 of user:password".to_owned());
        let bytes = base64::prelude::BASE64_STANDARD.decode(&auth.auth).map_err(|_| wrong())?;
        let text = String::from_utf8(bytes).map_err(|_| wrong())?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        (out.username, out.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    Ok(out)
}

fn describe(image: &Image) -> v1::Image {
    let user = image.config.config.user.split(':').next().unwrap_or_default();
    let (uid, username) = match user.parse::<i64>() {
        Ok(value) => (Some(v1::Int64Value { value }), String::new()),
        Err(_) if user.is_empty() => (Some(v1::Int64Value { value: 0 }), String::new()),
        Err(_) => (None, user.to_owned()),
    };
    let origin = (image.origin == Origin::Local).then(|| (ORIGIN.to_owned(), "local".to_owned()));
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.names.iter().map(Reference::to_string).collect(),
        repo_digests: image.repo_digests.iter().map(Reference::to_string).collect(),
        size: image.size,
        uid,
        username,
        spec: Some(v1::ImageSpec {
            image: image.id.to_string(),
            annotations: origin.into_iter().collect(),
            ..Default::default()
        }),
        pinned: false,
    }
}
