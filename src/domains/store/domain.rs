//! Domains as they are read.

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::life;
use crate::domains::name::DomainName;
use crate::domains::status::DomainStatus;
use crate::schema::sending_domains;

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = sending_domains, check_for_backend(Pg, Sqlite))]
pub struct Domain {
    pub id: i64,
    pub name: String,
    #[diesel(deserialize_as = String)]
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
    pub(super) fn was_proven(&self) -> bool {
        !self.is_attested && (self.status.is_verified() || self.missing_since.is_some())
    }

    /// When a domain whose record is missing stops sending, unless the record returns before.
    pub fn stops_at(&self) -> Option<NaiveDateTime> {
        let since = self.missing_since.filter(|_| self.status.is_verified());
        since.map(|since| since + life::GRACE)
    }
}

/// In the order of their names.
pub fn list(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Domain>> {
    Ok(sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .order(sending_domains::name)
        .select(Domain::as_select())
        .load(conn)?)
}

pub fn find(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Option<Domain>> {
    Ok(sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::id.eq(id))
        .select(Domain::as_select())
        .first(conn)
        .optional()?)
}

pub fn find_by_name(
    conn: &mut Connection,
    account: AccountId,
    name: &DomainName,
) -> db::Result<Option<Domain>> {
    Ok(sending_domains::table
        .filter(sending_domains::account_id.eq(account.0))
        .filter(sending_domains::name.eq(name.as_ref()))
        .select(Domain::as_select())
        .first(conn)
        .optional()?)
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
