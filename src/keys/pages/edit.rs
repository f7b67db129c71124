//! Edits a key without changing its secret. The page shows what changes for the programs that use
//! it before the change is made.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::super::changes::{Change, changes};
use super::super::store::{self, EditError, Key};
use super::form::{CHOOSE_DOMAINS, KeyForm, Pairs, expires, value};
use super::new::list_domains;
use super::{find_live, path_of, to_ended};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::db::Share;
use crate::domains::store::Domain;
use crate::http::{Context, Error, client_address, page};

const CHANGED: &str = "Someone has changed this key since you opened the form. What you entered is kept below: compare it with the key, then save again.";

#[derive(Template)]
#[template(path = "keys/edit.html")]
struct EditPage {
    user: User,
    key: Key,
    /// The version of the key when the form was opened.
    version: String,
    form: KeyForm,
    domains: Vec<Domain>,
    /// The current expiry.
    expires: String,
}

impl EditPage {
    fn new(user: User, key: Key, version: String, form: KeyForm, domains: Vec<Domain>) -> Self {
        Self {
            expires: expires(&key),
            user,
            key,
            version,
            form,
            domains,
        }
    }
}

/// The effects of a change, to be confirmed; the form is carried along in hidden fields.
#[derive(Template)]
#[template(path = "keys/edit_confirm.html")]
struct ConfirmPage {
    user: User,
    key: Key,
    changes: Vec<Change>,
    fields: Pairs,
}

/// `GET /api-keys/{id}/edit`
pub async fn edit(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let Some(key) = find_live(&context, &user, *id).await? else {
        return Ok(to_ended(&request, *id));
    };
    let domains = list_domains(&context, &user).await?;
    let form = KeyForm::of(&key).with_addresses(client_address(&request), key.last_use.as_ref());
    let version = key.version();
    page::html(&EditPage::new(user, key, version, form, domains))
}

/// `POST /api-keys/{id}/edit`: shows what would change for programs, unless that has been
/// confirmed; then saves the change.
pub async fn save(
    context: web::Data<Context>,
    request: HttpRequest,
    acting: Acting,
    id: web::Path<i64>,
    web::Form(pairs): web::Form<Pairs>,
) -> Result<HttpResponse, Error> {
    #[rustfmt::skip]
    let Acting { user, actor, session } = acting;
    let (account, id) = (user.account, *id);
    let Some(key) = find_live(&context, &user, id).await? else {
        return Ok(to_ended(&request, id));
    };
    let domains = list_domains(&context, &user).await?;
    let mut form =
        KeyForm::read(&pairs).with_addresses(client_address(&request), key.last_use.as_ref());
    let version = value(&pairs, "version").to_owned();
    let Some(edit) = form.parse(&domains) else {
        return page::unprocessable(&EditPage::new(user, key, version, form, domains));
    };
    if value(&pairs, "back") == "yes" {
        return page::html(&EditPage::new(user, key, version, form, domains));
    }
    let changes = changes(&key, &edit, &domains);
    if !changes.is_empty() && version == key.version() && value(&pairs, "confirmed") != "yes" {
        return page::html(&ConfirmPage {
            user,
            key,
            changes,
            fields: pairs,
        });
    }
    let wanted = version.clone();
    let saved = session
        .write_urgently(&context.db, Share::All, move |conn| {
            store::edit(conn, account, id, Some(&wanted), &edit, &actor)
        })
        .await?;
    match saved {
        Ok(now) => {
            let is_same = now.version() == version;
            let notice = if is_same { "same" } else { "saved" };
            let to = format!("{}?notice={notice}", path_of(id));
            Ok(page::redirect(&request, &to))
        }
        Err(EditError::NoSuchKey) => Err(Error::NotFound),
        Err(EditError::Ended(_)) => Ok(to_ended(&request, id)),
        Err(EditError::Db(error)) => Err(error.into()),
        Err(EditError::UnknownDomain) => {
            form.errors.scope = Some(CHOOSE_DOMAINS.to_owned());
            let page = EditPage::new(user, key, version, form, domains);
            page::unprocessable(&page)
        }
        Err(EditError::Changed) => {
            form.errors.form = Some(CHANGED.to_owned());
            let version = key.version();
            let page = EditPage::new(user, key, version, form, domains);
            page::answer(HttpResponse::Conflict(), &page)
        }
    }
}
