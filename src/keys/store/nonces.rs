//! Forms that create a key: each creates at most one.

use chrono::TimeDelta;
use diesel::prelude::*;

use crate::clock;
use crate::db::{self, Connection};
use crate::schema::form_nonces;

/// How long after it was opened a form can be sent.
pub(super) const LIFETIME: TimeDelta = TimeDelta::hours(24);
/// How many open forms a person can have.
const MOST: i64 = 1_000;

/// Whether a form with this nonce was shown to the user and can still be sent, or has been.
pub fn knows_nonce(conn: &mut Connection, user_id: i64, nonce_hash: &[u8; 32]) -> db::Result<bool> {
    let known: Option<i64> = form_nonces::table
        .filter(form_nonces::nonce_hash.eq(&nonce_hash[..]))
        .filter(form_nonces::user_id.eq(user_id))
        .filter(form_nonces::created_at.gt(clock::now() - LIFETIME))
        .select(form_nonces::user_id)
        .first(conn)
        .optional()?;
    Ok(known.is_some())
}

/// Records a form that is about to be shown; deletes forms that are too old to be sent, and the
/// person's oldest beyond `MOST`.
pub fn issue_nonce(conn: &mut Connection, user_id: i64, nonce_hash: &[u8; 32]) -> db::Result<()> {
    if let Some(now) = db::trusted_now(conn)? {
        diesel::delete(form_nonces::table.filter(form_nonces::created_at.lt(now - LIFETIME)))
            .execute(conn)?;
    }
    let oldest: Vec<Vec<u8>> = form_nonces::table
        .filter(form_nonces::user_id.eq(user_id))
        .order(form_nonces::created_at.desc())
        .offset(MOST - 1)
        .limit(1_000)
        .select(form_nonces::nonce_hash)
        .load(conn)?;
    if !oldest.is_empty() {
        diesel::delete(form_nonces::table.filter(form_nonces::nonce_hash.eq_any(oldest)))
            .execute(conn)?;
    }
    diesel::insert_into(form_nonces::table)
        .values((
            form_nonces::nonce_hash.eq(&nonce_hash[..]),
            form_nonces::user_id.eq(user_id),
            form_nonces::created_at.eq(clock::now()),
        ))
        .execute(conn)?;
    Ok(())
}
