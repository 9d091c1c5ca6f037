//! Cron schedules: what is one, and when it comes next. Five fields, descriptors and `@every`, as upstream's parser (robfig/cron v3)
//! reads them, with its texts of errors. Used by the validation of CronJobs, their controller and the datastore's snapshots.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

#[derive(Debug)]
pub enum Schedule {
    Fields(Fields, TimeZone),
    Every(SignedDuration),
}

/// A bit per value.
#[derive(Debug)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both the day of the month and that of the week must match, as one of them is any.
    both_days: bool,
}

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minute, hour, day of month, month, day of week.
const BOUNDS: [Bounds; 5] = [
    Bounds { low: 0, high: 59, names: &[] },
    Bounds { low: 0, high: 23, names: &[] },
    Bounds { low: 1, high: 31, names: &[] },
    Bounds { low: 1, high: 12, names: &MONTHS },
    Bounds { low: 0, high: 6, names: &DAYS },
];

/// Years after which a schedule that never comes ("30 February") is given up.
const YEARS_MAX: i64 = 5;

/// A place's time zone by its name, spelt as the tz database does.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    let found = jiff::tz::TimeZoneDatabase::bundled().get(name).ok();
    found.filter(|zone| zone.iana_name() == Some(name) && !zone.is_unknown())
}

impl Schedule {
    /// Of a text that may name its own time zone, which upstream still obeys in old objects.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let (mut text, mut zone) = (text, zone);
        if let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, rest) = rest.split_once(' ').ok_or_else(|| "missing schedule".to_owned())?;
            zone = time_zone(name).ok_or_else(|| format!("provided bad location {name}: unknown time zone {name}"))?;
            text = rest.trim();
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(duration) = text.strip_prefix("@every ") {
            let nanos = crate::duration::parse(duration).map_err(|why| format!("failed to parse duration {text}: {why}"))?;
            return Ok(Self::Every(SignedDuration::from_secs((nanos / 1_000_000_000).max(1))));
        }
        if text.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let bits = |text: &str, at: usize| field(text, &BOUNDS[at]);
        let (minutes, hours) = (bits(minutes, 0)?.0, bits(hours, 1)?.0);
        let ((days, any_day), (months, _), (weekdays, any_weekday)) = (bits(days, 2)?, bits(months, 3)?, bits(weekdays, 4)?);
        let fields = Fields { minutes, hours, days, months, weekdays, both_days: any_day || any_weekday };
        Ok(Self::Fields(fields, zone))
    }

    /// The first time after one; `None` when there is none within years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second()).ok()?;
        match self {
            Self::Every(delay) => whole.checked_add(*delay).ok(),
            Self::Fields(fields, zone) => fields.next(whole, zone),
        }
    }
}

impl Fields {
    /// The first instant whose time of day at the place matches: a time that a clock change skips does not come, one that it
    /// repeats comes twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let end = after.checked_add(SignedDuration::from_hours(24 * 366 * YEARS_MAX)).ok()?;
        let local_second = i64::from(zone.to_datetime(after).second());
        let mut at = after.checked_add(SignedDuration::from_secs(60 - local_second)).ok()?;
        while at < end {
            let local = zone.to_datetime(at);
            let later = if !has(self.months, local.month()) {
                start_of(local.date().first_of_month().checked_add(1.month()).ok()?.at(0, 0, 0, 0), zone)?
            } else if !self.is_day(&local) {
                start_of(local.date().tomorrow().ok()?.at(0, 0, 0, 0), zone)?
            } else if !has(self.hours, local.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(local.minute()))).ok()?
            } else if !has(self.minutes, local.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at);
            };
            // Clocks that go back at midnight must not hold it up.
            at = if later > at { later } else { at.checked_add(SignedDuration::from_mins(60)).ok()? };
        }
        None
    }

    fn is_day(&self, local: &DateTime) -> bool {
        let day = has(self.days, local.day());
        let weekday = has(self.weekdays, local.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

fn start_of(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(local).ok()
}

/// The bits of a comma list, and whether it has an asterisk.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, star) = range(part, bounds)?;
        bits |= more;
        any |= star;
    }
    Ok((bits, any))
}

/// `*`, `1`, `1-5`, with `/step`: its bits, and whether it is any value.
fn range(part: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let pieces: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = if star {
        (bounds.low, bounds.high)
    } else {
        let start = number(ends[0], bounds)?;
        match ends[..] {
            [_] => (start, start),
            [_, end] => (start, number(end, bounds)?),
            _ => return Err(format!("too many hyphens: {part}")),
        }
    };
    let step = match pieces[..] {
        [_] => 1,
        [_, step] => {
            let step = plain(step)?;
            if ends.len() == 1 {
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
    let step_size = usize::try_from(step).unwrap_or(usize::MAX);
    Ok(((start..=end).step_by(step_size).fold(0, |bits, value| bits | 1 << value), star && step == 1))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let named = bounds.names.iter().position(|name| *name == lower).and_then(|at| u32::try_from(at).ok());
    named.map_or_else(|| plain(text), |at| Ok(at + bounds.low))
}

fn plain(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax", crate::field::go_quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn next_times() {
        for (schedule, zone, from, next) in [
            ("*/15 * * * *", "UTC", "2024-02-28T23:46:01Z", "2024-02-29T00:00:00Z"),
            ("5/20 * * * *", "UTC", "2024-01-01T00:05:00Z", "2024-01-01T00:25:00Z"),
            ("0 0 29 2 *", "UTC", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@weekly", "UTC", "2024-05-01T12:00:00Z", "2024-05-05T00:00:00Z"),
            ("0 9 * jan-mar mon-fri", "UTC", "2024-03-29T10:00:00Z", "2025-01-01T09:00:00Z"),
            // Either day counts when both are given, both when one has an asterisk.
            ("0 0 13 * 5", "UTC", "2024-09-10T00:00:00Z", "2024-09-13T00:00:00Z"),
            ("0 0 13 * 5", "UTC", "2024-09-13T00:00:00Z", "2024-09-20T00:00:00Z"),
            ("0 0 */2 * 5", "UTC", "2024-09-13T00:00:00Z", "2024-09-15T00:00:00Z"),
            ("30 8 * * *", "Asia/Kolkata", "2024-09-13T00:00:00Z", "2024-09-13T03:00:00Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", "UTC", "2024-09-13T00:00:00Z", "2024-09-14T00:00:00Z"),
            // The hour that is skipped in spring does not come, the one that is repeated in autumn comes twice.
            ("30 2 * * *", "America/New_York", "2012-03-11T00:00:00-05:00", "2012-03-12T02:30:00-04:00"),
            ("30 1 * * *", "America/New_York", "2012-11-04T00:00:00-04:00", "2012-11-04T01:30:00-04:00"),
            ("30 1 * * *", "America/New_York", "2012-11-04T01:45:00-04:00", "2012-11-04T01:30:00-05:00"),
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "2018-11-05T00:00:00-02:00"),
            ("@every 1h30m", "UTC", "2024-01-01T00:00:00.5Z", "2024-01-01T01:30:00Z"),
        ] {
            let parsed = Schedule::parse(schedule, time_zone(zone).unwrap()).unwrap();
            assert_eq!(parsed.next(at(from)), Some(at(next)), "{schedule} after {from}");
        }
        let never = Schedule::parse("0 0 30 2 *", TimeZone::UTC).unwrap();
        assert_eq!(never.next(at("2024-01-01T00:00:00Z")), None);
    }

    #[test]
    fn what_is_a_schedule() {
        let why = |text: &str| Schedule::parse(text, TimeZone::UTC).err().unwrap_or_default();
        for good in ["* * * * *", "*/5 0-6/2 1,15 jan-mar mon", "@hourly", "@every 1h30m", "? ? ? ? ?", "5/15 * * * *", "TZ=UTC * * * * *"]
        {
            assert_eq!(why(good), "", "{good}");
        }
        for (bad, wanted) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1/-2 * * * *", "negative number (-2) not allowed: -2"),
            ("a b c d e", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("99999999999 * * * *", "end of range (4294967295) above maximum (59): 99999999999"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=UTC", "missing schedule"),
            ("TZ=No/Where * * * * *", "provided bad location No/Where: unknown time zone No/Where"),
        ] {
            assert_eq!(why(bad), wanted, "{bad}");
        }
    }

    #[test]
    fn places() {
        for known in ["UTC", "Europe/Berlin", "US/Pacific", "America/Argentina/Buenos_Aires", "EST5EDT"] {
            assert!(time_zone(known).is_some(), "{known}");
        }
        for unknown in ["", "utc", "europe/berlin", "Etc/Unknown", "Europe/Atlantis", "../etc/passwd"] {
            assert!(time_zone(unknown).is_none(), "{unknown}");
        }
    }
}
