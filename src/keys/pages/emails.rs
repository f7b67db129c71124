//! How keys were used lately, for their list.

use std::collections::HashMap;

use crate::accounts::store::{AccountId, User};
use crate::db::{self, Connection};
use crate::http::{Context, Error};
use crate::keys::usage::sparkline::Sparkline;
use crate::keys::usage::store as usage_store;
use crate::outbox::{Volume, store as outbox_store};

/// Emails and calls in the last 24 hours.
pub struct Emails {
    /// The calls of each key, for the keys that had any.
    pub calls_of_keys: HashMap<i64, Sparkline>,
    /// Per key, for the keys that sent any.
    pub of_keys: HashMap<i64, i64>,
    /// The total of the account.
    pub of_account: Volume,
}

pub async fn emails_of(context: &Context, user: &User, ids: Vec<i64>) -> Result<Emails, Error> {
    let account = user.account;
    Ok(context
        .db
        .read(move |conn| Emails::read(conn, account, &ids))
        .await?)
}

/// The calls of these keys in the last 24 hours, for the keys that had any.
pub fn sparklines(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
) -> db::Result<HashMap<i64, Sparkline>> {
    let days = usage_store::days_of_keys(conn, account, ids)?;
    let days = days.iter();
    let lines = days.filter_map(|(key_id, day)| Some((*key_id, Sparkline::of(day)?)));
    Ok(lines.collect())
}

impl Emails {
    pub fn read(conn: &mut Connection, account: AccountId, ids: &[i64]) -> db::Result<Self> {
        Ok(Self {
            calls_of_keys: sparklines(conn, account, ids)?,
            of_keys: outbox_store::count_emails_of_keys(conn, account, ids)?,
            of_account: outbox_store::volume_of_account(conn, account)?,
        })
    }
}
