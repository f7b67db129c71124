//! Copies everything from SQLite to an empty PostgreSQL: as of one moment here, in one transaction
//! there. What both databases have then is compared.
//!
//! The tables and columns are those that the databases themselves name, so that none is forgotten.

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::connection::{Access, AnyConnection, establish};
use super::{DatabaseUrl, Db, migrations};

/// Rows and bytes per statement; a row that is longer goes alone.
const ROWS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;
/// diesel's own table, which both databases have.
const MIGRATIONS: &str = "__diesel_schema_migrations";
/// With a row in one of these, a server or a person has used the database.
const SIGNS_OF_USE: [&str; 3] = ["accounts", "nodes_secret", "ends_journal"];

/// What was copied.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub tables: usize,
    pub rows: i64,
}

/// The number of rows, and the sum of their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sum {
    rows: i64,
    hashes: u128,
}

/// Copies a SQLite database, whose tables are up to date, to an empty PostgreSQL. `alone`: nobody may
/// write to it meanwhile; otherwise the copy is as of the beginning.
///
/// # Errors
/// One sentence. Then PostgreSQL is as empty as before.
pub fn copy(from: &DatabaseUrl, to: &DatabaseUrl, alone: bool) -> Result<Copied, String> {
    let (AnyConnection::Sqlite(mut from), AnyConnection::Postgres(mut to)) = (
        connect(from, if alone { Access::Write } else { Access::Read })?,
        prepare(to)?,
    ) else {
        return Err("it goes from SQLite to PostgreSQL only".to_owned());
    };
    let begin = if alone { "BEGIN IMMEDIATE" } else { "BEGIN" };
    from.batch_execute(begin)
        .map_err(|e| format!("the SQLite database cannot be read: {e}"))?;
    let copied = to.transaction(|to| copy_all(&mut from, to));
    // It was only read.
    let _ = from.batch_execute("ROLLBACK");
    copied.map_err(|Failed(why)| why)
}

fn connect(url: &DatabaseUrl, access: Access) -> Result<AnyConnection, String> {
    establish(url, access).map_err(|e| e.to_string())
}

/// A connection to the PostgreSQL, which is empty but for up-to-date tables.
fn prepare(to: &DatabaseUrl) -> Result<AnyConnection, String> {
    let conn = connect(to, Access::Write)?;
    let AnyConnection::Postgres(mut postgres) = conn else {
        return Err("it goes to PostgreSQL only".to_owned());
    };
    refuse_used(&mut postgres).map_err(|Failed(why)| why)?;
    let db = Db::open(to)?;
    migrations::run(&db).map_err(|e| e.to_string())?;
    Ok(AnyConnection::Postgres(postgres))
}

/// Before anything is changed in it.
fn refuse_used(to: &mut PgConnection) -> Result<(), Failed> {
    let tables = tables_of_postgres(to)?;
    let is_ours = tables.iter().any(|table| table == MIGRATIONS);
    if !tables.is_empty() && !is_ours {
        return Err(Failed(format!(
            "that PostgreSQL database is not empty: it has the table {}; make a new one with CREATE DATABASE",
            tables[0]
        )));
    }
    for table in SIGNS_OF_USE
        .iter()
        .filter(|sign| tables.iter().any(|t| t == *sign))
    {
        if count(to, table)? > 0 {
            return Err(Failed(format!(
                "that PostgreSQL database is not empty: there are rows in {table}; make a new one with CREATE DATABASE"
            )));
        }
    }
    Ok(())
}

fn copy_all(from: &mut SqliteConnection, to: &mut PgConnection) -> Result<Copied, Failed> {
    to.batch_execute(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
         SET LOCAL idle_in_transaction_session_timeout = 0",
    )?;
    let tables = tables_in_order(from)?;
    let (mut here, mut there) = (tables.clone(), tables_of_postgres(to)?);
    there.retain(|table| table != MIGRATIONS);
    here.sort_unstable();
    if here != there {
        return Err(Failed(
            "that PostgreSQL database has other tables than this one; make a new one with CREATE DATABASE"
                .to_owned(),
        ));
    }
    // What writes by itself would write twice. This also keeps servers from starting on it.
    let triggers = triggers(to)?;
    for table in &tables {
        to.batch_execute(&format!("ALTER TABLE {table} DISABLE TRIGGER USER"))?;
    }
    // Again, for what came in between; and the rows that the migrations have made.
    refuse_used(to)?;
    for table in tables.iter().rev() {
        to.batch_execute(&format!("DELETE FROM {table}"))?;
    }
    let mut copied = Copied::default();
    for table in &tables {
        let columns = columns(from, to, table)?;
        let read = copy_table(from, to, table, &columns)?;
        let written = sum_of_postgres(to, table, &columns)?;
        if read != written {
            return Err(Failed(format!(
                "the copy of {table} does not agree: {} rows with the sum {} were read, {} rows with the sum {} are there; nothing was kept of it",
                read.rows, read.hashes, written.rows, written.hashes
            )));
        }
        copied.tables += 1;
        copied.rows += read.rows;
        tracing::info!(table, rows = read.rows, "copied; the counts and sums agree");
    }
    continue_numbers(from, to)?;
    for Pair { name, value } in triggers {
        let how = value.unwrap_or_default();
        to.batch_execute(&format!("ALTER TABLE {how} {name}"))?;
    }
    Ok(copied)
}

/// All tables, each after those that its rows refer to.
fn tables_in_order(from: &mut SqliteConnection) -> Result<Vec<String>, Failed> {
    let list = format!(
        "SELECT name AS text FROM sqlite_master
         WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '{MIGRATIONS}' ORDER BY name"
    );
    let mut left = Vec::new();
    for table in texts(sql_query(list).load(from)?) {
        let parents =
            sql_query("SELECT DISTINCT \"table\" AS text FROM pragma_foreign_key_list(?)")
                .bind::<Text, _>(&table)
                .load(from)?;
        let mut parents = texts(parents);
        parents.retain(|parent| *parent != table);
        left.push((table, parents));
    }
    let mut ordered: Vec<String> = Vec::new();
    while !left.is_empty() {
        let is_next = |(_, parents): &(String, Vec<String>)| {
            parents.iter().all(|parent| ordered.contains(parent))
        };
        let Some(next) = left.iter().position(is_next) else {
            return Err(Failed("tables refer to each other in a circle".to_owned()));
        };
        ordered.push(left.remove(next).0);
    }
    Ok(ordered)
}

fn tables_of_postgres(to: &mut PgConnection) -> Result<Vec<String>, Failed> {
    let list = "SELECT table_name::text AS text FROM information_schema.tables
         WHERE table_schema = current_schema() ORDER BY table_name COLLATE \"C\"";
    Ok(texts(sql_query(list).load(to)?))
}

/// The triggers that work, each by its name, and the beginning of the statement that makes it work as
/// before.
fn triggers(to: &mut PgConnection) -> Result<Vec<Pair>, Failed> {
    let list = "SELECT quote_ident(tgname) AS name, format('%I ENABLE %s TRIGGER', relname,
             CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END) AS value
         FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
         WHERE NOT tgisinternal AND tgenabled <> 'D' AND relnamespace = current_schema()::regnamespace";
    Ok(sql_query(list).load(to)?)
}

/// A column, and how it is kept.
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Text,
    Bytes,
    Bool,
    Instant,
}

/// The columns of a table, which both databases have, in SQLite's order.
fn columns(
    from: &mut SqliteConnection,
    to: &mut PgConnection,
    table: &str,
) -> Result<Vec<Column>, Failed> {
    let here = sql_query("SELECT name AS text FROM pragma_table_info(?) ORDER BY cid")
        .bind::<Text, _>(table)
        .load(from)?;
    let there: Vec<Pair> = sql_query(
        "SELECT column_name::text AS name, data_type::text AS value FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name = $1",
    )
    .bind::<Text, _>(table)
    .load(to)?;
    let here = texts(here);
    if here.len() != there.len() {
        return Err(Failed(format!("{table} has other columns in PostgreSQL")));
    }
    let column = |name: String| {
        let found = there.iter().find(|column| column.name == name);
        let kind = match found.and_then(|column| column.value.as_deref()) {
            Some("bigint") => Kind::Number,
            Some("text") => Kind::Text,
            Some("bytea") => Kind::Bytes,
            Some("boolean") => Kind::Bool,
            Some("timestamp without time zone") => Kind::Instant,
            _ => {
                return Err(Failed(format!(
                    "{table} has another column {name} in PostgreSQL"
                )));
            }
        };
        Ok(Column { name, kind })
    };
    here.into_iter().map(column).collect()
}

/// Copies the rows of a table. Returns the sum of what was read.
fn copy_table(
    from: &mut SqliteConnection,
    to: &mut PgConnection,
    table: &str,
    columns: &[Column],
) -> Result<Sum, Failed> {
    let names: Vec<&str> = columns.iter().map(|column| &column.name[..]).collect();
    let names = names.join(", ");
    let insert = format!(
        "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE
         SELECT {names} FROM json_populate_recordset(NULL::{table}, $1::json)"
    );
    let read = sql_query(format!("SELECT {} AS text FROM {table}", as_json(columns)));
    let mut sum = Sum { rows: 0, hashes: 0 };
    let mut batch = Batch::default();
    // One row at a time: SQLite does not read ahead.
    for row in read.load_iter::<Name, DefaultLoadingMode>(from)? {
        let row = row?.text;
        sum.rows += 1;
        sum.hashes += u128::from(hash(&row, columns)?);
        if batch.is_full_with(&row) {
            batch.write(to, table, &insert)?;
        }
        batch.add(row);
    }
    batch.write(to, table, &insert)?;
    Ok(sum)
}

/// Rows of one statement.
#[derive(Default)]
struct Batch {
    rows: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn is_full_with(&self, row: &str) -> bool {
        self.rows.len() == ROWS || (self.bytes > 0 && self.bytes + row.len() > BYTES)
    }

    fn add(&mut self, row: String) {
        self.bytes += row.len();
        self.rows.push(row);
    }

    /// Writes and empties it.
    fn write(&mut self, to: &mut PgConnection, table: &str, insert: &str) -> Result<(), Failed> {
        if self.rows.is_empty() {
            return Ok(());
        }
        sql_query(insert)
            .bind::<Text, _>(format!("[{}]", self.rows.join(",")))
            .execute(to)
            .map_err(|e| Failed(format!("{table} cannot be copied: {e}")))?;
        *self = Self::default();
        Ok(())
    }
}

/// A row in the form in which PostgreSQL reads it.
fn as_json(columns: &[Column]) -> String {
    let member = |Column { name, kind }: &Column| match kind {
        // hex(NULL) is empty.
        Kind::Bytes => {
            format!("'{name}', CASE WHEN {name} IS NOT NULL THEN '\\x' || lower(hex({name})) END")
        }
        _ => format!("'{name}', {name}"),
    };
    let members: Vec<String> = columns.iter().map(member).collect();
    format!("json_object({})", members.join(", "))
}

/// A number for a row: the beginning of its hash.
fn hash(row: &str, columns: &[Column]) -> Result<u64, Failed> {
    let row: Map<String, Value> = serde_json::from_str(row)?;
    let mut hash = Sha256::new();
    for column in columns {
        let text = match (&row[&column.name], column.kind) {
            (Value::Null, _) => {
                hash.update("-,");
                continue;
            }
            (Value::String(at), Kind::Instant) => to_microseconds(at),
            (Value::String(text), _) => text.clone(),
            (other, _) => other.to_string(),
        };
        hash.update(format!("{}:", text.len()));
        hash.update(text);
        hash.update(",");
    }
    let hash = hash.finalize();
    let first = hash[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    // Of PostgreSQL's longest number, which has a sign, 60 bits are whole digits.
    Ok(first >> 4)
}

/// An instant as SQLite has it, with all digits.
fn to_microseconds(at: &str) -> String {
    let (seconds, fraction) = at.split_once('.').unwrap_or((at, ""));
    format!("{seconds}.{fraction:0<6}")
}

/// The same sum as of what was read.
fn sum_of_postgres(to: &mut PgConnection, table: &str, columns: &[Column]) -> Result<Sum, Failed> {
    let text = |Column { name, kind }: &Column| match kind {
        Kind::Number => format!("{name}::text"),
        Kind::Text => name.clone(),
        Kind::Bytes => format!("'\\x' || encode({name}, 'hex')"),
        Kind::Bool => format!("CASE WHEN {name} THEN '1' ELSE '0' END"),
        Kind::Instant => format!("to_char({name}, 'YYYY-MM-DD HH24:MI:SS.US')"),
    };
    let parts: Vec<String> = columns
        .iter()
        .map(|column| {
            let (name, text) = (&column.name, text(column));
            format!(
                "CASE WHEN {name} IS NULL THEN '-,' ELSE octet_length({text})::text || ':' || ({text}) || ',' END"
            )
        })
        .collect();
    let sum: Pair = sql_query(format!(
        "SELECT count(*)::text AS name, coalesce(sum(part), 0)::text AS value FROM (
             SELECT ('x' || substr(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 1, 15))::bit(60)::bigint AS part
             FROM {table}
         ) AS parts",
        parts.join(" || ")
    ))
    .get_result(to)?;
    let number = |text: &str| text.parse().unwrap_or(u128::MAX);
    Ok(Sum {
        rows: sum.name.parse().unwrap_or(-1),
        hashes: number(&sum.value.unwrap_or_default()),
    })
}

/// New rows get higher numbers than any row has ever had.
fn continue_numbers(from: &mut SqliteConnection, to: &mut PgConnection) -> Result<(), Failed> {
    let last: Vec<Row> =
        sql_query("SELECT seq AS number, name AS text FROM sqlite_sequence WHERE seq > 0")
            .load(from)?;
    for Row {
        number,
        text: table,
    } in last
    {
        let sequence: Pair =
            sql_query("SELECT $1 AS name, pg_get_serial_sequence($1, 'id') AS value")
                .bind::<Text, _>(&table)
                .get_result(to)?;
        if let Some(sequence) = sequence.value {
            sql_query("SELECT setval($1::regclass, $2)")
                .bind::<Text, _>(sequence)
                .bind::<BigInt, _>(number)
                .execute(to)?;
        }
    }
    Ok(())
}

fn count(to: &mut PgConnection, table: &str) -> Result<i64, Failed> {
    let rows: Number =
        sql_query(format!("SELECT count(*) AS number FROM {table}")).get_result(to)?;
    Ok(rows.number)
}

fn texts(names: Vec<Name>) -> Vec<String> {
    names.into_iter().map(|name| name.text).collect()
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Pair {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    value: Option<String>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Why nothing was copied, in one sentence.
#[derive(Debug)]
struct Failed(String);

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self(format!("it cannot be copied: {error}"))
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("a row cannot be read: {error}"))
    }
}
