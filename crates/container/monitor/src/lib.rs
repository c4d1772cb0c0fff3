//! The small process beside each container: its stdio, its log, its exit code; outlives the engine.
