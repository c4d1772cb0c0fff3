//! The shell that writes service rules into nftables.
