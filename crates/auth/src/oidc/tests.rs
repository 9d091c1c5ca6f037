//! Configurations and claims.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_700_000_000;

fn parse(jwt: Value) -> Result<Configuration, Vec<String>> {
    let tree = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt]});
    Configuration::parse(&tree, &["https://own".to_owned()])
}

fn jwt(mappings: &Value, more: &Value) -> Value {
    let mut jwt = json!({"issuer": {"url": "https://issuer.example.com", "audiences": ["app"]}, "claimMappings": mappings});
    for (key, value) in more.as_object().unwrap() {
        jwt[key] = value.clone();
    }
    jwt
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({"iss": "https://issuer.example.com", "aud": ["app", "x"], "exp": NOW + 10, "sub": "alice"});
    for (key, value) in more.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

#[test]
fn claims_become_a_user() {
    let by_claims = json!({"username": {"claim": "sub", "prefix": "o:"}, "groups": {"claim": "roles", "prefix": "g:"}});
    let by_cel = json!({
        "username": {"expression": "'o:' + claims.sub"}, "groups": {"expression": "claims.roles.map(r, 'g:' + r)"},
        "uid": {"expression": "claims.sub.upperAscii()"},
        "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}, {"key": "example.com/no", "valueExpression": "''"}],
    });
    for (mappings, uid) in [(by_claims, ""), (by_cel, "ALICE")] {
        let config = parse(jwt(&mappings, &json!({}))).unwrap();
        let user = config.issuers[0].user(&claims(&json!({"roles": ["a", "b"], "tenant": "t"})), NOW).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("o:alice", uid));
        assert_eq!(user.groups, ["g:a", "g:b", "system:authenticated"]);
        assert_eq!(user.extra.get("example.com/no"), None);
        assert_eq!(user.extra.len(), usize::from(!uid.is_empty()));
    }
}

#[test]
fn claims_that_are_no_good_are_refused() {
    let mappings = json!({"username": {"claim": "sub", "prefix": ""}});
    let more = json!({
        "claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}, {"expression": "claims.exp - claims.iat <= 3600", "message": "too long"}],
        "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
    });
    let config = parse(jwt(&mappings, &more)).unwrap();
    let good = |more: Value| {
        let mut all = claims(&json!({"hd": "example.com", "iat": NOW - 10}));
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        config.issuers[0].user(&all, NOW)
    };
    assert!(good(json!({})).is_ok());
    for (more, why) in [
        (json!({"iss": "https://other"}), "issued by a different provider"),
        (json!({"aud": "other"}), "expected audience"),
        (json!({"aud": {}}), "expected audience"),
        (json!({"exp": NOW}), "token is expired"),
        (json!({"exp": null}), "token is expired"),
        (json!({"exp": "never"}), "malformed exp"),
        (json!({"nbf": NOW + 301}), "before the nbf"),
        (json!({"hd": "evil.com"}), "required claim hd value does not match"),
        (json!({"hd": ["example.com"]}), "parse claim hd"),
        (json!({"iat": NOW - 7200}), "oidc: claim validation error: too long"),
        (json!({"iat": "x"}), "error evaluating claim validation expression"),
        (json!({"sub": ""}), "claim not present"),
        (json!({"sub": 7}), "claim not present"),
        (json!({"sub": "system:admin"}), "oidc: user validation error: reserved"),
    ] {
        let error = good(more).unwrap_err();
        assert!(error.contains(why), "{error} instead of {why}");
    }
}

#[test]
fn an_address_must_be_verified() {
    let config = parse(jwt(&json!({"username": {"claim": "email", "prefix": ""}}), &json!({}))).unwrap();
    let user = |verified: Value| config.issuers[0].user(&claims(&json!({"email": "a@b", "email_verified": verified})), NOW);
    assert!(user(json!(true)).is_ok());
    assert!(user(json!(false)).is_err() && user(json!("true")).is_err());
    let errors = parse(jwt(&json!({"username": {"expression": "claims.email"}}), &json!({}))).unwrap_err();
    assert!(errors[0].contains("claims.email_verified must be used"), "{errors:?}");
    let fine = json!({"username": {"expression": "claims.?email_verified.orValue(true) == true ? claims.email : claims.sub"}});
    assert!(parse(jwt(&fine, &json!({}))).is_ok());
}

#[test]
fn a_bad_configuration_is_named_by_path() {
    let name = json!({"username": {"claim": "sub", "prefix": ""}});
    let issuer = |issuer: Value| jwt(&name, &json!({"issuer": issuer}));
    for (jwt, want) in [
        (issuer(json!({"audiences": ["a"]})), "jwt[0].issuer.url: Required value"),
        (issuer(json!({"url": "http://x", "audiences": ["a"]})), "URL scheme must be https"),
        (issuer(json!({"url": "https://u:p@x", "audiences": ["a"]})), "must not contain a username or password"),
        (issuer(json!({"url": "https://own", "audiences": ["a"]})), "URL must not overlap with disallowed issuers: [https://own]"),
        (issuer(json!({"url": "https://x"})), "at least one jwt[0].issuer.audiences is required"),
        (issuer(json!({"url": "https://x", "audiences": ["a", "b"]})), "audienceMatchPolicy must be MatchAny for multiple audiences"),
        (jwt(&json!({}), &json!({})), "claimMappings.username: Required value"),
        (jwt(&json!({"username": {"claim": "a"}}), &json!({})), "prefix is required when claim is set"),
        (jwt(&json!({"username": {"claim": "a", "prefix": "", "expression": "'a'"}}), &json!({})), "can't both be set"),
        (jwt(&json!({"username": {"expression": "claims."}}), &json!({})), "jwt[0].claimMappings.username.expression"),
        (jwt(&name, &json!({"userValidationRules": [{"expression": "user.nothing == ''"}]})), "userValidationRules[0].expression"),
        (jwt(&name, &json!({"claimValidationRules": [{"expression": "1"}]})), "must evaluate to bool"),
        (jwt(&name, &json!({"surprise": 1})), "unknown field \"jwt[0].surprise\""),
    ] {
        let errors = parse(jwt).unwrap_err();
        assert!(errors.iter().any(|e| e.contains(want)), "{errors:?} instead of {want}");
    }
    let anonymous = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": [{"path": "/healthz"}]}});
    let parsed = Configuration::parse(&anonymous, &[]).unwrap();
    assert_eq!(parsed.anonymous.unwrap().paths, ["/healthz"]);
    assert!(Configuration::parse(&json!({"kind": "AuthenticationConfiguration"}), &[]).is_err());
}

#[test]
fn flags_are_an_issuer() {
    let mut flags = Flags { issuer_url: "https://issuer.example.com".into(), client_id: "app".into(), ..Flags::default() };
    let user = flags.issuer().unwrap().user(&claims(&json!({})), NOW).unwrap();
    assert_eq!(user.name, "https://issuer.example.com#alice");
    flags.username_prefix = "-".into();
    assert_eq!(flags.issuer().unwrap().user(&claims(&json!({})), NOW).unwrap().name, "alice");
    flags.client_id.clear();
    assert!(flags.issuer().is_err());
}
