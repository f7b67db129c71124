//! Columns of a key that make one value together. Rows embed them, so that each column and its
//! meaning are spelled once. `rule_row.rs` has those of the rule.

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::keys::scope::{Scope, ScopedDomain};
use crate::keys::secret::Truncated;
use crate::keys::standing::{ACTIVE, End, EndedHow, Paused};
use crate::schema::api_keys;

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
pub struct TruncatedColumns {
    first8: String,
    last4: String,
}

impl From<TruncatedColumns> for Truncated {
    fn from(columns: TruncatedColumns) -> Self {
        Self {
            first8: columns.first8,
            last4: columns.last4,
        }
    }
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
pub struct ScopeColumns {
    all_domains: bool,
    ended_domain_names: Option<String>,
}

/// The domains of a key that has not ended are in rows of their own.
impl From<ScopeColumns> for Scope {
    fn from(columns: ScopeColumns) -> Self {
        let names = columns.ended_domain_names.unwrap_or_default();
        let names = names.split(", ").filter(|name| !name.is_empty());
        let domains = names.map(ScopedDomain::former).collect();
        Self::from_rows(columns.all_domains, domains)
    }
}

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
pub struct PausedColumns {
    status: String,
    paused_at: Option<NaiveDateTime>,
    paused_by: Option<String>,
}

impl From<PausedColumns> for Option<Paused> {
    fn from(columns: PausedColumns) -> Self {
        (columns.status != ACTIVE).then_some(Paused {
            at: columns.paused_at,
            by: columns.paused_by,
        })
    }
}

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
pub struct EndColumns {
    pub ended_at: Option<NaiveDateTime>,
    ended_how: Option<String>,
    ended_by: Option<String>,
}

impl From<EndColumns> for Option<End> {
    fn from(columns: EndColumns) -> Self {
        let how = EndedHow::from_column(columns.ended_how.as_deref().unwrap_or_default());
        columns.ended_at.map(|at| End {
            how,
            at,
            by: columns.ended_by,
        })
    }
}
