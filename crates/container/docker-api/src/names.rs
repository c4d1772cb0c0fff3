//! Paths whose middle may hold slashes (image names): `/images/a/b:c/json` → name `a/b:c`, verb `json`.
//!
//! The router cannot express them, so they are taken apart here.

/// Splits an image path's tail into the name and its verb (empty when there is none).
pub(crate) fn split_verb<'a>(tail: &'a str, verbs: &[&str]) -> (&'a str, &'a str) {
    match tail.rsplit_once('/') {
        Some((name, verb)) if verbs.contains(&verb) => (name, verb),
        _ => (tail, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::split_verb;

    #[test]
    fn names_keep_their_slashes() {
        let verbs = ["json", "push"];
        assert_eq!(split_verb("busybox/json", &verbs), ("busybox", "json"));
        assert_eq!(split_verb("localhost:5000/a/b:1/push", &verbs), ("localhost:5000/a/b:1", "push"));
        assert_eq!(split_verb("a/b", &verbs), ("a/b", ""));
    }
}
