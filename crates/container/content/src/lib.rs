//! Content-addressed blobs and image records, verified and reference-counted.
