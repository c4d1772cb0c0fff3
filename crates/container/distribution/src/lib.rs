//! OCI distribution protocol: pull and push (client), registry (server).
