//! Adds domains to an account.

use diesel::Connection as _;
use diesel::prelude::*;

use super::row::record;
use super::{Domain, find_by_name};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::clock;
use crate::db::{self, Connection, is_unique_violation};
use crate::domains::dkim::SealedKey;
use crate::domains::name::DomainName;
use crate::domains::status::DomainStatus;
use crate::schema::sending_domains;

/// The result of adding a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    Yes(Domain),
    /// The account already has it.
    AlreadyThere,
    /// The account is at its limit: this many.
    LimitReached(i64),
}

/// Why an account with this limit cannot add a domain now, or `None` if it can.
pub fn refusal(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    limit: i64,
) -> db::Result<Option<Added>> {
    if find_by_name(conn, account, name)?.is_some() {
        return Ok(Some(Added::AlreadyThere));
    }
    let count: i64 = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .count()
        .get_result(conn)?;
    Ok((count >= limit).then_some(Added::LimitReached(count)))
}

/// Adds a domain as pending. Without a key, it gets one when the server first checks it.
pub fn add(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    key: Option<&SealedKey>,
    limit: i64,
    actor: &Actor,
) -> db::Result<Added> {
    // Another request of the account that adds a domain waits here, and then counts this one.
    accounts_store::lock(conn, account)?;
    if let Some(refused) = refusal(conn, account, name, limit)? {
        return Ok(refused);
    }
    let now = db::now(conn)?;
    let inserted: QueryResult<Domain> = conn.transaction(|conn| {
        diesel::insert_into(sending_domains::table)
            .values((
                sending_domains::account_id.eq(account.0),
                sending_domains::name.eq(name.as_ref()),
                sending_domains::status.eq(DomainStatus::Pending.as_str()),
                sending_domains::created_at.eq(clock::now()),
                sending_domains::pending_since.eq(now),
                sending_domains::dkim_public.eq(key.map(|key| &key.public)),
                sending_domains::dkim_private.eq(key.map(|key| &key.private)),
            ))
            .returning(db::columns::<Domain>())
            .get_result(conn)
    });
    match inserted {
        Ok(domain) => {
            record(
                conn,
                account,
                actor,
                Action::DomainAdded,
                domain.id,
                &domain.name,
                "",
            )?;
            Ok(Added::Yes(domain))
        }
        Err(error) if is_unique_violation(&error) => Ok(Added::AlreadyThere),
        Err(error) => Err(error.into()),
    }
}
