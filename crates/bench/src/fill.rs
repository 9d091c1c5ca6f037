//! Many objects in a store of the embedded engine, written without a server: what one made through a server looks like, under
//! other names. Used by `start` and `million`; the server must not run meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use store::{Embedded, Expect, Key, Op, Store};
use tokio::task::JoinSet;

use crate::api::{self, CORE, NAMESPACE};
use crate::connection::{Call, Connection};

const WRITERS: usize = 256;
const ENV_OF_3_KB: usize = 6;
/// Stands in the templates where the name goes.
const NAME: &str = "name-of-the-object";

/// An object as it is stored, but for its name.
#[derive(Clone)]
pub struct Template {
    prefix: &'static str,
    text: String,
}

/// One of 1 KiB.
pub async fn config_map(admin: &mut Connection) -> Result<Template> {
    let body = api::config_map(NAME);
    template(admin, "configmaps", "/registry/configmaps", &body).await
}

/// One of 3 KB as it is stored, with a status.
pub async fn pod(admin: &mut Connection) -> Result<Template> {
    let mut pod = api::pod(NAME);
    // Managed fields are half of what is stored.
    if let Some(env) = pod.pointer_mut("/spec/containers/0/env").and_then(serde_json::Value::as_array_mut) {
        env.truncate(ENV_OF_3_KB);
    }
    template(admin, "pods", "/registry/pods", &pod).await
}

async fn template(admin: &mut Connection, resource: &str, prefix: &'static str, body: &serde_json::Value) -> Result<Template> {
    api::prepare_namespace(admin).await?;
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/{resource}");
    admin.text(Call::json(Method::POST, collection.clone(), body), &[409]).await?;
    let made = admin.text(Call::get(format!("{collection}/{NAME}")), &[]).await?;
    let text = String::from_utf8(made.to_vec())?;
    let call = Call::json(Method::DELETE, format!("{collection}/{NAME}"), &json!({"gracePeriodSeconds": 0}));
    admin.text(call, &[]).await?;
    // What is stored carries no revision: it is put in by whoever reads.
    let begin = text.find("\"resourceVersion\":").context("the object has no resourceVersion")?;
    let end = begin + text[begin..].find(',').context("the resourceVersion stands last")? + 1;
    Ok(Template { prefix, text: format!("{}{}", &text[..begin], text[end..].trim_end()) })
}

impl Template {
    /// In the cluster's form, under a name.
    fn object(&self, n: usize) -> (Key, Bytes) {
        let name = format!("o{n:07}");
        (Arc::from(format!("{}/{NAMESPACE}/{name}", self.prefix)), self.text.replace(NAME, &name).into())
    }

    pub fn bytes(&self) -> usize {
        self.object(0).1.len()
    }
}

pub fn named(template: Template, count: usize) -> impl Iterator<Item = (Key, Bytes)> + Send + 'static {
    (0..count).map(move |n| template.object(n))
}

/// Writes them all.
pub async fn store(dir: &Path, objects: impl Iterator<Item = (Key, Bytes)> + Send + 'static) -> Result<()> {
    let store = Arc::new(Embedded::open(dir, store::Options::default())?);
    let objects = Arc::new(Mutex::new(objects));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, objects) = (store.clone(), objects.clone());
        writers.spawn(async move {
            loop {
                let next = objects.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((key, value)) = next else { return anyhow::Ok(()) };
                store.write(Op::Put { key, value, expect: Expect::Anything, ttl: None }).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}
