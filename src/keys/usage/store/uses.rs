//! When, from where and by which client keys were last used.

use chrono::NaiveDateTime;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::db::{self, Connection};
use crate::keys::usage::tally::Use;
use crate::schema::api_key_uses;

#[derive(Insertable)]
#[diesel(table_name = api_key_uses)]
struct UseRow<'a> {
    api_key_id: i64,
    used_at: NaiveDateTime,
    address: String,
    user_agent: &'a str,
}

impl<'a> From<&'a (i64, Use)> for UseRow<'a> {
    fn from((key_id, latest): &'a (i64, Use)) -> Self {
        Self {
            api_key_id: *key_id,
            used_at: latest.at,
            address: latest.address.to_string(),
            user_agent: &latest.user_agent,
        }
    }
}

/// Corrects uses that a wrong clock dated in the future, which would hide later ones. Returns how
/// many.
pub fn pull_back_uses_of_any_account(conn: &mut Connection) -> db::Result<usize> {
    let now = db::stamp(conn)?;
    let ahead = api_key_uses::table.filter(api_key_uses::used_at.gt(now));
    Ok(diesel::update(ahead)
        .set(api_key_uses::used_at.eq(now))
        .execute(conn)?)
}

/// Records uses of keys, each unless a later one is already stored.
pub fn record_uses_of_any_account(conn: &mut Connection, uses: &[(i64, Use)]) -> db::Result<()> {
    match conn {
        // Many rows per statement, because each statement is a round trip.
        Connection::Postgres(conn) => {
            use diesel::query_dsl::methods::FilterDsl;

            // A crash may lose them, and the commit waits for neither the disk nor a standby.
            conn.batch_execute("SET LOCAL synchronous_commit = off")?;
            for uses in uses.chunks(1_000) {
                diesel::insert_into(api_key_uses::table)
                    .values(uses.iter().map(UseRow::from).collect::<Vec<_>>())
                    .on_conflict(api_key_uses::api_key_id)
                    .do_update()
                    .set((
                        api_key_uses::used_at.eq(excluded(api_key_uses::used_at)),
                        api_key_uses::address.eq(excluded(api_key_uses::address)),
                        api_key_uses::user_agent.eq(excluded(api_key_uses::user_agent)),
                    ))
                    .filter(api_key_uses::used_at.lt(excluded(api_key_uses::used_at)))
                    .execute(conn)?;
            }
        }
        // Two statements that Diesel keeps prepared; it keeps none prepared that contains ON
        // CONFLICT.
        Connection::Sqlite(conn) => {
            for latest in uses {
                let known: Vec<NaiveDateTime> = api_key_uses::table
                    .filter(api_key_uses::api_key_id.eq(latest.0))
                    .select(api_key_uses::used_at)
                    .load(conn)?;
                if known.first().is_none_or(|known| *known < latest.1.at) {
                    diesel::replace_into(api_key_uses::table)
                        .values(UseRow::from(latest))
                        .execute(conn)?;
                }
            }
        }
    }
    Ok(())
}
