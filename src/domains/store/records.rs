//! What DNS says of a domain's records.

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use super::row::row;
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::records::RecordState;
use crate::schema::sending_domains;

/// The records a domain should have, and what the last DNS answer said about them.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = sending_domains, check_for_backend(Pg, Sqlite))]
pub struct Records {
    /// `None`: the domain has no key yet.
    pub dkim_public: Option<String>,
    #[diesel(column_name = dkim_state, deserialize_as = String)]
    pub dkim: RecordState,
    /// The other records at the name of the key's record, as a page shows them.
    pub dkim_seen: Option<String>,
    #[diesel(column_name = spf_state, deserialize_as = String)]
    pub spf: RecordState,
    #[diesel(column_name = dmarc_state, deserialize_as = String)]
    pub dmarc: RecordState,
    pub checked_at: Option<NaiveDateTime>,
}

pub fn find_records(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<Records>> {
    Ok(row(account, id)
        .select(Records::as_select())
        .first(conn)
        .optional()?)
}
