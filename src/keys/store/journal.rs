//! What the journal of ends says of a key: what it may do after each change.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::{Key, find_all};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::scope::Scope;

/// What a key may do after a change. Instants are in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    pub id: i64,
    /// Another key may get the same id in another database.
    pub created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<i64>,
    /// Names; `None`: all domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// By the part's name, as its column has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rule: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub how: String,
    pub at: i64,
}

impl KeyLine {
    pub const KIND: &str = "key";

    /// Later lines with the same identity say what the key may do now.
    pub fn identity(&self) -> (i64, i64) {
        (self.id, self.created)
    }

    fn of(key: &Key) -> Self {
        let micros = |at: &Option<NaiveDateTime>| at.as_ref().map(clock::micros);
        let rule = key.rule.parts().filter_map(|(part, allowed)| {
            let column = allowed.as_column()?;
            Some((part.name.to_owned(), column.to_owned()))
        });
        Self {
            id: key.id,
            created: clock::micros(&key.created_at),
            ended: key.end.as_ref().map(|end| Ended {
                how: end.how.as_str().to_owned(),
                at: clock::micros(&end.at),
            }),
            is_paused: key.paused.is_some(),
            expires: micros(&key.expires_at),
            stops: micros(&key.stops_at),
            domains: match &key.scope {
                Scope::AllDomains => None,
                Scope::Domains(domains) => {
                    Some(domains.iter().map(|domain| domain.name.clone()).collect())
                }
            },
            rule: rule.collect(),
        }
    }
}

/// Notes what the key may do after a change in this transaction.
pub(super) fn note(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<()> {
    if let Some(key) = find_all(conn, account, &[id])?.pop() {
        db::journal::note(KeyLine::KIND, &KeyLine::of(&key));
    }
    Ok(())
}
