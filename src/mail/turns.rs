//! Which email is delivered next. Accounts take turns, so that none has to wait for all the emails
//! of another.

use std::collections::HashMap;

use super::store::Turn;

/// Emails delivered at a time, each on its own connection.
pub const PLACES: usize = 8;
/// Accounts looked up at a time.
pub const PAGE: i64 = 200;

/// The places for emails in delivery, and how many of them each account uses.
#[derive(Debug, Clone)]
pub struct Places {
    pub free: usize,
    taken: HashMap<i64, usize>,
}

impl Places {
    pub fn new(room: usize, accounts: impl IntoIterator<Item = i64>) -> Self {
        let mut places = Self {
            free: room,
            taken: HashMap::new(),
        };
        for account in accounts {
            places.give(account);
        }
        places
    }

    /// An account gets another place only while it has fewer than are free, which is half of all
    /// places if it is the only one. So emails stuck in a slow relay leave places for other
    /// accounts.
    fn take(&mut self, account: i64) -> bool {
        let own = self.taken.get(&account).copied().unwrap_or_default();
        let may = own < self.free;
        if may {
            self.give(account);
        }
        may
    }

    fn give(&mut self, account: i64) {
        *self.taken.entry(account).or_default() += 1;
        self.free = self.free.saturating_sub(1);
    }
}

/// The progress of the round. Each account gets one email per round, in the order of the accounts'
/// ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    /// The account whose turn was last.
    pub after: i64,
    /// In every other round retries go first, so that neither new emails nor retries wait for the
    /// others of the same account.
    prefers_retries: bool,
    /// Whether anything was picked in this round.
    has_picked: bool,
}

/// An email to deliver, and the account that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    pub account: i64,
    pub email: i64,
}

impl Turns {
    /// Picks emails of these accounts, which are next in order. Also returns whether the round is
    /// over.
    pub fn pick(&mut self, accounts: &[Turn], places: &mut Places) -> (Vec<Picked>, bool) {
        let mut picked = Vec::new();
        for turn in accounts {
            if places.free == 0 {
                return (picked, false);
            }
            self.after = turn.account_id;
            let email = match self.prefers_retries {
                true => turn.retry.or(turn.fresh),
                false => turn.fresh.or(turn.retry),
            };
            if let Some(email) = email
                && places.take(turn.account_id)
            {
                self.has_picked = true;
                picked.push(Picked {
                    account: turn.account_id,
                    email,
                });
            }
        }
        let is_over = accounts.len() < PAGE as usize;
        if is_over {
            self.after = 0;
            // A round for which there was no place changes nothing.
            self.prefers_retries ^= std::mem::take(&mut self.has_picked);
        }
        (picked, is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(account_id: i64, fresh: Option<i64>, retry: Option<i64>) -> Turn {
        Turn {
            account_id,
            fresh,
            retry,
        }
    }

    fn emails(picked: &[Picked]) -> Vec<i64> {
        picked.iter().map(|picked| picked.email).collect()
    }

    #[test]
    fn each_account_gets_one_email_in_a_round() {
        let accounts = [1, 2, 3].map(|id| turn(id, Some(id * 10), None));
        let mut turns = Turns::default();
        let (picked, is_over) = turns.pick(&accounts, &mut Places::new(2, []));
        assert_eq!(
            (emails(&picked), is_over, turns.after),
            (vec![10, 20], false, 2)
        );
        let (picked, is_over) = turns.pick(&accounts[2..], &mut Places::new(2, []));
        assert_eq!((emails(&picked), is_over, turns.after), (vec![30], true, 0));
    }

    #[test]
    fn new_emails_and_retries_of_an_account_take_turns() {
        let mut turns = Turns::default();
        let mut next = |fresh, retry| {
            let (picked, _) = turns.pick(&[turn(1, fresh, retry)], &mut Places::new(1, []));
            emails(&picked)
        };
        assert_eq!(next(Some(10), Some(11)), [10]);
        assert_eq!(next(Some(12), Some(11)), [11]);
        assert_eq!(next(Some(12), Some(13)), [12]);
        assert_eq!(next(Some(14), None), [14]);
        assert_eq!(next(None, Some(13)), [13]);
        assert!(next(None, None).is_empty());
    }

    #[test]
    fn a_round_without_a_place_is_no_turn() {
        let mut turns = Turns::default();
        let mut next = |taken: usize| {
            let mut places = Places::new(PLACES, [1; 4].into_iter().take(taken));
            let (picked, _) = turns.pick(&[turn(1, Some(10), Some(11))], &mut places);
            emails(&picked)
        };
        assert_eq!(next(3), [10]);
        assert!(next(4).is_empty());
        assert_eq!(next(3), [11]);
    }

    #[test]
    fn no_account_takes_all_places() {
        let mut places = Places::new(PLACES, []);
        for (account, most) in [(1, 4), (2, 2), (3, 1), (4, 1), (5, 0)] {
            let taken = (0..PLACES).filter(|_| places.take(account)).count();
            assert_eq!(taken, most, "{account}");
        }
        // While the relay is in doubt, one email tests it.
        assert!(Places::new(1, []).take(1));
        assert!(!Places::new(1, [1]).take(2));
        assert!(!Places::new(0, []).take(1));
    }

    #[test]
    fn an_account_that_has_its_share_is_passed_over() {
        let accounts = [1, 2].map(|id| turn(id, Some(id * 10), None));
        let mut places = Places::new(PLACES, [1; 4]);
        let (picked, is_over) = Turns::default().pick(&accounts, &mut places);
        assert_eq!((emails(&picked), is_over), (vec![20], true));
    }
}
