//! Schedules and time zones of CronJobs. What is a schedule at all, `machinery::cron` says.

use jiff::tz::TimeZone;
use machinery::cron::{self, Schedule};
use machinery::field::{Error, ErrorList, Path};
use serde_json::Value;

use crate::validate::tree::{opt_s, s};

/// `spec.schedule` and `spec.timeZone`; `before` is the old spec, null on create.
pub fn schedule(v: &Value, before: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (text, at) = (s(v, "schedule"), p.child("schedule"));
    let zone = opt_s(v, "timeZone");
    if text.is_empty() {
        e.push(Error::required(&at, ""));
    } else {
        if let Err(why) = Schedule::parse(text, TimeZone::UTC) {
            e.push(Error::invalid_str(&at, text, why));
        }
        // Only schedules that had a zone may keep one.
        match (text.contains("TZ"), s(before, "schedule").contains("TZ")) {
            (true, true) if zone.is_some() => {
                e.push(Error::invalid_str(&at, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule"));
            }
            (true, false) => {
                e.push(Error::invalid_str(&at, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
            }
            _ => {}
        }
    }
    if before.is_null() || opt_s(before, "timeZone") != zone {
        time_zone(zone, &p.child("timeZone"), e);
    }
}

fn time_zone(zone: Option<&str>, p: &Path<'_>, e: &mut ErrorList) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        e.push(Error::invalid_str(p, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        e.push(Error::invalid_str(p, zone, text));
        if zone != "Local" {
            e.push(Error::invalid_str(p, zone, format!("unknown time zone {zone}")));
        }
    } else if cron::time_zone(zone).is_none() {
        e.push(Error::invalid_str(p, zone, format!("unknown time zone {zone}")));
    }
}
