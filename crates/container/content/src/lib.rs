//! Content-addressed blobs, image records and small durable records, for the container half.
//!
//! One [`Store`] is opened once a process and cloned freely (it is a handle). Calls block on the disk; call them from
//! `spawn_blocking` where a request could wait for a large one. The invariants:
//!
//! - A blob that can be seen has the digest in its name and is on disk (fsync before rename). Half-written blobs are
//!   never visible, and are swept or resumed after a crash.
//! - A blob that an image, a record or a [`Lease`] needs is never collected; see `gc` for how the race is excluded.
//! - Image names and records change by atomic replacement: after a kill, the old or the new state is there, whole.
//!
//! It does not know registries, archives or mounts: `distribution` and `snapshots` do.

mod blobs;
mod durable;
mod error;
mod fsck;
mod gc;
mod images;
mod ingest;
mod records;

pub use blobs::{Blob, Store};
pub use error::{Error, Result};
pub use fsck::{Checked, fsck};
pub use gc::{Collected, Horizon, Lease};
pub use images::{Deleted, Image, Images, NewImage, Origin};
pub use ingest::Ingest;
pub use records::{Record, Records};
