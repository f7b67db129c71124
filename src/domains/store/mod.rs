//! Sending domains in the database.

mod add;
mod attest;
mod check;
mod delete;
mod dkim_keys;
mod domain;
mod records;
mod release;
mod row;

pub use super::status::DomainStatus;
pub use add::{Added, add, refusal};
pub use attest::{set_status, unattest};
pub use check::{claim, find_due_of_any_account, pull_back_of_any_account, settle};
pub use delete::{Deleted, DeletedDomain, delete, delete_again_of_any_account, list_keys};
pub use dkim_keys::{
    DomainKey, Signing, find_key, find_signing_of_any_account, give_key, list_sealed,
    list_sealed_after_of_any_account, list_sealed_of_any_account, replace_key, replace_lost_key,
    reseal_of_any_account,
};
pub use domain::{Domain, find, find_by_name, is_verified_elsewhere, list};
pub use records::{Records, find_records};
pub use release::{release_all, remove_some};
