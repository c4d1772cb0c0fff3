//! Authentication, authorisation, admission, storage; discovery, watch, patch, apply.
