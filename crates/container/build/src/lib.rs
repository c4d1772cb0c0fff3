//! Dockerfile to build graph (pure), executor and layer cache.
