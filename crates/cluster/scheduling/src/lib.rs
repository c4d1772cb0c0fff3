//! Filter, score, preempt (pure).
