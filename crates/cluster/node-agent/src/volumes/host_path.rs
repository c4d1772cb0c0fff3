//! hostPath volumes: a path of the node, checked or made as its type says.

use std::{os::unix::fs::FileTypeExt, path::Path};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::error::{AgentError, AtPath, Result};

use super::ownership;

pub(super) fn ensure(spec: &HostPathVolumeSource) -> Result<()> {
    let path = Path::new(&spec.path);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(AgentError::Config(format!("hostPath {} is not usable", spec.path)));
    }
    let kind = spec.type_.as_deref().unwrap_or_default();
    let exists = path.exists();
    match kind {
        // Without a type nothing is checked, and a missing path becomes a directory.
        "" | "DirectoryOrCreate" if !exists => {
            std::fs::create_dir_all(path).at("create", path)?;
            return ownership::set_mode(path, 0o755);
        }
        "" => return Ok(()),
        "FileOrCreate" if !exists => {
            std::fs::File::create(path).at("create", path)?;
            return ownership::set_mode(path, 0o644);
        }
        _ => {}
    }
    let found = std::fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let fits = found.is_some_and(|found| match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => false,
    });
    if fits {
        return Ok(());
    }
    let text = format!("hostPath type check failed: {} is not a {kind}", spec.path);
    Err(AgentError::Config(text))
}
