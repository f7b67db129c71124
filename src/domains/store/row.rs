//! What all changes of a domain have in common: its row, and the entry in the activity.

use diesel::Connection as _;
use diesel::prelude::*;

use super::{Domain, find_by_name};
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{AccountId, events};
use crate::db::{self, Connection, is_unique_violation};
use crate::domains::name::DomainName;
use crate::domains::status::DomainStatus;
use crate::schema::sending_domains;

/// Makes other transactions that change the same domain's status wait for this one.
pub(super) fn lock(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
) -> db::Result<Option<Domain>> {
    // Changes nothing.
    diesel::update(sending_domains::table)
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::name.eq(name.as_ref()))
        .set(sending_domains::account_id.eq(account.0))
        .execute(conn)?;
    find_by_name(conn, account, name)
}

#[diesel::dsl::auto_type(no_type_alias)]
pub(super) fn row(account: AccountId, id: i64) -> _ {
    let account: i64 = account.0;
    sending_domains::table
        .filter(sending_domains::account_id.eq(account))
        .filter(sending_domains::id.eq(id))
}

/// Returns whether it was written: a domain can be verified in only one account.
pub(super) fn write_status(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    status: DomainStatus,
) -> QueryResult<bool> {
    let written = conn.transaction(|conn| {
        diesel::update(row(account, id))
            .set(sending_domains::status.eq(status.as_str()))
            .execute(conn)
    });
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_unique_violation(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Records a status change, if it is one that the account's people should know of.
pub(super) fn record_move(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    before: &Domain,
    after: DomainStatus,
    detail: &str,
) -> QueryResult<()> {
    let action = match (before.status, after) {
        (DomainStatus::Verified, DomainStatus::Verified) => return Ok(()),
        (_, DomainStatus::Verified) => Action::DomainVerified,
        (DomainStatus::Verified, _) => Action::DomainLost,
        (DomainStatus::Pending, DomainStatus::Failed) => Action::DomainFailed,
        _ => return Ok(()),
    };
    record(
        conn,
        account,
        actor,
        action,
        before.id,
        &before.name,
        detail,
    )
}

pub(super) fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    action: Action,
    id: i64,
    name: &str,
    detail: &str,
) -> QueryResult<()> {
    let event = NewEvent {
        action,
        subject_id: Some(id),
        subject: name,
        detail,
    };
    events::record(conn, account, actor, event)
}
