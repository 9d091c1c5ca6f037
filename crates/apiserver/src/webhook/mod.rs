//! Calls to other people's servers over HTTPS: admission and conversion webhooks, webhook authenticators and authorizers.
//! A JSON body is posted, a JSON object comes back. Connections are kept and used again; nothing is redirected.
//!
//! [`Endpoint`] says where and whom to trust, [`post`] does it. What goes wrong reads as Go's client says it, because users
//! and tests look for those words.

pub mod credentials;
mod endpoint;
pub mod kubeconfig;
mod pool;
mod reply;
pub mod roots;
pub mod service;
#[cfg(test)]
mod tests;
pub mod texts;
pub mod trust;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machinery::status::StatusError;
use serde_json::Value;

pub use endpoint::Endpoint;
pub use pool::Pool;
pub use trust::{Identity, Trust};

use crate::state::Api;

/// Why a call brought no answer. `Display` is upstream's text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// What was configured cannot be used: nothing was sent.
    #[error("{0}")]
    Config(String),
    /// No answer came.
    #[error("Post \"{url}\": {why}")]
    Transport { url: String, why: String },
    /// None came in time.
    #[error("Post \"{url}\": context deadline exceeded")]
    Deadline { url: String },
    /// The answer is an error.
    #[error("{0}")]
    Status(StatusError),
    /// The answer makes no sense.
    #[error("{0}")]
    Decode(String),
}

/// How to call.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub timeout: Duration,
    /// Tell the server the timeout as a query parameter, as for admission and conversion.
    pub tell_timeout: bool,
}

/// Posts a JSON object, answers the one that comes back. A `Status` of failure that comes instead is an error.
pub async fn post(api: &Arc<Api>, to: &Endpoint, body: &Value, manner: Manner) -> Result<Value, CallError> {
    let query = if manner.tell_timeout { format!("timeout={}", seconds(manner.timeout)) } else { String::new() };
    let url = to.url(&query);
    let body = Bytes::from(body.to_string());
    let sent = api.webhooks.send(api, to, &query, Some(body));
    let answer = match tokio::time::timeout(manner.timeout, sent).await {
        Err(_) => return Err(CallError::Deadline { url }),
        Ok(Err(pool::SendError::Config(why))) => return Err(CallError::Config(why)),
        Ok(Err(pool::SendError::Io(why))) => return Err(CallError::Transport { url, why }),
        Ok(Ok(answer)) => answer,
    };
    reply::read(answer)
}

/// Gets a JSON document. `Err` says why there is none.
pub async fn get(api: &Arc<Api>, to: &Endpoint, timeout: Duration) -> Result<Value, String> {
    let url = to.url("");
    let answer = match tokio::time::timeout(timeout, api.webhooks.send(api, to, "", None)).await {
        Err(_) => return Err(format!("Get \"{url}\": context deadline exceeded")),
        Ok(Err(pool::SendError::Config(why) | pool::SendError::Io(why))) => return Err(format!("Get \"{url}\": {why}")),
        Ok(Ok(answer)) => answer,
    };
    if answer.code != 200 {
        return Err(format!("Get \"{url}\": unexpected status code {}", answer.code));
    }
    serde_json::from_slice(&answer.body).map_err(|_| format!("Get \"{url}\": the answer is not JSON"))
}

/// Gets whatever a page says, and with which code. `Err` says why there is no answer, as Go's client does.
pub async fn page(api: &Arc<Api>, to: &Endpoint, timeout: Duration) -> Result<(u16, Bytes), String> {
    let url = to.url("");
    match tokio::time::timeout(timeout, api.webhooks.send(api, to, "", None)).await {
        Err(_) => Err(format!("Get \"{url}\": context deadline exceeded")),
        Ok(Err(pool::SendError::Config(why) | pool::SendError::Io(why))) => Err(format!("Get \"{url}\": {why}")),
        Ok(Ok(answer)) => Ok((answer.code, answer.body)),
    }
}

/// Go's text of whole seconds, rounded up.
fn seconds(timeout: Duration) -> String {
    let whole = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    if whole >= 60 { format!("{}m{}s", whole / 60, whole % 60) } else { format!("{whole}s") }
}
