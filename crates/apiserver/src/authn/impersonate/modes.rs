//! Who may act as whom. The constrained modes come first: each asks for `impersonate:<mode>` on whom one wants to be, and for
//! `impersonate-on:<mode>:<verb>` on what one then does. The legacy mode asks for `impersonate` alone. The first that agrees
//! decides; otherwise the first refusal is the answer.

use auth::{Attributes, User, user};
use machinery::field::go_quote;
use machinery::names;
use machinery::status::StatusError;

use crate::authz;
use crate::state::Api;

const AUTHENTICATION: &str = "authentication.k8s.io";
/// From so many checks on, one for everything is tried first.
const MANY: usize = 4;
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A pod's account as the node the pod is on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Everybody who is neither node nor account.
    UserInfo,
    Legacy,
}

impl Mode {
    const ALL: [Self; 5] = [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy];

    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn applies(self, wanted: &User, real: &User) -> bool {
        let name_alone = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_of(wanted), wanted.as_service_account());
        match self {
            Self::AssociatedNode => {
                let own = real.extra.get(NODE_NAME).filter(|v| v.len() == 1).map(|v| v[0].as_str());
                name_alone && node.is_some() && real.as_service_account().is_some() && own == node
            }
            Self::ArbitraryNode => name_alone && node.is_some(),
            Self::ServiceAccount => name_alone && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

/// The node whose kubelet a user name is of.
fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|n| names::dns1123_subdomain(n).is_empty())
}

pub async fn impersonate(api: &Api, asked: &Attributes, wanted: &User) -> Result<User, StatusError> {
    let mut first = None;
    for mode in Mode::ALL.into_iter().filter(|m| m.applies(wanted, &asked.user)) {
        match check(api, mode, asked, wanted).await {
            Ok(user) => return Ok(user),
            Err(refusal) => drop(first.get_or_insert(refusal)),
        }
    }
    Err(first.unwrap_or_else(|| StatusError::internal("all impersonation modes failed")))
}

async fn check(api: &Api, mode: Mode, asked: &Attributes, wanted: &User) -> Result<User, StatusError> {
    let mut real = asked.user.clone();
    if mode == Mode::AssociatedNode {
        // What is granted holds on every node alike: only which keys there are may count.
        let keys = real.extra.keys().cloned().collect();
        real.extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
    }
    if mode != Mode::Legacy {
        let verb = format!("impersonate-on:{}:{}", mode.name(), asked.verb);
        require(api, &Attributes { verb, user: real.clone(), ..asked.clone() }).await?;
    }
    let verb = if mode == Mode::Legacy { "impersonate".to_owned() } else { format!("impersonate:{}", mode.name()) };
    let group = if mode == Mode::Legacy { "" } else { AUTHENTICATION };
    let base =
        Attributes { user: real, verb, group: group.to_owned(), version: "v1".to_owned(), is_resource: true, ..Attributes::default() };
    let mut user = wanted.clone();
    require(api, &on_name(mode, &base, wanted, &mut user)).await?;
    if !wanted.uid.is_empty() {
        let name = wanted.uid.clone();
        require(api, &Attributes { group: AUTHENTICATION.into(), resource: "uids".into(), name, ..base.clone() }).await?;
    }
    groups(api, mode, &base, wanted).await?;
    extra(api, mode, &base, wanted).await?;
    if user.name == user::ANONYMOUS {
        ensure(&mut user, user::UNAUTHENTICATED);
    } else if !user.in_group(user::UNAUTHENTICATED) {
        ensure(&mut user, user::AUTHENTICATED);
    }
    Ok(user)
}

/// The check of the name; gives nodes and accounts their groups.
fn on_name(mode: Mode, base: &Attributes, wanted: &User, user: &mut User) -> Attributes {
    if mode != Mode::Legacy
        && let Some(node) = node_of(wanted)
    {
        user.groups = vec![user::NODES.to_owned()];
        let name = if mode == Mode::AssociatedNode { "*" } else { node };
        return Attributes { resource: "nodes".into(), name: name.into(), ..base.clone() };
    }
    if let Some((namespace, name)) = wanted.as_service_account() {
        if wanted.groups.is_empty() {
            user.groups = vec![user::SERVICE_ACCOUNTS.to_owned(), format!("{}:{namespace}", user::SERVICE_ACCOUNTS)];
        }
        return Attributes { resource: "serviceaccounts".into(), namespace: namespace.into(), name: name.into(), ..base.clone() };
    }
    Attributes { resource: "users".into(), name: wanted.name.clone(), ..base.clone() }
}

async fn groups(api: &Api, mode: Mode, base: &Attributes, wanted: &User) -> Result<(), StatusError> {
    let on = |name: &str| Attributes { resource: "groups".into(), name: name.to_owned(), ..base.clone() };
    if mode != Mode::Legacy {
        if wanted.in_group("") {
            return Err(on("").forbidden("impersonating the empty string group is not allowed"));
        }
        if wanted.in_group(user::SYSTEM_MASTERS) {
            return Err(on(user::SYSTEM_MASTERS).forbidden("impersonating the system:masters group is not allowed"));
        }
        if wanted.groups.len() >= MANY && require(api, &on("*")).await.is_ok() {
            return Ok(());
        }
    }
    for group in &wanted.groups {
        require(api, &on(group)).await?;
    }
    Ok(())
}

async fn extra(api: &Api, mode: Mode, base: &Attributes, wanted: &User) -> Result<(), StatusError> {
    let on = |key: &str, value: &str| Attributes {
        group: AUTHENTICATION.into(),
        resource: "userextras".into(),
        subresource: key.to_owned(),
        name: value.to_owned(),
        ..base.clone()
    };
    if mode != Mode::Legacy {
        if let Some(why) = odd_extra(wanted) {
            return Err(on("", "").forbidden(&why));
        }
        let many = wanted.extra.values().map(Vec::len).sum::<usize>() >= MANY;
        if many && require(api, &on("*", "*")).await.is_ok() {
            return Ok(());
        }
    }
    for (key, values) in &wanted.extra {
        for value in values {
            require(api, &on(key, value)).await?;
        }
    }
    Ok(())
}

/// What the constrained modes do not take as extra.
fn odd_extra(wanted: &User) -> Option<String> {
    wanted.extra.iter().find_map(|(key, values)| {
        if key.is_empty() {
            return Some("impersonating the empty string key in extra is not allowed".to_owned());
        }
        if let Some(problem) = names::domain_prefixed_path(key).into_iter().next() {
            let quoted = go_quote(key);
            return Some(format!("impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {quoted}: {problem}"));
        }
        if key.chars().any(char::is_uppercase) {
            return Some(format!("impersonating a non-lowercase key in extra is not allowed: {}", go_quote(key)));
        }
        values.iter().any(String::is_empty).then(|| "impersonating the empty string value in extra is not allowed".to_owned())
    })
}

async fn require(api: &Api, asked: &Attributes) -> Result<(), StatusError> {
    authz::require(&api.authorizer, asked).await
}

fn ensure(user: &mut User, group: &str) {
    if !user.in_group(group) {
        user.groups.push(group.to_owned());
    }
}
