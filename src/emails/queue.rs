//! Which submissions are stored together next. Accounts take turns, so that none has to wait for all
//! the emails of another; those of one account keep their order.

use std::collections::{HashMap, HashSet, VecDeque};

/// Emails that share a commit, and how many bytes.
pub const MOST_TOGETHER: Size = Size {
    emails: 50,
    bytes: 4 * 1024 * 1024,
};
/// What may wait in all.
pub const MOST_WAITING: Size = Size {
    emails: 16_384,
    bytes: 128 * 1024 * 1024,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub emails: usize,
    pub bytes: usize,
}

impl Size {
    fn fits(self, most: Self) -> bool {
        self.emails <= most.emails && self.bytes <= most.bytes
    }

    fn plus(self, other: Self) -> Self {
        Self {
            emails: self.emails + other.emails,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            emails: self.emails.saturating_sub(other.emails),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// There is no room for more.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The waiting submissions.
pub struct Queue<T> {
    accounts: HashMap<i64, OfAccount<T>>,
    /// The accounts whose turn comes, in order.
    turns: VecDeque<i64>,
    /// The accounts of which something is being stored: what they have besides waits, to keep its
    /// order.
    busy: HashSet<i64>,
    size: Size,
}

struct OfAccount<T> {
    waiting: VecDeque<(Size, T)>,
    size: Size,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            turns: VecDeque::new(),
            busy: HashSet::new(),
            size: Size::default(),
        }
    }
}

impl<T> Queue<T> {
    /// An account may add while it has less than is free, which is half of the room if it is the only
    /// one. So one that sends more than can be stored leaves room for others.
    pub fn join(&mut self, account: i64, size: Size, submission: T) -> Result<(), Full> {
        let own = self
            .accounts
            .get(&account)
            .map_or(Size::default(), |of| of.size);
        let free = MOST_WAITING.minus(self.size);
        if own.emails >= free.emails || own.bytes >= free.bytes || !size.fits(free) {
            return Err(Full);
        }
        self.size = self.size.plus(size);
        let of_account = self.accounts.entry(account).or_insert_with(|| OfAccount {
            waiting: VecDeque::new(),
            size: Size::default(),
        });
        if of_account.waiting.is_empty() && !self.busy.contains(&account) {
            self.turns.push_back(account);
        }
        of_account.size = of_account.size.plus(size);
        of_account.waiting.push_back((size, submission));
        Ok(())
    }

    /// Takes what is stored together next, one submission per account and round; a large one alone.
    /// Their accounts are busy until [`Queue::release`].
    pub fn take(&mut self) -> Vec<(i64, T)> {
        let (mut taken, mut size) = (Vec::new(), Size::default());
        let mut passed_over = Vec::new();
        while size.fits(MOST_TOGETHER)
            && let Some(account) = self.turns.pop_front()
        {
            let Some(next) = self.next_size(account) else {
                continue;
            };
            if !taken.is_empty() && !size.plus(next).fits(MOST_TOGETHER) {
                passed_over.push(account);
                continue;
            }
            size = size.plus(next);
            if let Some(submission) = self.pop(account) {
                taken.push((account, submission));
            }
            self.turns.push_back(account);
        }
        // First in the next round, when there is room for them.
        for account in passed_over.into_iter().rev() {
            self.turns.push_front(account);
        }
        self.busy.extend(taken.iter().map(|(account, _)| *account));
        self.turns.retain(|account| !self.busy.contains(account));
        taken
    }

    /// What was taken of these accounts is stored.
    pub fn release(&mut self, accounts: impl IntoIterator<Item = i64>) {
        for account in accounts {
            if self.busy.remove(&account) && self.accounts.contains_key(&account) {
                self.turns.push_back(account);
            }
        }
    }

    fn next_size(&self, account: i64) -> Option<Size> {
        let (size, _) = self.accounts.get(&account)?.waiting.front()?;
        Some(*size)
    }

    fn pop(&mut self, account: i64) -> Option<T> {
        let of_account = self.accounts.get_mut(&account)?;
        let (size, submission) = of_account.waiting.pop_front()?;
        of_account.size = of_account.size.minus(size);
        if of_account.waiting.is_empty() {
            self.accounts.remove(&account);
        }
        self.size = self.size.minus(size);
        Some(submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size {
        emails: 1,
        bytes: 1_000,
    };

    fn join<'a>(queue: &mut Queue<&'a str>, account: i64, size: Size, names: &[&'a str]) {
        for name in names {
            assert_eq!(queue.join(account, size, name), Ok(()));
        }
    }

    fn take<'a>(queue: &mut Queue<&'a str>) -> Vec<&'a str> {
        let taken = queue.take();
        queue.release(taken.iter().map(|(account, _)| *account));
        taken.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn accounts_take_turns_and_each_keeps_its_order() {
        let mut queue = Queue::default();
        join(&mut queue, 1, SMALL, &["a1", "a2", "a3"]);
        join(&mut queue, 2, SMALL, &["b1"]);
        join(&mut queue, 3, SMALL, &["c1", "c2"]);
        assert_eq!(take(&mut queue), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert!(queue.take().is_empty());
        assert_eq!((queue.size, queue.accounts.len()), (Size::default(), 0));
    }

    #[test]
    fn one_that_sends_much_delays_another_by_one_commit() {
        let mut queue = Queue::default();
        for _ in 0..1_000 {
            join(&mut queue, 1, SMALL, &["many"]);
        }
        join(&mut queue, 2, SMALL, &["one"]);
        let first = take(&mut queue);
        assert_eq!(first.len(), MOST_TOGETHER.emails);
        assert_eq!(first[..3], ["many", "one", "many"]);
    }

    #[test]
    fn a_large_one_goes_alone_and_soon() {
        let mut queue = Queue::default();
        let (batch, heavy) = (
            Size {
                emails: 100,
                ..SMALL
            },
            Size {
                emails: 1,
                bytes: 16 << 20,
            },
        );
        join(&mut queue, 1, SMALL, &["a1"]);
        join(&mut queue, 2, batch, &["b1", "b2"]);
        join(&mut queue, 3, heavy, &["c1"]);
        join(&mut queue, 1, SMALL, &["a2"]);
        assert_eq!(take(&mut queue), ["a1", "a2"]);
        assert_eq!(take(&mut queue), ["b1"]);
        join(&mut queue, 1, SMALL, &["a3"]);
        assert_eq!(take(&mut queue), ["c1"]);
        assert_eq!(take(&mut queue), ["b2"]);
        assert_eq!(take(&mut queue), ["a3"]);
    }

    #[test]
    fn what_shares_a_commit_has_a_bounded_size() {
        let mut queue = Queue::default();
        let megabyte = Size {
            emails: 1,
            bytes: 1 << 20,
        };
        for account in 0..9 {
            join(&mut queue, account, megabyte, &["x"]);
        }
        assert_eq!([4, 4, 1], [(); 3].map(|()| take(&mut queue).len()));
    }

    #[test]
    fn what_an_account_has_besides_waits_until_the_rest_is_stored() {
        let mut queue = Queue::default();
        join(&mut queue, 1, SMALL, &["a1"]);
        assert_eq!(queue.take(), [(1, "a1")]);
        join(&mut queue, 1, SMALL, &["a2"]);
        join(&mut queue, 2, SMALL, &["b1"]);
        assert_eq!(queue.take(), [(2, "b1")]);
        assert!(queue.take().is_empty());
        queue.release([1]);
        assert_eq!(queue.take(), [(1, "a2")]);
    }

    #[test]
    fn the_room_is_bounded_and_no_account_takes_all_of_it() {
        for size in [
            SMALL,
            Size {
                emails: 1,
                bytes: 1 << 20,
            },
        ] {
            let mut queue = Queue::default();
            let mut fill = |account| {
                let joined = std::iter::from_fn(|| queue.join(account, size, "x").ok());
                joined.count()
            };
            let first = fill(1);
            let room = MOST_WAITING.emails.min(MOST_WAITING.bytes / size.bytes);
            assert_eq!(first, room / 2);
            assert_eq!(fill(2), room / 4);
            assert!(fill(3) > 0);
            while !take(&mut queue).is_empty() {}
            assert_eq!(queue.size, Size::default());
        }
    }
}
