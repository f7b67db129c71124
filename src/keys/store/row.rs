//! What all changes of a key have in common: its row, its domains, and the entry in the activity.

use diesel::prelude::*;

use super::Key;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{AccountId, events};
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation};
use crate::domains::store as domains_store;
use crate::keys::scope::ScopedDomain;
use crate::schema::{api_key_domains, api_keys};

/// The row of a key that has not ended.
#[diesel::dsl::auto_type]
pub(super) fn row(account: AccountId, id: i64) -> _ {
    let account_id: i64 = account.0;
    api_keys::table
        .filter(api_keys::account_id.eq(account_id))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::ended_at.is_null())
}

pub(super) fn unrestrict(conn: &mut Connection, key_id: i64) -> QueryResult<()> {
    diesel::delete(api_key_domains::table.filter(api_key_domains::api_key_id.eq(key_id)))
        .execute(conn)?;
    Ok(())
}

pub(super) fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    action: Action,
    key: &Key,
    detail: &str,
) -> QueryResult<()> {
    let event = NewEvent {
        action,
        subject_id: Some(key.id),
        subject: &format!("{} ({})", key.name, key.truncated),
        detail,
    };
    events::record(conn, account, actor, event)
}

/// The properties of a key, for the record of its creation.
pub(super) fn describe(key: &Key) -> String {
    let mut parts = vec![format!("scope: {}", key.scope)];
    if let Some(at) = &key.expires_at {
        parts.push(format!("expires {}", clock::rfc3339(at)));
    }
    let restricted = key.rule.parts().filter(|(_, allowed)| !allowed.is_any());
    parts.extend(restricted.map(|(part, allowed)| format!("{}: {allowed}", part.name)));
    parts.join("; ")
}

/// Restricts a key to domains of its own account. `None`: the account does not have all of them.
pub(super) fn restrict(
    conn: &mut Connection,
    account: AccountId,
    key_id: i64,
    domain_ids: &[i64],
) -> db::Result<Option<Vec<ScopedDomain>>> {
    let mut domains = Vec::new();
    for &domain_id in domain_ids {
        let Some(domain) = domains_store::find(conn, account, domain_id)? else {
            return Ok(None);
        };
        let restricted = diesel::insert_into(api_key_domains::table)
            .values((
                api_key_domains::api_key_id.eq(key_id),
                api_key_domains::domain_id.eq(domain_id),
            ))
            .execute(conn);
        match restricted {
            // The domain was deleted since it was found.
            Err(error) if is_foreign_key_violation(&error) => return Ok(None),
            restricted => restricted?,
        };
        domains.push(ScopedDomain {
            id: domain_id,
            is_verified: domain.status.is_verified(),
            name: domain.name,
        });
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(domains))
}
