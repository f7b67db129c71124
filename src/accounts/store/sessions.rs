//! Sessions of signed-in people: one row each, identified by the hash of the session's key.

use std::fmt;
use std::net::IpAddr;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::events;
use super::users::{Credentials, User, UserRow, find_user, rehash_password, user_columns};
use crate::accounts::device::Device;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::clock;
use crate::db::{self, Connection};
use crate::schema::{accounts, sessions, users};
use crate::token;

const IDLE: TimeDelta = TimeDelta::hours(12);
const LIFETIME: TimeDelta = TimeDelta::days(7);
/// The maximum number of sessions per person.
const MOST: i64 = 100;
/// A session's last use is written at most this often.
const SEEN_STEP: TimeDelta = TimeDelta::minutes(1);

/// Identifies a session. It gives no access, so a page may show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionId([u8; 32]);

impl SessionId {
    pub fn of_key(key: &str) -> Self {
        Self(token::hash(key))
    }

    /// Parses what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A session that continues under another id.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    pub from: SessionId,
    pub to: SessionId,
}

/// A live session, as its person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub created_at: NaiveDateTime,
    pub last_seen_at: NaiveDateTime,
    pub device: Device,
}

/// The result of ending a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    Now,
    Before,
    /// It belongs to another person, and continues.
    NotTheirs,
}

/// Starts a session, unless the password was changed since it was compared: a change ends all
/// sessions, and this one would escape that. Also removes sessions that have ended, and those
/// beyond `MOST` of this person. Returns whether the session was started.
pub fn insert(
    conn: &mut Connection,
    id: SessionId,
    proven: &Credentials,
    address: IpAddr,
    user_agent: &str,
) -> db::Result<bool> {
    // Changes nothing, but makes a change of the password wait until this session exists.
    if !rehash_password(conn, proven, &proven.password_hash)? {
        return Ok(false);
    }
    if let Some(now) = db::trusted_now(conn)? {
        diesel::delete(sessions::table.filter(sessions::created_at.lt(now - LIFETIME)))
            .execute(conn)?;
    }
    end_oldest(conn, proven.user_id, MOST - 1)?;
    let now = db::stamp(conn)?;
    diesel::insert_into(sessions::table)
        .values((
            sessions::id_hash.eq(&id.0[..]),
            sessions::user_id.eq(proven.user_id),
            sessions::created_at.eq(now),
            sessions::last_seen_at.eq(now),
            sessions::address.eq(address.to_string()),
            sessions::user_agent.eq(user_agent),
        ))
        .execute(conn)?;
    record_of_user(conn, proven.user_id, address, Action::SessionStarted)?;
    Ok(true)
}

/// Ends the person's sessions that were unused for longest, keeping this many.
fn end_oldest(conn: &mut Connection, user_id: i64, kept: i64) -> db::Result<()> {
    let oldest: Vec<Vec<u8>> = sessions::table
        .filter(sessions::user_id.eq(user_id))
        .order((sessions::last_seen_at.desc(), sessions::id_hash))
        .offset(kept)
        .limit(1_000)
        .select(sessions::id_hash)
        .load(conn)?;
    if oldest.is_empty() {
        return Ok(());
    }
    diesel::delete(sessions::table.filter(sessions::id_hash.eq_any(&oldest))).execute(conn)?;
    let Some(user) = find_user(conn, user_id)? else {
        return Ok(());
    };
    let detail = format!(
        "{} of this person, not seen for longest: there can be {MOST}",
        match oldest.len() {
            1 => "1 session".to_owned(),
            count => format!("{count} sessions"),
        }
    );
    record_end(conn, &user, &detail, &Actor::server())
}

/// Whether a person's session is live. From now until this transaction ends, others that end
/// sessions of this person or change the password wait; this one waits for those that came first,
/// and sees their changes.
pub fn hold(conn: &mut Connection, user_id: i64, id: SessionId) -> db::Result<bool> {
    lock_user(conn, user_id)?;
    let this = live()
        .filter(sessions::id_hash.eq(&id.0[..]))
        .filter(sessions::user_id.eq(user_id));
    Ok(diesel::select(diesel::dsl::exists(this)).get_result(conn)?)
}

/// Must come before any statement that starts or ends a person's sessions, and before any other
/// lock.
fn lock_user(conn: &mut Connection, user_id: i64) -> db::Result<()> {
    // Changes nothing, but makes other transactions wait.
    diesel::update(users::table.find(user_id))
        .set(users::password_hash.eq(users::password_hash))
        .execute(conn)?;
    Ok(())
}

/// The session's user, unless it has ended: 12 h idle, or 7 days old; and whether its last use is
/// old enough to be written again.
pub fn find_of_any_account(
    conn: &mut Connection,
    id: SessionId,
) -> db::Result<Option<(User, bool)>> {
    let row: Option<(UserRow, NaiveDateTime)> = live()
        .inner_join(users::table.inner_join(accounts::table))
        .filter(sessions::id_hash.eq(&id.0[..]))
        .select((user_columns(), sessions::last_seen_at))
        .first(conn)
        .optional()?;
    Ok(row.map(|(user, seen)| (User::from(user), seen < clock::now() - SEEN_STEP)))
}

/// A person's live sessions, the most recently used first.
pub fn list(conn: &mut Connection, user_id: i64) -> db::Result<Vec<Session>> {
    type Row = (Vec<u8>, NaiveDateTime, NaiveDateTime, String, String);
    let rows: Vec<Row> = live()
        .filter(sessions::user_id.eq(user_id))
        .order((sessions::last_seen_at.desc(), sessions::id_hash))
        .select((
            sessions::id_hash,
            sessions::created_at,
            sessions::last_seen_at,
            sessions::address,
            sessions::user_agent,
        ))
        .load(conn)?;
    let session = |(id, created_at, last_seen_at, address, user_agent): Row| {
        Some(Session {
            id: SessionId(id.try_into().ok()?),
            created_at,
            last_seen_at,
            device: Device {
                address,
                user_agent,
            },
        })
    };
    Ok(rows.into_iter().filter_map(session).collect())
}

/// Ends a session because its user signs out. If it has already ended, nothing changes.
pub fn end(conn: &mut Connection, user_id: i64, id: SessionId, address: IpAddr) -> db::Result<()> {
    lock_user(conn, user_id)?;
    let ended = diesel::delete(
        sessions::table
            .filter(sessions::id_hash.eq(&id.0[..]))
            .filter(sessions::user_id.eq(user_id)),
    )
    .execute(conn)?;
    match ended {
        0 => Ok(()),
        _ => record_of_user(conn, user_id, address, Action::SessionEnded),
    }
}

/// Ends a person's session from another one.
pub fn end_elsewhere(
    conn: &mut Connection,
    user: &User,
    id: SessionId,
    actor: &Actor,
) -> db::Result<SessionEnd> {
    let ended: Option<(String, String)> = diesel::delete(
        live()
            .filter(sessions::id_hash.eq(&id.0[..]))
            .filter(sessions::user_id.eq(user.id)),
    )
    .returning((sessions::address, sessions::user_agent))
    .get_result(conn)
    .optional()?;
    let Some((address, user_agent)) = ended else {
        let of_others = sessions::table
            .filter(sessions::id_hash.eq(&id.0[..]))
            .filter(sessions::user_id.ne(user.id));
        return Ok(
            match diesel::select(diesel::dsl::exists(of_others)).get_result(conn)? {
                true => SessionEnd::NotTheirs,
                false => SessionEnd::Before,
            },
        );
    };
    let device = Device {
        address,
        user_agent,
    };
    record_end(conn, user, &device.to_string(), actor)?;
    Ok(SessionEnd::Now)
}

/// Ends all of a person's sessions except one. Returns how many were live.
pub fn end_others(
    conn: &mut Connection,
    user: &User,
    this: SessionId,
    actor: &Actor,
) -> db::Result<usize> {
    let ended = delete_others(conn, user.id, this)?;
    if ended > 0 {
        record_end(conn, user, &others(ended), actor)?;
    }
    Ok(ended)
}

/// The number of a person's other sessions, in words.
pub fn others(count: usize) -> String {
    match count {
        0 => "no other session".to_owned(),
        1 => "1 other session".to_owned(),
        count => format!("{count} other sessions"),
    }
}

/// Deletes all of a person's sessions except one. Returns how many were live.
pub(super) fn delete_others(
    conn: &mut Connection,
    user_id: i64,
    this: SessionId,
) -> db::Result<usize> {
    let lived = diesel::delete(
        live()
            .filter(sessions::user_id.eq(user_id))
            .filter(sessions::id_hash.ne(&this.0[..])),
    )
    .execute(conn)?;
    diesel::delete(
        sessions::table
            .filter(sessions::user_id.eq(user_id))
            .filter(sessions::id_hash.ne(&this.0[..])),
    )
    .execute(conn)?;
    Ok(lived)
}

pub(super) fn delete_all(conn: &mut Connection, user_id: i64) -> db::Result<()> {
    diesel::delete(sessions::table.filter(sessions::user_id.eq(user_id))).execute(conn)?;
    Ok(())
}

/// Lets a person's live session continue under another id, without changing its age. Returns
/// whether it existed.
pub(super) fn renew(conn: &mut Connection, user_id: i64, renewal: Renewal) -> db::Result<bool> {
    let now = db::stamp(conn)?;
    let updated = diesel::update(
        live()
            .filter(sessions::id_hash.eq(&renewal.from.0[..]))
            .filter(sessions::user_id.eq(user_id)),
    )
    .set((
        sessions::id_hash.eq(&renewal.to.0[..]),
        sessions::last_seen_at.eq(now),
    ))
    .execute(conn)?;
    Ok(updated == 1)
}

fn record_end(conn: &mut Connection, user: &User, detail: &str, actor: &Actor) -> db::Result<()> {
    let event = NewEvent {
        action: Action::SessionEnded,
        subject_id: None,
        subject: "",
        detail,
    };
    Ok(events::record(conn, user.account, actor, event)?)
}

fn record_of_user(
    conn: &mut Connection,
    user_id: i64,
    address: IpAddr,
    action: Action,
) -> db::Result<()> {
    let Some(user) = find_user(conn, user_id)? else {
        return Ok(());
    };
    let event = NewEvent {
        action,
        subject_id: None,
        subject: "",
        detail: "",
    };
    let actor = Actor::user(user.id, &user.email, address);
    Ok(events::record(conn, user.account, &actor, event)?)
}

/// Corrects sessions that a wrong clock dated in the future, which would live for too long. Returns
/// how many.
pub fn pull_back_of_any_account(conn: &mut Connection) -> db::Result<usize> {
    let now = db::stamp(conn)?;
    let begun = diesel::update(sessions::table.filter(sessions::created_at.gt(now)))
        .set(sessions::created_at.eq(now))
        .execute(conn)?;
    let seen = diesel::update(sessions::table.filter(sessions::last_seen_at.gt(now)))
        .set(sessions::last_seen_at.eq(now))
        .execute(conn)?;
    Ok(begun + seen)
}

/// Records that a session is in use. One that has ended is not revived.
pub fn touch(conn: &mut Connection, id: SessionId) -> db::Result<()> {
    diesel::update(due(&id.0))
        .set(sessions::last_seen_at.eq(clock::now()))
        .execute(conn)?;
    Ok(())
}

pub fn delete(conn: &mut Connection, id: SessionId) -> db::Result<()> {
    diesel::delete(sessions::table.filter(sessions::id_hash.eq(&id.0[..]))).execute(conn)?;
    Ok(())
}

/// Signs everyone out.
pub fn end_all_of_any_account(conn: &mut Connection) -> db::Result<()> {
    diesel::delete(sessions::table).execute(conn)?;
    Ok(())
}

#[diesel::dsl::auto_type]
fn live() -> _ {
    let now: NaiveDateTime = clock::now();
    let idle: NaiveDateTime = now - IDLE;
    let old: NaiveDateTime = now - LIFETIME;
    sessions::table
        .filter(sessions::last_seen_at.gt(idle))
        .filter(sessions::created_at.gt(old))
}

#[diesel::dsl::auto_type]
fn due<'a>(id_hash: &'a [u8; 32]) -> _ {
    let before: NaiveDateTime = clock::now() - SEEN_STEP;
    let id_hash: &'a [u8] = id_hash;
    sessions::table
        .filter(sessions::id_hash.eq(id_hash))
        .filter(sessions::last_seen_at.lt(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_written() {
        let id = SessionId::of_key("key");
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse(&id.to_string().to_uppercase()), Some(id));
        for wrong in [
            "",
            "1",
            &"0".repeat(63),
            &"0".repeat(65),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }
}
