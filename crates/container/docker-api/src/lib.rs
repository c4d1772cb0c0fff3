//! Docker Engine HTTP API to engine.
