//! Bearer tokens that this registry grants itself: signed claims (a JWT with HS256) that nobody else need understand.
//!
//! Pure but for the key: time comes in as seconds. A token names who it is for and what it may do in which repositories;
//! it says nothing of passwords. A key lasts as long as the process: after a restart clients ask for new tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::access::{Action, Rights};

/// Seconds that an access token is good for.
pub(super) const LIFETIME_S: i64 = 300;
/// Seconds that a refresh token is good for.
const REFRESH_LIFETIME_S: i64 = 30 * 24 * 3600;
/// Scopes in one token request.
const MAX_SCOPES: usize = 32;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The account; empty for somebody who did not log in.
    pub(super) sub: String,
    pub(super) exp: i64,
    /// A refresh token grants nothing by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) refresh: bool,
    pub(super) access: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<Action>,
}

pub(super) struct Tokens(hmac::Key);

impl Tokens {
    pub(super) fn new() -> Option<Self> {
        let random = ring::rand::SystemRandom::new();
        hmac::Key::generate(hmac::HMAC_SHA256, &random).ok().map(Self)
    }

    fn sign(&self, claims: &Claims) -> String {
        let body = serde_json::to_vec(claims).unwrap_or_default();
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body));
        let tag = hmac::sign(&self.0, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// The claims of a token that we signed and that is still good.
    pub(super) fn verify(&self, token: &str, now_s: i64) -> Option<Claims> {
        let (text, tag) = token.rsplit_once('.')?;
        hmac::verify(&self.0, text.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let (_, body) = text.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        (claims.exp > now_s).then_some(claims)
    }

    /// An access token with as much of `scopes` as `account` may have: a request for more is granted in part, and the
    /// registry refuses the rest (Docker's token specification).
    pub(super) fn grant(&self, rights: &Rights, account: Option<&str>, scopes: &[String], now_s: i64) -> String {
        let access = scopes.iter().take(MAX_SCOPES).filter_map(|s| grant(rights, account, s)).collect();
        let sub = account.unwrap_or_default().to_owned();
        self.sign(&Claims { sub, exp: now_s + LIFETIME_S, refresh: false, access })
    }

    pub(super) fn refresh(&self, account: &str, now_s: i64) -> String {
        let exp = now_s + REFRESH_LIFETIME_S;
        self.sign(&Claims { sub: account.to_owned(), exp, refresh: true, access: Vec::new() })
    }
}

impl Claims {
    pub(super) fn allows(&self, repository: &str, action: Action) -> bool {
        let mut grants = self.access.iter().filter(|g| g.kind == "repository" && g.name == repository);
        !self.refresh && grants.any(|g| g.actions.contains(&action))
    }
}

/// `repository:NAME:pull,push`; the name may hold colons. `*` asks for all actions.
fn grant(rights: &Rights, account: Option<&str>, scope: &str) -> Option<Grant> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    if kind != "repository" || !oci::Reference::is_repository_path(name) {
        return None;
    }
    let wanted: Vec<Action> = match actions {
        "*" => vec![Action::Pull, Action::Push, Action::Delete],
        list => list.split(',').filter_map(Action::parse).collect(),
    };
    let actions: Vec<Action> = wanted.into_iter().filter(|a| rights.allow(account, name, *a)).collect();
    (!actions.is_empty()).then(|| Grant { kind: kind.to_owned(), name: name.to_owned(), actions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_grants_what_was_asked_for_as_far_as_rights_go_and_no_longer_than_its_time() {
        let rights = Rights::parse("alice team/** *\nanonymous public/* pull", false).unwrap();
        let tokens = Tokens::new().unwrap();
        let scopes =
            ["repository:team/web:pull,push".into(), "repository:other:push".into(), "registry:catalog:*".into()];
        let token = tokens.grant(&rights, Some("alice"), &scopes, 1000);
        let claims = tokens.verify(&token, 1000 + LIFETIME_S - 1).unwrap();
        assert!(claims.allows("team/web", Action::Push) && !claims.allows("team/web", Action::Delete));
        assert!(!claims.allows("team/webb", Action::Pull) && !claims.allows("other", Action::Push));
        assert_eq!(tokens.verify(&token, 1000 + LIFETIME_S), None);
        let anonymous = tokens.grant(&rights, None, &["repository:public/a:pull,push".into()], 0);
        let claims = tokens.verify(&anonymous, 0).unwrap();
        assert!(claims.allows("public/a", Action::Pull) && !claims.allows("public/a", Action::Push));
    }

    #[test]
    fn forged_foreign_and_refresh_tokens_open_nothing() {
        let rights = Rights::open(false);
        let (ours, theirs) = (Tokens::new().unwrap(), Tokens::new().unwrap());
        let token = theirs.grant(&rights, Some("root"), &["repository:a:pull".into()], 0);
        assert_eq!(ours.verify(&token, 0), None);
        let mut forged = ours.grant(&rights, Some("root"), &["repository:a:pull".into()], 0);
        forged.replace_range(40..41, if &forged[40..41] == "A" { "B" } else { "A" });
        assert_eq!(ours.verify(&forged, 0), None);
        for bad in ["", ".", "..", "a.b.c", "a.b"] {
            assert_eq!(ours.verify(bad, 0), None, "{bad}");
        }
        let refresh = ours.verify(&ours.refresh("root", 0), 0).unwrap();
        assert!(!refresh.allows("a", Action::Pull));
    }
}
