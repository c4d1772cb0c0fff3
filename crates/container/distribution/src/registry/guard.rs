//! The door: who a request comes from, and whether it may go on. Also the token service that belongs to it.
//!
//! Every request passes [`Registry::admit`] before a handler sees it; what a handler touches beside its own repository
//! (the source of a mount, the catalogue's entries) it asks [`Caller::may`] about. The decisions are `access`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::access::{Action, Rights};
use super::accounts::Accounts;
use super::reply::{self, Body, Failure};
use super::route::{Route, percent_decode};
use super::token::{self, Claims, Tokens};
use super::{Registry, Shared};

pub(super) const SERVICE: &str = "gantry";
const MAX_FORM_BYTES: usize = 64 << 10;

/// How callers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Name and password with every request.
    Basic,
    /// Name and password for a token, and the token with every request.
    Token,
}

/// The accounts and rights of a registry that asks who calls.
pub(super) struct Guard {
    pub(super) accounts: Accounts,
    pub(super) rights: Rights,
    pub(super) scheme: Scheme,
    pub(super) tokens: Tokens,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// The registry asks nobody (it listens on loopback, or its owner wants it so).
    Unasked,
    Anonymous,
    Account(String),
    Bearer(Claims),
}

impl Caller {
    pub(super) fn may(&self, shared: &Shared, repository: &str, action: Action) -> bool {
        let Some(guard) = &shared.guard else { return true };
        match self {
            Self::Unasked => true,
            // A token's rights end with the account's: a changed file counts at once.
            Self::Bearer(claims) => {
                let account = Some(claims.sub.as_str()).filter(|s| !s.is_empty());
                claims.allows(repository, action) && guard.rights.allow(account, repository, action)
            }
            Self::Anonymous => guard.scheme == Scheme::Basic && guard.rights.allow(None, repository, action),
            Self::Account(name) => guard.rights.allow(Some(name), repository, action),
        }
    }

    /// Whether the caller may know of a repository at all. A token is not asked for its scopes here: listing is no pull.
    pub(super) fn may_list(&self, shared: &Shared, repository: &str) -> bool {
        match (self, &shared.guard) {
            (Self::Bearer(claims), Some(guard)) => {
                let account = Some(claims.sub.as_str()).filter(|s| !s.is_empty());
                guard.rights.allow(account, repository, Action::Pull)
            }
            _ => self.may(shared, repository, Action::Pull),
        }
    }

    fn is_known(&self) -> bool {
        !matches!(self, Self::Anonymous)
    }
}

impl Registry {
    /// Who calls, if the call may go on.
    pub(super) async fn admit(&self, request: &Request<Incoming>, route: &Route) -> Result<Caller, Failure> {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        if writes && self.shared.config.read_only {
            return Err(Failure::new(405, "UNSUPPORTED", "this registry is read-only"));
        }
        let Some(guard) = &self.shared.guard else { return Ok(Caller::Unasked) };
        let caller = self.caller(request.headers()).await;
        let caller = caller.ok_or_else(|| challenge(guard, request, route, false))?;
        let allowed = match (route, route.repository()) {
            // Without a challenge here no client would ever log in.
            (Route::Base, _) | (_, None) => caller.is_known(),
            (_, Some(repository)) => caller.may(&self.shared, repository, action(request.method())),
        };
        match (allowed, &caller) {
            (true, _) => Ok(caller),
            (false, Caller::Account(_)) => {
                Err(Failure::new(403, "DENIED", "requested access to the resource is denied"))
            }
            (false, Caller::Unasked | Caller::Anonymous | Caller::Bearer(_)) => {
                Err(challenge(guard, request, route, caller.is_known()))
            }
        }
    }

    /// `None`: credentials were shown that are not right.
    async fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let guard = self.shared.guard.as_ref()?;
        let Some(shown) = headers.get(header::AUTHORIZATION) else { return Some(Caller::Anonymous) };
        let (scheme, value) = shown.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") && guard.scheme == Scheme::Token {
            let now = jiff::Timestamp::now().as_second();
            return guard.tokens.verify(value.trim(), now).filter(|c| !c.refresh).map(Caller::Bearer);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        self.account(value.trim()).await.map(Caller::Account)
    }

    /// Name of the account whose credentials these are.
    async fn account(&self, basic: &str) -> Option<String> {
        let decoded = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
        let (name, password) = decoded.split_once(':').map(|(n, p)| (n.to_owned(), p.to_owned()))?;
        self.check(name, password).await
    }

    async fn check(&self, name: String, password: String) -> Option<String> {
        let registry = self.clone();
        let check = move || {
            let guard = registry.shared.guard.as_ref()?;
            guard.accounts.verify(&name, &password).then_some(name)
        };
        tokio::task::spawn_blocking(check).await.ok().flatten()
    }

    /// `/token`: GET with basic credentials, or POST as OAuth2 has it.
    pub(super) async fn token(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let Some(guard) = self.shared.guard.as_ref().filter(|g| g.scheme == Scheme::Token) else {
            return Err(Failure::new(404, "UNSUPPORTED", "this registry gives no tokens"));
        };
        let now = jiff::Timestamp::now().as_second();
        let basic = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Basic "));
        let basic = basic.map(str::to_owned);
        let form = match *request.method() {
            Method::GET => request.uri().query().unwrap_or_default().to_owned(),
            Method::POST => {
                let body = Limited::new(request.into_body(), MAX_FORM_BYTES).collect().await;
                let bytes = body.map_err(|e| Failure::new(400, "UNSUPPORTED", e.to_string()))?.to_bytes();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => return Err(Failure::new(405, "UNSUPPORTED", "tokens are asked for by GET or POST")),
        };
        let form = Form::parse(&form);
        let refused = || Failure::new(401, "UNAUTHORIZED", "incorrect username or password");
        let account = match (basic, form.get("grant_type")) {
            (Some(basic), _) => Some(self.account(&basic).await.ok_or_else(refused)?),
            (None, Some("password")) => {
                let (name, password) = (form.get("username"), form.get("password"));
                let pair = (name.unwrap_or_default().to_owned(), password.unwrap_or_default().to_owned());
                Some(self.check(pair.0, pair.1).await.ok_or_else(refused)?)
            }
            (None, Some("refresh_token")) => {
                let claims = guard.tokens.verify(form.get("refresh_token").unwrap_or_default(), now);
                Some(claims.filter(|c| c.refresh).ok_or_else(refused)?.sub)
            }
            (None, _) => None,
        };
        let scopes: Vec<String> = form.all("scope").flat_map(|s| s.split(' ')).map(str::to_owned).collect();
        let granted = guard.tokens.grant(&guard.rights, account.as_deref(), &scopes, now);
        let issued = jiff::Timestamp::from_second(now).map(|t| t.to_string()).unwrap_or_default();
        let mut answer = serde_json::json!({
            "token": granted, "access_token": granted, "expires_in": token::LIFETIME_S, "issued_at": issued,
        });
        let offline = form.get("offline_token") == Some("true") || form.get("access_type") == Some("offline");
        if let (true, Some(account)) = (offline, &account) {
            answer["refresh_token"] = guard.tokens.refresh(account, now).into();
        }
        Ok(reply::json(200, &answer))
    }
}

fn action(method: &Method) -> Action {
    match *method {
        Method::GET | Method::HEAD => Action::Pull,
        Method::DELETE => Action::Delete,
        _ => Action::Push,
    }
}

/// 401, with how to do better.
fn challenge(guard: &Guard, request: &Request<Incoming>, route: &Route, insufficient: bool) -> Failure {
    let asks = match guard.scheme {
        Scheme::Basic => format!("Basic realm=\"{SERVICE}\""),
        Scheme::Token => {
            let secure = request.extensions().get::<super::Secure>().is_some();
            let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost");
            let scheme = if secure { "https" } else { "http" };
            let mut asks = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{SERVICE}\"");
            if let Some(repository) = route.repository() {
                let actions = match action(request.method()) {
                    Action::Pull => "pull",
                    Action::Push => "pull,push",
                    Action::Delete => "delete",
                };
                asks.push_str(&format!(",scope=\"repository:{repository}:{actions}\""));
            }
            if insufficient {
                asks.push_str(",error=\"insufficient_scope\"");
            }
            asks
        }
    };
    Failure::unauthorized(asks)
}

/// `a=b&c=d`, decoded.
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(text: &str) -> Self {
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        Self(text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
