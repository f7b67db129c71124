//! What the nodes of one PostgreSQL must have in common besides it: the secret.

use diesel::prelude::*;

use super::{Connection, Purpose, Result, serialize};
use crate::schema::nodes_secret;

const THE_ROW: i64 = 1;

/// Whether a secret with this hash is the one of all nodes. The first node decides.
pub fn share_secret(conn: &mut Connection, hash: &[u8; 32]) -> Result<bool> {
    serialize(conn, Purpose::NodesSecret)?;
    let shared: Option<Vec<u8>> = nodes_secret::table
        .select(nodes_secret::hash)
        .first(conn)
        .optional()?;
    match shared {
        Some(shared) => Ok(shared == hash),
        None => adopt_secret(conn, hash).map(|()| true),
    }
}

/// Whether the nodes are known to share the secret with this hash.
pub fn is_shared(conn: &mut Connection, hash: &[u8; 32]) -> Result<bool> {
    let shared: Option<Vec<u8>> = nodes_secret::table
        .select(nodes_secret::hash)
        .first(conn)
        .optional()?;
    Ok(shared.is_some_and(|shared| shared == hash))
}

/// Makes the secret with this hash the one of all nodes.
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
