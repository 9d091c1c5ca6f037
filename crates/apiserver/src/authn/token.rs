//! A bearer token as an identity: each authenticator is asked in upstream's order, the first that knows the token decides.

use std::sync::Arc;

use auth::{User, bootstrap_token};

use super::service_account;
use crate::state::Api;

/// A token's user, the audiences of those asked for that it is good for, and what is to be said of it.
pub struct Found {
    pub user: User,
    pub audiences: Vec<String>,
    pub remarks: Remarks,
}

/// What is said of a token that is good.
#[derive(Debug, Default)]
pub struct Remarks {
    /// To its bearer.
    pub warnings: Vec<String>,
    /// To the auditor.
    pub notes: Vec<(&'static str, String)>,
}

/// What an authenticator says.
pub enum Verdict {
    Found(Box<Found>),
    /// Not a token of its kind.
    Unknown,
    /// One of its kind that is no good, in upstream's words. They go into TokenReviews and never hold the token.
    Refused(String),
}

/// `Err` is what a TokenReview shows.
pub async fn authenticate(api: &Arc<Api>, token: &str, audiences: &[String]) -> Result<Found, String> {
    let mut refusals: Vec<String> = Vec::new();
    let mut take = |verdict: Verdict| match verdict {
        Verdict::Found(found) => Some(*found),
        Verdict::Unknown => None,
        Verdict::Refused(why) => {
            refusals.push(why);
            None
        }
    };
    if let Some(found) = take(plain(api, audiences, || api.authn.static_tokens.as_ref()?.user(token))) {
        return Ok(found);
    }
    if let Some(found) = take(service_account::authenticate(api, token, audiences).await) {
        return Ok(found);
    }
    let user = if api.config.authentication.bootstrap_tokens { bootstrap(api, token).await } else { None };
    if let Some(found) = take(plain(api, audiences, || user)) {
        return Ok(found);
    }
    let issued = match api.authn.issuers.authenticate(api, token).await {
        Some(Ok(user)) => plain(api, audiences, || Some(user)),
        Some(Err(why)) => Verdict::Refused(why),
        None => Verdict::Unknown,
    };
    if let Some(found) = take(issued) {
        return Ok(found);
    }
    if let Some(webhook) = &api.authn.webhook
        && let Some(found) = take(webhook.authenticate(api, token, audiences).await)
    {
        return Ok(found);
    }
    let invalid = "invalid bearer token".to_owned();
    if refusals.is_empty() {
        return Err(invalid);
    }
    refusals.insert(0, invalid);
    Err(format!("[{}]", refusals.join(", ")))
}

/// An authenticator that knows no audiences: its tokens are for this server alone.
fn plain(api: &Api, audiences: &[String], find: impl FnOnce() -> Option<User>) -> Verdict {
    let common: Vec<String> = api.config.audiences().into_iter().filter(|a| audiences.contains(a)).collect();
    if common.is_empty() {
        return Verdict::Unknown;
    }
    match find() {
        Some(user) => Verdict::Found(Box::new(Found { user, audiences: common, remarks: Remarks::default() })),
        None => Verdict::Unknown,
    }
}

async fn bootstrap(api: &Api, token: &str) -> Option<User> {
    let (id, given) = bootstrap_token::parse(token)?;
    let name = format!("{}{id}", bootstrap_token::SECRET_PREFIX);
    let secret = api.read_kind("", "Secret", "kube-system", &name).await.ok().flatten()?;
    bootstrap_token::authenticate(&secret, id, given, jiff::Timestamp::now().as_second())
}
