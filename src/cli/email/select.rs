//! Which emails a command concerns: its arguments, and the search for them in steps.

use std::fmt;
use std::ops::Range;

use chrono::TimeDelta;

use crate::accounts::email::Email;
use crate::cli::database::find_account;
use crate::cli::outcome::CommandFailure;
use crate::db::{self, Db};
use crate::mail::queue::{Selection, store};
use crate::outbox::EmailStatus;

/// Numbers of emails looked through per query, so that none takes long.
const STEP: i64 = 10_000;

#[derive(Debug, clap::Args)]
pub struct Filters {
    /// Only emails of the account of the person with this email address [default: of any account]
    #[arg(long, value_parser = Email::parse)]
    account: Option<Email>,
    /// Only emails that are held, deferred, delivered or failed; repeat for more
    #[arg(long = "state", value_name = "STATE", value_parser = status)]
    statuses: Vec<EmailStatus>,
    /// Only emails to this address; of emails whose content is deleted, only the first recipient and
    /// those refused are known
    #[arg(long, value_name = "ADDRESS", value_parser = Email::parse)]
    recipient: Option<Email>,
    /// Only emails sent with this key, by its number
    #[arg(long, value_name = "ID")]
    key: Option<i64>,
    /// Only emails accepted longer ago than this: 30m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<TimeDelta>,
    /// Only emails accepted within this time
    #[arg(long, value_name = "AGE", value_parser = age)]
    newer_than: Option<TimeDelta>,
}

fn status(text: &str) -> Result<EmailStatus, String> {
    EmailStatus::parse(text).ok_or_else(|| "say held, deferred, delivered or failed".to_owned())
}

fn age(text: &str) -> Result<TimeDelta, String> {
    let wrong = || "say a number of minutes, hours or days, such as 30m, 12h or 7d".to_owned();
    let minutes = match text.chars().last() {
        Some('m') => 1,
        Some('h') => 60,
        Some('d') => 24 * 60,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(TimeDelta::minutes(i64::from(count) * minutes))
}

impl Filters {
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
            && self.account.is_none()
            && self.recipient.is_none()
            && self.key.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
    }

    pub fn selection(&self, db: &Db, ids: &[i64]) -> Result<Selection, CommandFailure> {
        db.read_blocking(|conn| {
            let account = self.account.as_ref();
            let account = account.map(|email| find_account(conn, email)).transpose()?;
            let now = db::now(conn).map_err(db::Error::from)?;
            let ago = |age: Option<TimeDelta>| age.and_then(|age| now.checked_sub_signed(age));
            Ok(Selection {
                ids: ids.to_vec(),
                account,
                statuses: self.statuses.clone(),
                recipient: self.recipient.as_ref().map(ToString::to_string),
                key_id: self.key,
                before: ago(self.older_than),
                after: ago(self.newer_than),
            })
        })
    }
}

/// In words, for the account's activity.
impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses = self.statuses.iter().map(|status| status.as_str());
        let mut parts = vec![statuses.collect::<Vec<_>>().join(" or ")];
        parts.extend(self.recipient.as_ref().map(|email| format!("to {email}")));
        parts.extend(self.key.map(|id| format!("of the key {id}")));
        let minutes = |age: TimeDelta| format!("{} minutes", age.num_minutes());
        parts.extend(
            self.older_than
                .map(|age| format!("older than {}", minutes(age))),
        );
        parts.extend(
            self.newer_than
                .map(|age| format!("newer than {}", minutes(age))),
        );
        parts.retain(|part| !part.is_empty());
        match parts.is_empty() {
            true => f.write_str("all"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// The numbers of the selected emails, in steps.
pub struct Search<'a> {
    db: &'a Db,
    selection: &'a Selection,
    /// What is still to be looked through.
    left: Range<i64>,
    is_backwards: bool,
}

impl<'a> Search<'a> {
    /// From the oldest to the newest; emails that are accepted later are not found.
    pub fn new(db: &'a Db, selection: &'a Selection) -> db::Result<Self> {
        let newest = db.read_blocking(store::find_newest_of_any_account)?;
        let first = selection.ids.iter().min().copied().unwrap_or_default();
        let last = selection.ids.iter().max().copied().unwrap_or(newest);
        Ok(Self {
            db,
            selection,
            left: first..last.min(newest).saturating_add(1),
            is_backwards: false,
        })
    }

    /// From the newest to the oldest; the numbers of each step are still in order.
    pub fn backwards(self) -> Self {
        Self {
            is_backwards: true,
            ..self
        }
    }

    fn next_range(&mut self) -> Option<Range<i64>> {
        let Range { start, end } = self.left;
        if start >= end {
            return None;
        }
        let range = match self.is_backwards {
            true => start.max(end - STEP)..end,
            false => start..end.min(start + STEP),
        };
        self.left = match self.is_backwards {
            true => start..range.start,
            false => range.end..end,
        };
        Some(range)
    }
}

impl Iterator for Search<'_> {
    type Item = db::Result<Vec<i64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.next_range()?;
        let find = |conn: &mut _| store::select_of_any_account(conn, self.selection, &range);
        Some(self.db.read_blocking(find))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_minutes_hours_or_days() {
        assert_eq!(age("30m"), Ok(TimeDelta::minutes(30)));
        assert_eq!(age("12h"), Ok(TimeDelta::hours(12)));
        assert_eq!(age("7d"), Ok(TimeDelta::days(7)));
        assert_eq!(age("4294967295d"), Ok(TimeDelta::days(4_294_967_295)));
        for wrong in [
            "",
            "d",
            "7",
            "-1d",
            "1.5h",
            "7w",
            "7 d",
            "4294967296d",
            "7é",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
