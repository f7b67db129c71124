//! How many emails were sent, for the list of keys.

use std::collections::HashMap;

use crate::accounts::store::User;
use crate::db;
use crate::http::{Context, Error};
use crate::outbox::{Volume, store as outbox_store};

/// Emails in the last 24 hours.
pub struct Emails {
    /// Per key, for the keys that sent any.
    pub of_keys: HashMap<i64, i64>,
    /// The total of the account.
    pub of_account: Volume,
}

pub async fn emails_of(context: &Context, user: &User, ids: Vec<i64>) -> Result<Emails, Error> {
    let account = user.account;
    Ok(context
        .db
        .read(move |conn| {
            Ok::<_, db::Error>(Emails {
                of_keys: outbox_store::count_emails_of_keys(conn, account, &ids)?,
                of_account: outbox_store::volume_of_account(conn, account)?,
            })
        })
        .await?)
}
