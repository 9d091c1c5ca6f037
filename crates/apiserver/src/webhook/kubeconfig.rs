//! A kubeconfig as webhook authenticators and authorizers take it: where their server is, whom to trust, who this server is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinery::object::str_at;
use serde_json::Value;

use super::{Endpoint, Identity, Trust};

impl Endpoint {
    /// The current context's server. Paths are relative to the file.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("{}: {why}", path.display());
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let config = machinery::yaml::parse(&text).map_err(|e| failed(e.to_string()))?.value;
        of_config(&config, path.parent().unwrap_or(Path::new("."))).map_err(failed)
    }
}

/// The same of a tree; relative paths are relative to `dir`.
pub fn of_config(config: &Value, dir: &Path) -> Result<Endpoint, String> {
    let named = |list: &str, name: &str| {
        config.get(list).and_then(Value::as_array).into_iter().flatten().find(|e| str_at(e, "name") == name).cloned()
    };
    let current = str_at(config, "current-context");
    let context = named("contexts", current).ok_or_else(|| format!("context {current:?} does not exist"))?;
    let cluster = str_at(&context, "context.cluster");
    let cluster =
        named("clusters", cluster).and_then(|c| c.get("cluster").cloned()).ok_or_else(|| format!("cluster {cluster:?} does not exist"))?;
    let user = named("users", str_at(&context, "context.user")).and_then(|u| u.get("user").cloned()).unwrap_or_default();
    let trust = if cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
        Trust::Any
    } else {
        match file_or_data(&cluster, "certificate-authority", dir)? {
            Some(pem) => Trust::bundle(&pem)?,
            None => Trust::System,
        }
    };
    let mut endpoint = Endpoint::url_of(str_at(&cluster, "server"), trust)?;
    endpoint.server_name = Some(str_at(&cluster, "tls-server-name").to_owned()).filter(|n| !n.is_empty());
    User::of(&user, dir)?.sign(&mut endpoint);
    Ok(endpoint)
}

/// Who this server says it is: the `user` of a kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct User {
    identity: Option<Identity>,
    token: Option<String>,
    login: Option<(String, String)>,
}

impl User {
    /// Relative paths are relative to `dir`.
    pub fn of(user: &Value, dir: &Path) -> Result<Self, String> {
        let mut out = Self::default();
        let pair = (file_or_data(user, "client-certificate", dir)?, file_or_data(user, "client-key", dir)?);
        if let (Some(certificate), Some(key)) = pair {
            out.identity = Some(Identity { cert_pem: certificate.into(), key_pem: key.into() });
        }
        out.token = Some(str_at(user, "token").to_owned()).filter(|t| !t.is_empty());
        let file = str_at(user, "tokenFile");
        if out.token.is_none() && !file.is_empty() {
            let text = std::fs::read_to_string(dir.join(file)).map_err(|e| format!("{file}: {e}"))?;
            out.token = Some(text.trim().to_owned());
        }
        let (name, password) = (str_at(user, "username"), str_at(user, "password"));
        out.login = (!name.is_empty() || !password.is_empty()).then(|| (name.to_owned(), password.to_owned()));
        Ok(out)
    }

    /// Makes an endpoint be called as this user.
    pub fn sign(self, endpoint: &mut Endpoint) {
        endpoint.identity = self.identity;
        endpoint.token = self.token;
        endpoint.login = self.login;
    }
}

/// `<key>-data`, base64, or the file `<key>`.
fn file_or_data(holder: &Value, key: &str, dir: &Path) -> Result<Option<Vec<u8>>, String> {
    let data = str_at(holder, &format!("{key}-data"));
    if !data.is_empty() {
        return STANDARD.decode(data.trim()).map(Some).map_err(|e| format!("{key}-data: {e}"));
    }
    match str_at(holder, key) {
        "" => Ok(None),
        file => std::fs::read(dir.join(file)).map(Some).map_err(|e| format!("{file}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kubeconfig_says_where_and_who() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::pki::Pki::open(dir.path()).unwrap();
        let me = pki.issue_client("me", &[]).unwrap();
        std::fs::write(dir.path().join("token"), "secret\n").unwrap();
        let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://h:1/p", "certificate-authority": "ca.crt", "tls-server-name": "n"}}],
            "users": [{"name": "u", "user": {"client-certificate-data": STANDARD.encode(me.cert_pem),
                "client-key-data": STANDARD.encode(me.key_pem), "tokenFile": "token"}}]});
        let endpoint = of_config(&config, dir.path()).unwrap();
        assert_eq!(endpoint.url(""), "https://h:1/p");
        assert_eq!((endpoint.token.as_deref(), endpoint.verified_name().as_str()), (Some("secret"), "n"));
        assert!(endpoint.identity.is_some());
        for (path, value) in [
            ("/current-context", json!("x")),
            ("/clusters/0/cluster/server", json!("http://h")),
            ("/clusters/0/cluster/certificate-authority", json!("none")),
        ] {
            let mut bad = config.clone();
            *bad.pointer_mut(path).unwrap() = value;
            assert!(of_config(&bad, dir.path()).is_err(), "{path}");
        }
    }
}
