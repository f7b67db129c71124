//! Everything that is stored about an account, for its people: as one JSON document, or each table as
//! CSV. No secret, no hash, and no content of an email is part of it.

use chrono::NaiveDateTime;
use serde_json::{Value, json};

use crate::accounts::csv;
use crate::accounts::event::{Action, Filter};
use crate::accounts::store::{self as accounts_store, AccountId, events, sessions};
use crate::clock;
use crate::db::{self, Connection};
use crate::domains::store as domains_store;
use crate::keys::store::{self as keys_store, Key};
use crate::mail::store as mail_store;

/// Rows read at a time. A key may have 50 KB, an email that many recipients refused likewise.
const ROWS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Account,
    People,
    Sessions,
    Domains,
    Keys,
    Emails,
    Activity,
}

impl Table {
    pub const ALL: [Self; 7] = [
        Self::Account,
        Self::People,
        Self::Sessions,
        Self::Domains,
        Self::Keys,
        Self::Emails,
        Self::Activity,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::People => "people",
            Self::Sessions => "sessions",
            Self::Domains => "domains",
            Self::Keys => "keys",
            Self::Emails => "emails",
            Self::Activity => "activity",
        }
    }

    /// # Errors
    /// The names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|table| table.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            format!("“{text}” is not one of {}", names.join(", "))
        })
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Account => &["id", "title", "status", "created_at"],
            Self::People => &["id", "email", "role", "created_at"],
            Self::Sessions => &[
                "person_id",
                "signed_in_at",
                "last_seen_at",
                "address",
                "user_agent",
            ],
            Self::Domains => &[
                "id",
                "name",
                "status",
                "is_attested",
                "created_at",
                "dkim_public",
            ],
            Self::Keys => &[
                "id",
                "name",
                "description",
                "truncated",
                "status",
                "scope",
                "rule",
                "created_by",
                "created_at",
                "expires_at",
                "stops_at",
                "paused_at",
                "paused_by",
                "ended_at",
                "ended_by",
                "replaces",
                "last_used_at",
                "last_used_from",
                "last_used_by",
            ],
            Self::Emails => &[
                "id",
                "message_id",
                "key_id",
                "domain_id",
                "status",
                "accepted_at",
                "ended_at",
                "attempts",
                "sender",
                "first_recipient",
                "recipients",
                "reply",
            ],
            Self::Activity => &[
                "id",
                "time",
                "action",
                "subject_id",
                "subject",
                "detail",
                "actor",
                "address",
            ],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// All tables.
    Json,
    Csv(Table),
}

impl Format {
    fn tables(self) -> Vec<Table> {
        match self {
            Self::Json => Table::ALL.into(),
            Self::Csv(table) => vec![table],
        }
    }
}

/// An export under way. It is read in parts, each as of its own moment.
#[derive(Debug, Clone)]
pub struct Export {
    account: AccountId,
    format: Format,
    /// The tables that are left, with the one under way first.
    tables: Vec<Table>,
    /// The last row of it that was read; `None`: none yet.
    last: Option<i64>,
    is_begun: bool,
}

impl Export {
    pub fn new(account: AccountId, format: Format) -> Self {
        Self {
            account,
            format,
            tables: format.tables(),
            last: None,
            is_begun: false,
        }
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self, conn: &mut Connection) -> db::Result<Option<Vec<u8>>> {
        let Some(table) = self.tables.first().copied() else {
            return Ok(None);
        };
        let is_first = self.last.is_none();
        let (rows, last) = read(conn, self.account, table, self.last)?;
        let is_over = last.is_none();
        let mut part = Vec::new();
        match self.format {
            Format::Json => {
                if is_first {
                    let separator = if self.is_begun { "," } else { "{" };
                    part.extend(format!("{separator}\n\"{}\": [", table.as_str()).bytes());
                }
                for (index, row) in rows.into_iter().enumerate() {
                    let separator = if is_first && index == 0 { "\n" } else { ",\n" };
                    part.extend(format!("{separator}{}", object(table, row)).bytes());
                }
                if is_over {
                    let end = if self.tables.len() == 1 {
                        "]\n}\n"
                    } else {
                        "]"
                    };
                    part.extend(end.bytes());
                }
            }
            Format::Csv(_) => {
                if is_first {
                    part.extend(csv::line(table.columns()));
                }
                for row in &rows {
                    part.extend(csv::line(row.iter().map(cell)));
                }
            }
        }
        self.is_begun = true;
        self.last = last;
        if is_over {
            self.tables.remove(0);
        }
        Ok(Some(part))
    }
}

fn object(table: Table, row: Vec<Value>) -> Value {
    let names = table.columns().iter().map(|name| (*name).to_owned());
    Value::Object(names.zip(row).collect())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => csv::harmless(text),
        other => csv::harmless(&other.to_string()),
    }
}

type Rows = (Vec<Vec<Value>>, Option<i64>);

/// Some rows of a table after this one, and the last of them; `None`: there are no more.
fn read(
    conn: &mut Connection,
    account: AccountId,
    table: Table,
    last: Option<i64>,
) -> db::Result<Rows> {
    let most = ROWS as i64;
    let (rows, ids): (Vec<Vec<Value>>, Vec<i64>) = match table {
        Table::Account => return Ok((vec![account_row(conn, account)?], None)),
        Table::People => return Ok((people(conn, account)?, None)),
        Table::Sessions => return Ok((sessions_of(conn, account)?, None)),
        Table::Domains => return Ok((domains(conn, account)?, None)),
        Table::Keys => {
            let status = accounts_store::find(conn, account)?.status;
            let keys = keys_store::list_after(conn, account, last.unwrap_or_default(), most)?;
            let row = |key: &Key| (key_row(key, &status), key.id);
            keys.iter().map(row).unzip()
        }
        Table::Emails => {
            let emails = mail_store::list_kept(conn, account, last, most)?;
            emails.into_iter().map(|e| (email_row(&e), e.id)).unzip()
        }
        Table::Activity => {
            let events = events::list(conn, account, &Filter::default(), last, most)?;
            events.into_iter().map(|e| (event_row(&e), e.id)).unzip()
        }
    };
    let last = ids.last().copied().filter(|_| ids.len() == ROWS);
    Ok((rows, last))
}

fn at(instant: &NaiveDateTime) -> Value {
    clock::rfc3339(instant).into()
}

fn maybe(instant: Option<NaiveDateTime>) -> Value {
    instant.as_ref().map_or(Value::Null, at)
}

fn account_row(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Value>> {
    let found = accounts_store::find(conn, account)?;
    Ok(vec![
        account.0.into(),
        found.title.into(),
        found.status.as_str().into(),
        at(&found.created_at),
    ])
}

fn people(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Vec<Value>>> {
    let people = accounts_store::list_members(conn, account)?;
    let row = |person: accounts_store::Member| {
        vec![
            person.id.into(),
            person.email.into(),
            person.role.into(),
            at(&person.created_at),
        ]
    };
    Ok(people.into_iter().map(row).collect())
}

fn sessions_of(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    for person in accounts_store::list_members(conn, account)? {
        for session in sessions::list(conn, person.id)? {
            rows.push(vec![
                person.id.into(),
                at(&session.created_at),
                at(&session.last_seen_at),
                session.device.address.into(),
                session.device.user_agent.into(),
            ]);
        }
    }
    Ok(rows)
}

fn domains(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    for domain in domains_store::list(conn, account)? {
        let key = domains_store::find_key(conn, account, domain.id)?;
        rows.push(vec![
            domain.id.into(),
            domain.name.into(),
            domain.status.as_str().into(),
            domain.is_attested.into(),
            at(&domain.created_at),
            key.and_then(|key| key.public).into(),
        ]);
    }
    Ok(rows)
}

fn key_row(key: &Key, account: &accounts_store::AccountStatus) -> Vec<Value> {
    let (paused, last) = (key.paused.as_ref(), key.last_use.as_ref());
    let end = key.end_by(clock::now());
    let scope = match &end {
        // Its domains were kept as text.
        Some(_) => key.scope.to_string().into(),
        None => json!(key.scope),
    };
    vec![
        key.id.into(),
        key.name.as_str().into(),
        key.description.as_str().into(),
        key.truncated.to_string().into(),
        key.standing(account).status().as_str().into(),
        scope,
        json!(key.rule),
        key.created_by.into(),
        at(&key.created_at),
        maybe(key.expires_at),
        maybe(key.stops_at),
        maybe(paused.and_then(|paused| paused.at)),
        paused.and_then(|paused| paused.by.clone()).into(),
        maybe(end.as_ref().map(|end| end.at)),
        end.and_then(|end| end.by).into(),
        key.replaces.into(),
        maybe(key.last_used_at()),
        last.map(|last| last.address.clone()).into(),
        last.map(|last| last.user_agent.clone()).into(),
    ]
}

fn email_row(email: &mail_store::Kept) -> Vec<Value> {
    vec![
        email.id.into(),
        email.message_id.as_str().into(),
        email.api_key_id.into(),
        email.domain_id.into(),
        email.status.as_str().into(),
        at(&email.created_at),
        maybe(email.ended_at),
        email.attempts.into(),
        email.sender.clone().into(),
        email.recipient.clone().into(),
        email.recipients.into(),
        email.reply.clone().into(),
    ]
}

fn event_row(event: &events::Event) -> Vec<Value> {
    vec![
        event.id.into(),
        at(&event.at),
        event.action.map_or("unknown", Action::as_str).into(),
        event.subject_id.into(),
        event.subject.as_str().into(),
        event.detail.as_str().into(),
        event.actor.as_str().into(),
        event.address.clone().into(),
    ]
}
