//! The pod-template-hash label: tells the ReplicaSets of one Deployment apart.
//!
//! Kubernetes' shape (a 32-bit number in letters that spell no words); the number itself is our own, so ReplicaSets
//! are always recognised by comparing templates and never by the hash.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest, Sha256};

const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `collisions` makes another hash when the name is taken by something else.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hasher = Sha256::new();
    // A template that cannot be written as JSON cannot have been read from it either.
    hasher.update(serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        hasher.update(collisions.to_le_bytes());
    }
    let digest = hasher.finalize();
    let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    number.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_stable_and_moves_with_the_collision_count() {
        let template = PodTemplateSpec::default();
        let plain = template_hash(&template, None);
        assert_eq!(plain, template_hash(&template, None));
        assert_ne!(plain, template_hash(&template, Some(1)));
        assert!(!plain.is_empty() && plain.len() <= 10 && plain.bytes().all(|b| SAFE.contains(&b)));
    }
}
