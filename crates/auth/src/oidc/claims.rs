//! From claims to a user. The signature was checked; time, audience and rules are checked here.

use serde_json::{Value, json};

use super::config::{ClaimRule, Issuer, Source};
use crate::jwt;
use crate::user::User;

impl Issuer {
    /// The user, or why there is none, in upstream's words.
    pub fn user(&self, claims: &Value, now_seconds: i64) -> Result<User, String> {
        self.verify(claims, now_seconds)?;
        for rule in &self.claim_rules {
            check_rule(rule, claims)?;
        }
        let name = self.username(claims)?;
        let groups = match &self.groups {
            Some(source) => texts(source, claims, "groups")?,
            None => Vec::new(),
        };
        let mut user = User::new(name, &groups.iter().map(String::as_str).collect::<Vec<_>>());
        match &self.uid {
            Some(Source::Claim { name, .. }) => {
                let uid =
                    claims.get(name).and_then(Value::as_str).ok_or_else(|| format!("oidc: parse uid claim {name:?}: not a string"))?;
                user.uid = uid.to_owned();
            }
            Some(Source::Expression(expression)) => {
                let value = expression.eval(claims).map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))?;
                user.uid = value.as_str().ok_or("oidc: uid claim expression did not evaluate to a string")?.to_owned();
            }
            None => {}
        }
        for (key, expression) in &self.extra {
            let value = expression.eval(claims).map_err(|why| format!("oidc: error evaluating extra claim expression: {why}"))?;
            let values = strings(&value).ok_or("oidc: extra claim expression must evaluate to a string or a list of strings")?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_user(&user)?;
        Ok(user)
    }

    fn verify(&self, claims: &Value, now: i64) -> Result<(), String> {
        let date = |name: &str| jwt::date(claims, name).map_err(|_| format!("oidc: verify token: malformed {name}"));
        if claims.get("iss").and_then(Value::as_str) != Some(self.url.as_str()) {
            return Err("oidc: verify token: oidc: id token issued by a different provider".to_owned());
        }
        let audiences = jwt::audiences(claims);
        if !audiences.iter().any(|a| self.audiences.contains(a)) {
            return Err("oidc: verify token: oidc: expected audience in the configured ones".to_owned());
        }
        if date("exp")?.is_none_or(|end| end <= now) {
            return Err("oidc: verify token: oidc: token is expired".to_owned());
        }
        // As upstream's library: clocks may differ by five minutes.
        if date("nbf")?.is_some_and(|start| start > now + 300) {
            return Err("oidc: verify token: oidc: current time before the nbf (not before) time".to_owned());
        }
        Ok(())
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        let name = match &self.username {
            Source::Claim { name, prefix } => {
                let value = claims.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
                let value = value.ok_or_else(|| format!("oidc: parse username claims {name:?}: claim not present"))?;
                if name == "email" {
                    // Where an issuer says whether it checked the address, it must have.
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("oidc: email not verified".to_owned()),
                        Some(_) => return Err("oidc: parse 'email_verified' claim: not a bool".to_owned()),
                    }
                }
                format!("{prefix}{value}")
            }
            Source::Expression(expression) => {
                let value = expression.eval(claims).map_err(|why| format!("oidc: error evaluating username claim expression: {why}"))?;
                value.as_str().ok_or("oidc: username claim expression did not evaluate to a string")?.to_owned()
            }
        };
        if name.is_empty() { Err("oidc: empty username via claim expression is not allowed".to_owned()) } else { Ok(name) }
    }

    fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        for (rule, message) in &self.user_rules {
            let value = rule.eval(&shown).map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
            if value != true {
                let why = if message.is_empty() { format!("failed expression: {}", rule.text()) } else { message.clone() };
                return Err(format!("oidc: user validation error: {why}"));
            }
        }
        Ok(())
    }
}

fn check_rule(rule: &ClaimRule, claims: &Value) -> Result<(), String> {
    match rule {
        ClaimRule::Value { claim, required } => match claims.get(claim) {
            None => Err(format!("oidc: required claim {claim} not present in ID token")),
            Some(value) if value.as_str() == Some(required) => Ok(()),
            Some(Value::String(_)) => Err(format!("oidc: required claim {claim} value does not match")),
            Some(_) => Err(format!("oidc: parse claim {claim}: not a string")),
        },
        ClaimRule::Expression { expression, message } => {
            let value = expression.eval(claims).map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
            if value == true {
                return Ok(());
            }
            let why = if message.is_empty() { format!("failed expression: {}", expression.text()) } else { message.clone() };
            Err(format!("oidc: claim validation error: {why}"))
        }
    }
}

fn texts(source: &Source, claims: &Value, what: &str) -> Result<Vec<String>, String> {
    match source {
        Source::Claim { name, prefix } => {
            let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
            let list = strings(value).ok_or_else(|| format!("oidc: parse {what} claim {name:?}: not a string or a list of strings"))?;
            Ok(list.into_iter().map(|v| format!("{prefix}{v}")).collect())
        }
        Source::Expression(expression) => {
            let value = expression.eval(claims).map_err(|why| format!("oidc: error evaluating {what} claim expression: {why}"))?;
            strings(&value).ok_or_else(|| format!("oidc: {what} claim expression must evaluate to a string or a list of strings"))
        }
    }
}

/// A text, or a list of texts; empty ones and nothing at all are left out.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(one) => Some(Some(one.clone()).filter(|o| !o.is_empty()).into_iter().collect()),
        Value::Array(many) => {
            let all: Option<Vec<String>> = many.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            Some(all?.into_iter().filter(|v| !v.is_empty()).collect())
        }
        _ => None,
    }
}
