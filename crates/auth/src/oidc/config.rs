//! `AuthenticationConfiguration` read and checked, and the `--oidc-*` flags, which say a part of the same.

use serde_json::Value;

use super::expression::Expression;

const GROUP: &str = "apiserver.config.k8s.io/";

#[derive(Debug, Default)]
pub struct Configuration {
    pub issuers: Vec<Issuer>,
    /// `None`: as the flag says.
    pub anonymous: Option<Anonymous>,
}

/// Where requests without credentials are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// None: everywhere.
    pub paths: Vec<String>,
}

/// A claim with a prefix, or an expression.
#[derive(Debug)]
pub enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

#[derive(Debug)]
pub enum ClaimRule {
    Value { claim: String, required: String },
    Expression { expression: Expression, message: String },
}

#[derive(Debug)]
pub struct Issuer {
    pub url: String,
    /// Where the discovery document is, if not under the URL.
    pub discovery_url: String,
    /// PEM; empty: what the host trusts.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub(super) claim_rules: Vec<ClaimRule>,
    pub(super) username: Source,
    pub(super) groups: Option<Source>,
    pub(super) uid: Option<Source>,
    pub(super) extra: Vec<(String, Expression)>,
    pub(super) user_rules: Vec<(Expression, String)>,
    /// Names of algorithms; none: all that are known.
    pub algorithms: Vec<String>,
}

/// `--oidc-*`
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub issuer_url: String,
    pub client_id: String,
    /// PEM.
    pub ca: String,
    pub username_claim: String,
    /// `-`: none; empty: the issuer, unless the claim is `email`.
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
    pub signing_algorithms: Vec<String>,
}

impl Flags {
    pub fn issuer(&self) -> Result<Issuer, Vec<String>> {
        let claim = if self.username_claim.is_empty() { "sub" } else { &self.username_claim };
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            "" if claim != "email" => format!("{}#", self.issuer_url),
            prefix => prefix.to_owned(),
        };
        let mut errors = Vec::new();
        check_url(&self.issuer_url, "--oidc-issuer-url", &mut errors);
        if self.client_id.is_empty() {
            errors.push("--oidc-client-id: is required with --oidc-issuer-url".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let rule = |(claim, required): &(String, String)| ClaimRule::Value { claim: claim.clone(), required: required.clone() };
        let groups =
            (!self.groups_claim.is_empty()).then(|| Source::Claim { name: self.groups_claim.clone(), prefix: self.groups_prefix.clone() });
        Ok(Issuer {
            url: self.issuer_url.clone(),
            discovery_url: String::new(),
            certificate_authority: self.ca.clone(),
            audiences: vec![self.client_id.clone()],
            claim_rules: self.required_claims.iter().map(rule).collect(),
            username: Source::Claim { name: claim.to_owned(), prefix },
            groups,
            uid: None,
            extra: Vec::new(),
            user_rules: Vec::new(),
            algorithms: self.signing_algorithms.clone(),
        })
    }
}

/// Collects what is wrong, by path.
struct Reader {
    errors: Vec<String>,
}

impl Configuration {
    /// From the file's tree. `own`: issuers that are this server's.
    pub fn parse(tree: &Value, own: &[String]) -> Result<Self, Vec<String>> {
        let mut reader = Reader { errors: Vec::new() };
        let version = text(tree, "apiVersion").strip_prefix(GROUP).unwrap_or("");
        if text(tree, "kind") != "AuthenticationConfiguration" || !matches!(version, "v1" | "v1beta1" | "v1alpha1") {
            return Err(vec![format!("no kind {:?} is registered for version {:?}", text(tree, "kind"), text(tree, "apiVersion"))]);
        }
        reader.known(tree, "", &["apiVersion", "kind", "jwt", "anonymous"]);
        let issuers: Vec<Issuer> =
            list(tree, "jwt").iter().enumerate().filter_map(|(i, jwt)| reader.issuer(jwt, &format!("jwt[{i}]"), own)).collect();
        for (i, issuer) in issuers.iter().enumerate() {
            if issuers[..i].iter().any(|other| other.url == issuer.url) {
                reader.errors.push(format!("jwt[{i}].issuer.url: Duplicate value: {:?}", issuer.url));
            }
        }
        let anonymous = tree.get("anonymous").filter(|a| !a.is_null()).map(|a| reader.anonymous(a));
        if reader.errors.is_empty() { Ok(Self { issuers, anonymous }) } else { Err(reader.errors) }
    }
}

fn text<'a>(tree: &'a Value, key: &str) -> &'a str {
    tree.get(key).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(tree: &'a Value, key: &str) -> &'a [Value] {
    tree.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn check_url(url: &str, path: &str, errors: &mut Vec<String>) {
    let mut wrong = |why: &str| errors.push(format!("{path}: Invalid value: {url:?}: {why}"));
    let Some(rest) = url.strip_prefix("https://") else { return wrong("URL scheme must be https") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() {
        wrong("URL must have a host");
    }
    if host.contains('@') {
        wrong("URL must not contain a username or password");
    }
    if url.contains('?') {
        wrong("URL must not contain a query");
    }
    if url.contains('#') {
        wrong("URL must not contain a fragment");
    }
}

impl Reader {
    fn known(&mut self, tree: &Value, path: &str, names: &[&str]) {
        for key in tree.as_object().into_iter().flat_map(|m| m.keys()).filter(|k| !names.contains(&k.as_str())) {
            let dot = if path.is_empty() { "" } else { "." };
            self.errors.push(format!("strict decoding error: unknown field \"{path}{dot}{key}\""));
        }
    }

    fn anonymous(&mut self, tree: &Value) -> Anonymous {
        self.known(tree, "anonymous", &["enabled", "conditions"]);
        let paths: Vec<String> = list(tree, "conditions").iter().map(|c| text(c, "path").to_owned()).collect();
        let enabled = tree.get("enabled").and_then(Value::as_bool).unwrap_or(false);
        if !enabled && !paths.is_empty() {
            self.errors.push("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".to_owned());
        }
        Anonymous { enabled, paths }
    }

    fn issuer(&mut self, jwt: &Value, path: &str, own: &[String]) -> Option<Issuer> {
        self.known(jwt, path, &["issuer", "claimValidationRules", "claimMappings", "userValidationRules"]);
        let issuer = jwt.get("issuer").unwrap_or(&Value::Null);
        let at = format!("{path}.issuer");
        let fields = ["url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy", "egressSelectorType"];
        self.known(issuer, &at, &fields);
        let (url, discovery) = (text(issuer, "url"), text(issuer, "discoveryURL"));
        if url.is_empty() {
            self.errors.push(format!("{at}.url: Required value: URL is required"));
        } else {
            check_url(url, &format!("{at}.url"), &mut self.errors);
        }
        if own.iter().any(|o| o == url) {
            self.errors
                .push(format!("{at}.url: Invalid value: {url:?}: URL must not overlap with disallowed issuers: [{}]", own.join(" ")));
        }
        if !discovery.is_empty() {
            check_url(discovery, &format!("{at}.discoveryURL"), &mut self.errors);
            if discovery.trim_end_matches('/') == url.trim_end_matches('/') {
                self.errors.push(format!("{at}.discoveryURL: Invalid value: {discovery:?}: discoveryURL must be different from URL"));
            }
        }
        let audiences = self.audiences(issuer, &at);
        let mappings = jwt.get("claimMappings").unwrap_or(&Value::Null);
        let at = format!("{path}.claimMappings");
        self.known(mappings, &at, &["username", "groups", "uid", "extra"]);
        let username = self.source(mappings.get("username"), &format!("{at}.username"), true);
        if username.is_none() && mappings.get("username").is_none_or(Value::is_null) {
            self.errors.push(format!("{at}.username: Required value: claim or expression is required"));
        }
        let groups = mappings.get("groups").filter(|v| !v.is_null());
        let groups = groups.and_then(|g| self.source(Some(g), &format!("{at}.groups"), true));
        let uid = mappings.get("uid").filter(|v| !v.is_null());
        let uid = uid.and_then(|u| self.source(Some(u), &format!("{at}.uid"), false));
        let extra = self.extra(mappings, &at);
        let claim_rules = self.claim_rules(jwt, path);
        let user_rules = self.user_rules(jwt, path);
        let issuer = Issuer {
            url: url.to_owned(),
            discovery_url: discovery.to_owned(),
            certificate_authority: text(issuer, "certificateAuthority").to_owned(),
            audiences,
            claim_rules,
            username: username?,
            groups,
            uid,
            extra,
            user_rules,
            algorithms: Vec::new(),
        };
        self.verified_email(&issuer, &at);
        Some(issuer)
    }

    fn audiences(&mut self, issuer: &Value, at: &str) -> Vec<String> {
        let audiences: Vec<String> = list(issuer, "audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            self.errors.push(format!("{at}.audiences: Required value: at least one {at}.audiences is required"));
        }
        for (i, audience) in audiences.iter().enumerate() {
            if audience.is_empty() {
                self.errors.push(format!("{at}.audiences[{i}]: Required value: audience can't be empty"));
            }
            if audiences[..i].contains(audience) {
                self.errors.push(format!("{at}.audiences[{i}]: Duplicate value: {audience:?}"));
            }
        }
        let policy = text(issuer, "audienceMatchPolicy");
        if audiences.len() > 1 && policy != "MatchAny" {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            self.errors.push(format!("{at}.audienceMatchPolicy: Invalid value: {policy:?}: {why}"));
        } else if !matches!(policy, "" | "MatchAny") {
            let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
            self.errors.push(format!("{at}.audienceMatchPolicy: Invalid value: {policy:?}: {why}"));
        }
        audiences
    }

    fn compile(&mut self, compiled: Result<Expression, String>, path: &str) -> Option<Expression> {
        compiled.map_err(|why| self.errors.push(format!("{path}: Invalid value: {why}"))).ok()
    }

    fn source(&mut self, tree: Option<&Value>, path: &str, prefixed: bool) -> Option<Source> {
        let tree = tree.filter(|t| !t.is_null())?;
        self.known(tree, path, if prefixed { &["claim", "prefix", "expression"] } else { &["claim", "expression"] });
        let (claim, expression, prefix) = (text(tree, "claim"), text(tree, "expression"), tree.get("prefix").and_then(Value::as_str));
        match (claim.is_empty(), expression.is_empty()) {
            (true, true) => {
                self.errors.push(format!("{path}: Required value: claim or expression is required"));
                None
            }
            (false, false) => {
                self.errors.push(format!("{path}: Invalid value: \"\": expression and claim can't both be set"));
                None
            }
            (false, true) => {
                if prefixed && prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(format!("{path}.prefix: Required value: {why}"));
                }
                Some(Source::Claim { name: claim.to_owned(), prefix: prefix.unwrap_or("").to_owned() })
            }
            (true, false) => {
                if prefix.is_some() {
                    self.errors.push(format!("{path}.prefix: Invalid value: prefix can't be set when expression is set"));
                }
                self.compile(Expression::of_claims(expression), &format!("{path}.expression")).map(Source::Expression)
            }
        }
    }

    fn extra(&mut self, mappings: &Value, at: &str) -> Vec<(String, Expression)> {
        let mut out: Vec<(String, Expression)> = Vec::new();
        for (i, one) in list(mappings, "extra").iter().enumerate() {
            let path = format!("{at}.extra[{i}]");
            self.known(one, &path, &["key", "valueExpression"]);
            let key = text(one, "key");
            for problem in machinery::names::domain_prefixed_path(key) {
                self.errors.push(format!("{path}.key: Invalid value: {key:?}: {problem}"));
            }
            if key != key.to_lowercase() {
                self.errors.push(format!("{path}.key: Invalid value: {key:?}: key must be lowercase"));
            }
            let domain = key.split('/').next().unwrap_or("");
            if ["k8s.io", "kubernetes.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}"))) {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                self.errors.push(format!("{path}.key: Invalid value: {key:?}: {why}"));
            }
            if out.iter().any(|(k, _)| k == key) {
                self.errors.push(format!("{path}.key: Duplicate value: {key:?}"));
            }
            let expression = Expression::of_claims(text(one, "valueExpression"));
            if let Some(expression) = self.compile(expression, &format!("{path}.valueExpression")) {
                out.push((key.to_owned(), expression));
            }
        }
        out
    }

    fn claim_rules(&mut self, jwt: &Value, path: &str) -> Vec<ClaimRule> {
        let mut out = Vec::new();
        for (i, rule) in list(jwt, "claimValidationRules").iter().enumerate() {
            let at = format!("{path}.claimValidationRules[{i}]");
            self.known(rule, &at, &["claim", "requiredValue", "expression", "message"]);
            let (claim, expression) = (text(rule, "claim"), text(rule, "expression"));
            match (claim.is_empty(), expression.is_empty()) {
                (true, true) => self.errors.push(format!("{at}: Required value: claim or expression is required")),
                (false, false) => self.errors.push(format!("{at}: Invalid value: {claim:?}: expression and claim can't both be set")),
                (false, true) => {
                    out.push(ClaimRule::Value { claim: claim.to_owned(), required: text(rule, "requiredValue").to_owned() });
                }
                (true, false) => {
                    let compiled = self.compile(Expression::of_claims(expression), &format!("{at}.expression"));
                    if compiled.as_ref().is_some_and(|e| !e.may_be_bool()) {
                        self.errors.push(format!("{at}.expression: Invalid value: {expression:?}: must evaluate to bool"));
                    }
                    let message = text(rule, "message").to_owned();
                    out.extend(compiled.map(|expression| ClaimRule::Expression { expression, message }));
                }
            }
        }
        out
    }

    fn user_rules(&mut self, jwt: &Value, path: &str) -> Vec<(Expression, String)> {
        let mut out = Vec::new();
        for (i, rule) in list(jwt, "userValidationRules").iter().enumerate() {
            let at = format!("{path}.userValidationRules[{i}]");
            self.known(rule, &at, &["expression", "message"]);
            let expression = text(rule, "expression");
            if expression.is_empty() {
                self.errors.push(format!("{at}.expression: Required value: expression is required"));
                continue;
            }
            let compiled = self.compile(Expression::of_user(expression), &format!("{at}.expression"));
            if compiled.as_ref().is_some_and(|e| !e.may_be_bool()) {
                self.errors.push(format!("{at}.expression: Invalid value: {expression:?}: must evaluate to bool"));
            }
            out.extend(compiled.map(|e| (e, text(rule, "message").to_owned())));
        }
        out
    }

    /// Who is named by an address must have shown that it is theirs.
    fn verified_email(&mut self, issuer: &Issuer, at: &str) {
        let Source::Expression(username) = &issuer.username else { return };
        let plain = |e: &Expression| e.text().replace("claims.?", "claims.");
        let asks = |e: &Expression| plain(e).contains("claims.email_verified");
        let email = plain(username).replace("claims.email_verified", "").contains("claims.email");
        let rules = issuer.claim_rules.iter().any(|r| matches!(r, ClaimRule::Expression { expression, .. } if asks(expression)));
        if email && !asks(username) && !rules && !issuer.extra.iter().any(|(_, e)| asks(e)) {
            self.errors.push(format!(
                "{at}.username.expression: Invalid value: {:?}: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
                username.text()
            ));
        }
    }
}
