//! Sets of completion indexes, and their text form in a Job's status: `1,3-5,7`.
//!
//! Used by the job decision. Invariant: text that makes no sense, or lies beyond the completions, counts as absent.

use std::collections::BTreeSet;

pub(crate) type Indexes = BTreeSet<i32>;

pub(crate) fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<i32>(), to.trim().parse::<i32>()) {
            indexes.extend(from.max(0)..=to.min(completions - 1));
        }
    }
    indexes
}

/// Runs of two stay apart (`1,2`), as Kubernetes writes them; longer ones become `1-3`.
pub(crate) fn format(indexes: &Indexes) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(i32, i32)> = None;
    let mut close = |run: Option<(i32, i32)>| match run {
        None => {}
        Some((from, to)) if from == to => parts.push(from.to_string()),
        Some((from, to)) if to == from + 1 => parts.extend([from.to_string(), to.to_string()]),
        Some((from, to)) => parts.push(format!("{from}-{to}")),
    };
    for index in indexes {
        run = match run {
            Some((from, to)) if to + 1 == *index => Some((from, *index)),
            other => {
                close(other);
                Some((*index, *index))
            }
        };
    }
    close(run);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_sets_read_and_write_kubernetes_intervals() {
        for (text, expected) in [
            ("", ""),
            ("3", "3"),
            ("1-2", "1,2"),
            ("0,1,2,5", "0-2,5"),
            ("1,3-5,7", "1,3-5,7"),
            ("8-12", "8,9"),
            ("x,1", "1"),
        ] {
            assert_eq!(format(&parse(text, 10)), expected, "{text}");
        }
    }
}
