//! Totals of emails, and undelivered emails, in the database.

mod totals;
mod waiting;

pub use totals::{
    HourOfEmails, count_emails_of_domains, count_emails_of_keys, countable_from_of_any_account,
    counted_for_good_of_any_account, find_hour_of_any_account, is_counted_ahead_of_any_account,
    recount_of_any_account, remove_some_counts, volume_of_account, volume_of_key,
    write_hour_of_any_account,
};
pub use waiting::{
    RELAY_REFUSES, Waiting, count_waiting_emails, count_waiting_of_any_account, refusal_by_relay,
};
