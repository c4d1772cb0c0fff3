//! Advice from observations (pure): why something is not as desired, with the evidence and what to try next.
//!
//! `gantry why` and the console assemble [`Facts`] and print the [`Explanation`]. Invariants: no clock, no I/O, nothing is changed; every finding
//! names the evidence that it rests on; equal facts give equal words. Deliberately not here: fetching, printing, fixing.

mod facts;
pub mod why;

pub use facts::{Facts, ObjectName, Tail};
pub use why::{Cause, Evidence, Explanation, Finding, Question, Verdict, explain, explain_container, questions};
