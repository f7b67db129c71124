//! The rule of a key as columns of its row. They are listed only here.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::keys::rule::{Allowed, Rule};
use crate::schema::api_keys;

#[derive(Debug, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = api_keys, treat_none_as_null = true, treat_none_as_default_value = false)]
#[diesel(check_for_backend(Pg, Sqlite))]
pub struct RuleColumns {
    senders: Option<String>,
    recipients: Option<String>,
    networks: Option<String>,
}

impl From<&Rule> for RuleColumns {
    fn from(rule: &Rule) -> Self {
        let column = |allowed: &Allowed| allowed.as_column().map(str::to_owned);
        Self {
            senders: column(&rule.senders),
            recipients: column(&rule.recipients),
            networks: column(&rule.networks),
        }
    }
}

impl From<RuleColumns> for Rule {
    fn from(columns: RuleColumns) -> Self {
        Self {
            senders: Allowed::from_column(columns.senders),
            recipients: Allowed::from_column(columns.recipients),
            networks: Allowed::from_column(columns.networks),
        }
    }
}
