//! The class that is marked as default becomes that of claims (`DefaultStorageClass`) and Ingresses (`DefaultIngressClass`)
//! which name none. Of several, the newest.

use async_trait::async_trait;
use machinery::object::{map_mut, name, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

pub struct DefaultClass {
    /// Whose class it is: group and kind.
    of: (&'static str, &'static str),
    class: (&'static str, &'static str),
    /// Annotations on the class that mark it.
    marks: &'static [&'static str],
    /// The annotation on the object that once named the class.
    annotation: &'static str,
    field: &'static str,
}

pub static STORAGE: DefaultClass = DefaultClass {
    of: ("", "PersistentVolumeClaim"),
    class: ("storage.k8s.io", "StorageClass"),
    marks: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
    annotation: "volume.beta.kubernetes.io/storage-class",
    field: "storageClassName",
};

pub static INGRESS: DefaultClass = DefaultClass {
    of: ("networking.k8s.io", "Ingress"),
    class: ("networking.k8s.io", "IngressClass"),
    marks: &["ingressclass.kubernetes.io/is-default-class"],
    annotation: "kubernetes.io/ingress.class",
    field: "ingressClassName",
};

#[async_trait]
impl Plugin for DefaultClass {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is(self.of.0, self.of.1)
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let annotated = value["metadata"]["annotations"].get(self.annotation).is_some();
        let named = value["spec"].get(self.field).is_some_and(|class| !class.is_null());
        if annotated || named {
            return Ok(());
        }
        let is_default = |class: &Value| self.marks.iter().any(|mark| class["metadata"]["annotations"][*mark] == "true");
        let mut all: Vec<Value> = request.api.read_all(self.class.0, self.class.1, "").await?.into_iter().filter(is_default).collect();
        all.sort_by(|a, b| {
            let (one, other) = (str_at(a, "metadata.creationTimestamp"), str_at(b, "metadata.creationTimestamp"));
            other.cmp(one).then_with(|| name(a).cmp(name(b)))
        });
        if let Some(class) = all.first() {
            map_mut(value, "spec").insert(self.field.into(), json!(name(class)));
        }
        Ok(())
    }
}
