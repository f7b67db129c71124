//! Which secret belongs to a database: the nodes of a PostgreSQL database share it, and with SQLite
//! the next start needs the same one.

use diesel::prelude::*;

use super::{Connection, Purpose, Result, has_column, serialize};
use crate::schema::nodes_secret;

const THE_ROW: i64 = 1;

/// The hash of the secret that belongs to this database, found even before its tables are up to
/// date.
pub fn find_secret(conn: &mut Connection) -> Result<Option<Vec<u8>>> {
    if !has_column(conn, "nodes_secret", "hash")? {
        return Ok(None);
    }
    let hash = nodes_secret::table
        .select(nodes_secret::hash)
        .first(conn)
        .optional()?;
    Ok(hash)
}

/// The same, and makes other transactions that lock or change it wait until this one ends.
pub fn lock_secret(conn: &mut Connection) -> Result<Option<Vec<u8>>> {
    serialize(conn, Purpose::NodesSecret)?;
    find_secret(conn)
}

/// Whether the secret with this hash belongs to this database. The first node to ask decides.
pub fn share_secret(conn: &mut Connection, hash: &[u8; 32]) -> Result<bool> {
    match lock_secret(conn)? {
        Some(shared) => Ok(shared == hash),
        None => adopt_secret(conn, hash).map(|()| true),
    }
}

/// Makes the secret with this hash the one of this database.
pub fn adopt_secret(conn: &mut Connection, hash: &[u8; 32]) -> Result<()> {
    serialize(conn, Purpose::NodesSecret)?;
    diesel::delete(nodes_secret::table).execute(conn)?;
    diesel::insert_into(nodes_secret::table)
        .values((
            nodes_secret::id.eq(THE_ROW),
            nodes_secret::hash.eq(&hash[..]),
        ))
        .execute(conn)?;
    Ok(())
}
