//! The space that deleted rows leave in SQLite's file. PostgreSQL uses its own again by itself.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::{Connection, Result};

/// Of the file, this part stays free for new rows: giving it back and taking it again would only cost
/// time.
const RESERVE: i64 = 10;
/// The value of `auto_vacuum` in a file that can be made smaller in steps.
const INCREMENTAL: i64 = 2;

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = BigInt)]
    all: i64,
    #[diesel(sql_type = BigInt)]
    free: i64,
    #[diesel(sql_type = BigInt)]
    auto_vacuum: i64,
}

/// How many pages of the file can be given back to the disk. Always 0 for a file from before this
/// program made such files.
pub fn count_spare(conn: &mut Connection) -> Result<i64> {
    let Connection::Sqlite(conn) = conn else {
        return Ok(0);
    };
    let pages: Pages = diesel::sql_query(
        "SELECT page_count AS \"all\", freelist_count AS free, auto_vacuum
         FROM pragma_page_count, pragma_freelist_count, pragma_auto_vacuum",
    )
    .get_result(conn)?;
    Ok(match pages.auto_vacuum {
        INCREMENTAL => (pages.free - pages.all / RESERVE).max(0),
        _ => 0,
    })
}

/// Gives back so many pages: those at the end of the file move into the free ones.
pub fn give_back(conn: &mut Connection, pages: i64) -> Result<()> {
    if let Connection::Sqlite(conn) = conn {
        conn.batch_execute(&format!("PRAGMA incremental_vacuum({pages})"))?;
    }
    Ok(())
}
