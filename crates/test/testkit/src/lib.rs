//! Namespaces, roots and leak checks that privileged tests share.
