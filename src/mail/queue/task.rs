//! What is done with an email, and what speaks against it.

use std::collections::BTreeMap;

use crate::mail::attempt::RefusedRecipient;
use crate::outbox::EmailStatus;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Send it again now to those recipients that did not get it.
    Retry,
    /// Make no more attempts.
    Cancel,
    /// Delete its row.
    Purge,
}

/// What matters about an email at the moment when something is done with it.
#[derive(Debug)]
pub struct State {
    pub status: EmailStatus,
    /// A server is sending it right now.
    pub is_under_way: bool,
    /// A server was sending it and was cut off: the relay may have it.
    pub is_cut_off: bool,
    pub attempts: i64,
    pub has_content: bool,
    /// The recipients that still have to get it; `None`: all.
    pub remaining: Option<Vec<String>>,
    pub refused: Vec<RefusedRecipient>,
    /// Its row is needed for the totals.
    pub is_needed: bool,
}

/// Whether the task is done, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskVerdict {
    Done,
    /// Cancelled, but an attempt was cut off.
    DonePerhapsSent,
    UnderWay,
    /// Not tried yet: it will be without a retry.
    Waiting,
    /// Delivered to every recipient.
    Delivered,
    /// It cannot be told who has it.
    Unclear,
    NoContent,
    Ended,
    NotEnded,
    Needed,
}

impl TaskVerdict {
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::DonePerhapsSent)
    }

    /// Why the task is not done with these emails, or what to know about it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::DonePerhapsSent => {
                "may have been sent all the same: an attempt was cut off before its result was stored"
            }
            Self::UnderWay => {
                "left alone: being sent right now (an attempt takes up to ten minutes)"
            }
            Self::Waiting => "left alone: not tried yet, so there is nothing to retry",
            Self::Delivered => "left alone: delivered to every recipient",
            Self::Unclear => "left alone: it is not known which of the recipients have it",
            Self::NoContent => "left alone: the content is deleted (TOSEND_RETENTION_DAYS)",
            Self::Ended => "left alone: delivered or failed already",
            Self::NotEnded => "left alone: still to be delivered; cancel first",
            Self::Needed => {
                "left alone: accepted in the last two days (or while the clock is in doubt), and needed for the totals"
            }
        }
    }
}

impl Task {
    pub fn verdict(self, email: &State) -> TaskVerdict {
        match self {
            _ if email.is_under_way => TaskVerdict::UnderWay,
            Self::Retry => retry_verdict(email),
            Self::Cancel if has_ended(email) => TaskVerdict::Ended,
            Self::Cancel if email.is_cut_off => TaskVerdict::DonePerhapsSent,
            Self::Cancel => TaskVerdict::Done,
            Self::Purge if !has_ended(email) => TaskVerdict::NotEnded,
            Self::Purge if email.is_needed => TaskVerdict::Needed,
            Self::Purge => TaskVerdict::Done,
        }
    }
}

fn has_ended(email: &State) -> bool {
    matches!(email.status, EmailStatus::Delivered | EmailStatus::Failed)
}

fn retry_verdict(email: &State) -> TaskVerdict {
    match email.status {
        EmailStatus::Held => TaskVerdict::Waiting,
        _ if !email.has_content => TaskVerdict::NoContent,
        EmailStatus::Deferred => TaskVerdict::Done,
        _ if !email.refused.is_empty() => TaskVerdict::Done,
        EmailStatus::Delivered => TaskVerdict::Delivered,
        // It could not become a message. If the relay answered before that, some may have it.
        EmailStatus::Failed if email.attempts > 0 => TaskVerdict::Unclear,
        EmailStatus::Failed => TaskVerdict::Done,
    }
}

impl State {
    /// The recipients of a retry: never one that has it. `None`: all.
    pub fn recipients_of_retry(&self) -> Option<Vec<String>> {
        let refused = self.refused.iter().map(|refused| refused.email.clone());
        match (&self.remaining, has_ended(self)) {
            // Nobody has it.
            (_, true) if self.refused.is_empty() => None,
            (None, false) => None,
            (remaining, _) => {
                let remaining = remaining.iter().flatten().cloned();
                Some(remaining.chain(refused).collect())
            }
        }
    }
}

/// How many emails met which verdict.
#[derive(Debug, Default)]
pub struct TaskTally(BTreeMap<TaskVerdict, usize>);

impl TaskTally {
    pub fn add(&mut self, verdict: TaskVerdict) {
        *self.0.entry(verdict).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (verdict, count) in &other.0 {
            *self.0.entry(*verdict).or_default() += count;
        }
    }

    /// How many the task is done with.
    pub fn done(&self) -> usize {
        let done = self.0.iter().filter(|(verdict, _)| verdict.is_done());
        done.map(|(_, count)| count).sum()
    }

    /// What else there is to say, with the number of emails.
    pub fn remarks(&self) -> impl Iterator<Item = (TaskVerdict, usize)> {
        let all = self.0.iter().map(|(verdict, count)| (*verdict, *count));
        all.filter(|(verdict, _)| *verdict != TaskVerdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: EmailStatus) -> State {
        State {
            status,
            is_under_way: false,
            is_cut_off: false,
            attempts: 1,
            has_content: true,
            remaining: Some(Vec::new()),
            refused: Vec::new(),
            is_needed: false,
        }
    }

    fn refused(emails: &[&str]) -> Vec<RefusedRecipient> {
        let refused = |email: &&str| RefusedRecipient {
            email: (*email).to_owned(),
            reply: "550 no".to_owned(),
        };
        emails.iter().map(refused).collect()
    }

    #[test]
    fn nothing_is_done_with_an_email_under_way() {
        for task in [Task::Retry, Task::Cancel, Task::Purge] {
            for status in EmailStatus::ALL {
                let email = State {
                    is_under_way: true,
                    ..state(status)
                };
                assert_eq!(task.verdict(&email), TaskVerdict::UnderWay);
            }
        }
    }

    #[test]
    fn a_retry_is_for_those_alone_who_did_not_get_it() {
        let delivered = State {
            refused: refused(&["a@x.test", "b@x.test"]),
            ..state(EmailStatus::Delivered)
        };
        assert_eq!(Task::Retry.verdict(&delivered), TaskVerdict::Done);
        let both = Some(vec!["a@x.test".to_owned(), "b@x.test".to_owned()]);
        assert_eq!(delivered.recipients_of_retry(), both);

        let deferred = State {
            remaining: Some(vec!["a@x.test".to_owned()]),
            refused: refused(&["b@x.test"]),
            ..state(EmailStatus::Deferred)
        };
        assert_eq!(deferred.recipients_of_retry(), both);
        let put_off = State {
            remaining: None,
            ..state(EmailStatus::Deferred)
        };
        assert_eq!(put_off.recipients_of_retry(), None);

        assert_eq!(
            Task::Retry.verdict(&state(EmailStatus::Delivered)),
            TaskVerdict::Delivered
        );
        assert_eq!(
            Task::Retry.verdict(&state(EmailStatus::Held)),
            TaskVerdict::Waiting
        );
    }

    #[test]
    fn an_email_that_became_no_message_is_retried_only_if_nobody_can_have_it() {
        let untried = State {
            attempts: 0,
            ..state(EmailStatus::Failed)
        };
        assert_eq!(Task::Retry.verdict(&untried), TaskVerdict::Done);
        assert_eq!(untried.recipients_of_retry(), None);
        assert_eq!(
            Task::Retry.verdict(&state(EmailStatus::Failed)),
            TaskVerdict::Unclear
        );
    }

    #[test]
    fn a_cancelled_email_is_never_said_to_be_unsent() {
        let cut_off = State {
            is_cut_off: true,
            ..state(EmailStatus::Held)
        };
        assert_eq!(Task::Cancel.verdict(&cut_off), TaskVerdict::DonePerhapsSent);
        assert_eq!(
            Task::Cancel.verdict(&state(EmailStatus::Deferred)),
            TaskVerdict::Done
        );
        assert_eq!(
            Task::Cancel.verdict(&state(EmailStatus::Failed)),
            TaskVerdict::Ended
        );
    }

    #[test]
    fn only_what_has_ended_and_is_not_needed_is_deleted() {
        assert_eq!(
            Task::Purge.verdict(&state(EmailStatus::Held)),
            TaskVerdict::NotEnded
        );
        assert_eq!(
            Task::Purge.verdict(&state(EmailStatus::Deferred)),
            TaskVerdict::NotEnded
        );
        assert_eq!(
            Task::Purge.verdict(&state(EmailStatus::Failed)),
            TaskVerdict::Done
        );
        let young = State {
            is_needed: true,
            ..state(EmailStatus::Failed)
        };
        assert_eq!(Task::Purge.verdict(&young), TaskVerdict::Needed);
    }
}
