//! Sending domains in the database.

use chrono::NaiveDateTime;
use diesel::Connection as _;
use diesel::prelude::*;

use super::name::DomainName;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{AccountId, events};
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation, is_unique_violation};
use crate::schema::{api_key_domains, api_keys, sending_domains};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    pub id: i64,
    pub name: String,
    pub status: DomainStatus,
    pub created_at: NaiveDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainStatus {
    Pending,
    Verified,
    Failed,
}

impl DomainStatus {
    /// As the column and the API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }

    /// As a page says it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Verified => "Verified",
            Self::Failed => "Failed",
        }
    }

    pub fn from_column(text: &str) -> Self {
        match text {
            "verified" => Self::Verified,
            "failed" => Self::Failed,
            _ => Self::Pending,
        }
    }

    pub fn is_verified(self) -> bool {
        self == Self::Verified
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Deleted {
    Yes,
    NoSuchDomain,
    /// Live keys are restricted to it.
    InUse,
}

type Row = (i64, String, String, NaiveDateTime);

const COLUMNS: (
    sending_domains::id,
    sending_domains::name,
    sending_domains::status,
    sending_domains::created_at,
) = (
    sending_domains::id,
    sending_domains::name,
    sending_domains::status,
    sending_domains::created_at,
);

impl From<Row> for Domain {
    fn from((id, name, status, created_at): Row) -> Self {
        Self {
            id,
            name,
            status: DomainStatus::from_column(&status),
            created_at,
        }
    }
}

/// By name.
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

/// Adds a domain, pending. `None` if the account has it already.
pub fn add(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    actor: &Actor,
) -> db::Result<Option<Domain>> {
    let inserted: QueryResult<Row> = conn.transaction(|conn| {
        diesel::insert_into(sending_domains::table)
            .values((
                sending_domains::account_id.eq(account.0),
                sending_domains::name.eq(name.as_ref()),
                sending_domains::status.eq(DomainStatus::Pending.as_str()),
                sending_domains::created_at.eq(clock::now()),
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
            )?;
            Ok(Some(domain))
        }
        Err(error) if is_unique_violation(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says whether the account owns the domain, as the operator attests it.
pub fn set_status(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
    status: DomainStatus,
    actor: &Actor,
) -> db::Result<()> {
    let row = sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::name.eq(name.as_ref()));
    // Changes nothing, but others wait for it.
    diesel::update(row)
        .set(sending_domains::account_id.eq(account.0))
        .execute(conn)?;
    let Some(before) = find_by_name(conn, account, name)? else {
        return Ok(());
    };
    diesel::update(row)
        .set(sending_domains::status.eq(status.as_str()))
        .execute(conn)?;
    let action = match (before.status.is_verified(), status.is_verified()) {
        (false, true) => Action::DomainVerified,
        (true, false) => Action::DomainLost,
        _ => return Ok(()),
    };
    Ok(record(
        conn,
        account,
        actor,
        action,
        before.id,
        &before.name,
    )?)
}

/// The ids and names of the live keys that are restricted to a domain, newest first. Read here,
/// since domains know nothing of keys but this.
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

/// Deletes a domain, unless a key is restricted to it: no key is ever widened by this.
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
            record(conn, account, actor, Action::DomainDeleted, id, &name)?;
            Ok(Deleted::Yes)
        }
        Err(error) if is_foreign_key_violation(&error) => Ok(Deleted::InUse),
        Err(error) => Err(error.into()),
    }
}

/// The name of a domain and the sealed key that signs its emails, if its record was found.
pub fn find_signing_of_any_account(
    conn: &mut Connection,
    id: i64,
) -> db::Result<Option<(DomainName, Vec<u8>)>> {
    let row: Option<(String, Option<Vec<u8>>)> = sending_domains::table
        .filter(sending_domains::id.eq(id))
        .filter(sending_domains::dkim_state.eq("found"))
        .select((sending_domains::name, sending_domains::dkim_private))
        .first(conn)
        .optional()?;
    Ok(row.and_then(|(name, sealed)| Some((DomainName::of_address(&name)?, sealed?))))
}

fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    action: Action,
    id: i64,
    name: &str,
) -> QueryResult<()> {
    let event = NewEvent {
        action,
        subject_id: Some(id),
        subject: name,
        detail: "",
    };
    events::record(conn, account, actor, event)
}
