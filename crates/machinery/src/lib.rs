//! Kubernetes API machinery: names, field errors, statuses, quantities, selectors, schemas, patches.
//!
//! Everything here is pure: no clock, no randomness, no sockets, no files. It knows no resource by name;
//! `kinds` holds the table of those, `apiserver` the verbs.

pub mod apply;
pub mod cron;
pub mod decode;
pub mod defaults;
pub mod duration;
pub mod field;
pub mod fieldselector;
pub mod go_mail;
pub mod go_url;
pub mod gotime;
pub mod gvk;
pub mod intstr;
pub mod json;
pub mod labels;
pub mod metadata;
pub mod names;
pub mod names_net;
pub mod object;
pub mod patch;
pub mod proto;
pub mod quantity;
pub mod re2;
pub mod requests;
pub mod schema;
pub mod status;
pub mod structural;
pub mod time;
pub mod yaml;
