//! How many emails were accepted, as numbers and as text for people.

use crate::number::{counted, grouped};

/// For a key or an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    pub last_24_hours: i64,
    /// Since the start of the month in UTC.
    pub this_month: i64,
}

impl Volume {
    /// `1,204 emails in the last 24 hours, 18,000 this month`
    pub fn label(&self) -> String {
        let (day, month) = (emails(self.last_24_hours), grouped(self.this_month));
        format!("{day} in the last 24 hours, {month} this month")
    }
}

/// `1,204 emails in the last 24 hours`; nothing if there were none.
pub fn daily_label(last_24_hours: i64) -> String {
    match last_24_hours {
        0 => String::new(),
        number => format!("{} in the last 24 hours", emails(number)),
    }
}

fn emails(number: i64) -> String {
    counted(number, "email")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_whole_numbers() {
        for (number, text) in [
            (0, ""),
            (1, "1 email in the last 24 hours"),
            (999, "999 emails in the last 24 hours"),
            (1_000, "1,000 emails in the last 24 hours"),
            (1_234_567, "1,234,567 emails in the last 24 hours"),
        ] {
            assert_eq!(daily_label(number), text);
        }
        let volume = Volume {
            last_24_hours: 0,
            this_month: 18_000,
        };
        assert_eq!(
            volume.label(),
            "0 emails in the last 24 hours, 18,000 this month"
        );
    }
}
