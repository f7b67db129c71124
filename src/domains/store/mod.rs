//! Sending domains in the database.

pub use self::check::{claim, find_due_of_any_account, pull_back_of_any_account, settle};

use chrono::NaiveDateTime;
use diesel::Connection as _;
use diesel::prelude::*;

mod check;

use super::dkim::SealedKey;
use super::life;
use super::name::DomainName;
use super::records::RecordState;
pub use super::status::DomainStatus;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{self as accounts_store, AccountId, events};
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation, is_unique_violation};
use crate::schema::{api_key_domains, api_keys, sending_domains};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    pub id: i64,
    pub name: String,
    pub status: DomainStatus,
    pub created_at: NaiveDateTime,
    /// By the operator: it is verified, whatever DNS says.
    pub is_attested: bool,
    /// When the record that verified it was found missing.
    pub missing_since: Option<NaiveDateTime>,
    /// Its key was replaced: its emails wait until the record of the new one is found.
    pub awaits_record: bool,
}

impl Domain {
    /// Whether its record was ever found, as far as its status shows.
    fn was_proven(&self) -> bool {
        !self.is_attested && (self.status.is_verified() || self.missing_since.is_some())
    }

    /// When a domain whose record is missing stops sending, unless the record returns before.
    pub fn stops_at(&self) -> Option<NaiveDateTime> {
        let since = self.missing_since.filter(|_| self.status.is_verified());
        since.map(|since| since + life::GRACE)
    }
}

/// The records a domain should have, and what the last DNS answer said about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// `None`: the domain has no key yet.
    pub dkim_public: Option<String>,
    pub dkim: RecordState,
    /// The other records at the name of the key's record, as a page shows them.
    pub dkim_seen: Option<String>,
    pub spf: RecordState,
    pub dmarc: RecordState,
    pub checked_at: Option<NaiveDateTime>,
}

/// The result of adding a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    Yes(Domain),
    /// The account already has it.
    AlreadyThere,
    /// The account is at its limit: this many.
    LimitReached(i64),
}

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

#[derive(Debug, PartialEq, Eq)]
pub enum Deleted {
    Yes,
    NoSuchDomain,
    /// Live keys are restricted to it.
    InUse,
}

type Row = (
    i64,
    String,
    String,
    NaiveDateTime,
    bool,
    Option<NaiveDateTime>,
    bool,
);

const COLUMNS: (
    sending_domains::id,
    sending_domains::name,
    sending_domains::status,
    sending_domains::created_at,
    sending_domains::is_attested,
    sending_domains::missing_since,
    sending_domains::awaits_record,
) = (
    sending_domains::id,
    sending_domains::name,
    sending_domains::status,
    sending_domains::created_at,
    sending_domains::is_attested,
    sending_domains::missing_since,
    sending_domains::awaits_record,
);

impl From<Row> for Domain {
    fn from(
        (id, name, status, created_at, is_attested, missing_since, awaits_record): Row,
    ) -> Self {
        Self {
            awaits_record,
            id,
            name,
            status: DomainStatus::from_column(&status),
            created_at,
            is_attested,
            missing_since,
        }
    }
}

/// In the order of their names.
pub fn list(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Domain>> {
    let rows: Vec<Row> = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .order(sending_domains::name)
        .select(COLUMNS)
        .load(conn)?;
    Ok(rows.into_iter().map(Domain::from).collect())
}

pub fn find(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Option<Domain>> {
    let row: Option<Row> = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::id.eq(id))
        .select(COLUMNS)
        .first(conn)
        .optional()?;
    Ok(row.map(Domain::from))
}

pub fn find_by_name(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
) -> db::Result<Option<Domain>> {
    let row: Option<Row> = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::name.eq(name.as_ref()))
        .select(COLUMNS)
        .first(conn)
        .optional()?;
    Ok(row.map(Domain::from))
}

pub fn find_records(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<Records>> {
    type Row = (
        Option<String>,
        String,
        Option<String>,
        String,
        String,
        Option<NaiveDateTime>,
    );
    let row: Option<Row> = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::id.eq(id))
        .select((
            sending_domains::dkim_public,
            sending_domains::dkim_state,
            sending_domains::dkim_seen,
            sending_domains::spf_state,
            sending_domains::dmarc_state,
            sending_domains::checked_at,
        ))
        .first(conn)
        .optional()?;
    let records = row.map(
        |(dkim_public, dkim, dkim_seen, spf, dmarc, checked_at)| Records {
            dkim_public,
            dkim: RecordState::from_column(&dkim),
            dkim_seen,
            spf: RecordState::from_column(&spf),
            dmarc: RecordState::from_column(&dmarc),
            checked_at,
        },
    );
    Ok(records)
}

/// Whether another account of this server sends from a domain of this name.
pub fn is_verified_elsewhere(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
) -> db::Result<bool> {
    let there = sending_domains::table
        .filter(sending_domains::name.eq(name.as_ref()))
        .filter(sending_domains::status.eq(DomainStatus::Verified.as_str()))
        .filter(sending_domains::account_id.ne(account.0));
    Ok(diesel::select(diesel::dsl::exists(there.select(sending_domains::id))).get_result(conn)?)
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
    let inserted: QueryResult<Row> = conn.transaction(|conn| {
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
            .returning(COLUMNS)
            .get_result(conn)
    });
    match inserted {
        Ok(row) => {
            let domain = Domain::from(row);
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
    let now = find_sealed(conn, account, domain.id)?;
    if now.is_some_and(|(_, sealed)| sealed.as_deref() == Some(lost)) {
        replace_key(conn, account, name, Some(key), actor)?;
    }
    Ok(())
}

/// The name of a domain and its sealed key.
pub fn find_sealed(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<(String, Option<Vec<u8>>)>> {
    Ok(row(account, id)
        .select((sending_domains::name, sending_domains::dkim_private))
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

/// Makes other transactions that change the same domain's status wait for this one.
fn lock(
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
fn row(account: AccountId, id: i64) -> _ {
    let account: i64 = account.0;
    sending_domains::table
        .filter(sending_domains::account_id.eq(account))
        .filter(sending_domains::id.eq(id))
}

/// Returns whether it was written: a domain can be verified in only one account.
fn write_status(
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
fn record_move(
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

/// How the emails of a domain are signed.
pub fn find_signing_of_any_account(conn: &mut Connection, id: i64) -> db::Result<Signing> {
    let row: Option<(Row, Option<Vec<u8>>, String)> = sending_domains::table
        .filter(sending_domains::id.eq(id))
        .select((
            COLUMNS,
            sending_domains::dkim_private,
            sending_domains::dkim_state,
        ))
        .first(conn)
        .optional()?;
    let Some((row, sealed, state)) = row else {
        return Ok(Signing::None);
    };
    let domain = Domain::from(row);
    let name = DomainName::known(&domain.name);
    Ok(match sealed {
        Some(sealed) if RecordState::from_column(&state).is_found() => Signing::Key(name, sealed),
        _ if domain.awaits_record => Signing::Awaited,
        Some(sealed) if domain.was_proven() => Signing::Missing(name, sealed),
        _ => Signing::None,
    })
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
    let deleted: QueryResult<Option<String>> = conn.transaction(|conn| {
        diesel::delete(sending_domains::table)
            .filter(sending_domains::account_id.eq(account.0))
            .filter(sending_domains::id.eq(id))
            .returning(sending_domains::name)
            .get_result(conn)
            .optional()
    });
    match deleted {
        Ok(None) => Ok(Deleted::NoSuchDomain),
        Ok(Some(name)) => {
            record(conn, account, actor, Action::DomainDeleted, id, &name, "")?;
            Ok(Deleted::Yes)
        }
        Err(error) if is_foreign_key_violation(&error) => Ok(Deleted::InUse),
        Err(error) => Err(error.into()),
    }
}

fn record(
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
