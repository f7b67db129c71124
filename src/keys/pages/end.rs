//! Actions that stop a key: pausing it, deleting it, and stopping a replaced one.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;
use serde::Deserialize;

use super::super::store::{self, Found, Key, Peer};
use super::emails::{Emails, emails_of};
use super::rotation_note::Sentence;
use super::shown_key::ListedKey;
use super::{Empty, KeyList, find_live, fresh_list, live, path_of, shown_list, to_ended};
use crate::accounts::event::Actor;
use crate::accounts::session::{Acting, SignedIn, ThisSession};
use crate::accounts::store::{AccountId, AccountStatus, User};
use crate::db::{self, Connection, Share};
use crate::http::{Context, Error, page};
use crate::keys::usage::store as usage_store;
use crate::number::counted;
use crate::outbox::store as outbox_store;

/// An action that must be confirmed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Pause,
    Delete,
    /// For a replaced key.
    Stop,
}

impl Question {
    fn verb(self) -> &'static str {
        match self {
            Self::Pause => "Pause",
            Self::Delete => "Delete",
            Self::Stop => "Stop",
        }
    }

    /// The consequence for programs that use the key.
    fn effect(self) -> &'static str {
        match self {
            Self::Pause => "Programs that use it get authentication errors until you resume it.",
            Self::Delete | Self::Stop => {
                "Programs that use it get authentication errors. This cannot be undone."
            }
        }
    }
}

/// The question shown before a key is paused, deleted or stopped.
#[derive(Template)]
#[template(path = "keys/confirm.html", blocks = ["confirm"])]
struct ConfirmPage {
    user: User,
    key: Key,
    question: Question,
    /// The key whose page the question was asked on.
    origin: i64,
    /// The key's activity in the last 24 hours, if any.
    lately: Option<String>,
    is_fragment: bool,
    /// What the person typed as the key's name.
    typed: String,
    error: Option<&'static str>,
}

impl ConfirmPage {
    async fn new(
        context: &Context,
        request: &HttpRequest,
        user: User,
        key: Key,
        question: Question,
    ) -> Result<Self, Error> {
        let (account, id) = (user.account, key.id);
        let (history, volume) = context
            .db
            .read(move |conn| {
                let history = usage_store::history(conn, account, id)?;
                Ok::<_, db::Error>((history, outbox_store::volume_of_key(conn, account, id)?))
            })
            .await?;
        let calls = history.hours.iter().map(|hour| hour.accepted).sum();
        Ok(Self {
            user,
            key,
            question,
            origin: id,
            lately: calls_and_emails(calls, volume.last_24_hours),
            is_fragment: page::is_htmx(request),
            typed: String::new(),
            error: None,
        })
    }

    /// The address that the form is sent to.
    fn action(&self) -> String {
        let verb = self.question.verb().to_lowercase();
        let path = format!("{}/{verb}", path_of(self.key.id));
        match self.origin == self.key.id {
            true => path,
            false => format!("{path}?from={}", self.origin),
        }
    }

    /// Deleting a key that is in use requires its name to be typed. Stopping a replaced key does
    /// not, because another key has taken its place.
    fn asks_name(&self) -> bool {
        self.question == Question::Delete && self.key.is_in_use()
    }

    /// How the key that this one replaces ends by itself after the action, if it does.
    fn next_end_of(&self, old: &Peer) -> Vec<Sentence> {
        let mut next = old.next_end(&self.key);
        if self.question != Question::Pause {
            // It stops when quiet only while its successor exists.
            next.when_quiet = None;
        }
        match (next.at, next.when_quiet) {
            (None, None) => Vec::new(),
            _ => next.sentences("delete"),
        }
    }

    fn answer(&self, answer: HttpResponseBuilder) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::answer(answer, &self.as_confirm()),
            false => page::answer(answer, self),
        }
    }
}

/// `3 calls and 12 emails`: one call may carry many emails, and a verification carries none.
fn calls_and_emails(calls: i64, emails: i64) -> Option<String> {
    match (calls, emails) {
        (0, 0) => None,
        (calls, 0) => Some(counted(calls, "call")),
        (0, emails) => Some(counted(emails, "email")),
        (calls, emails) => Some(format!(
            "{} and {}",
            counted(calls, "call"),
            counted(emails, "email")
        )),
    }
}

/// `GET /api-keys/{id}/pause`: names the key and the effect of pausing it.
pub async fn confirm_pause(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    confirm(&context, &request, user, *id, Question::Pause, *id).await
}

/// `GET /api-keys/{id}/delete`: names the key and the effect of deleting it.
pub async fn confirm_delete(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    confirm(&context, &request, user, *id, Question::Delete, *id).await
}

/// `GET /api-keys/{id}/stop`: names the replaced key and the effect of stopping it.
pub async fn confirm_stop(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
    from: web::Query<Origin>,
) -> Result<HttpResponse, Error> {
    let origin = from.from.unwrap_or(*id);
    confirm(&context, &request, user, *id, Question::Stop, origin).await
}

async fn confirm(
    context: &Context,
    request: &HttpRequest,
    user: User,
    id: i64,
    question: Question,
    origin: i64,
) -> Result<HttpResponse, Error> {
    let Some(key) = find_live(context, &user, id).await? else {
        return Ok(to_ended(request, id));
    };
    if question == Question::Stop && key.successor.is_none() {
        return Ok(page::redirect(request, &path_with(id, "not-replaced")));
    }
    let page = ConfirmPage::new(context, request, user, key, question).await?;
    ConfirmPage { origin, ..page }.answer(HttpResponse::Ok())
}

/// What replaces the dialog after a change, with the list beside it.
#[derive(Template)]
#[template(path = "keys/_changed.html")]
struct ChangedFragment {
    said: String,
    list: KeyList,
}

#[derive(Deserialize)]
pub struct DeleteForm {
    /// The key's name, typed to confirm the deletion of a key that is in use.
    #[serde(default)]
    name: String,
}

/// `POST /api-keys/{id}/delete`: answers once the key is refused everywhere.
pub async fn delete(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
    web::Form(form): web::Form<DeleteForm>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    if let Some(key) = find_live(&context, &user, id).await?
        && key.is_in_use()
        && form.name.trim() != key.name
    {
        let mut page = ConfirmPage::new(&context, &request, user, key, Question::Delete).await?;
        page.typed = form.name;
        page.error = Some("This is not the name of the key. Nothing was deleted.");
        return page.answer(HttpResponse::UnprocessableEntity());
    }
    let found = change(
        &context,
        &user,
        session,
        actor,
        id,
        (Share::All, store::delete),
    )
    .await?;
    let Some(key) = live(found)? else {
        return Ok(page::redirect(&request, "/api-keys?notice=gone"));
    };
    let said = format!("The key “{}” was deleted. It no longer works.", key.name);
    changed(&context, &request, &user, said, "/api-keys?notice=deleted").await
}

/// `POST /api-keys/{id}/pause`: the key is refused from now on, until it is resumed.
pub async fn pause(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(
        &context,
        &user,
        session,
        actor,
        id,
        (Share::All, store::pause),
    )
    .await?;
    let Some(key) = live(found)? else {
        return Ok(to_ended(&request, id));
    };
    let said = format!("The key “{}” is paused.", key.name);
    changed(&context, &request, &user, said, &path_with(id, "paused")).await
}

type Change = fn(&mut Connection, AccountId, i64, &Actor) -> db::Result<Found>;

/// Changes a key with one of the store's functions, and returns its result.
async fn change(
    context: &Context,
    user: &User,
    session: ThisSession,
    actor: Actor,
    id: i64,
    (share, change): (Share, Change),
) -> Result<Found, Error> {
    let account = user.account;
    Ok(session
        .write_urgently(&context.db, share, move |conn| {
            change(conn, account, id, &actor)
        })
        .await??)
}

/// On the list: returns the current list, which replaces the one shown. Elsewhere: redirects.
pub(super) async fn changed(
    context: &Context,
    request: &HttpRequest,
    user: &User,
    said: String,
    elsewhere: &str,
) -> Result<HttpResponse, Error> {
    let Some(shown) = shown_list(request) else {
        return Ok(page::redirect(request, elsewhere));
    };
    match fresh_list(context, user, shown, None).await {
        Ok(list) => page::html(&ChangedFragment { said, list }),
        Err(_) => Ok(page::redirect(request, elsewhere)),
    }
}

/// A row that replaces the one shown, with the message and the counts beside it.
#[derive(Template)]
#[template(path = "keys/_resumed.html")]
struct ResumedFragment {
    said: String,
    key: Key,
    account_status: AccountStatus,
    emails: Emails,
}

impl ResumedFragment {
    fn row(&self) -> ListedKey<'_> {
        ListedKey::new(&self.key, &self.account_status, &self.emails)
    }
}

/// `POST /api-keys/{id}/resume`
pub async fn resume(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(
        &context,
        &user,
        session,
        actor,
        id,
        (Share::Nothing, store::resume),
    )
    .await?;
    let Some(key) = live(found)? else {
        return Ok(to_ended(&request, id));
    };
    if shown_list(&request).is_none() {
        return Ok(page::redirect(&request, &path_with(id, "resumed")));
    }
    let emails = emails_of(&context, &user, vec![id]).await?;
    page::html(&ResumedFragment {
        said: format!("The key “{}” is resumed.", key.name),
        key,
        account_status: user.account_status,
        emails,
    })
}

/// Where the button is: on the page of the key, or on that of its successor.
#[derive(Deserialize)]
pub struct Origin {
    from: Option<i64>,
}

/// `POST /api-keys/{id}/stop`: ends a replaced key.
pub async fn stop(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
    from: web::Query<Origin>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(
        &context,
        &user,
        session,
        actor,
        id,
        (Share::All, store::stop),
    )
    .await?;
    after_rotation(&request, found, id, from.from, "stopped")
}

/// `POST /api-keys/{id}/keep`: a replaced key no longer stops by itself.
pub async fn cancel_stop(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
    from: web::Query<Origin>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(
        &context,
        &user,
        session,
        actor,
        id,
        (Share::Nothing, store::cancel_stop),
    )
    .await?;
    after_rotation(&request, found, id, from.from, "kept")
}

fn after_rotation(
    request: &HttpRequest,
    found: Found,
    id: i64,
    from: Option<i64>,
    notice: &str,
) -> Result<HttpResponse, Error> {
    let Some(key) = live(found)? else {
        return Ok(to_ended(request, id));
    };
    let notice = match (notice, &key.successor) {
        // Its successor ended meanwhile, so nothing was stopped.
        ("stopped", None) => "not-replaced",
        (notice, _) => notice,
    };
    let to = path_with(from.unwrap_or(id), notice);
    Ok(page::redirect(request, &to))
}

/// The address of a key's page, with the notice to show there.
fn path_with(id: i64, notice: &str) -> String {
    format!("{}?notice={notice}", path_of(id))
}
