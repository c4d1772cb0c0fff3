//! Kubernetes' ways to write a moment or a span.
use jiff::Timestamp;

/// `2026-11-22T21:09:00Z`, metav1.Time.
pub fn rfc3339(at: Timestamp) -> String {
    let _ = at;
    todo!()
}
/// `2026-11-22T21:09:00.000000Z`, metav1.MicroTime.
pub fn rfc3339_micro(at: Timestamp) -> String {
    let _ = at;
    todo!()
}
pub fn parse(text: &str) -> Option<Timestamp> {
    let _ = text;
    todo!()
}
/// `5m12s`, `3d4h`: kubectl's age of something that happened at `since`; `<unknown>` when it did not.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    let _ = (since, now);
    todo!()
}
/// The same for a span in seconds.
pub fn human_duration(seconds: i64) -> String {
    let _ = seconds;
    todo!()
}
