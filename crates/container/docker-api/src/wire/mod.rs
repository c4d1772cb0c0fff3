//! Answers in Docker's JSON shapes: nulls, empty lists and zero times exactly where Docker sends them.

pub(crate) mod containers;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod networks;
pub(crate) mod stats;
pub(crate) mod time;
pub(crate) mod volumes;
