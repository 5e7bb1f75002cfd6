//! Durations as they are written on the command line: `500ms`, `60s`, `2m`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number above 0 and a unit, such as 500ms, 60s or 2m")]
pub struct ParseError;

/// Parses a duration; 0 is none, for nothing here can wait that long.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(ParseError)?;
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| ParseError)?;
    let number = u64::from(number);
    match unit {
        _ if number == 0 => Err(ParseError),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(ParseError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for text in [
            "",
            "s",
            "60",
            "0s",
            "-1s",
            "1.5s",
            "60 s",
            "1h",
            "99999999999s",
        ] {
            assert_eq!(parse(text), Err(ParseError), "{text}");
        }
    }
}
