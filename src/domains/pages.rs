//! The Domains pages.

use std::collections::HashSet;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use chrono::TimeDelta;
use serde::Deserialize;

use super::check::{self, CheckLimit, Checker, SECONDS_BETWEEN};
use super::dkim::{record_name, record_text};
use super::name::DomainName;
use super::records::RecordState;
use super::store::{self, Added, Deleted, Domain, DomainStatus, Records};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::clock;
use crate::db::{self, Share};
use crate::http::{Context, Error, page};

/// How often a domain's page polls for changes: enough for about three hours.
const ROUNDS: u32 = 200;
const RECENTLY: TimeDelta = TimeDelta::minutes(1);

#[derive(Template)]
#[template(path = "domains/index.html")]
struct IndexPage {
    user: User,
    domains: Vec<Domain>,
    /// The ids of the domains whose keys cannot be opened.
    lost_keys: HashSet<i64>,
    name: String,
    name_error: Option<String>,
}

/// `GET /domains`
pub async fn index(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    page::html(&index_page(&context, &checker, user).await?)
}

async fn index_page(context: &Context, checker: &Checker, user: User) -> Result<IndexPage, Error> {
    let account = user.account;
    let checker = checker.clone();
    let (domains, lost_keys) = context
        .db
        .read(move |conn| {
            let sealed = store::list_sealed(conn, account)?.into_iter();
            let lost = sealed.filter(|(_, name, sealed)| !checker.can_open(name, sealed));
            let lost = lost.map(|(id, ..)| id).collect();
            Ok::<_, db::Error>((store::list(conn, account)?, lost))
        })
        .await?;
    Ok(IndexPage {
        user,
        domains,
        lost_keys,
        name: String::new(),
        name_error: None,
    })
}

#[derive(Deserialize)]
pub struct CreateForm {
    #[serde(default)]
    name: String,
}

/// `POST /domains`: adds a domain, which stays pending until it is verified.
pub async fn create(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    web::Form(form): web::Form<CreateForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let problem = match DomainName::typed(&form.name) {
        Ok(name) => {
            let limit = context.config.domain_limit;
            let added = match checker.key_for_new(account, &name, limit).await? {
                Ok(made) => {
                    let key = made.key.clone();
                    let add = move |conn: &mut _| {
                        store::add(conn, account, &name, Some(&key), limit, &actor)
                    };
                    session.write(&context.db, add).await??
                }
                Err(refused) => refused,
            };
            match added {
                Added::Yes(domain) => {
                    return Ok(page::redirect(&request, &format!("/domains/{}", domain.id)));
                }
                Added::AlreadyThere => "This domain is in your list already.".to_owned(),
                Added::LimitReached(count) => format!(
                    "This account has {count} domains, which is its limit. Delete one that you no longer use, or ask the operator for more."
                ),
            }
        }
        Err(why) => why.to_string(),
    };
    let mut page = index_page(&context, &checker, user).await?;
    page.name = form.name;
    page.name_error = Some(problem);
    page::unprocessable(&page)
}

#[derive(Template)]
#[template(path = "domains/show.html", blocks = ["content", "watch"])]
struct ShowPage {
    user: User,
    domain: Domain,
    records: Records,
    /// The records to publish, and what DNS has for each: key, SPF and DMARC.
    wanted: [Wanted; 3],
    /// The live keys restricted to the domain, by id and name.
    keys: Vec<(i64, String)>,
    /// Its record was found, but it is verified in another account.
    is_verified_elsewhere: bool,
    /// The key that signs its emails cannot be opened.
    is_key_lost: bool,
    /// The command with which the operator attests a domain.
    command: String,
    notice: Option<String>,
    /// How many times the page has polled already.
    round: u32,
    /// The message for screen readers.
    said: Option<String>,
}

impl ShowPage {
    /// Whether the page polls for changes because some are still expected.
    fn is_watched(&self) -> bool {
        self.round < ROUNDS
            && (!self.domain.status.is_verified()
                || self.domain.missing_since.is_some()
                || self.domain.awaits_record)
    }

    /// Why the domain failed: what happened to its record.
    fn failure(&self) -> &'static str {
        match self.domain.missing_since {
            Some(_) => "was missing for too long",
            None => "was not found in time",
        }
    }

    /// The time until the next poll, in seconds.
    fn pause(&self) -> u32 {
        (3 + self.round).min(60)
    }

    /// The parts of the page that change without the person's action.
    fn shown(&self) -> String {
        let Self {
            domain, records, ..
        } = self;
        [
            domain.status.as_str(),
            records.dkim.as_str(),
            records.spf.as_str(),
            records.dmarc.as_str(),
            if domain.missing_since.is_some() {
                "gone"
            } else {
                "there"
            },
            if domain.awaits_record { "new" } else { "old" },
            if self.is_key_lost { "lost" } else { "kept" },
        ]
        .join("-")
    }
}

/// A TXT record that a domain should have.
struct Wanted {
    /// Part of its element ids on the page.
    id: &'static str,
    title: &'static str,
    /// Whether the domain needs it.
    need: &'static str,
    /// Its purpose.
    hint: &'static str,
    name: String,
    value: String,
    state: RecordState,
    /// What DNS has at its name, beside the record or instead of it.
    seen: Option<String>,
}

impl Wanted {
    fn all(domain: &Domain, records: &Records) -> [Self; 3] {
        let public = records.dkim_public.as_deref().unwrap_or_default();
        [
            Self {
                id: "dkim",
                title: "DKIM",
                need: "required",
                hint: "It proves that the domain is yours. Receivers check the signatures of your emails with it.",
                name: record_name(&domain.name),
                value: record_text(public),
                state: records.dkim,
                seen: records.dkim_seen.clone(),
            },
            Self {
                id: "spf",
                title: "SPF",
                need: "recommended",
                hint: "It says which servers may send for the domain. What belongs there depends on the mail relay that the operator of this server uses: ask for its “include”, and put it before “~all”. The value below is a starting point, which allows the domain’s own mail servers. A domain has only one SPF record: if there is one already, extend it.",
                name: domain.name.clone(),
                value: "v=spf1 mx ~all".to_owned(),
                state: records.spf,
                seen: None,
            },
            Self {
                id: "dmarc",
                title: "DMARC",
                need: "recommended",
                hint: "It says what receivers do with emails that neither DKIM nor SPF vouches for. The value below lets them pass. If there is a record already, keep it.",
                name: format!("_dmarc.{}", domain.name),
                value: "v=DMARC1; p=none".to_owned(),
                state: records.dmarc,
                seen: None,
            },
        ]
    }

    fn about_seen(&self) -> &'static str {
        match self.state.is_found() {
            true => {
                "DNS has the record above, and others beside it. Receivers may take another one, with which the signatures of your emails fail. Remove the others:"
            }
            false => "DNS has something else there:",
        }
    }

    /// Whether the page explains common mistakes.
    fn tells_mistakes(&self) -> bool {
        let is_wrong = matches!(self.state, RecordState::Missing | RecordState::Different);
        self.id == "dkim" && is_wrong
    }

    /// Whether DNS may have several records where only one is allowed.
    fn is_one_of_several(&self) -> bool {
        self.id != "dkim" && self.state == RecordState::Different
    }
}

#[derive(Deserialize)]
pub struct ShowQuery {
    notice: Option<String>,
}

/// `GET /domains/{id}`
pub async fn show(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
    query: web::Query<ShowQuery>,
) -> Result<HttpResponse, Error> {
    let mut page = show_page(&context, &checker, user, *id).await?;
    page.notice = notice(query.notice.as_deref(), &page.domain, &page.records);
    page::html(&page)
}

async fn show_page(
    context: &Context,
    checker: &Checker,
    user: User,
    id: i64,
) -> Result<ShowPage, Error> {
    let account = user.account;
    let domain = find(context, &user, id).await?;
    let name = DomainName::known(&domain.name);
    // A domain older than domain keys gets its key here.
    checker.ensure_key(account, id, &name).await?;
    let checker = checker.clone();
    let found = context
        .db
        .read(move |conn| {
            let Some(records) = store::find_records(conn, account, id)? else {
                return Ok(None);
            };
            // Shown only to accounts that have proven that they control the domain.
            let is_verified_elsewhere = records.dkim.is_found()
                && !domain.status.is_verified()
                && store::is_verified_elsewhere(conn, account, &name)?;
            let key = store::find_key(conn, account, id)?;
            let is_key_lost = key.is_some_and(|key| checker.is_lost(&key));
            let keys = store::list_keys(conn, account, id)?;
            let found = (domain, records, keys, is_verified_elsewhere, is_key_lost);
            Ok::<_, db::Error>(Some(found))
        })
        .await?;
    let (domain, records, keys, is_verified_elsewhere, is_key_lost) =
        found.ok_or(Error::NotFound)?;
    let command = format!(
        "{} domain add --account={} {} --verified",
        page::shell_quote(&program()),
        page::shell_quote(&user.email),
        page::shell_quote(&domain.name),
    );
    Ok(ShowPage {
        wanted: Wanted::all(&domain, &records),
        user,
        domain,
        records,
        keys,
        is_verified_elsewhere,
        is_key_lost,
        command,
        notice: None,
        round: 0,
        said: None,
    })
}

/// The name by which the operator started this program, for example commands.
fn program() -> String {
    let word = std::env::args().next();
    word.unwrap_or_else(|| "tosend-dashboard".to_owned())
}

#[derive(Deserialize)]
pub struct ChangesQuery {
    /// What the page currently shows.
    #[serde(default)]
    shown: String,
    #[serde(default)]
    round: u32,
}

/// `GET /domains/{id}/changes`: the domain's page, if it has changed. It does not extend the
/// session, because the person may have left.
pub async fn changes(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    user: Option<SignedIn>,
    id: web::Path<i64>,
    query: web::Query<ChangesQuery>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        return Ok(page::stop_polling());
    };
    let mut page = match show_page(&context, &checker, user, *id).await {
        Err(Error::NotFound) => return Ok(page::stop_polling()),
        page => page?,
    };
    if page.shown() == query.shown {
        page.round = query.round.saturating_add(1);
        return page::html(&page.as_watch());
    }
    page.said = Some(format!(
        "{} is {}.",
        page.domain.name,
        page.domain.status.as_str()
    ));
    let content = page.as_content();
    let mut answer = page::html(&content)?;
    page::retarget(&mut answer, "#domain");
    Ok(answer)
}

/// `POST /domains/{id}/replace-key`: makes another key pair, if the domain's own cannot be opened.
pub async fn replace_key(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let domain = find(&context, &user, id).await?;
    if let Some((made, lost)) = checker.key_for_lost(account, id).await? {
        let (name, key) = (DomainName::known(&domain.name), made.key.clone());
        let replace =
            move |conn: &mut _| store::replace_lost_key(conn, account, &name, &lost, &key, &actor);
        session.write(&context.db, replace).await??;
    }
    Ok(page::redirect(&request, &format!("/domains/{id}")))
}

/// Remains true when the page is reloaded later.
fn notice(which: Option<&str>, domain: &Domain, records: &Records) -> Option<String> {
    match which? {
        "checked" => Some(format!(
            "{} was checked {}: it is {}.",
            domain.name,
            clock::ago(&records.checked_at?),
            domain.status.as_str()
        )),
        // DNS has answered since.
        "silent"
            if records
                .checked_at
                .is_some_and(|at| clock::now() - at < RECENTLY) =>
        {
            None
        }
        "silent" => Some(
            "DNS gave no answer, so nothing was changed. The server asks again by itself."
                .to_owned(),
        ),
        "wait" => Some(format!(
            "A domain was checked a moment ago. Wait {SECONDS_BETWEEN} seconds, then check again."
        )),
        _ => None,
    }
}

/// `POST /domains/{id}/check`: checks the domain's records now.
pub async fn check(
    context: web::Data<Context>,
    checker: web::Data<Checker>,
    check_limit: web::Data<CheckLimit>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    // Only the permission to start a check depends on the session. Its result is stored even if the
    // session ends meanwhile, because the server also checks by itself.
    let found = move |conn: &mut _| store::find(conn, account, id);
    let domain = session.write(&context.db, found).await??;
    domain.ok_or(Error::NotFound)?;
    let notice = if check_limit.admits(account) {
        let checked = checker.check(account, id, actor).await?;
        match checked.ok_or(Error::NotFound)?.is_answered {
            true => "checked",
            false => "silent",
        }
    } else {
        "wait"
    };
    Ok(page::redirect(
        &request,
        &format!("/domains/{id}?notice={notice}"),
    ))
}

impl From<check::Error> for Error {
    fn from(error: check::Error) -> Self {
        match error {
            check::Error::Db(error) => error.into(),
            error => Self::Internal(error.to_string()),
        }
    }
}

#[derive(Template)]
#[template(path = "domains/delete.html")]
struct DeletePage {
    user: User,
    domain: Domain,
    /// The live keys that prevent the deletion, by id and name.
    keys: Vec<(i64, String)>,
}

/// `GET /domains/{id}/delete`
pub async fn confirm_delete(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    page::html(&delete_page(&context, user, *id).await?)
}

/// `POST /domains/{id}/delete`: refused while live keys are restricted to the domain.
pub async fn delete(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let deleted = session
        .write_urgently(&context.db, Share::All, move |conn| {
            store::delete(conn, account, id, &actor)
        })
        .await??;
    match deleted {
        Deleted::Yes => Ok(page::redirect(&request, "/domains")),
        Deleted::NoSuchDomain => Err(Error::NotFound),
        Deleted::InUse => page::unprocessable(&delete_page(&context, user, id).await?),
    }
}

async fn delete_page(context: &Context, user: User, id: i64) -> Result<DeletePage, Error> {
    let domain = find(context, &user, id).await?;
    let account = user.account;
    let keys = context
        .db
        .read(move |conn| store::list_keys(conn, account, id))
        .await?;
    Ok(DeletePage { user, domain, keys })
}

async fn find(context: &Context, user: &User, id: i64) -> Result<Domain, Error> {
    let account = user.account;
    context
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?
        .ok_or(Error::NotFound)
}
