//! What becomes of the domains of an account that ends.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::records::RecordState;
use crate::domains::status::DomainStatus;
use crate::schema::sending_domains;

/// Until when they are not checked: usually, they are removed within minutes.
const UNCHECKED: TimeDelta = TimeDelta::days(1);

/// Gives up all domains of an account and forgets their keys: another account may have them verified
/// from the COMMIT on.
pub fn release_all(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    let now = db::stamp(conn)?;
    diesel::update(sending_domains::table)
        .filter(sending_domains::account_id.eq(account.0))
        .set((
            sending_domains::status.eq(DomainStatus::Pending.as_str()),
            sending_domains::is_attested.eq(false),
            sending_domains::missing_since.eq(None::<NaiveDateTime>),
            sending_domains::dkim_public.eq(None::<String>),
            sending_domains::dkim_private.eq(None::<Vec<u8>>),
            sending_domains::dkim_state.eq(RecordState::Unknown.as_str()),
            sending_domains::awaits_record.eq(false),
            sending_domains::next_check_at.eq(now + UNCHECKED),
        ))
        .execute(conn)?;
    Ok(())
}

/// Deletes some of an account's domains, to which neither keys nor emails may belong any more.
/// Returns how many.
pub fn remove_some(conn: &mut Connection, account: AccountId, most: i64) -> db::Result<usize> {
    let some: Vec<i64> = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .order(sending_domains::name)
        .limit(most)
        .select(sending_domains::id)
        .load(conn)?;
    let some = sending_domains::table.filter(sending_domains::id.eq_any(some));
    Ok(diesel::delete(some).execute(conn)?)
}
