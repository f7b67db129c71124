//! The page of a key: what it is, how it is used, and what happened to it.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use askama::Template;
use chrono::NaiveDateTime;
use serde::Deserialize;

use super::super::rule::{RulePart, SENDERS};
use super::super::store::{self, Found, Key};
use super::super::usage::chart::UsageChart;
use super::emails::sparklines;
use super::path_of;
use super::rotation_note::RotationNote;
use super::shown_key::ShownKey;
use crate::accounts::event::Filter;
use crate::accounts::session::SignedIn;
use crate::accounts::store::events::{self, Event};
use crate::accounts::store::{User, find_user};
use crate::clock;
use crate::db;
use crate::http::{Context, Error, page};
use crate::keys::usage::sparkline::Sparkline;
use crate::keys::usage::store as usage_store;
use crate::outbox::{Volume, store as outbox_store};

const EVENTS: i64 = 10;

#[derive(Template)]
#[template(path = "keys/show.html")]
struct ShowPage {
    ended_at: Option<NaiveDateTime>,
    /// The person who created it.
    creator: String,
    usage: UsageChart,
    /// The calls of both keys of a rotation in the last 24 hours.
    lines: HashMap<i64, Sparkline>,
    volume: Volume,
    events: Vec<Event>,
    user: User,
    key: Key,
    notice: Option<&'static str>,
}

impl ShowPage {
    fn shown(&self) -> ShownKey<'_> {
        ShownKey::new(&self.key, &self.user.account_status)
    }

    fn path(&self) -> String {
        path_of(self.key.id)
    }

    fn rotation_notes(&self) -> Vec<RotationNote<'_>> {
        RotationNote::of(&self.key)
    }

    /// The label of a fact: `Sends from`, `Could send to`.
    fn can(&self, way: &str) -> String {
        match self.key.has_ended() {
            true => format!("Could send {way}"),
            false => format!("Sends {way}"),
        }
    }

    /// The parts of its rule besides the senders, which are shown with the domains: label and text.
    fn rule(&self) -> Vec<(String, String)> {
        let parts = self.key.rule.parts();
        let parts = parts.filter(|(part, _)| part.name != SENDERS.name);
        let fact = |(part, allowed): (&RulePart, _)| (self.can(part.way), part.describe(allowed));
        parts.map(fact).collect()
    }
}

#[derive(Deserialize)]
pub struct ShowQuery {
    notice: Option<String>,
}

/// `GET /api-keys/{id}`, including keys that ended in the last 90 days.
pub async fn show(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
    query: web::Query<ShowQuery>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let found = context
        .db
        .read(move |conn| {
            let key = match store::find(conn, account, id)? {
                Found::Live(key) | Found::Ended(key) => key,
                Found::Nothing => return Ok(None),
            };
            let creator = match key.created_by {
                Some(user_id) => find_user(conn, user_id)?.map(|user| user.email),
                None => None,
            };
            let usage = UsageChart::from(&usage_store::history(conn, account, id)?);
            let volume = outbox_store::volume_of_key(conn, account, id)?;
            let peers = [&key.predecessor, &key.successor].map(Option::as_ref);
            let peers = peers.into_iter().flatten().map(|peer| peer.id);
            let pair: Vec<i64> = peers.chain([id]).collect();
            let lines = sparklines(conn, account, &pair)?;
            let of_key = Filter {
                key_id: Some(id),
                ..Filter::default()
            };
            let events = events::list(conn, account, &of_key, None, EVENTS)?;
            Ok::<_, db::Error>(Some((key, creator, usage, lines, volume, events)))
        })
        .await?;
    let (key, creator, usage, lines, volume, events) = found.ok_or(Error::NotFound)?;
    page::html(&ShowPage {
        ended_at: key.end_by(clock::now()).map(|end| end.at),
        creator: creator.unwrap_or_else(|| "the operator".to_owned()),
        usage,
        lines,
        volume,
        events,
        notice: match query.notice.as_deref() {
            Some("saved") => Some("The changes are saved. They take effect with the next request."),
            Some("same") => Some("Nothing was changed."),
            Some("paused") => Some("The key is paused."),
            Some("resumed") => Some("The key is resumed."),
            Some("stopped") => Some("The old key was stopped. It no longer works."),
            Some("kept") => Some("The key no longer stops automatically."),
            Some("not-replaced") => {
                Some("Nothing was stopped: no other key replaces this one. To end it, delete it.")
            }
            Some("ended") => Some("Nothing was changed: this key has ended."),
            _ => None,
        },
        user,
        key,
    })
}
