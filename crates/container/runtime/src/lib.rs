//! Bundle to process: create, start, exec, kill, delete.
