//! Parts of timestamps and durations.

use jiff::tz::{Offset, TimeZone};

use crate::decls::Row;
use crate::error::EvalError;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    (
        "getFullYear",
        |_, a| part(a, |z| i64::from(z.year())),
        &[("timestamp_to_year", "timestamp.() -> int"), ("timestamp_to_year_with_tz", "timestamp.(string) -> int")],
    ),
    (
        "getMonth",
        |_, a| part(a, |z| i64::from(z.month()) - 1),
        &[("timestamp_to_month", "timestamp.() -> int"), ("timestamp_to_month_with_tz", "timestamp.(string) -> int")],
    ),
    (
        "getDayOfYear",
        |_, a| part(a, |z| i64::from(z.day_of_year()) - 1),
        &[("timestamp_to_day_of_year", "timestamp.() -> int"), ("timestamp_to_day_of_year_with_tz", "timestamp.(string) -> int")],
    ),
    (
        "getDayOfMonth",
        |_, a| part(a, |z| i64::from(z.day()) - 1),
        &[("timestamp_to_day_of_month", "timestamp.() -> int"), ("timestamp_to_day_of_month_with_tz", "timestamp.(string) -> int")],
    ),
    (
        "getDate",
        |_, a| part(a, |z| i64::from(z.day())),
        &[
            ("timestamp_to_day_of_month_1_based", "timestamp.() -> int"),
            ("timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) -> int"),
        ],
    ),
    (
        "getDayOfWeek",
        |_, a| part(a, |z| i64::from(z.weekday().to_sunday_zero_offset())),
        &[("timestamp_to_day_of_week", "timestamp.() -> int"), ("timestamp_to_day_of_week_with_tz", "timestamp.(string) -> int")],
    ),
    (
        "getHours",
        |_, a| both(a, 3_600_000_000_000, |z| i64::from(z.hour())),
        &[
            ("timestamp_to_hours", "timestamp.() -> int"),
            ("timestamp_to_hours_with_tz", "timestamp.(string) -> int"),
            ("duration_to_hours", "duration.() -> int"),
        ],
    ),
    (
        "getMinutes",
        |_, a| both(a, 60_000_000_000, |z| i64::from(z.minute())),
        &[
            ("timestamp_to_minutes", "timestamp.() -> int"),
            ("timestamp_to_minutes_with_tz", "timestamp.(string) -> int"),
            ("duration_to_minutes", "duration.() -> int"),
        ],
    ),
    (
        "getSeconds",
        |_, a| both(a, 1_000_000_000, |z| i64::from(z.second())),
        &[
            ("timestamp_to_seconds", "timestamp.() -> int"),
            ("timestamp_to_seconds_tz", "timestamp.(string) -> int"),
            ("duration_to_seconds", "duration.() -> int"),
        ],
    ),
    (
        "getMilliseconds",
        |_, a| both(a, 1_000_000, |z| i64::from(z.subsec_nanosecond()) / 1_000_000),
        &[
            ("timestamp_to_milliseconds", "timestamp.() -> int"),
            ("timestamp_to_milliseconds_with_tz", "timestamp.(string) -> int"),
            ("duration_to_milliseconds", "duration.() -> int"),
        ],
    ),
];

fn both<'a>(args: &[Value<'a>], unit: i64, of: fn(&jiff::Zoned) -> i64) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(d) => Ok(Value::Int(d / unit)),
        _ => part(args, of),
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&jiff::Zoned) -> i64) -> Outcome<'a> {
    let Value::Timestamp(t) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let zone = match args.get(1) {
        None => TimeZone::UTC,
        Some(Value::String(name)) => zone(name)?,
        Some(_) => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Int(of(&t.to_zoned(zone))))
}

/// A name as `Europe/Berlin`, or hours and minutes as `-02:30`.
fn zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return if name.is_empty() { Ok(TimeZone::UTC) } else { TimeZone::get(name).map_err(|_| unknown()) };
    };
    let number = |text: &str| text.parse::<i32>().map_err(|_| EvalError::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minutes = if name.starts_with('-') { -minutes } else { minutes };
    let seconds = hours.checked_mul(3600).and_then(|h| h.checked_add(minutes.checked_mul(60)?)).ok_or_else(unknown)?;
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}
