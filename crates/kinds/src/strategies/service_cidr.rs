//! ServiceCIDRs and IPAddresses.

use machinery::field::{Error, ErrorList, Path};
use machinery::names::Problems;
use machinery::names_net;
use serde_json::{Value, json};

use super::workload::{StatusOnly, keep_status, reset_status};
use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::conditions::segment;
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, dns_subdomain, named};
use crate::validate::tree::{at, opt, s, same_at, strings};

pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        reset_status(object, "networking.v1.ServiceCIDRStatus");
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, empty, p) = (ErrorList::new(), json!({}), Path::new("spec"));
        let v = opt(object, "spec").unwrap_or(&empty);
        let cidrs: Vec<&str> = strings(v, "cidrs").collect();
        let at_cidrs = p.child("cidrs");
        if cidrs.is_empty() {
            e.push(Error::required(&at_cidrs, "at least one CIDR required"));
            return e;
        }
        if cidrs.len() > 2 {
            let text = "may only hold up to 2 values";
            e.push(go::invalid(&at_cidrs, v, "networking.v1.ServiceCIDRSpec", text));
            return e;
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            e.extend(names_net::cidr(&at_cidrs.index(i), cidr));
        }
        let families: Vec<bool> = cidrs.iter().filter_map(|c| names_net::parse_cidr_sloppy(c)).map(|(ip, _)| ip.is_ipv4()).collect();
        if families.len() == 2 && families[0] == families[1] {
            let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            e.push(go::invalid(&at_cidrs, v, "networking.v1.ServiceCIDRSpec", text));
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !same_at(new, old, "spec.cidrs") {
            let at_cidrs = Path::new("spec.cidrs");
            e.push(Error::invalid(&at_cidrs, at(new, "spec.cidrs").unwrap_or(&Value::Null), IMMUTABLE));
        }
        e
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&StatusOnly(|_, _, _| {}) as &dyn Strategy)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let cidrs: Vec<&str> = at(o, "spec").map_or_else(Vec::new, |v| strings(v, "cidrs").collect());
        Some(vec![name(o), json!(cidrs.join(",")), age(o, now)])
    }
}

pub struct IpAddresses;

impl Strategy for IpAddresses {
    fn suffixes_names(&self) -> bool {
        false
    }

    fn name_problems(&self, _object: &Value, name: &str, _prefix: bool) -> Problems {
        names_net::ip(&Path::new("name"), name).into_iter().map(|e| e.detail.into()).collect()
    }

    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("spec.parentRef"));
        let Some(v) = at(object, "spec.parentRef") else {
            e.push(Error::required(&p, ""));
            return e;
        };
        if !s(v, "group").is_empty() {
            dns_subdomain(&p.child("group"), s(v, "group"), &mut e);
        }
        segment(v, "resource", &p, "", &mut e);
        segment(v, "name", &p, "", &mut e);
        let namespace = s(v, "namespace");
        named(&p.child("namespace"), namespace, machinery::names::path_segment(namespace, false), &mut e);
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !same_at(new, old, "spec.parentRef") {
            let p = Path::new("spec.parentRef");
            e.push(match at(new, "spec.parentRef") {
                Some(v) => go::invalid(&p, v, "networking.v1.ParentReference", IMMUTABLE),
                None => Error::invalid(&p, &Value::Null, IMMUTABLE),
            });
        }
        e
    }

    /// Upstream's rows have an age that no column names.
    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let parent = at(o, "spec.parentRef").map_or_else(|| "<none>".to_owned(), parent_text);
        Some(vec![name(o), json!(parent), age(o, now)])
    }
}

fn parent_text(v: &Value) -> String {
    let mut resource = s(v, "resource").to_owned();
    if !s(v, "group").is_empty() {
        resource = format!("{resource}.{}", s(v, "group"));
    }
    match s(v, "namespace") {
        "" => format!("{}/{}", resource.to_lowercase(), s(v, "name")),
        namespace => format!("{}/{namespace}/{}", resource.to_lowercase(), s(v, "name")),
    }
}
