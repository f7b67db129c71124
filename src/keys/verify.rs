//! Who holds this key? Asked of the database for every request, never of a cache, so that a
//! deleted key is refused by the very next one.

use super::secret::PlainKey;
use super::store::{self, LiveKey};
use crate::db::{self, Db};

/// The key that was presented, if it works right now. What cannot be a key is not looked up.
pub async fn verify(db: &Db, presented: &[u8]) -> db::Result<Option<LiveKey>> {
    let Some(key) = PlainKey::parse(presented) else {
        return Ok(None);
    };
    let hash = key.hash();
    db.read(move |conn| store::find_live_by_hash_of_any_account(conn, &hash))
        .await
}
