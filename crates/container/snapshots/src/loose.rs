//! Archives that are no layers: what ADD unpacks, a build context, a tree for `docker cp`. The same confinement and limits.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::confine;
use crate::error::{At, Result};
use crate::limits::Limits;
use crate::unpack::decompress;

/// Where a tar header's magic stands (POSIX ustar).
const MAGIC_AT: usize = 257;

/// Whether a file is a tar archive, compressed or not, as ADD asks. A damaged one is not.
pub fn is_archive(mut file: &File, path: &Path) -> Result<bool> {
    let mut head = Vec::with_capacity(512);
    let read = decompress(file)?.take(512).read_to_end(&mut head);
    file.rewind().at("rewind", path)?;
    Ok(read.is_ok() && head.get(MAGIC_AT..MAGIC_AT + 5) == Some(b"ustar"))
}

/// Unpacks an archive into the empty directory `target`, which the caller made and which nothing else writes to.
/// Whiteout names have no meaning here: they are dropped.
pub fn unpack_archive(file: &File, path: &Path, target: &Path) -> Result<()> {
    let size = file.metadata().at("stat", path)?.len();
    confine::unpack_shared(file, size, target, &Limits::default()).map(drop)
}
