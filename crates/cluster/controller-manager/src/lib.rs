//! Shells around the controllers.
