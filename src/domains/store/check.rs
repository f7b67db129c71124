//! Finds the domains that are due for a check, and stores the results. All times are by the clock
//! that the nodes share.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::row::{record_move, row, write_status};
use super::{Domain, DomainStatus, find};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::domains::life::{DomainStanding, jittered};
use crate::domains::records::{Findings, RecordState};
use crate::schema::sending_domains;

/// After this time another node may check a claimed domain; longer than a check takes.
const LEASE: TimeDelta = TimeDelta::minutes(2);
/// Longer than the interval between any domain's checks.
const LONGEST: TimeDelta = TimeDelta::days(2);

/// Some of the domains due for a check, from accounts other than these.
pub fn find_due_of_any_account(
    conn: &mut Connection,
    except: &[AccountId],
    most: i64,
) -> db::Result<Vec<(AccountId, i64)>> {
    let now = db::stamp(conn)?;
    let except: Vec<i64> = except.iter().map(|account| account.0).collect();
    // Two queries, because an index supports each condition but not an "or" of both.
    let mut due: Vec<(i64, i64)> = sending_domains::table
        .filter(sending_domains::next_check_at.is_null())
        .filter(sending_domains::account_id.ne_all(&except))
        .limit(most)
        .select((sending_domains::account_id, sending_domains::id))
        .load(conn)?;
    let late: Vec<(i64, i64)> = sending_domains::table
        .filter(sending_domains::next_check_at.le(now))
        .filter(sending_domains::account_id.ne_all(&except))
        .order(sending_domains::next_check_at)
        .limit(most)
        .select((sending_domains::account_id, sending_domains::id))
        .load(conn)?;
    due.extend(late);
    let ids = due
        .into_iter()
        .map(|(account, id)| (AccountId(account), id));
    Ok(ids.collect())
}

/// Claims a domain that is due for a check. Returns whether it did: only one of all nodes succeeds.
pub fn claim(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<bool> {
    let now = db::stamp(conn)?;
    let is_due = sending_domains::next_check_at
        .is_null()
        .or(sending_domains::next_check_at.le(now));
    let claimed = diesel::update(row(account, id).filter(is_due))
        .set(sending_domains::next_check_at.eq(now + LEASE))
        .execute(conn)?;
    Ok(claimed == 1)
}

/// Makes domains due whose next check is so far ahead that only a wrong clock can have set it.
/// Returns how many.
pub fn pull_back_of_any_account(conn: &mut Connection) -> db::Result<usize> {
    let now = db::stamp(conn)?;
    let far = sending_domains::table.filter(sending_domains::next_check_at.gt(now + LONGEST));
    Ok(diesel::update(far)
        .set(sending_domains::next_check_at.eq(now))
        .execute(conn)?)
}

/// Stores the DNS findings for a domain with this public key, changes its status accordingly, and
/// schedules the next check. Returns the domain after the change.
pub fn settle(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    public: &str,
    findings: &Findings,
    actor: &Actor,
) -> db::Result<Option<Domain>> {
    // Changes nothing, but makes other transactions wait.
    diesel::update(row(account, id))
        .set(sending_domains::account_id.eq(account.0))
        .execute(conn)?;
    let found: Option<(Domain, Option<NaiveDateTime>, Option<String>)> = row(account, id)
        .select((
            Domain::as_select(),
            sending_domains::pending_since,
            sending_domains::dkim_public,
        ))
        .first(conn)
        .optional()?;
    let Some((domain, pending_since, key)) = found else {
        return Ok(None);
    };
    let now = db::stamp(conn)?;
    if key.as_deref() != Some(public) {
        // The domain has got another key since, which was not looked up.
        return Ok(Some(domain));
    }
    let before = DomainStanding {
        status: domain.status,
        is_attested: domain.is_attested,
        pending_since: pending_since.unwrap_or(domain.created_at),
        missing_since: domain.missing_since,
    };
    let mut after = before.after(findings.dkim, now);
    if findings.dkim != Some(RecordState::Found) && db::trusted_now(conn)?.is_none() {
        // It is not known how long the record has been missing.
        after = before.clone();
    }
    if after.status != before.status {
        if write_status(conn, account, id, after.status)? {
            let detail = detail(after.status);
            record_move(conn, account, actor, &domain, after.status, detail)?;
        } else {
            // The domain is verified in another account, until that one loses it.
            after = before;
        }
    }
    let rest = jittered(after.rest(findings.dkim.is_some(), now));
    diesel::update(row(account, id))
        .set((
            sending_domains::missing_since.eq(after.missing_since),
            sending_domains::next_check_at.eq(now + rest),
        ))
        .execute(conn)?;
    write_findings(conn, account, id, findings, now)?;
    find(conn, account, id)
}

/// Why the status changed.
fn detail(status: DomainStatus) -> &'static str {
    match status {
        DomainStatus::Verified => "its DKIM record was found",
        DomainStatus::Pending | DomainStatus::Failed => "its DKIM record was not found",
    }
}

/// For queries without an answer, the last answer is kept.
fn write_findings(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    findings: &Findings,
    now: NaiveDateTime,
) -> QueryResult<()> {
    if let Some(state) = findings.dkim {
        if state.is_found() {
            diesel::update(row(account, id))
                .set(sending_domains::awaits_record.eq(false))
                .execute(conn)?;
        }
        diesel::update(row(account, id))
            .set((
                sending_domains::dkim_state.eq(state.as_str()),
                sending_domains::dkim_seen.eq(&findings.dkim_seen),
                sending_domains::checked_at.eq(now),
            ))
            .execute(conn)?;
    }
    if let Some(state) = findings.spf {
        diesel::update(row(account, id))
            .set(sending_domains::spf_state.eq(state.as_str()))
            .execute(conn)?;
    }
    if let Some(state) = findings.dmarc {
        diesel::update(row(account, id))
            .set(sending_domains::dmarc_state.eq(state.as_str()))
            .execute(conn)?;
    }
    Ok(())
}
