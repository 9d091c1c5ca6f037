//! What comes from outside never panics: tokens, configurations, selectors of requests.

use auth::{Attributes, User, authorization, bootstrap_token, jwt, oidc};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

/// JSON of any shape, not too deep.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "iss",
            "aud",
            "exp",
            "nbf",
            "sub",
            "alg",
            "kid",
            "crit",
            "jwt",
            "issuer",
            "claimMappings",
            "username",
            "claim",
            "expression",
            "url",
            "audiences",
            "kind",
            "apiVersion",
            "anonymous",
            "conditions"
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}

fn issuer() -> oidc::Issuer {
    let mappings = json!({"username": {"expression": "string(claims.sub)"}, "groups": {"claim": "groups", "prefix": ""},
        "uid": {"claim": "uid"}, "extra": [{"key": "example.com/a", "valueExpression": "claims.?a.orValue('')"}]});
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": "https://i", "audiences": ["a"]}, "claimMappings": mappings,
        "claimValidationRules": [{"expression": "claims.exp > 0"}], "userValidationRules": [{"expression": "size(user.groups) < 100"}]}]});
    oidc::Configuration::parse(&config, &[]).ok().and_then(|mut c| c.issuers.pop()).expect("a good configuration")
}

proptest! {
    #[test]
    fn tokens_of_any_shape(header in tree(), claims in tree(), rest in ".{0,20}", text in ".{0,80}") {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        for token in [text.clone(), format!("{}.{}.{rest}", part(&header), part(&claims)), format!("{}.{text}.{rest}", part(&header))] {
            if let Ok(jwt) = jwt::parse(&token) {
                prop_assert!(jwt.claims.is_object());
                prop_assert!(token.starts_with(jwt.signed));
            }
            prop_assert!(jwt::issuer(&token).is_none_or(|i| claims.to_string().contains(&json!(i).to_string())));
        }
        if let Some((id, secret)) = bootstrap_token::parse(&text) {
            prop_assert_eq!((id.len(), secret.len()), (6, 16));
        }
    }

    #[test]
    fn claims_of_any_shape_are_nobodys_by_accident(mut claims in tree(), now in any::<i64>()) {
        // Without this server's audience nobody comes in, whatever else is said.
        if let Some(map) = claims.as_object_mut() {
            map.insert("aud".to_owned(), json!("other"));
        }
        prop_assert!(issuer().user(&claims, now).is_err());
        if let Some(map) = claims.as_object_mut() {
            map.extend([("aud".to_owned(), json!("a")), ("iss".to_owned(), json!("https://i")), ("exp".to_owned(), json!(now.saturating_add(1)))]);
        }
        if let Ok(user) = issuer().user(&claims, now) {
            prop_assert!(!user.name.is_empty());
        }
    }

    #[test]
    fn configurations_of_any_shape(mut config in tree()) {
        if let Some(map) = config.as_object_mut() {
            map.extend([("kind".to_owned(), json!("AuthenticationConfiguration")), ("apiVersion".to_owned(), json!("apiserver.config.k8s.io/v1"))]);
        }
        drop(oidc::Configuration::parse(&config, &["https://own".to_owned()]));
    }

    #[test]
    fn a_question_keeps_its_subject(name in ".{0,20}", verb in ".{0,10}", resource in ".{0,10}", is_resource in any::<bool>()) {
        let asked = Attributes { user: User::new(name.clone(), &[]), verb, resource, is_resource, ..Attributes::default() };
        let spec = authorization::review_spec(&asked);
        prop_assert_eq!(spec["user"].as_str().unwrap_or(""), name);
        prop_assert_eq!(spec.get("resourceAttributes").is_some(), is_resource);
    }
}
