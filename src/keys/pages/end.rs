//! What stops a key: pausing it, deleting it, and stopping one that was replaced.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;
use serde::Deserialize;

use super::super::store::{self, Found, Key};
use super::{KeyList, find_live, fresh_list, live, path_of, sent, shown_list, to_ended};
use crate::accounts::event::Actor;
use crate::accounts::session::{Acting, SignedIn, ThisSession};
use crate::accounts::store::{AccountId, AccountStatus, User};
use crate::app::State;
use crate::db::{self, Connection};
use crate::http::{Error, page};

/// The question before a key is paused or deleted.
#[derive(Template)]
#[template(path = "keys/confirm.html", blocks = ["confirm"])]
struct ConfirmPage {
    user: User,
    key: Key,
    /// How many calls were accepted in the last 24 hours.
    calls: i64,
    is_pause: bool,
    is_fragment: bool,
    /// What was typed for the key's name.
    typed: String,
    error: Option<&'static str>,
}

impl ConfirmPage {
    async fn new(
        state: &State,
        request: &HttpRequest,
        user: User,
        key: Key,
        is_pause: bool,
    ) -> Result<Self, Error> {
        let (account, id) = (user.account, key.id);
        let history = state
            .db
            .read(move |conn| store::history(conn, account, id))
            .await?;
        Ok(Self {
            user,
            key,
            calls: history.hours.iter().map(|hour| hour.accepted).sum(),
            is_pause,
            is_fragment: page::is_htmx(request),
            typed: String::new(),
            error: None,
        })
    }

    fn verb(&self) -> &'static str {
        if self.is_pause { "pause" } else { "delete" }
    }

    /// A key that somebody uses is deleted only by who types its name.
    fn asks_name(&self) -> bool {
        !self.is_pause && self.key.is_in_use()
    }

    fn answer(&self, answer: HttpResponseBuilder) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::answer(answer, &self.as_confirm()),
            false => page::answer(answer, self),
        }
    }
}

/// `GET /api-keys/{id}/pause`: names the key and what pausing it does.
pub async fn confirm_pause(
    state: web::Data<State>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    confirm(&state, &request, user, *id, true).await
}

/// `GET /api-keys/{id}/delete`: names the key and what deleting it does.
pub async fn confirm_delete(
    state: web::Data<State>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    confirm(&state, &request, user, *id, false).await
}

async fn confirm(
    state: &State,
    request: &HttpRequest,
    user: User,
    id: i64,
    is_pause: bool,
) -> Result<HttpResponse, Error> {
    let Some(key) = find_live(state, &user, id).await? else {
        return Ok(to_ended(request, id));
    };
    let page = ConfirmPage::new(state, request, user, key, is_pause).await?;
    page.answer(HttpResponse::Ok())
}

/// What takes the place of the dialog after a change, and the list beside it.
#[derive(Template)]
#[template(path = "keys/_changed.html")]
struct ChangedFragment {
    said: String,
    list: KeyList,
}

#[derive(Deserialize)]
pub struct DeleteForm {
    /// The key's name, typed by who wants to delete a key that is in use.
    #[serde(default)]
    name: String,
}

/// `POST /api-keys/{id}/delete`: answered when the key no longer works, anywhere.
pub async fn delete(
    state: web::Data<State>,
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
    if let Some(key) = find_live(&state, &user, id).await?
        && key.is_in_use()
        && form.name.trim() != key.name
    {
        let mut page = ConfirmPage::new(&state, &request, user, key, false).await?;
        page.typed = form.name;
        page.error = Some("This is not the name of the key. Nothing was deleted.");
        return page.answer(HttpResponse::UnprocessableEntity());
    }
    let found = change(&state, &user, session, actor, id, store::delete).await?;
    let Some(key) = live(found)? else {
        return Ok(page::redirect(&request, "/api-keys?notice=gone"));
    };
    let said = format!("The key “{}” was deleted. It no longer works.", key.name);
    changed(&state, &request, &user, said, "/api-keys?notice=deleted").await
}

/// `POST /api-keys/{id}/pause`: the key is refused from now on, until it is resumed.
pub async fn pause(
    state: web::Data<State>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(&state, &user, session, actor, id, store::pause).await?;
    let Some(key) = live(found)? else {
        return Ok(to_ended(&request, id));
    };
    let said = format!("The key “{}” is paused.", key.name);
    changed(&state, &request, &user, said, &path_of(id)).await
}

/// Changes a key as one of the store's functions does. Gives what that returns.
async fn change(
    state: &State,
    user: &User,
    session: ThisSession,
    actor: Actor,
    id: i64,
    change: fn(&mut Connection, AccountId, i64, &Actor) -> db::Result<Found>,
) -> Result<Found, Error> {
    let account = user.account;
    Ok(session
        .write(&state.db, move |conn| change(conn, account, id, &actor))
        .await??)
}

/// On the list: the list as it is now, in the place of the one that is shown. Elsewhere: leads on.
async fn changed(
    state: &State,
    request: &HttpRequest,
    user: &User,
    said: String,
    elsewhere: &str,
) -> Result<HttpResponse, Error> {
    let Some(shown) = shown_list(request) else {
        return Ok(page::redirect(request, elsewhere));
    };
    match fresh_list(state, user, shown).await {
        Ok(list) => page::html(&ChangedFragment { said, list }),
        Err(_) => Ok(page::redirect(request, elsewhere)),
    }
}

#[derive(Template)]
#[template(path = "keys/_row.html")]
struct RowFragment {
    key: Key,
    /// How many emails it had, as people read it.
    sent: String,
    account_status: AccountStatus,
}

/// `POST /api-keys/{id}/resume`
pub async fn resume(
    state: web::Data<State>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let id = *id;
    let found = change(&state, &user, session, actor, id, store::resume).await?;
    match live(found)? {
        None => Ok(to_ended(&request, id)),
        Some(key) if shown_list(&request).is_some() => page::html(&RowFragment {
            sent: sent(&state, &user, id).await?,
            key,
            account_status: user.account_status,
        }),
        Some(_) => Ok(page::redirect(&request, &path_of(id))),
    }
}

/// Where the button stands: on the page of the key, or of the one that replaces it.
#[derive(Deserialize)]
pub struct Origin {
    from: Option<i64>,
}

/// `POST /api-keys/{id}/stop`: ends a key that was replaced.
pub async fn stop(
    state: web::Data<State>,
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
    let found = change(&state, &user, session, actor, id, store::stop).await?;
    after_rotation(&request, found, id, from.from)
}

/// `POST /api-keys/{id}/keep`: a key that was replaced does not stop by itself any more.
pub async fn keep_going(
    state: web::Data<State>,
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
    let found = change(&state, &user, session, actor, id, store::keep_going).await?;
    after_rotation(&request, found, id, from.from)
}

fn after_rotation(
    request: &HttpRequest,
    found: Found,
    id: i64,
    from: Option<i64>,
) -> Result<HttpResponse, Error> {
    match live(found)? {
        Some(_) => Ok(page::redirect(request, &path_of(from.unwrap_or(id)))),
        None => Ok(to_ended(request, id)),
    }
}
