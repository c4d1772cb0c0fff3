//! Names, labels and values.

/// Texts of what is wrong with a name (Kubernetes' own); empty when it is right.
pub fn dns1123_label(name: &str) -> Vec<String> {
    let _ = name;
    todo!()
}
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let _ = name;
    todo!()
}
pub fn dns1035_label(name: &str) -> Vec<String> {
    let _ = name;
    todo!()
}
/// A label or annotation key, with its optional prefix.
pub fn qualified_name(key: &str) -> Vec<String> {
    let _ = key;
    todo!()
}
pub fn label_value(value: &str) -> Vec<String> {
    let _ = value;
    todo!()
}
/// A ConfigMap or Secret key.
pub fn config_key(key: &str) -> Vec<String> {
    let _ = key;
    todo!()
}
/// metadata.generateName: `base` (cut so that the whole is at most 63 long) and five characters that follow from `seed`.
pub fn generate(base: &str, seed: u64) -> String {
    let _ = (base, seed);
    todo!()
}
