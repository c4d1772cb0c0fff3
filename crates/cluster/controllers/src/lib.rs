//! One module a controller: pure decisions.
