//! Keys that were found to work, for as long as nothing has changed that could alter that.
//!
//! One thread owns a memory, and asks the database what has changed before each batch of answers. It never
//! believes what it remembers without: silence does not mean that nothing has changed.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::db::verdict_changes::{Changes, Position};
use crate::keys::secret::KeyHash;
use crate::keys::verification::store::Found;

/// What is remembered of a key.
struct Entry {
    found: Found,
    /// Shared by the keys of an account: whether they were forgotten. So it costs the same to forget one
    /// key or thousands.
    is_forgotten: Rc<Cell<bool>>,
}

/// At most so many keys. One takes about 400 bytes, and about 100 more for each domain in its scope.
pub struct Memory {
    most: usize,
    /// The last change that is part of what is remembered. `None`: nothing may be remembered.
    position: Option<Position>,
    keys: HashMap<KeyHash, Entry>,
    /// The hashes of `keys`, so that one of them can be picked.
    hashes: Vec<KeyHash>,
    accounts: HashMap<i64, Rc<Cell<bool>>>,
}

impl Memory {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            position: None,
            keys: HashMap::new(),
            hashes: Vec::new(),
            accounts: HashMap::new(),
        }
    }

    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Forgets what these changes, read from its position on, could have altered: everything, unless they
    /// continue where it stands and are complete.
    pub fn follow(&mut self, changes: &Changes) {
        if !changes.are_recorded || !changes.are_all || !self.is_continued_by(changes) {
            self.forget_all();
        } else {
            for change in &changes.rows[1..] {
                match change.account_id {
                    Some(account) => self.forget(account),
                    None => self.forget_all(),
                }
            }
        }
        let last = changes.rows.last().filter(|_| changes.are_recorded);
        if let Some(last) = last
            && self.position.as_ref() != Some(&last.position)
        {
            self.position = Some(last.position.clone());
        } else if last.is_none() {
            self.position = None;
        }
    }

    /// Whether the first one is the last one that was seen, and the numbers of the others have no gap.
    fn is_continued_by(&self, changes: &Changes) -> bool {
        let first = changes.rows.first().map(|first| &first.position);
        let mut in_turn = changes.rows.windows(2);
        first.is_some()
            && first == self.position.as_ref()
            && in_turn.all(|pair| pair[0].position.n + 1 == pair[1].position.n)
    }

    /// The key, if it is remembered.
    pub fn find(&self, hash: &KeyHash) -> Option<&Found> {
        let entry = self.keys.get(hash)?;
        (!entry.is_forgotten.get()).then_some(&entry.found)
    }

    /// Remembers a key that was found when this was the last change.
    pub fn remember(&mut self, hash: KeyHash, found: &Found, position: &Position) {
        if self.position.as_ref() != Some(position) || self.most == 0 {
            return;
        }
        let is_forgotten = self
            .accounts
            .entry(found.key.account.0)
            .or_default()
            .clone();
        let entry = Entry {
            found: found.clone(),
            is_forgotten,
        };
        // It may have been forgotten, and still have its place.
        if self.keys.insert(hash, entry).is_some() {
            return;
        }
        if self.hashes.len() < self.most {
            return self.hashes.push(hash);
        }
        // At random: of keys that are used in turn, a few more than have room would all be forgotten
        // otherwise, each just before its turn.
        let place = rand::random_range(0..self.hashes.len());
        let displaced = std::mem::replace(&mut self.hashes[place], hash);
        if let Some(entry) = self.keys.remove(&displaced) {
            self.let_go(&entry);
        }
    }

    /// Its account goes with the last of its keys.
    fn let_go(&mut self, displaced: &Entry) {
        // The entry and the map have one each.
        let is_last = Rc::strong_count(&displaced.is_forgotten) <= 2;
        if is_last && !displaced.is_forgotten.get() {
            self.accounts.remove(&displaced.found.key.account.0);
        }
    }

    fn forget(&mut self, account: i64) {
        if let Some(is_forgotten) = self.accounts.remove(&account) {
            is_forgotten.set(true);
        }
    }

    fn forget_all(&mut self) {
        self.keys.clear();
        self.hashes.clear();
        self.accounts.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::accounts::store::AccountId;
    use crate::clock;
    use crate::db::verdict_changes::Change;
    use crate::keys::rule::Rule;
    use crate::keys::scope::Scope;
    use crate::keys::secret::PlainKey;
    use crate::keys::verification::store::LiveKey;

    fn position(n: i64) -> Position {
        Position {
            n,
            mark: vec![n as u8],
        }
    }

    /// These changes, each of an account; 0: of all.
    fn changes(rows: &[(i64, i64)]) -> Changes {
        let change = |&(n, account): &(i64, i64)| Change {
            position: position(n),
            account_id: Some(account).filter(|id| *id != 0),
        };
        Changes {
            rows: rows.iter().map(change).collect(),
            are_all: true,
            are_recorded: true,
            now: clock::now(),
            journal: None,
        }
    }

    fn found(account: i64) -> (KeyHash, Found) {
        let key = PlainKey::generate();
        let live = LiveKey {
            id: 1,
            account: AccountId(account),
            name: "Key".into(),
            truncated: key.truncated(),
            scope: Scope::AllDomains,
            rule: Rule::default(),
        };
        let found = Found {
            key: Arc::new(live),
            ends_at: None,
        };
        (key.hash(), found)
    }

    /// A memory that stands at change 5, and has a key of account 1 and one of account 2.
    fn memory() -> (Memory, [KeyHash; 2]) {
        let mut memory = Memory::new(100);
        memory.follow(&changes(&[(5, 7)]));
        let hashes = [1, 2].map(|account| {
            let (hash, found) = found(account);
            memory.remember(hash, &found, &position(5));
            hash
        });
        assert_eq!(known(&memory, hashes), [true, true]);
        (memory, hashes)
    }

    fn known(memory: &Memory, hashes: [KeyHash; 2]) -> [bool; 2] {
        hashes.map(|hash| memory.find(&hash).is_some())
    }

    #[test]
    fn a_change_makes_it_forget_the_keys_of_that_account_only() {
        let (mut memory, hashes) = memory();
        memory.follow(&changes(&[(5, 7)]));
        assert_eq!(known(&memory, hashes), [true, true]);
        memory.follow(&changes(&[(5, 7), (6, 9), (7, 1)]));
        assert_eq!(known(&memory, hashes), [false, true]);
        assert_eq!(memory.position(), Some(&position(7)));
        memory.follow(&changes(&[(7, 1), (8, 0)]));
        assert_eq!(known(&memory, hashes), [false, false]);
    }

    #[test]
    fn it_believes_nothing_unless_the_changes_continue_where_it_stands() {
        let other_mark = Change {
            position: Position {
                n: 5,
                mark: vec![99],
            },
            account_id: Some(7),
        };
        for broken in [
            changes(&[(6, 7)]),
            changes(&[(5, 7), (7, 9)]),
            changes(&[(5, 7), (6, 9), (8, 9)]),
            changes(&[]),
            Changes {
                rows: vec![other_mark],
                ..changes(&[])
            },
            Changes {
                are_all: false,
                ..changes(&[(5, 7)])
            },
            Changes {
                are_recorded: false,
                ..changes(&[(5, 7)])
            },
        ] {
            let (mut memory, hashes) = memory();
            memory.follow(&broken);
            assert_eq!(known(&memory, hashes), [false, false], "{broken:?}");
        }
    }

    #[test]
    fn what_was_found_after_another_change_is_not_remembered() {
        let (mut memory, _) = memory();
        let (hash, found) = found(1);
        memory.remember(hash, &found, &position(6));
        assert!(memory.find(&hash).is_none());
        // While changes are not recorded, nothing is.
        memory.follow(&Changes {
            are_recorded: false,
            ..changes(&[(5, 7)])
        });
        memory.remember(hash, &found, &position(5));
        assert!(memory.find(&hash).is_none());
    }

    #[test]
    fn it_has_room_for_so_many_keys_and_their_accounts() {
        let mut memory = Memory::new(10);
        memory.follow(&changes(&[(5, 7)]));
        for account in 1..1_000 {
            let (hash, found) = found(account);
            memory.remember(hash, &found, &position(5));
            assert!(memory.find(&hash).is_some());
            // It was changed, and is found again.
            memory.forget(account);
            assert!(memory.find(&hash).is_none());
            memory.remember(hash, &found, &position(5));
            assert!(memory.find(&hash).is_some());
        }
        assert_eq!((memory.keys.len(), memory.hashes.len()), (10, 10));
        assert!(memory.accounts.len() <= 10, "{}", memory.accounts.len());
    }
}
