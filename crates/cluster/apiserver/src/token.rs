//! Service-account tokens: JWTs signed with ES256, in the claims that Kubernetes uses.
//!
//! Invariant: a token counts only while the service account, and the pod, secret or node it is bound to, exist with the
//! same uid. That is looked up on every use; a signature alone proves nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use kube_types::{meta, status};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Store;

use crate::error::ApiResult;
use crate::identity::Identity;
use crate::{keys, object};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Longer ones are not looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// A token may be used a little early: clocks differ.
const LEEWAY_SECONDS: i64 = 10;

pub(crate) struct TokenSigner {
    key: Arc<EcdsaKeyPair>,
    key_id: String,
}

/// What a token is tied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundObject {
    pub(crate) plural: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Where a pod runs.
    pub(crate) node: String,
}

pub(crate) struct Grant<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
    pub(crate) audiences: &'a [String],
    pub(crate) bound: Option<&'a BoundObject>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
}

/// Why a token was not accepted. Never told to the client, who learns only that it is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the signature is wrong")]
    Signature,
    #[error("the token is not valid at this time")]
    Time,
    #[error("the token is for another audience")]
    Audience,
    #[error("what the token is bound to no longer exists")]
    Gone,
}

impl TokenSigner {
    pub(crate) fn new(key: Arc<EcdsaKeyPair>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        Self { key, key_id: BASE64.encode(digest) }
    }

    /// The audiences of a token for which these were asked: the API server itself if none were.
    pub(crate) fn audiences(&self, asked: &[String]) -> Vec<String> {
        if asked.is_empty() { vec![ISSUER.to_owned()] } else { asked.to_vec() }
    }

    pub(crate) fn sign(&self, grant: &Grant<'_>, now: Timestamp, expires: Timestamp) -> ApiResult<String> {
        let reference = |plural: &str| {
            let bound = grant.bound.filter(|bound| bound.plural == plural)?;
            Some(Reference { name: bound.name.clone(), uid: bound.uid.clone() })
        };
        let claims = Claims {
            aud: self.audiences(grant.audiences),
            exp: expires.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{}", grant.namespace, grant.account),
            private: Private {
                namespace: grant.namespace.to_owned(),
                serviceaccount: Reference { name: grant.account.to_owned(), uid: grant.account_uid.to_owned() },
                pod: reference("pods"),
                secret: reference("secrets"),
                node: reference("nodes"),
            },
        };
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let claims = serde_json::to_vec(&claims).map_err(status::internal)?;
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| status::internal("signing a token failed"))?;
        Ok(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }

    /// Who the token says, if all of it holds at `now`.
    pub(crate) fn verify(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Identity, TokenError> {
        let claims = self.checked_claims(token)?;
        let now = now.as_second();
        if claims.exp <= now || claims.nbf > now + LEEWAY_SECONDS {
            return Err(TokenError::Time);
        }
        let accepted = self.audiences(audiences);
        if claims.iss != ISSUER || !claims.aud.iter().any(|audience| accepted.contains(audience)) {
            return Err(TokenError::Audience);
        }
        let private = &claims.private;
        let namespace = &private.namespace;
        let account = &private.serviceaccount;
        check_exists(store, "serviceaccounts", namespace, account)?;
        if let Some(pod) = &private.pod {
            check_exists(store, "pods", namespace, pod)?;
        }
        if let Some(secret) = &private.secret {
            check_exists(store, "secrets", namespace, secret)?;
        }
        if let Some(node) = &private.node {
            check_exists(store, "nodes", "", node)?;
        }
        let mut identity = Identity::service_account(namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: &str| {
            identity.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        extra("credential-id", &format!("JTI={}", claims.jti));
        if let Some(pod) = &private.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        Ok(identity)
    }

    fn checked_claims(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| TokenError::Malformed);
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        // One algorithm: a token cannot choose a weaker one.
        if header["alg"] != "ES256" {
            return Err(TokenError::Signature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)
    }

    /// The public key, for those who check tokens themselves (`/openid/v1/jwks`).
    pub(crate) fn key_set(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len().saturating_sub(1) / 2);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
}

fn check_exists(store: &Store, plural: &str, namespace: &str, reference: &Reference) -> Result<(), TokenError> {
    if !keys::is_segment(&reference.name) {
        return Err(TokenError::Malformed);
    }
    let found = store.get(&keys::known("", plural, namespace, &reference.name)).ok_or(TokenError::Gone)?;
    if meta::uid(&object::decode(&found.value)) == reference.uid { Ok(()) } else { Err(TokenError::Gone) }
}
