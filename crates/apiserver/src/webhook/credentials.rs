//! Who this server says it is to admission webhooks, host by host: the users of the kubeconfig that a
//! `WebhookAdmissionConfiguration` names (upstream's `AuthenticationInfoResolver`). Called by the admission plugins.

use std::path::Path;

use machinery::object::str_at;
use serde_json::Value;

use super::Endpoint;
use super::endpoint::Place;
use super::kubeconfig::User;

/// Users by the names of servers: `host:port`, `host` for port 443, `*.suffix`, `*`.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    users: Vec<(String, User)>,
    /// Of the current context.
    fallback: Option<User>,
}

impl Credentials {
    /// Files named in the kubeconfig are read here; relative ones count from its directory.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("{}: {why}", path.display());
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let config = machinery::yaml::parse(&text).map_err(|e| failed(e.to_string()))?.value;
        Self::of_config(&config, path.parent().unwrap_or(Path::new("."))).map_err(failed)
    }

    fn of_config(config: &Value, dir: &Path) -> Result<Self, String> {
        let entries = |list: &str| config.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut users = Vec::new();
        for entry in entries("users") {
            users.push((str_at(entry, "name").to_owned(), User::of(entry.get("user").unwrap_or(&Value::Null), dir)?));
        }
        let current = str_at(config, "current-context");
        let context = entries("contexts").iter().find(|c| !current.is_empty() && str_at(c, "name") == current);
        let named = context.map(|context| str_at(context, "context.user"));
        let fallback = named.and_then(|name| users.iter().find(|(known, _)| known == name)).map(|(_, user)| user.clone());
        Ok(Self { users, fallback })
    }

    /// The endpoint with what it is to be told of this server.
    pub fn dress(&self, endpoint: &Endpoint) -> Endpoint {
        let mut dressed = endpoint.clone();
        if let Some(user) = self.user(&target(endpoint)) {
            user.clone().sign(&mut dressed);
        }
        dressed
    }

    fn user(&self, target: &str) -> Option<&User> {
        let known = |name: &str| self.users.iter().find(|(n, _)| n == name).map(|(_, user)| user);
        let starred = |target: &str| target.match_indices('.').find_map(|(at, _)| known(&format!("*{}", &target[at..])));
        known(target)
            .or_else(|| starred(target))
            .or_else(|| target.strip_suffix(":443").and_then(|host| known(host).or_else(|| starred(host))))
            .or_else(|| known("*"))
            .or(self.fallback.as_ref())
    }
}

/// `host:port`
fn target(endpoint: &Endpoint) -> String {
    match &endpoint.place {
        Place::Url { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Url { host, port, .. } => format!("{host}:{port}"),
        Place::Service { namespace, name, port, .. } => format!("{name}.{namespace}.svc:{port}"),
    }
}

/// A `WebhookAdmissionConfiguration`, if the configuration of admission has one.
pub fn configured(given: Option<&Value>) -> Result<Credentials, String> {
    let Some(tree) = given else { return Ok(Credentials::default()) };
    let (version, kind) = (str_at(tree, "apiVersion"), str_at(tree, "kind"));
    let known = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1"].contains(&version);
    if kind != "WebhookAdmissionConfiguration" && kind != "WebhookAdmission" || !known {
        return Err(format!("no kind {kind:?} is registered for version {version:?}"));
    }
    let file = str_at(tree, "kubeConfigFile");
    if file.is_empty() {
        return Ok(Credentials::default());
    }
    if !Path::new(file).is_absolute() {
        return Err(format!("kubeConfigFile must be an absolute file path, but got {file:?}"));
    }
    Credentials::read(Path::new(file))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::webhook::Trust;

    #[test]
    fn the_nearest_name_is_the_user() {
        let user = |name: &str| json!({"name": name, "user": {"token": name}});
        let config = json!({"users": [user("a.b.c:8443"), user("a.b.c"), user("*.c:8443"), user("*.svc"), user("*"), user("mine")],
            "current-context": "x", "contexts": [{"name": "x", "context": {"user": "mine"}}]});
        let all = Credentials::of_config(&config, Path::new("/")).unwrap();
        let token = |known: &Credentials, url: &str| known.dress(&Endpoint::url_of(url, Trust::System).unwrap()).token;
        for (url, wanted) in [
            ("https://a.b.c:8443/x", "a.b.c:8443"),
            ("https://a.b.c/x", "a.b.c"),
            ("https://z.c:8443", "*.c:8443"),
            ("https://z.c:444", "*"),
        ] {
            assert_eq!(token(&all, url).as_deref(), Some(wanted), "{url}");
        }
        let service = all.dress(&Endpoint::service("n", "s", 443, "", Trust::System));
        assert_eq!(service.token.as_deref(), Some("*.svc"));
        let mut less = config.clone();
        less["users"] = json!([user("mine")]);
        let less = Credentials::of_config(&less, Path::new("/")).unwrap();
        assert_eq!(token(&less, "https://a/").as_deref(), Some("mine"));
        assert_eq!(token(&Credentials::default(), "https://a/"), None);
    }

    #[test]
    fn a_configuration_names_a_kubeconfig_by_its_whole_path() {
        let of = |file: &str| json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": file});
        assert!(configured(None).is_ok() && configured(Some(&of(""))).is_ok());
        assert_eq!(configured(Some(&of("k"))).err().as_deref(), Some("kubeConfigFile must be an absolute file path, but got \"k\""));
        assert!(configured(Some(&of("/nowhere/k"))).is_err());
        assert!(configured(Some(&json!({"kind": "Other"}))).is_err());
    }
}
