//! The `authorizer` of CEL expressions: what the requester, or a service account it names, may do.
//!
//! Expressions cannot wait, authorizers of other servers must be waited for. So what is not decided at once is remembered,
//! and the expression evaluated again after [`Requester::settle`].

use std::sync::{Mutex, PoisonError};

use auth::{Attributes, Decision, User};
use cel::{AuthzDecision, AuthzRequest};
use futures::FutureExt as _;

use super::Request;
use crate::state::Api;

/// Decides for the user of a request.
pub struct Requester<'a> {
    api: &'a Api,
    user: &'a User,
    known: Mutex<Vec<(AuthzRequest, AuthzDecision)>>,
    wanted: Mutex<Vec<AuthzRequest>>,
}

impl<'a> Requester<'a> {
    pub fn new(request: &Request<'a>) -> Self {
        Self { api: request.api, user: request.user, known: Mutex::default(), wanted: Mutex::default() }
    }

    /// Waits for what could not be decided at once; true: there was something, so evaluate again.
    pub async fn settle(&self) -> bool {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for asked in &wanted {
            let decision = decision(self.api.authorizer.decide(&self.attributes(asked)).await);
            self.known.lock().unwrap_or_else(PoisonError::into_inner).push((asked.clone(), decision));
        }
        !wanted.is_empty()
    }

    fn attributes(&self, asked: &AuthzRequest) -> Attributes {
        let user = match &asked.service_account {
            Some((namespace, name)) => User::service_account(namespace, name),
            None => self.user.clone(),
        };
        let is_resource = asked.path.is_empty();
        Attributes {
            user,
            verb: asked.verb.clone(),
            is_resource,
            path: asked.path.clone(),
            group: asked.group.clone(),
            version: if is_resource { "*".to_owned() } else { String::new() },
            resource: asked.resource.clone(),
            subresource: asked.subresource.clone(),
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
            field_selector: machinery::fieldselector::parse(&asked.field_selector).map(|s| s.terms).unwrap_or_default(),
            label_selector: machinery::labels::parse(&asked.label_selector).map(|s| s.requirements().to_vec()).unwrap_or_default(),
        }
    }
}

fn decision(of: Decision) -> AuthzDecision {
    match of {
        Decision::Allow(reason) => AuthzDecision { allowed: true, reason, error: None },
        Decision::Deny(reason) | Decision::NoOpinion(reason) => AuthzDecision { allowed: false, reason, error: None },
    }
}

impl cel::Authorizer for Requester<'_> {
    fn authorize(&self, asked: &AuthzRequest) -> AuthzDecision {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, decision)) = known.iter().find(|(of, _)| of == asked) {
            return decision.clone();
        }
        if let Some(decided) = self.api.authorizer.decide(&self.attributes(asked)).now_or_never() {
            return decision(decided);
        }
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        AuthzDecision { error: Some("the authorizer has not answered yet".to_owned()), ..AuthzDecision::default() }
    }
}
