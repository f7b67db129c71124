//! All keys of an account, live or ended: to export them, and to remove them when the account has
//! ended.

use diesel::prelude::*;

use super::{Key, in_order};
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::schema::{api_key_domains, api_keys, form_nonces};

/// Some of an account's keys, in the order of their numbers, after this number.
pub fn list_after(
    conn: &mut Connection,
    account: AccountId,
    after: i64,
    most: i64,
) -> db::Result<Vec<Key>> {
    let ids: Vec<i64> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::id.gt(after))
        .order(api_keys::id)
        .limit(most)
        .select(api_keys::id)
        .load(conn)?;
    in_order(conn, account, &ids)
}

/// Deletes some of an account's keys, for which there may be no emails any more. Returns how many.
pub fn remove_some(conn: &mut Connection, account: AccountId, most: i64) -> db::Result<usize> {
    // A key is newer than the one that it replaces.
    let some: Vec<i64> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .order(api_keys::id.desc())
        .limit(most)
        .select(api_keys::id)
        .load(conn)?;
    let domains = api_key_domains::table.filter(api_key_domains::api_key_id.eq_any(&some));
    diesel::delete(domains).execute(conn)?;
    let nonces = form_nonces::table.filter(form_nonces::api_key_id.eq_any(&some));
    diesel::delete(nonces).execute(conn)?;
    Ok(diesel::delete(api_keys::table.filter(api_keys::id.eq_any(&some))).execute(conn)?)
}
