//! CRI v1: messages, server over engine, client for any other runtime.
