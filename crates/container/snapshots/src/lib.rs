//! Layers to mountable root filesystems (overlayfs).
