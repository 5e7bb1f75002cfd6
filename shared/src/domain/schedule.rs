//! Times by a clock on the wall: time zones, and the hours of a day in which nothing is sent.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reason of a job that waits for the end of its quiet hours.
pub const QUIET_HOURS: &str = "quiet_hours";
/// The reason of contacts that were not reached before the end of their broadcast.
pub const EXPIRED: &str = "expired";
/// The form of a time of day.
const TIME_OF_DAY: &str = "%H:%M";

/// A time zone of the IANA database, such as `Asia/Manila`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, examples("Asia/Manila"))]
pub struct Zone(TimeZone);

/// The name of no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time zone of the IANA database")]
pub struct UnknownZone;

impl Zone {
    /// Finds a time zone by its name, in upper or lower case.
    ///
    /// # Errors
    /// If the database has none of that name.
    pub fn parse(name: &str) -> Result<Self, UnknownZone> {
        let zone = database().get(name).map_err(|_| UnknownZone)?;
        match zone.is_unknown() || zone.iana_name().is_none() {
            true => Err(UnknownZone),
            false => Ok(Self(zone)),
        }
    }

    /// Returns the names of all time zones.
    pub fn names() -> Vec<String> {
        database().available().map(|name| name.to_string()).collect()
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or_default()
    }

    /// Reads a time: by the clock of this zone, or with an offset, which must be the zone's at that time; or with `Z`. A time
    /// that a change of the clock skips is read as the one that is later by the length of the gap, and one that it repeats as the
    /// first of the two.
    pub fn read(&self, text: &str) -> Option<Timestamp> {
        let is_whole = text.contains(['T', 't', ' ']) && !text.contains('[');
        let zoned = format!("{text}[{}]", self.name());
        let parser = jiff::fmt::temporal::DateTimeParser::new();
        let read = parser.parse_zoned_datetime_with(database(), &zoned).ok()?;
        is_whole.then(|| read.timestamp())
    }

    /// Writes a time with the offset and the name of this zone (RFC 9557).
    pub fn write(&self, time: Timestamp) -> String {
        time.to_zoned_datetime(self.0.clone()).to_string()
    }
}

/// The database in the executable: every process has the same one.
fn database() -> &'static TimeZoneDatabase {
    static DATABASE: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
    &DATABASE
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;

    fn try_from(name: String) -> Result<Self, UnknownZone> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// A time of day, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", examples("21:00"))]
pub struct TimeOfDay(Time);

impl TimeOfDay {
    /// Parses a time of day.
    ///
    /// # Errors
    /// If it is not `00:00` to `23:59`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be a time of day from 00:00 to 23:59, such as 21:00";
        let time = Time::strptime(TIME_OF_DAY, text).map_err(|_| WRONG)?;
        let time = Self(time);
        if time.to_string() == text { Ok(time) } else { Err(WRONG) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text)
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// Hours of each day in which nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"from": "21:00", "to": "08:00", "time_zone": "Asia/Manila"})))]
pub struct QuietHours {
    /// The time of day from which nothing is sent.
    pub from: TimeOfDay,
    /// The time of day from which messages are sent again; on the next day, if it is before `from`.
    pub to: TimeOfDay,
    /// The time zone of both.
    pub time_zone: Zone,
}

impl QuietHours {
    /// Returns the end of the quiet hours if they are on at this time.
    pub fn end(&self, now: Timestamp) -> Option<Timestamp> {
        let (TimeOfDay(from), TimeOfDay(to), Zone(zone)) = (self.from, self.to, &self.time_zone);
        let local = now.to_zoned_datetime(zone.clone()).datetime();
        let time = local.time();
        let over_midnight = from > to;
        let is_on = match over_midnight {
            false => (from..to).contains(&time),
            true => time >= from || time < to,
        };
        if !is_on {
            return None;
        }
        let day = match over_midnight && time >= from {
            true => local.date().tomorrow().ok()?,
            false => local.date(),
        };
        let end = zone.to_ambiguous_timestamp(day.to_datetime(to));
        // When a change of the clock repeats the end, the first of the two may have passed.
        let ends = [end.compatible(), end.later()];
        ends.into_iter().flatten().find(|end| *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn quiet(from: &str, to: &str, zone: &str) -> QuietHours {
        QuietHours {
            from: TimeOfDay::parse(from).unwrap(),
            to: TimeOfDay::parse(to).unwrap(),
            time_zone: Zone::parse(zone).unwrap(),
        }
    }

    #[test]
    fn zone_is_found_in_any_case_and_has_its_own_name() {
        assert_eq!(Zone::parse("asia/manila").unwrap().name(), "Asia/Manila");
        for name in ["", "Asia/Manilla", "local", "Etc/Unknown", "+08:00"] {
            assert_eq!(Zone::parse(name), Err(UnknownZone), "{name:?}");
        }
        assert!(Zone::names().iter().any(|name| name == "Asia/Manila"));
    }

    #[test]
    fn local_time_is_read_by_the_clock_of_the_zone() {
        let manila = Zone::parse("Asia/Manila").unwrap();
        let nine = Some(at("2026-12-01T01:00:00Z"));
        for text in [
            "2026-12-01T09:00",
            "2026-12-01T09:00:00",
            "2026-12-01T09:00+08:00",
            "2026-12-01T01:00Z",
        ] {
            assert_eq!(manila.read(text), nine, "{text}");
        }
        for text in [
            "2026-12-01",
            "2026-12-01T09:00+07:00",
            "2026-12-01T09:00[Asia/Tokyo]",
            "09:00",
            "tomorrow",
            "",
        ] {
            assert_eq!(manila.read(text), None, "{text}");
        }
        assert_eq!(
            manila.write(at("2026-12-01T01:00:00Z")),
            "2026-12-01T09:00:00+08:00[Asia/Manila]"
        );
    }

    #[test]
    fn skipped_time_is_later_by_the_gap_and_repeated_time_is_the_first() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        assert_eq!(berlin.read("2026-03-29T02:30"), Some(at("2026-03-29T01:30:00Z")));
        assert_eq!(berlin.read("2026-10-25T02:30"), Some(at("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn quiet_hours_end_on_the_next_day_if_they_pass_midnight() {
        let night = quiet("21:00", "08:00", "Asia/Manila");
        assert_eq!(night.end(at("2026-12-01T12:59:59Z")), None);
        assert_eq!(night.end(at("2026-12-01T13:00:00Z")), Some(at("2026-12-02T00:00:00Z")));
        assert_eq!(night.end(at("2026-12-01T23:59:59Z")), Some(at("2026-12-02T00:00:00Z")));
        assert_eq!(night.end(at("2026-12-02T00:00:00Z")), None);
        let noon = quiet("12:00", "13:00", "UTC");
        assert_eq!(noon.end(at("2026-12-01T12:30:00Z")), Some(at("2026-12-01T13:00:00Z")));
        assert_eq!(noon.end(at("2026-12-01T13:00:00Z")), None);
    }

    /// The clock goes back from three to two in the night of the 25th, and forward from two to three in that of the 29th.
    #[test]
    fn quiet_hours_end_when_the_clock_is_changed_within_them() {
        let night = quiet("01:00", "02:30", "Europe/Berlin");
        assert_eq!(night.end(at("2026-10-25T00:10:00Z")), Some(at("2026-10-25T00:30:00Z")));
        assert_eq!(night.end(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T01:30:00Z")));
        assert_eq!(night.end(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:30:00Z")));
        assert_eq!(night.end(at("2026-03-29T01:00:00Z")), None);
    }

    #[test]
    fn time_of_day_has_two_digits_each() {
        assert_eq!(TimeOfDay::parse("08:05").unwrap().to_string(), "08:05");
        for text in ["8:05", "24:00", "08:60", "08:05:00", "", "noon"] {
            assert!(TimeOfDay::parse(text).is_err(), "{text}");
        }
    }
}
