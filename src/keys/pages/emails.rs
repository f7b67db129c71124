//! How many emails were sent, as the list of keys shows it.

use std::collections::HashMap;

use crate::accounts::store::User;
use crate::db;
use crate::http::{Context, Error};
use crate::outbox::{Volume, store as outbox_store};

/// How many emails there were in the last 24 hours.
pub struct Emails {
    /// Of each of some keys, if it had any.
    pub of_keys: HashMap<i64, i64>,
    /// Of the whole account.
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
