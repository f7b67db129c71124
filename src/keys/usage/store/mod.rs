//! The usage of keys in the database.

mod calls;
mod uses;

pub use calls::{
    count_calls_of_any_account, count_refused_of_any_account, days_of_keys,
    forget_calls_of_any_account, has_accepted_calls, history, remove_some_calls,
};
pub use uses::{pull_back_uses_of_any_account, record_uses_of_any_account};
