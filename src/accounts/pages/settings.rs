//! The settings: the account's name, the person's password, and their sessions.

use actix_session::Session as Cookie;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::accounts::password::Password;
use crate::accounts::session::{Acting, SignedIn, ThisSession, go_on, sign_out};
use crate::accounts::sign_in::SignInGuard;
use crate::accounts::store::sessions::{self, Renewal, Session, SessionEnd, SessionId};
use crate::accounts::store::{self, Credentials, PasswordError, User};
use crate::accounts::throttle::ThrottleCounter;
use crate::accounts::title::Title;
use crate::db::Share;
use crate::http::{Context, Error, client_address, page};
use crate::token;

const WRONG: &str = "This is not the password you have now.";
const SAME: &str = "This is the password you have now. Choose another one.";
const OUTDATED: &str = "Your password was changed a moment ago. Enter the one you have now.";

#[derive(Template)]
#[template(path = "accounts/settings.html")]
struct SettingsPage {
    user: User,
    this: SessionId,
    /// The current one first.
    sessions: Vec<Session>,
    title: String,
    title_error: Option<String>,
    current_error: Option<String>,
    new_error: Option<String>,
    notice: Option<&'static str>,
}

#[derive(Deserialize)]
pub struct Query {
    notice: Option<String>,
}

/// `GET /settings`
pub async fn show(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    this: ThisSession,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let mut page = settings_page(&context, user, this.id).await?;
    page.notice = match query.notice.as_deref() {
        Some("renamed") => Some("The name is saved."),
        Some("same") => Some("Nothing was changed."),
        Some("password") => Some("Your password is changed. Your other devices are signed out."),
        Some("ended") => Some("The device is signed out."),
        Some("gone") => Some("That device was already signed out."),
        Some("others") => Some("Your other devices are signed out."),
        Some("alone") => Some("You are not signed in on any other device."),
        _ => None,
    };
    page::html(&page)
}

async fn settings_page(
    context: &Context,
    user: User,
    this: SessionId,
) -> Result<SettingsPage, Error> {
    let user_id = user.id;
    let mut sessions = context
        .db
        .read(move |conn| sessions::list(conn, user_id))
        .await?;
    sessions.sort_by_key(|session| session.id != this);
    Ok(SettingsPage {
        title: user.title.clone(),
        user,
        this,
        sessions,
        title_error: None,
        current_error: None,
        new_error: None,
        notice: None,
    })
}

#[derive(Deserialize)]
pub struct TitleForm {
    #[serde(default)]
    title: String,
}

/// `POST /settings/title`
pub async fn rename(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    web::Form(form): web::Form<TitleForm>,
) -> Result<HttpResponse, Error> {
    let title = match Title::parse(&form.title) {
        Ok(title) => title,
        Err(why) => {
            let mut page = settings_page(&context, user, session.id).await?;
            page.title = form.title;
            page.title_error = Some(why.to_string());
            return page::unprocessable(&page);
        }
    };
    let account = user.account;
    let is_renamed = session
        .write(&context.db, move |conn| {
            store::rename(conn, account, &title, &actor)
        })
        .await??;
    let to = match is_renamed {
        true => "/settings?notice=renamed",
        false => "/settings?notice=same",
    };
    Ok(page::redirect(&request, to))
}

#[derive(Deserialize)]
pub struct PasswordForm {
    #[serde(default)]
    current: SecretString,
    #[serde(default)]
    new: SecretString,
}

/// Which field prevents the change of the password, and why.
enum Problem {
    Current(String),
    New(String),
}

/// `POST /settings/password`: the person stays signed in here, under a new session id, and is
/// signed out everywhere else (ASVS 5.0, 7.2.4 and 7.4.3).
///
/// Long because each step needs what the step before it has proven.
pub async fn change_password(
    context: web::Data<Context>,
    guard: web::Data<SignInGuard>,
    request: HttpRequest,
    cookie: Cookie,
    acting: Acting,
    web::Form(form): web::Form<PasswordForm>,
) -> Result<HttpResponse, Error> {
    #[rustfmt::skip]
    let Acting { user, actor, session } = acting;
    let counter = ThrottleCounter::of_session(&session.id);
    let from = client_address(&request);
    guard.admit_session(counter, from)?;
    let (email, current) = (&user.email, &form.current);
    let problem = 'problem: {
        let new = match Password::choose(&form.new, email, &user.title) {
            Ok(new) => new,
            Err(why) => break 'problem Problem::New(why.to_string()),
        };
        if current.expose_secret().is_empty() {
            break 'problem Problem::Current("Enter the password you have now.".into());
        }
        // Guesses count against this session, so that strangers cannot lock the person out.
        let user_id = user.id;
        let known = session
            .write_urgently(&context.db, Share::Half, move |conn| {
                store::find_credentials_of_user(conn, user_id)
            })
            .await??;
        let confirmed = guard.confirm(&context.db, counter, from, known, current);
        let Some(proven) = confirmed.await? else {
            break 'problem Problem::Current(WRONG.into());
        };
        if new.is(&Password::typed(current)) {
            break 'problem Problem::New(SAME.into());
        }
        let new_hash = guard.hasher.hash(new).await?;
        let key = token::random();
        let renewal = Renewal {
            from: session.id,
            to: SessionId::of_key(&key),
        };
        let of_user = user.clone();
        let now = Credentials {
            user_id,
            password_hash: new_hash.clone(),
        };
        let changed = session
            .write_urgently(&context.db, Share::Half, move |conn| {
                store::change_password(conn, &of_user, &proven, &new_hash, renewal, &actor)
            })
            .await?;
        match changed {
            Ok(()) => {
                go_on(&cookie, &request, &key, &now)?;
                return Ok(page::redirect(&request, "/settings?notice=password"));
            }
            Err(PasswordError::SignedOut) => return Err(Error::SignInNeeded),
            Err(PasswordError::Outdated) => Problem::Current(OUTDATED.into()),
            Err(PasswordError::Db(error)) => return Err(error.into()),
        }
    };
    let mut page = settings_page(&context, user, session.id).await?;
    match problem {
        Problem::Current(why) => page.current_error = Some(why),
        Problem::New(why) => page.new_error = Some(why),
    }
    page::unprocessable(&page)
}

/// `POST /settings/sessions/{id}/end`: ends one of the person's sessions, possibly this one.
pub async fn end_session(
    context: web::Data<Context>,
    request: HttpRequest,
    cookie: Cookie,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<String>,
) -> Result<HttpResponse, Error> {
    let id = SessionId::parse(&id).ok_or(Error::NotFound)?;
    if id == session.id {
        sign_out(&cookie, &context.db, client_address(&request)).await?;
        return Ok(page::redirect(&request, "/login"));
    }
    let ended = session
        .write_urgently(&context.db, Share::Half, move |conn| {
            sessions::end_elsewhere(conn, &user, id, &actor)
        })
        .await??;
    match ended {
        SessionEnd::Now => Ok(page::redirect(&request, "/settings?notice=ended")),
        SessionEnd::Before => Ok(page::redirect(&request, "/settings?notice=gone")),
        SessionEnd::NotTheirs => Err(Error::NotFound),
    }
}

/// `POST /settings/sessions/end-others`
pub async fn end_others(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
) -> Result<HttpResponse, Error> {
    let this = session.id;
    let ended = session
        .write_urgently(&context.db, Share::Half, move |conn| {
            sessions::end_others(conn, &user, this, &actor)
        })
        .await??;
    let to = match ended {
        0 => "/settings?notice=alone",
        _ => "/settings?notice=others",
    };
    Ok(page::redirect(&request, to))
}
