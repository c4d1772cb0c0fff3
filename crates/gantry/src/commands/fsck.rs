//! `gantry fsck`: checks every stored blob, and moves away what is damaged. Works beside a running instance, too.

use anyhow::{Context, Result};

use crate::paths::Paths;

/// Whether everything is as it should be.
pub(crate) fn run(paths: &Paths, dry_run: bool) -> Result<bool> {
    let checked = content::fsck(&paths.root, !dry_run)
        .with_context(|| format!("cannot check the images below {}", paths.root.display()))?;
    for (digest, place) in &checked.damaged {
        match place {
            Some(place) => println!("damaged: {digest}, moved to {}", place.display()),
            None => println!("damaged: {digest}"),
        }
    }
    for (digest, record) in &checked.missing {
        println!("missing: {digest}, needed by {record}: pull or load it again");
    }
    let (blobs, mib) = (checked.blobs, checked.bytes >> 20);
    println!("{blobs} blobs, {mib} MiB: {} damaged, {} missing", checked.damaged.len(), checked.missing.len());
    Ok(checked.is_clean())
}
