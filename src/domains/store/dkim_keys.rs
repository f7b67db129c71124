//! The keys with which the emails of domains are signed. Private keys are sealed.

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use super::row::{lock, record, row};
use super::{Domain, find_records};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::dkim::SealedKey;
use crate::domains::name::DomainName;
use crate::domains::records::RecordState;
use crate::schema::sending_domains;

/// How the emails of a domain are signed.
#[derive(Debug, PartialEq, Eq)]
pub enum Signing {
    /// With this sealed key; its record was found.
    Key(DomainName, Vec<u8>),
    /// Not now: the record of this key, which verified the domain, is missing.
    Missing(DomainName, Vec<u8>),
    /// Its key was replaced, and the new key's record has not been found yet.
    Awaited,
    /// Not at all: its record was never found; only the operator attests the domain.
    None,
}

/// Stores a key for a domain that has none.
pub fn give_key(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    key: &SealedKey,
) -> db::Result<()> {
    diesel::update(sending_domains::table)
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::id.eq(id))
        .filter(sending_domains::dkim_public.is_null())
        .set((
            sending_domains::dkim_public.eq(&key.public),
            sending_domains::dkim_private.eq(&key.private),
        ))
        .execute(conn)?;
    Ok(())
}

/// Gives a domain another key, or none until the server makes one. Earlier findings were about the
/// old key and are reset. Returns whether there is such a domain.
pub fn replace_key(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    key: Option<&SealedKey>,
    actor: &Actor,
) -> db::Result<bool> {
    let Some(domain) = lock(conn, account, name)? else {
        return Ok(false);
    };
    // Meanwhile, a domain that signed its emails must not send unsigned ones.
    let records = find_records(conn, account, domain.id)?;
    let has_signed = records.is_some_and(|records| records.dkim.is_found())
        || domain.awaits_record
        || domain.was_proven();
    diesel::update(row(account, domain.id))
        .set((
            sending_domains::awaits_record.eq(has_signed),
            sending_domains::dkim_public.eq(key.map(|key| &key.public)),
            sending_domains::dkim_private.eq(key.map(|key| &key.private)),
            sending_domains::dkim_state.eq(RecordState::Unknown.as_str()),
            sending_domains::dkim_seen.eq(None::<String>),
            sending_domains::next_check_at.eq(None::<NaiveDateTime>),
        ))
        .execute(conn)?;
    let action = Action::DomainKeyReplaced;
    record(conn, account, actor, action, domain.id, &domain.name, "")?;
    Ok(true)
}

/// Replaces a key that cannot be opened, unless it has already been replaced.
pub fn replace_lost_key(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    lost: &[u8],
    key: &SealedKey,
    actor: &Actor,
) -> db::Result<()> {
    let Some(domain) = lock(conn, account, name)? else {
        return Ok(());
    };
    let now = find_key(conn, account, domain.id)?;
    if now.is_some_and(|key| key.sealed.as_deref() == Some(lost)) {
        replace_key(conn, account, name, Some(key), actor)?;
    }
    Ok(())
}

/// A domain's name and its key pair, if it has one.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sending_domains, check_for_backend(Pg, Sqlite))]
pub struct DomainKey {
    pub name: String,
    #[diesel(column_name = dkim_public)]
    pub public: Option<String>,
    /// The private key.
    #[diesel(column_name = dkim_private)]
    pub sealed: Option<Vec<u8>>,
}

pub fn find_key(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<DomainKey>> {
    Ok(row(account, id)
        .select(DomainKey::as_select())
        .first(conn)
        .optional()?)
}

/// The ids, names and sealed keys of the domains that have one.
pub fn list_sealed(
    conn: &mut Connection,
    account: AccountId,
) -> db::Result<Vec<(i64, String, Vec<u8>)>> {
    Ok(sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::dkim_private.is_not_null())
        .select((
            sending_domains::id,
            sending_domains::name,
            sending_domains::dkim_private.assume_not_null(),
        ))
        .load(conn)?)
}

/// How the emails of a domain are signed.
pub fn find_signing_of_any_account(conn: &mut Connection, id: i64) -> db::Result<Signing> {
    let found: Option<(Domain, Option<Vec<u8>>, String)> = sending_domains::table
        .filter(sending_domains::id.eq(id))
        .select((
            Domain::as_select(),
            sending_domains::dkim_private,
            sending_domains::dkim_state,
        ))
        .first(conn)
        .optional()?;
    let Some((domain, sealed, state)) = found else {
        return Ok(Signing::None);
    };
    let name = DomainName::known(&domain.name);
    Ok(match sealed {
        Some(sealed) if RecordState::from_column(&state).is_found() => Signing::Key(name, sealed),
        _ if domain.awaits_record => Signing::Awaited,
        Some(sealed) if domain.was_proven() => Signing::Missing(name, sealed),
        _ => Signing::None,
    })
}

/// Some of the domains that have a key, in the order of their ids after this one: ids, names and
/// sealed keys.
pub fn list_sealed_after_of_any_account(
    conn: &mut Connection,
    after: i64,
    most: i64,
) -> db::Result<Vec<(i64, DomainName, Vec<u8>)>> {
    let rows: Vec<(i64, String, Vec<u8>)> = sending_domains::table
        .filter(sending_domains::id.gt(after))
        .filter(sending_domains::dkim_private.is_not_null())
        .order(sending_domains::id)
        .limit(most)
        .select((
            sending_domains::id,
            sending_domains::name,
            sending_domains::dkim_private.assume_not_null(),
        ))
        .load(conn)?;
    let named = |(id, name, sealed): (_, String, _)| (id, DomainName::known(&name), sealed);
    Ok(rows.into_iter().map(named).collect())
}

/// Replaces the seal of a key, unless the key was replaced meanwhile.
pub fn reseal_of_any_account(
    conn: &mut Connection,
    id: i64,
    old: &[u8],
    new: &[u8],
) -> db::Result<()> {
    diesel::update(sending_domains::table.find(id))
        .filter(sending_domains::dkim_private.eq(old))
        .set(sending_domains::dkim_private.eq(new))
        .execute(conn)?;
    Ok(())
}

/// The names of all domains that have a key, and their sealed keys; works even before the tables
/// are up to date.
pub fn list_sealed_of_any_account(conn: &mut Connection) -> db::Result<Vec<(DomainName, Vec<u8>)>> {
    if !db::has_column(conn, "sending_domains", "dkim_private")? {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, Option<Vec<u8>>)> = sending_domains::table
        .filter(sending_domains::dkim_private.is_not_null())
        .order(sending_domains::id)
        .select((sending_domains::name, sending_domains::dkim_private))
        .load(conn)?;
    let rows = rows.into_iter();
    Ok(rows
        .filter_map(|(name, sealed)| Some((DomainName::known(&name), sealed?)))
        .collect())
}
