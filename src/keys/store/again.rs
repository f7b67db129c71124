//! Brings keys of an older database up to date from the journal of ends. That only ever narrows what a
//! key may do.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::journal::{KeyLine, note};
use super::life::describe_changes;
use super::lock::{end, lock_and_end_if_due};
use super::row::{record, restrict, row, unrestrict};
use super::rule_row::RuleColumns;
use super::{EndedHow, Found, Key, find, find_all};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::domains::store as domains_store;
use crate::keys::rule::{Allowed, PARTS, Rule};
use crate::keys::scope::Scope;
use crate::keys::standing::PAUSED;
use crate::schema::api_keys;

const AGAIN: &str = "again, after an older copy of the database was restored";

/// What became of a key of an older database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Ended,
    /// Paused, or allowed less than before.
    Narrowed,
    /// It is not there, or is that narrow already.
    Nothing,
}

/// Takes from a key what it lost according to the newest line about it.
pub fn narrow_again_of_any_account(conn: &mut Connection, line: &KeyLine) -> db::Result<Again> {
    let account: Option<i64> = api_keys::table
        .find(line.id)
        .filter(api_keys::created_at.eq(clock::from_micros(line.created)))
        .filter(api_keys::ended_at.is_null())
        .select(api_keys::account_id)
        .first(conn)
        .optional()?;
    let Some(account) = account.map(AccountId) else {
        return Ok(Again::Nothing);
    };
    let Found::Live(key) = lock_and_end_if_due(conn, account, line.id)? else {
        return Ok(Again::Nothing);
    };
    let server = Actor::server();
    if let Some(ended) = &line.ended {
        let how = EndedHow::from_column(&ended.how);
        let at = clock::from_micros(ended.at);
        end(conn, account, &key, how, at, &server)?;
        return Ok(Again::Ended);
    }
    let is_paused = line.is_paused && key.paused.is_none();
    if is_paused {
        pause_again(conn, account, &key)?;
    }
    Ok(
        match restrict_again(conn, account, &key, line)? || is_paused {
            true => Again::Narrowed,
            false => Again::Nothing,
        },
    )
}

/// Pauses all keys that have not ended, because nobody knows which of them were ended since. Returns
/// how many were active.
pub fn pause_all_of_any_account(conn: &mut Connection) -> db::Result<usize> {
    let active: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::status.ne(PAUSED))
        .order(api_keys::id)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    for (account, id) in &active {
        let account = AccountId(*account);
        if let Some(key) = find_all(conn, account, &[*id])?.pop() {
            pause_again(conn, account, &key)?;
        }
    }
    Ok(active.len())
}

fn pause_again(conn: &mut Connection, account: AccountId, key: &Key) -> db::Result<()> {
    let server = Actor::server();
    diesel::update(row(account, key.id))
        .set((
            api_keys::status.eq(PAUSED),
            api_keys::paused_at.eq(clock::now()),
            api_keys::paused_by.eq(&server.name),
        ))
        .execute(conn)?;
    note(conn, account, key.id)?;
    Ok(record(
        conn,
        account,
        &server,
        Action::KeyPaused,
        key,
        AGAIN,
    )?)
}

/// Returns whether the key was allowed more than the line says.
fn restrict_again(
    conn: &mut Connection,
    account: AccountId,
    key: &Key,
    line: &KeyLine,
) -> db::Result<bool> {
    let earliest = |own: Option<NaiveDateTime>, other: Option<i64>| {
        own.into_iter().chain(other.map(clock::from_micros)).min()
    };
    let domains = common_domains(&key.scope, line.domains.as_deref());
    diesel::update(row(account, key.id))
        .set((
            RuleColumns::from(&common_rule(&key.rule, &line.rule)),
            api_keys::expires_at.eq(earliest(key.expires_at, line.expires)),
            api_keys::stops_at.eq(earliest(key.stops_at, line.stops)),
            api_keys::all_domains.eq(domains.is_none()),
        ))
        .execute(conn)?;
    if let Some(names) = domains {
        let owned = domains_store::list(conn, account)?;
        let ids = owned.iter().filter(|domain| names.contains(&domain.name));
        let ids: Vec<i64> = ids.map(|domain| domain.id).collect();
        unrestrict(conn, key.id)?;
        // Domains that were listed in this transaction are there.
        restrict(conn, account, key.id, &ids)?;
    }
    let (Found::Live(after) | Found::Ended(after)) = find(conn, account, key.id)? else {
        return Ok(true);
    };
    let mut changed = describe_changes(key, &after);
    if key.stops_at != after.stops_at {
        let stop = after.stops_at.as_ref().map(clock::rfc3339);
        changed.push_str(&format!("; it stops at {}", stop.unwrap_or_default()));
    }
    if changed.is_empty() {
        return Ok(false);
    }
    note(conn, account, key.id)?;
    let changed = format!("{}, {AGAIN}", changed.trim_start_matches("; "));
    let server = Actor::server();
    record(conn, account, &server, Action::KeyEdited, &after, &changed)?;
    Ok(true)
}

/// The names of the domains in both scopes; `None`: both allow all.
fn common_domains(scope: &Scope, names: Option<&[String]>) -> Option<Vec<String>> {
    match (scope, names) {
        (Scope::AllDomains, None) => None,
        (Scope::AllDomains, Some(names)) => Some(names.to_vec()),
        (Scope::Domains(domains), names) => {
            let own = domains.iter().map(|domain| domain.name.clone());
            let is_common = |name: &String| names.is_none_or(|names| names.contains(name));
            Some(own.filter(is_common).collect())
        }
    }
}

fn common_rule(rule: &Rule, columns: &BTreeMap<String, String>) -> Rule {
    let mut common = rule.clone();
    for part in PARTS {
        let other = Allowed::from_column(columns.get(part.name).cloned());
        part.set(&mut common, part.common(part.of(rule), &other));
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::scope::ScopedDomain;

    #[test]
    fn of_two_scopes_what_both_allow_is_left() {
        let of = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).into()).collect() };
        let scope = |names: &[&str]| {
            let domain = |name: &&str| ScopedDomain::former(name);
            Scope::Domains(names.iter().map(domain).collect())
        };
        assert_eq!(common_domains(&Scope::AllDomains, None), None);
        let a = of(&["a.test"]);
        assert_eq!(
            common_domains(&Scope::AllDomains, Some(&a)),
            Some(a.clone())
        );
        assert_eq!(common_domains(&scope(&["a.test"]), None), Some(a.clone()));
        let both = scope(&["a.test", "b.test"]);
        assert_eq!(common_domains(&both, Some(&a)), Some(a));
        assert_eq!(common_domains(&both, Some(&of(&["c.test"]))), Some(vec![]));
    }
}
