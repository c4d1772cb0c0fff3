//! Numbers that may be given as a share: `maxUnavailable: 25%`.
//!
//! Used by every controller with such a field. Invariant: nonsense counts as nothing, a negative number as none.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

pub fn resolve(value: &IntOrString, of: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let scaled = percent.max(0).saturating_mul(i64::from(of));
            let resolved = if round == Round::Up { scaled.saturating_add(99) / 100 } else { scaled / 100 };
            i32::try_from(resolved).unwrap_or(i32::MAX)
        }
    }
}
