//! Accounts, users, sessions and sign-in attempts in the database.

mod account;
mod attempts;
mod end;
pub mod events;
mod id;
mod passwords;
pub mod sessions;
mod users;

pub use account::{
    Account, AccountLine, CreateAccountError, NewAccount, count_key, create, create_first,
    exists_any, find, find_id_by_email, lock, pause_again_of_any_account, rename, set_status,
    uncount_key,
};
pub use attempts::{begin_attempt, bound_attempts, forget_attempts};
pub use end::{
    end, find_ended_of_any_account, find_to_end_again_of_any_account, remove, remove_some_events,
};
pub use id::{AccountId, AccountStatus};
pub use passwords::{PasswordError, change_password, set_password};
pub use users::{
    Credentials, Member, Person, User, find_credentials, find_credentials_of_user, find_people,
    find_user, list_members, rehash_password,
};
