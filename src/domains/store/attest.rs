//! Domains that the operator attests, whatever DNS says.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::find_records;
use super::row::{lock, record_move, row, write_status};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::name::DomainName;
use crate::domains::status::DomainStatus;
use crate::schema::sending_domains;

/// Sets whether the account owns the domain, as attested by the operator. `false` if it is verified
/// in another account: then nothing is changed.
pub fn set_status(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    status: DomainStatus,
    actor: &Actor,
) -> db::Result<bool> {
    let Some(before) = lock(conn, account, name)? else {
        return Ok(true);
    };
    if !write_status(conn, account, before.id, status)? {
        return Ok(false);
    }
    diesel::update(row(account, before.id))
        .set((
            sending_domains::is_attested.eq(status.is_verified()),
            sending_domains::missing_since.eq(None::<NaiveDateTime>),
            sending_domains::next_check_at.eq(None::<NaiveDateTime>),
        ))
        .execute(conn)?;
    record_move(conn, account, actor, &before, status, "")?;
    Ok(true)
}

/// Withdraws the operator's attestation: from now on DNS decides. The domain stays verified if its
/// record was there at the last check; otherwise it is pending and checked again. Returns its
/// status.
pub fn unattest(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    actor: &Actor,
) -> db::Result<Option<DomainStatus>> {
    let Some(before) = lock(conn, account, name)? else {
        return Ok(None);
    };
    if !before.is_attested {
        return Ok(Some(before.status));
    }
    let records = find_records(conn, account, before.id)?;
    let status = match records.is_some_and(|records| records.dkim.is_found()) {
        true => DomainStatus::Verified,
        false => DomainStatus::Pending,
    };
    let now = db::now(conn)?;
    diesel::update(row(account, before.id))
        .set((
            sending_domains::status.eq(status.as_str()),
            sending_domains::is_attested.eq(false),
            sending_domains::pending_since.eq(now),
            sending_domains::next_check_at.eq(None::<NaiveDateTime>),
        ))
        .execute(conn)?;
    record_move(conn, account, actor, &before, status, "no longer attested")?;
    Ok(Some(status))
}
