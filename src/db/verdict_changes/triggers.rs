//! The triggers that record changes: they stand in one file for each database, which is applied again
//! whenever one of them is missing, altered or disabled.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use crate::db::{Connection, Result};

const SQLITE: &str = include_str!("sqlite.sql");
const POSTGRES: &str = include_str!("postgres.sql");

/// How many triggers are enabled on PostgreSQL, also for replayed changes. Asked for every batch of keys.
pub(super) const COUNT_ENABLED: &str = "SELECT count(*) FROM pg_trigger WHERE tgrelid IN
     ('api_keys'::regclass, 'accounts'::regclass, 'sending_domains'::regclass, 'api_key_domains'::regclass)
     AND tgname LIKE 'verdict\\_%' AND tgenabled = 'A'";

/// As PostgreSQL describes them. The number says when a trigger runs (`pg_trigger.tgtype`).
const ON_POSTGRES: [&str; 8] = [
    "verdict_key on api_keys: verdict_of_key 25 deferred",
    "verdict_account on accounts: verdict_of_account 25 deferred",
    "verdict_domain on sending_domains: verdict_of_domain 29 deferred",
    "verdict_link on api_key_domains: verdict_of_link 29 deferred",
    "verdict_truncated on api_keys: verdict_of_all 32",
    "verdict_truncated on accounts: verdict_of_all 32",
    "verdict_truncated on sending_domains: verdict_of_all 32",
    "verdict_truncated on api_key_domains: verdict_of_all 32",
];

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Puts all triggers in place.
pub(super) fn apply(conn: &mut Connection) -> Result<()> {
    match conn {
        Connection::Sqlite(sqlite) => {
            drop_on_sqlite(sqlite)?;
            sqlite.batch_execute(SQLITE)?;
        }
        Connection::Postgres(conn) => {
            let schema = diesel::sql_query("SELECT quote_ident(current_schema()) AS text");
            let schema: Found = schema.get_result(conn)?;
            conn.batch_execute(&POSTGRES.replace("{schema}", &schema.text))?;
        }
    }
    Ok(())
}

/// Before migrations run: SQLite renames no table into a place that a trigger of another one refers to.
/// [`install`](super::install) puts them back in the same transaction.
pub fn make_way(conn: &mut Connection) -> Result<()> {
    match conn {
        Connection::Sqlite(conn) => drop_on_sqlite(conn),
        Connection::Postgres(_) => Ok(()),
    }
}

fn drop_on_sqlite(conn: &mut SqliteConnection) -> Result<()> {
    for (name, _) in on_sqlite(conn)? {
        conn.batch_execute(&format!("DROP TRIGGER {name}"))?;
    }
    Ok(())
}

/// A number that changes when a trigger is dropped or disabled: the schema's version on SQLite, which any
/// change of any table raises; the number of enabled triggers on PostgreSQL.
pub(super) fn schema(conn: &mut Connection) -> Result<i64> {
    let question = match conn {
        Connection::Sqlite(_) => "SELECT schema_version AS n FROM pragma_schema_version",
        Connection::Postgres(_) => &format!("SELECT ({COUNT_ENABLED}) AS n"),
    };
    let number: Number = diesel::sql_query(question).get_result(conn)?;
    Ok(number.n)
}

/// Whether each trigger is there as the file has it, and enabled.
pub(super) fn are_in_place(conn: &mut Connection) -> Result<bool> {
    match conn {
        Connection::Sqlite(conn) => {
            let found = on_sqlite(conn)?.into_iter().map(|(_, sql)| sql);
            let found: BTreeSet<String> = found.collect();
            let wanted: BTreeSet<String> = of_sqlite().map(str::to_owned).collect();
            Ok(found == wanted)
        }
        Connection::Postgres(conn) => {
            let wanted = ON_POSTGRES.into_iter().map(str::to_owned);
            let wanted: BTreeSet<String> = wanted.chain(bodies(POSTGRES)).collect();
            Ok(on_postgres(conn)? == wanted)
        }
    }
}

/// Names and texts of the triggers that are there.
fn on_sqlite(conn: &mut SqliteConnection) -> Result<Vec<(String, String)>> {
    let question = "SELECT name || char(10) || sql AS text FROM sqlite_schema
         WHERE type = 'trigger' AND name LIKE 'verdict\\_%' ESCAPE '\\'";
    let found: Vec<Found> = diesel::sql_query(question).load(conn)?;
    let split = |found: Found| {
        let (name, sql) = found.text.split_once('\n')?;
        Some((name.to_owned(), sql.to_owned()))
    };
    Ok(found.into_iter().filter_map(split).collect())
}

/// The statements of SQLite's file, as SQLite keeps them.
fn of_sqlite() -> impl Iterator<Item = &'static str> {
    let (_comment, triggers) = SQLITE.split_once("\n\n").unwrap_or_default();
    triggers.split_inclusive("\nEND;").filter_map(|trigger| {
        let trigger = trigger.trim();
        trigger.strip_suffix(';')
    })
}

/// The enabled triggers, and the bodies of their functions.
fn on_postgres(conn: &mut PgConnection) -> Result<BTreeSet<String>> {
    let question = "SELECT concat(tgname, ' on ', relname, ': ', proname, ' ', tgtype,
             CASE WHEN tginitdeferred THEN ' deferred' END) AS text
         FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid
         WHERE tgname LIKE 'verdict\\_%' AND tgenabled = 'A' AND relnamespace = current_schema()::regnamespace
         UNION ALL
         SELECT prosrc FROM pg_proc
         WHERE proname LIKE 'verdict\\_%' AND pronamespace = current_schema()::regnamespace";
    let found: Vec<Found> = diesel::sql_query(question).load(conn)?;
    Ok(found.into_iter().map(|found| found.text).collect())
}

/// What stands between `$body$` and `$body$`.
fn bodies(file: &str) -> impl Iterator<Item = String> + '_ {
    file.split("$body$").skip(1).step_by(2).map(str::to_owned)
}
