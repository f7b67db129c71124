//! Exports an account, and deletes it.

use actix_session::Session as Cookie;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use futures_util::stream;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::export::{Export, Format, Table};
use super::{Consequences, MOST_COUNTED, consequences};
use crate::accounts::downloads::{BUSY_SECONDS, DownloadTurn, Downloads};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::sign_in::SignInGuard;
use crate::accounts::store::{self, User};
use crate::accounts::throttle::ThrottleCounter;
use crate::clock;
use crate::db::{Db, Share};
use crate::http::{Context, Error, client_address, page};

const WRONG_NAME: &str = "This is not the name of the account.";
const WRONG_PASSWORD: &str = "This is not the password you have now.";

#[derive(Template)]
#[template(path = "account_end/export.html")]
struct ExportPage {
    user: User,
}

/// `GET /settings/export`
pub async fn show_export(SignedIn(user): SignedIn) -> Result<HttpResponse, Error> {
    page::html(&ExportPage { user })
}

/// `GET /settings/export/{file}`: `account.json` with everything, or a table, such as `keys.csv`.
pub async fn export(
    context: web::Data<Context>,
    downloads: web::Data<Downloads>,
    SignedIn(user): SignedIn,
    file: web::Path<String>,
) -> Result<HttpResponse, Error> {
    let (format, kind) = match file.rsplit_once('.') {
        Some(("account", "json")) => (Format::Json, "application/json"),
        Some((table, "csv")) => {
            let table = Table::parse(table).map_err(|_| Error::NotFound)?;
            (Format::Csv(table), "text/csv; charset=utf-8")
        }
        _ => return Err(Error::NotFound),
    };
    let turn = downloads.begin(user.account.0).ok_or(Error::TooMany {
        retry_after_seconds: BUSY_SECONDS,
    })?;
    let mut download = Download {
        db: context.db.clone(),
        rest: Export::new(user.account, format),
        part: Bytes::new(),
        _turn: turn,
    };
    // Before the answer starts: a failure here can still be reported as an error.
    download.read().await?;
    let pieces = stream::try_unfold(download, |mut download| async move {
        let piece = download.piece().await?;
        Ok::<_, Error>(piece.map(|piece| (piece, download)))
    });
    let name = format!("{}-{file}", clock::now().date());
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces))
}

/// How much is passed on at a time. The connection keeps it in memory until it is sent.
const PER_PIECE: usize = 32 * 1024;

/// The rest of a download.
struct Download {
    db: Db,
    rest: Export,
    /// Read, but not yet passed on.
    part: Bytes,
    _turn: DownloadTurn,
}

impl Download {
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.part.is_empty() {
            self.read().await?;
        }
        let length = self.part.len().min(PER_PIECE);
        Ok((length > 0).then(|| self.part.split_to(length)))
    }

    /// Reads on until there is something; nothing at the end.
    async fn read(&mut self) -> Result<(), Error> {
        loop {
            let mut rest = self.rest.clone();
            let (rest, part) = self
                .db
                .read(move |conn| {
                    let part = rest.next(conn)?;
                    Ok::<_, crate::db::Error>((rest, part))
                })
                .await?;
            self.rest = rest;
            match part {
                Some(part) if part.is_empty() => {}
                part => {
                    self.part = part.unwrap_or_default().into();
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Template)]
#[template(path = "account_end/delete.html")]
struct DeletePage {
    user: User,
    ends: Consequences,
    name: String,
    name_error: Option<&'static str>,
    password_error: Option<&'static str>,
}

impl DeletePage {
    async fn new(context: &Context, user: User) -> Result<Self, Error> {
        let account = user.account;
        let ends = context.db.read(move |conn| consequences(conn, account));
        Ok(Self {
            ends: ends.await?,
            user,
            name: String::new(),
            name_error: None,
            password_error: None,
        })
    }

    fn are_more_waiting(&self) -> bool {
        self.ends.waiting == MOST_COUNTED
    }
}

/// `GET /settings/delete`
pub async fn confirm(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    page::html(&DeletePage::new(&context, user).await?)
}

#[derive(Deserialize)]
pub struct DeleteForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: SecretString,
}

/// `POST /settings/delete`: with the account's name and the password, which somebody who finds the
/// browser open does not know.
pub async fn delete(
    context: web::Data<Context>,
    guard: web::Data<SignInGuard>,
    request: HttpRequest,
    cookie: Cookie,
    Acting { user, session, .. }: Acting,
    web::Form(form): web::Form<DeleteForm>,
) -> Result<HttpResponse, Error> {
    let counter = ThrottleCounter::of_session(&session.id);
    let from = client_address(&request);
    guard.admit_session(counter, from)?;
    let mut page = DeletePage::new(&context, user.clone()).await?;
    page.name = form.name.trim().to_owned();
    if page.name != user.title {
        page.name_error = Some(WRONG_NAME);
        return page::unprocessable(&page);
    }
    let proven = match form.password.expose_secret() {
        "" => None,
        _ => {
            let user_id = user.id;
            // Guesses count against this session, so that strangers cannot lock the person out.
            let known = session
                .write_urgently(&context.db, Share::Half, move |conn| {
                    store::find_credentials_of_user(conn, user_id)
                })
                .await??;
            let password = &form.password;
            let confirmed = guard.confirm(&context.db, counter, from, known, password);
            confirmed.await?
        }
    };
    if proven.is_none() {
        page.password_error = Some(WRONG_PASSWORD);
        return page::unprocessable(&page);
    }
    let account = user.account;
    session
        .write_urgently(&context.db, Share::All, move |conn| {
            super::end(conn, account)
        })
        .await??;
    tracing::info!(account = account.0, "an account was deleted by its owner");
    cookie.purge();
    Ok(page::redirect(&request, "/login?deleted"))
}
