//! Totals of emails, and undelivered emails, in the database.

mod totals;
mod waiting;

pub use totals::{
    Accepted, count_emails_of_domains, count_emails_of_keys, count_in_of_any_account,
    forget_hours_of_any_account, needed_since_of_any_account, remove_some_counts,
    volume_of_account, volume_of_key,
};
pub use waiting::{
    RELAY_REFUSES, Waiting, count_waiting_emails, count_waiting_of_any_account, refusal_by_relay,
};
