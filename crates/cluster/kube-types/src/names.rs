//! What names, label keys, label values and configuration keys may look like.
//!
//! Each check gives Kubernetes' own texts of what is wrong, and nothing when the text is right. Used by validation,
//! selectors and the API server's path handling.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn max_length(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn check(text: &str, max: usize, well_formed: bool, wording: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > max {
        problems.push(max_length(max));
    }
    if !well_formed {
        problems.push(wording.to_owned());
    }
    problems
}

fn is_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// First and last byte hold `edge`, all hold `edge` or are one of `inner`.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner.contains(b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    shaped(text, is_lower, b"-")
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Namespaces, containers, ports' names: at most 63.
pub fn dns1123_label(name: &str) -> Vec<String> {
    check(name, 63, is_label(name), LABEL)
}

/// Most objects' names: at most 253.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    check(name, 253, is_subdomain(name), SUBDOMAIN)
}

/// `*.example.com`, an ingress rule's host.
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    check(name, 253, name.strip_prefix("*.").is_some_and(is_subdomain), WILDCARD)
}

/// Services' names before v1.36 and service ports' hosts: a label that starts with a letter.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let starts = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(name, 63, starts && is_label(name), LABEL_1035)
}

/// A label or annotation key, with its optional prefix.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut parts = key.splitn(3, '/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", max_length(63)));
    }
    if !shaped(name, |b| b.is_ascii_alphanumeric(), b"-_.") {
        problems.push(format!("name part {QUALIFIED}"));
    }
    problems
}

pub fn label_value(value: &str) -> Vec<String> {
    check(value, 63, value.is_empty() || shaped(value, |b| b.is_ascii_alphanumeric(), b"-_."), VALUE)
}

/// A ConfigMap or Secret key.
pub fn config_key(key: &str) -> Vec<String> {
    let well_formed = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let mut problems = check(key, 253, well_formed, CONFIG_KEY);
    match key {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// An environment variable's name: any printable ASCII but `=`.
pub fn env_var(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if name.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a container's port (IANA_SVC_NAME).
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push(max_length(15));
    }
    if name.is_empty() || !name.bytes().all(|b| is_lower(b) || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// What a name in a URL may not be (RBAC names and every object's path).
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ['/', '%'].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// metadata.generateName: `base`, cut so that the whole is at most 63 long, and five characters that follow from `seed`.
/// The alphabet has no vowels, so no words come out.
pub fn generate(base: &str, seed: u64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = base.len().min(58);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut state = seed;
    for _ in 0..5 {
        // splitmix64: every bit of the seed reaches every character, so near seeds give far names.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        name.push(char::from(ALPHABET[((mixed >> 33) % 27) as usize]));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused_as_kubernetes_does() {
        type Check = fn(&str) -> Vec<String>;
        let table: [(Check, &[&str], &[&str]); 7] = [
            (dns1123_label, &["a", "a-b", "1a"], &["", "A", "a.b", "-a", "a-", "a_b", "é"]),
            (dns1123_subdomain, &["a", "a.b", "1.2"], &["", "a..b", ".a", "a.", "a.-b"]),
            (dns1035_label, &["a", "a1"], &["1a", "", "A"]),
            (qualified_name, &["a", "A_b.c", "example.com/a"], &["", "/a", "a/", "a/b/c", "Ex/a", "-a"]),
            (label_value, &["", "a", "A.b_c-1"], &["-a", "a ", "a/b"]),
            (config_key, &["a", ".a", "a_b-C.d"], &["", ".", "..", "..a", "a/b"]),
            (port_name, &["http", "p-1"], &["", "80", "a--b", "-a", "abcdefghijklmnop", "HTTP"]),
        ];
        for (at, (check, right, wrong)) in table.iter().enumerate() {
            for name in *right {
                assert!(check(name).is_empty(), "{at} {name}: {:?}", check(name));
            }
            for name in *wrong {
                assert!(!check(name).is_empty(), "{at} {name}");
            }
        }
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn generated_names_fit_and_follow_the_seed() {
        let name = generate("web-", 7);
        assert_eq!(name.len(), 9);
        assert_eq!(name, generate("web-", 7));
        assert_ne!(name, generate("web-", 8));
        assert_eq!(generate(&"x".repeat(100), 1).len(), 63);
        assert!(dns1123_label(&name).is_empty());
    }
}
