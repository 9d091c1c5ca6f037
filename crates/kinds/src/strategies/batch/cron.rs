//! Cron schedules: the five-field grammar with its descriptors, checked as upstream's parser does; and time zones by name.

use machinery::field::{Error, ErrorList, Path};
use serde_json::Value;

use crate::validate::tree::{opt_s, s};

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minute, hour, day of month, month, day of week.
const FIELDS: [Bounds; 5] = [
    Bounds { low: 0, high: 59, names: &[] },
    Bounds { low: 0, high: 23, names: &[] },
    Bounds { low: 1, high: 31, names: &[] },
    Bounds { low: 1, high: 12, names: &MONTHS },
    Bounds { low: 0, high: 6, names: &DAYS },
];

/// `spec.schedule` and `spec.timeZone`; `before` is the old spec, null on create.
pub fn schedule(v: &Value, before: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (text, at) = (s(v, "schedule"), p.child("schedule"));
    let zone = opt_s(v, "timeZone");
    if text.is_empty() {
        e.push(Error::required(&at, ""));
    } else {
        if let Err(why) = parse(text) {
            e.push(Error::invalid_str(&at, text, why));
        }
        if text.contains("TZ") && (before.is_null() || !s(before, "schedule").contains("TZ")) {
            e.push(Error::invalid_str(&at, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
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
    } else if !known_zone(zone) {
        e.push(Error::invalid_str(p, zone, format!("unknown time zone {zone}")));
    }
}

/// Names as the tz database has them. Whether a place exists is for whoever has the database: only the form is judged here.
fn known_zone(zone: &str) -> bool {
    const ALONE: [&str; 28] = [
        "UTC",
        "GMT",
        "UCT",
        "Zulu",
        "Universal",
        "Greenwich",
        "CET",
        "CST6CDT",
        "Cuba",
        "EET",
        "EST",
        "EST5EDT",
        "Egypt",
        "Eire",
        "GB",
        "HST",
        "Hongkong",
        "Iran",
        "Israel",
        "Japan",
        "MET",
        "MST",
        "MST7MDT",
        "PST8PDT",
        "Poland",
        "Singapore",
        "Turkey",
        "WET",
    ];
    const AREAS: [&str; 16] = [
        "Africa",
        "America",
        "Antarctica",
        "Arctic",
        "Asia",
        "Atlantic",
        "Australia",
        "Brazil",
        "Canada",
        "Chile",
        "Etc",
        "Europe",
        "Indian",
        "Mexico",
        "Pacific",
        "US",
    ];
    match zone.split_once('/') {
        None => ALONE.contains(&zone),
        Some((area, place)) => {
            AREAS.contains(&area) && !place.is_empty() && place.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+/".contains(&b))
        }
    }
}

fn parse(text: &str) -> Result<(), String> {
    let mut text = text;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (zone, rest) = text.split_once(' ').ok_or_else(|| "missing schedule".to_owned())?;
        let name = zone.split_once('=').map_or("", |(_, name)| name);
        if !known_zone(name) {
            return Err(format!("provided bad location {name}: unknown time zone {name}"));
        }
        text = rest.trim();
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, &bounds)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(()),
        _ => match text.strip_prefix("@every ") {
            Some(duration) => {
                machinery::duration::parse(duration).map(|_| ()).map_err(|why| format!("failed to parse duration {text}: {why}"))
            }
            None => Err(format!("unrecognized descriptor: {text}")),
        },
    }
}

/// `*`, `1`, `1-5`, with `/step`.
fn range(part: &str, bounds: &Bounds) -> Result<(), String> {
    let pieces: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let (start, mut end);
    if matches!(ends[0], "*" | "?") {
        (start, end) = (bounds.low, bounds.high);
    } else {
        start = number(ends[0], bounds)?;
        end = match ends.len() {
            1 => start,
            2 => number(ends[1], bounds)?,
            _ => return Err(format!("too many hyphens: {part}")),
        };
    }
    let step = match pieces.len() {
        1 => 1,
        2 => {
            let step = plain(pieces[1])?;
            if ends.len() == 1 && !matches!(ends[0], "*" | "?") {
                end = bounds.high;
            }
            step
        }
        _ => return Err(format!("too many slashes: {part}")),
    };
    if start < bounds.low {
        return Err(format!("beginning of range ({start}) below minimum ({}): {part}", bounds.low));
    }
    if end > bounds.high {
        return Err(format!("end of range ({end}) above maximum ({}): {part}", bounds.high));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    if let Some(at) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(u32::try_from(at).unwrap_or(0) + bounds.low);
    }
    plain(text)
}

fn plain(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(_) => {
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax", machinery::field::go_quote(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6/2 1,15 jan-mar mon", "@hourly", "@every 1h30m", "? ? ? ? ?", "5/15 * * * *"] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a b c d e", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
