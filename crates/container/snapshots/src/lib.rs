//! Layers to mountable root filesystems, by overlayfs.
//!
//! Called by the engine and the builder. [`Snapshots`] unpacks an image's layers once (keyed by chain ID, shared by all
//! images), prepares a writable directory for each container or build step, and turns such a directory back into a
//! layer. All calls block on the disk: use `spawn_blocking`. Invariants:
//!
//! - A layer that is recorded was unpacked wholly and its diff ID was verified; half-made ones are swept at open.
//! - Unpacking never follows a path out of the layer's own directory, whatever the archive says (see `unpack`).
//! - A layer stays while an image, a record, a lease or a snapshot needs it.
//!
//! Containers' root filesystems are mounted by the runtime from a [`Mount`]; only host-side access is mounted here.

mod ahead;
pub mod archive;
mod capture;
mod changes;
mod confine;
mod error;
mod limits;
mod loose;
mod mount;
mod snapshots;
mod state;
mod tree;
mod unpack;

pub use ahead::Ahead;
pub use changes::{Change, ChangeKind};
pub use confine::run_role_if_asked;
pub use error::{Error, Result};
pub use limits::Limits;
pub use loose::{is_archive, unpack_archive};
pub use mount::{Mount, MountedDir};
pub use snapshots::{Alone, Committed, Snapshots, Staged};
pub use unpack::decompress;
