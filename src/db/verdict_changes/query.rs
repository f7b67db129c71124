//! The question that is asked for every batch of keys, as one statement. In plain SQL that diesel prepares
//! once: what its `sql_query` runs is parsed and planned each time.

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp};
use diesel::sqlite::Sqlite;

/// Changes read at a time. If there are more, nothing that was known is believed.
pub(super) const MOST: usize = 1_000;

/// A change, the database's journal of ends, the schema's mark, and the time.
type RowType = (
    (Nullable<BigInt>, Nullable<Binary>, Nullable<BigInt>),
    (Nullable<Text>, Nullable<BigInt>),
    BigInt,
    Nullable<Timestamp>,
);

pub(super) type Row = (
    (Option<i64>, Option<Vec<u8>>, Option<i64>),
    (Option<String>, Option<i64>),
    i64,
    Option<NaiveDateTime>,
);

/// The changes with this number and higher ones, in order: at least one row, with an empty change if there
/// is none.
#[derive(Debug, Clone, Copy, QueryId)]
pub(super) struct Since(pub i64);

impl Query for Since {
    type SqlType = RowType;
}

impl RunQueryDsl<PgConnection> for Since {}
impl RunQueryDsl<SqliteConnection> for Since {}

impl QueryFragment<Pg> for Since {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "SELECT change.n, change.mark, change.account_id, journal.journal_id, journal.last, (",
        );
        out.push_sql(super::triggers::COUNT_ENABLED);
        out.push_sql(
            "), timezone('UTC', now()) FROM (VALUES (1)) AS one
             LEFT JOIN ends_journal AS journal ON journal.id = 1
             LEFT JOIN (SELECT n, mark, account_id FROM verdict_changes WHERE n >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.0)?;
        out.push_sql(" ORDER BY n LIMIT 1001) AS change ON true ORDER BY change.n");
        Ok(())
    }
}

impl QueryFragment<Sqlite> for Since {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "SELECT change.n, change.mark, change.account_id, journal.journal_id, journal.last,
             (SELECT schema_version FROM pragma_schema_version), NULL
             FROM (SELECT 1) AS one
             LEFT JOIN ends_journal AS journal ON journal.id = 1
             LEFT JOIN verdict_changes AS change ON change.n >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.0)?;
        out.push_sql(" ORDER BY change.n LIMIT 1001");
        Ok(())
    }
}
