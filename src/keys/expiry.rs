//! When a key expires.

use chrono::{Days, Months, NaiveDate, NaiveDateTime, TimeDelta};

use crate::clock;

/// The choices that the form offers, in days.
pub const DAYS: [i64; 4] = [7, 30, 90, 365];
const MOST_YEARS: u32 = 10;

/// An instant in the future, at most ten years ahead; or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(Option<NaiveDateTime>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExpiry {
    #[error("Choose when the key expires.")]
    Missing,
    #[error("Enter a day such as 2027-12-31.")]
    Malformed,
    #[error("This is in the past. Choose a later time.")]
    Past,
    #[error("Choose a time within the next 10 years, or no expiry.")]
    TooFar,
}

impl Expiry {
    pub const NEVER: Self = Self(None);

    /// Parses the form's value: `none`, a number of days from now, or `date` with the last day
    /// (UTC) on which the key works.
    pub fn parse(choice: &str, date: &str) -> Result<Self, InvalidExpiry> {
        Self::parse_at(choice, date, clock::now())
    }

    fn parse_at(choice: &str, date: &str, now: NaiveDateTime) -> Result<Self, InvalidExpiry> {
        match choice {
            "none" => Ok(Self::NEVER),
            "date" => Self::at_from(end_of_day(date)?, now),
            days => match days.parse() {
                Ok(days) if DAYS.contains(&days) => Self::at_from(now + TimeDelta::days(days), now),
                _ => Err(InvalidExpiry::Missing),
            },
        }
    }

    /// Parses the command line's value: `none`, a number of days (`90d`), or what
    /// [`Self::parse_instant`] accepts.
    pub fn parse_text(text: &str) -> Result<Self, InvalidExpiry> {
        let now = clock::now();
        if text == "none" {
            return Ok(Self::NEVER);
        }
        match text.strip_suffix('d') {
            Some(days) => {
                let days: u32 = days.parse().map_err(|_| InvalidExpiry::Malformed)?;
                let at = now.checked_add_signed(TimeDelta::days(days.into()));
                Self::at_from(at.ok_or(InvalidExpiry::TooFar)?, now)
            }
            None => Self::at_from(Self::parse_instant(text)?, now),
        }
    }

    /// The end of a last day, or an instant (RFC 3339); does not check that it is in the future.
    pub fn parse_instant(text: &str) -> Result<NaiveDateTime, InvalidExpiry> {
        match chrono::DateTime::parse_from_rfc3339(text) {
            Ok(at) => Ok(clock::to_microseconds(at.naive_utc())),
            Err(_) => end_of_day(text),
        }
    }

    /// An expiry that was checked when it was stored; it may have passed since.
    pub fn known(at: Option<NaiveDateTime>) -> Self {
        Self(at)
    }

    pub fn at(at: NaiveDateTime) -> Result<Self, InvalidExpiry> {
        Self::at_from(at, clock::now())
    }

    fn at_from(at: NaiveDateTime, now: NaiveDateTime) -> Result<Self, InvalidExpiry> {
        if at <= now {
            return Err(InvalidExpiry::Past);
        }
        match now.checked_add_months(Months::new(12 * MOST_YEARS)) {
            // One day more, because a date means the end of that day.
            Some(latest) if at <= latest + TimeDelta::days(1) => {
                Ok(Self(Some(clock::to_microseconds(at))))
            }
            _ => Err(InvalidExpiry::TooFar),
        }
    }

    pub fn instant(self) -> Option<NaiveDateTime> {
        self.0
    }
}

fn end_of_day(text: &str) -> Result<NaiveDateTime, InvalidExpiry> {
    let day = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d");
    let day = day.map_err(|_| InvalidExpiry::Malformed)?;
    let end = day.checked_add_days(Days::new(1));
    Ok(end
        .ok_or(InvalidExpiry::TooFar)?
        .and_time(Default::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    fn parse(choice: &str, date: &str) -> Result<Option<NaiveDateTime>, InvalidExpiry> {
        Expiry::parse_at(choice, date, instant("2026-11-24T10:00:00")).map(Expiry::instant)
    }

    #[test]
    fn a_number_of_days_counts_from_now() {
        assert_eq!(parse("none", ""), Ok(None));
        assert_eq!(parse("7", ""), Ok(Some(instant("2026-12-01T10:00:00"))));
        assert_eq!(parse("365", ""), Ok(Some(instant("2027-11-24T10:00:00"))));
    }

    #[test]
    fn a_date_is_the_last_day_on_which_the_key_works() {
        let midnight = Some(instant("2026-11-25T00:00:00"));
        assert_eq!(parse("date", "2026-11-24"), Ok(midnight));
        assert_eq!(parse("date", "2026-11-23"), Err(InvalidExpiry::Past));
    }

    #[test]
    fn ten_years_are_the_most() {
        assert!(parse("date", "2036-11-24").is_ok());
        for far in ["2036-11-26", "9999-12-31"] {
            assert_eq!(parse("date", far), Err(InvalidExpiry::TooFar), "{far}");
        }
    }

    #[test]
    fn what_is_no_choice_is_never_taken_for_no_expiry() {
        for missing in ["", "0", "8", "-7", "never", "None"] {
            assert_eq!(parse(missing, ""), Err(InvalidExpiry::Missing), "{missing}");
        }
        for malformed in ["", "tomorrow", "24.11.2026", "2026-13-01"] {
            assert_eq!(parse("date", malformed), Err(InvalidExpiry::Malformed));
        }
    }

    #[test]
    fn the_command_line_takes_instants_too() {
        let at = clock::now() + TimeDelta::days(3);
        let text = at.and_utc().to_rfc3339();
        assert_eq!(Expiry::parse_text(&text).unwrap().instant(), Some(at));
        let days = Expiry::parse_text("90d").unwrap().instant().unwrap();
        assert!((days - clock::now()).num_days() >= 89);
        assert_eq!(Expiry::parse_text("2020-01-01"), Err(InvalidExpiry::Past));
        for far in ["99999d", "4294967295d"] {
            assert_eq!(Expiry::parse_text(far), Err(InvalidExpiry::TooFar));
        }
        assert_eq!(Expiry::parse_text("soon"), Err(InvalidExpiry::Malformed));
    }
}
