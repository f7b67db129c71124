//! Keys as JSON on the command line, for programs. Members are only ever added, never changed.

use chrono::{NaiveDateTime, TimeDelta};
use serde::Serialize;

use crate::accounts::store::AccountStatus;
use crate::accounts::store::events::Event;
use crate::clock;
use crate::keys::rule::Rule;
use crate::keys::scope::Scope;
use crate::keys::store::{Key, Peer};

#[derive(Serialize)]
pub struct KeyJson<'a> {
    id: i64,
    name: &'a str,
    description: &'a str,
    truncated: String,
    scope: &'a Scope,
    /// A member for each of its parts: `"any"`, or a list.
    #[serde(flatten)]
    rule: &'a Rule,
    status: &'static str,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    stops_at: Option<String>,
    stops_when_quiet_hours: Option<i64>,
    /// The number of the key that this one was created to replace.
    replaces: Option<i64>,
    /// The number of the live key that replaces this one.
    replaced_by: Option<i64>,
    ended_at: Option<String>,
    ended_by: Option<&'a str>,
}

/// The additional properties in the output for a single key.
#[derive(Serialize)]
pub struct ShownJson<'a> {
    #[serde(flatten)]
    key: KeyJson<'a>,
    created_by: &'a str,
    paused_at: Option<String>,
    paused_by: Option<&'a str>,
    last_used_from: Option<&'a str>,
    last_used_by: Option<&'a str>,
    predecessor: Option<PeerJson>,
    successor: Option<PeerJson>,
    events: Vec<EventJson<'a>>,
}

#[derive(Serialize)]
struct PeerJson {
    id: i64,
    truncated: String,
    last_used_at: Option<String>,
    stops_at: Option<String>,
    stops_when_quiet_hours: Option<i64>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    at: String,
    action: Option<&'static str>,
    actor: &'a str,
    address: Option<&'a str>,
    detail: &'a str,
}

impl<'a> KeyJson<'a> {
    pub fn of(key: &'a Key, account: AccountStatus) -> Self {
        let end = key.end_by(clock::now());
        Self {
            id: key.id,
            name: &key.name,
            description: &key.description,
            truncated: key.truncated.to_string(),
            scope: &key.scope,
            rule: &key.rule,
            status: key.standing(&account).status().as_str(),
            created_at: clock::rfc3339(&key.created_at),
            expires_at: instant(key.expires_at),
            last_used_at: instant(key.last_used_at()),
            stops_at: instant(key.stops_at),
            stops_when_quiet_hours: hours(key.stops_when_quiet),
            replaces: key.replaces,
            replaced_by: key.successor.as_ref().map(|peer| peer.id),
            ended_at: instant(end.map(|end| end.at)),
            ended_by: key.end.as_ref().and_then(|end| end.by.as_deref()),
        }
    }
}

impl<'a> ShownJson<'a> {
    pub fn of(
        key: &'a Key,
        account: AccountStatus,
        created_by: &'a str,
        events: &'a [Event],
    ) -> Self {
        let (paused, last) = (key.paused.as_ref(), key.last_use.as_ref());
        Self {
            key: KeyJson::of(key, account),
            created_by,
            paused_at: instant(paused.and_then(|paused| paused.at)),
            paused_by: paused.and_then(|paused| paused.by.as_deref()),
            last_used_from: last.map(|last| &last.address[..]),
            last_used_by: last.map(|last| &last.user_agent[..]),
            predecessor: key.predecessor.as_ref().map(PeerJson::of),
            successor: key.successor.as_ref().map(PeerJson::of),
            events: events.iter().map(EventJson::of).collect(),
        }
    }
}

impl PeerJson {
    fn of(peer: &Peer) -> Self {
        Self {
            id: peer.id,
            truncated: peer.truncated.to_string(),
            last_used_at: instant(peer.last_used_at),
            stops_at: instant(peer.stops_at),
            stops_when_quiet_hours: hours(peer.stops_when_quiet),
        }
    }
}

impl<'a> EventJson<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            at: clock::rfc3339(&event.at),
            action: event.action.map(|action| action.as_str()),
            actor: &event.actor,
            address: event.address.as_deref(),
            detail: &event.detail,
        }
    }
}

fn instant(at: Option<NaiveDateTime>) -> Option<String> {
    at.as_ref().map(clock::rfc3339)
}

fn hours(time: Option<TimeDelta>) -> Option<i64> {
    time.map(|time| time.num_hours())
}
