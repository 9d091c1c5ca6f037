//! Rows of Services and what belongs to them.

use serde_json::{Value, json};

use super::apps::map_text;
use super::{age, name};
use crate::validate::tree::{at, int0, list, opt, s, strings};

pub fn service(o: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let v = opt(o, "spec").unwrap_or(&empty);
    let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let ip = strings(v, "clusterIPs").next().unwrap_or_else(|| s(v, "clusterIP"));
    vec![
        name(o),
        json!(s(v, "type")),
        json!(or_none(ip)),
        json!(external(o, v)),
        json!(ports(v)),
        age(o, now),
        map_text(opt(v, "selector")),
    ]
}

fn external(o: &Value, v: &Value) -> String {
    let own: Vec<&str> = strings(v, "externalIPs").collect();
    let ingress = at(o, "status.loadBalancer").map_or(&[][..], |lb| list(lb, "ingress"));
    let given: Vec<&str> = ingress.iter().map(|i| if s(i, "ip").is_empty() { s(i, "hostname") } else { s(i, "ip") }).collect();
    match s(v, "type") {
        "ExternalName" => s(v, "externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = given.join(",");
            if !own.is_empty() {
                let mut parts: Vec<&str> = if all.is_empty() { Vec::new() } else { all.split(',').collect() };
                parts.extend(own);
                all = parts.join(",");
            }
            if all.is_empty() { "<pending>".to_owned() } else { all }
        }
        "" => "<unknown>".to_owned(),
        _ if own.is_empty() => "<none>".to_owned(),
        _ => own.join(","),
    }
}

fn ports(v: &Value) -> String {
    let texts: Vec<String> = list(v, "ports")
        .iter()
        .map(|p| match int0(p, "nodePort") {
            0 => format!("{}/{}", int0(p, "port"), s(p, "protocol")),
            node => format!("{}:{node}/{}", int0(p, "port"), s(p, "protocol")),
        })
        .collect();
    if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") }
}
