//! Deletes domains to which no key is restricted.

use chrono::NaiveDateTime;
use diesel::Connection as _;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::row::record;
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation};
use crate::schema::{api_key_domains, api_keys, sending_domains};

#[derive(Debug, PartialEq, Eq)]
pub enum Deleted {
    Yes,
    NoSuchDomain,
    /// Live keys are restricted to it.
    InUse,
}

/// The ids and names of the live keys restricted to a domain, newest first. Queried here, because
/// this is all that domains know about keys.
pub fn list_keys(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Vec<(i64, String)>> {
    Ok(api_key_domains::table
        .inner_join(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_key_domains::domain_id.eq(id))
        .order(api_keys::id.desc())
        .select((api_keys::id, api_keys::name))
        .load(conn)?)
}

/// Deletes a domain, unless a key is restricted to it, so that the deletion never widens a key.
pub fn delete(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Deleted> {
    let deleted: QueryResult<Option<(String, NaiveDateTime)>> = conn.transaction(|conn| {
        diesel::delete(sending_domains::table)
            .filter(sending_domains::account_id.eq(account.0))
            .filter(sending_domains::id.eq(id))
            .returning((sending_domains::name, sending_domains::created_at))
            .get_result(conn)
            .optional()
    });
    match deleted {
        Ok(None) => Ok(Deleted::NoSuchDomain),
        Ok(Some((name, created_at))) => {
            let line = DeletedDomain {
                id,
                created: clock::micros(&created_at),
            };
            db::journal::note(DeletedDomain::KIND, &line);
            record(conn, account, actor, Action::DomainDeleted, id, &name, "")?;
            Ok(Deleted::Yes)
        }
        Err(error) if is_foreign_key_violation(&error) => Ok(Deleted::InUse),
        Err(error) => Err(error.into()),
    }
}

/// What the journal of ends says of a domain that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedDomain {
    pub id: i64,
    /// In microseconds since 1970: another domain may get the same id in another database.
    pub created: i64,
}

impl DeletedDomain {
    pub const KIND: &str = "domain";
}

/// Deletes a domain again, if it is there and no key is restricted to it. Returns whether it was.
pub fn delete_again_of_any_account(
    conn: &mut Connection,
    line: &DeletedDomain,
) -> db::Result<bool> {
    let account: Option<i64> = sending_domains::table
        .find(line.id)
        .filter(sending_domains::created_at.eq(clock::from_micros(line.created)))
        .select(sending_domains::account_id)
        .first(conn)
        .optional()?;
    let Some(account) = account else {
        return Ok(false);
    };
    let deleted = delete(conn, AccountId(account), line.id, &Actor::server())?;
    Ok(deleted == Deleted::Yes)
}
