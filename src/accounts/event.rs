//! The events in an account's activity: who did what, and from where.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::NaiveDate;

use super::email::Email;

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user, if a signed-in person does it.
    pub user_id: Option<i64>,
    /// The user's email address, or one of the names below.
    pub name: String,
    pub address: Option<IpAddr>,
}

/// The operator at the command line; unlike this name, those of people contain an `@`.
const OPERATOR: &str = "operator";
/// For what the server does by itself.
const SERVER: &str = "server";
/// A person who is not signed in.
const STRANGER: &str = "unknown";

impl Actor {
    pub fn user(id: i64, email: &str, address: IpAddr) -> Self {
        Self {
            user_id: Some(id),
            name: email.to_owned(),
            address: Some(address),
        }
    }

    /// A person who is creating an account.
    pub fn newcomer(email: &Email, address: IpAddr) -> Self {
        Self {
            user_id: None,
            name: email.to_string(),
            address: Some(address),
        }
    }

    pub fn operator() -> Self {
        Self::without_address(OPERATOR)
    }

    pub fn server() -> Self {
        Self::without_address(SERVER)
    }

    /// A person who is not signed in, known only by address.
    pub fn stranger(address: IpAddr) -> Self {
        Self {
            user_id: None,
            name: STRANGER.to_owned(),
            address: Some(address),
        }
    }

    fn without_address(name: &str) -> Self {
        Self {
            user_id: None,
            name: name.to_owned(),
            address: None,
        }
    }
}

/// An actor's name as pages show it.
pub fn actor_label(name: &str) -> &str {
    match name {
        OPERATOR => "the operator (command line)",
        STRANGER => "somebody not signed in",
        SERVER => "the server",
        email => email,
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $label:literal;)*) => {
        /// Everything that is recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The spelling in the column, the filter and the CSV: the kind of its subject, a dot,
            /// a verb.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The wording on pages.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

actions! {
    AccountCreated, "account.created", "Account created";
    AccountRenamed, "account.renamed", "Account renamed";
    AccountPaused, "account.paused", "Account paused";
    AccountResumed, "account.resumed", "Account resumed";
    /// This ends all of the person's sessions except the one in use.
    PasswordChanged, "account.password_changed", "Password changed";
    SessionStarted, "session.started", "Signed in";
    SessionEnded, "session.ended", "Signed out";
    /// Many of them, summed up in one event.
    SessionRefused, "session.refused", "Sign-in failed";
    DomainAdded, "domain.added", "Domain added";
    DomainVerified, "domain.verified", "Domain verified";
    DomainLost, "domain.lost", "Domain no longer verified";
    /// It was pending for too long.
    DomainFailed, "domain.failed", "Domain not verified in time";
    DomainKeyReplaced, "domain.key_replaced", "Key of domain replaced";
    DomainDeleted, "domain.deleted", "Domain deleted";
    KeyCreated, "key.created", "Key created";
    KeyEdited, "key.edited", "Key edited";
    KeyPaused, "key.paused", "Key paused";
    KeyResumed, "key.resumed", "Key resumed";
    /// Its subject is the key being replaced.
    KeyRotated, "key.rotated", "Key rotated";
    /// After a rotation: at the set time, after it was quiet for long enough, or by hand.
    KeyStopped, "key.stopped", "Key stopped";
    KeyExpired, "key.expired", "Key expired";
    KeyDeleted, "key.deleted", "Key deleted";
    /// Its subject is the email, if it is a single one.
    EmailsRetried, "email.retried", "Emails sent again";
    EmailsCancelled, "email.cancelled", "Emails cancelled";
    EmailsDeleted, "email.deleted", "Emails deleted";
}

impl Action {
    pub fn from_column(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.as_str() == text)
    }

    pub fn is_of(self, kind: Kind) -> bool {
        self.as_str().split('.').next() == Some(kind.as_str())
    }
}

/// The kind of thing an action concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Key,
    Domain,
    Email,
    Session,
    Account,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Key,
        Self::Domain,
        Self::Email,
        Self::Session,
        Self::Account,
    ];

    /// The first word of its actions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Domain => "domain",
            Self::Email => "email",
            Self::Session => "session",
            Self::Account => "account",
        }
    }

    /// The wording on pages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "Keys",
            Self::Domain => "Domains",
            Self::Email => "Emails",
            Self::Session => "Sessions",
            Self::Account => "Account",
        }
    }
}

/// A filter for an account's activity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub kind: Option<Kind>,
    /// A part of the actor's name, case-insensitive.
    pub actor: String,
    pub key_id: Option<i64>,
    /// The first and the last day, in UTC.
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
}

/// How many bytes of an event's detail are stored.
pub const MOST_DETAIL: usize = 4 * 1024;
/// Space for "and 92 more" after each list that is cut.
const ROOM_FOR_COUNT: usize = 32;

/// A detail as it is stored: lists that are too long end with the number of omitted items. Each
/// part of the detail, and each side of an arrow, gets its share of the space.
pub fn bounded(detail: &str) -> Cow<'_, str> {
    if detail.len() <= MOST_DETAIL {
        return detail.into();
    }
    // Each list with the text before it.
    let mut lists: Vec<(&str, &str)> = Vec::new();
    for (at, part) in detail.split("; ").enumerate() {
        for (side, list) in part.split(" → ").enumerate() {
            let before = match (at, side) {
                (0, 0) => "",
                (_, 0) => "; ",
                _ => " → ",
            };
            lists.push((before, list));
        }
    }
    // This program never writes so many parts: the detail is treated as one text.
    if lists.len() > 32 {
        lists = vec![("", detail)];
    }
    let between: usize = lists.iter().map(|(before, _)| before.len()).sum();
    let mut left = MOST_DETAIL - between;
    // The shortest lists leave the space they do not need to the others.
    let mut lengths: Vec<usize> = lists.iter().map(|(_, list)| list.len()).collect();
    lengths.sort_unstable();
    let mut share = left;
    for (at, length) in lengths.iter().enumerate() {
        share = left / (lengths.len() - at);
        if *length > share {
            break;
        }
        left -= length;
    }
    let cut = lists
        .into_iter()
        .map(|(before, list)| match list.len() <= share {
            true => format!("{before}{list}"),
            false => format!(
                "{before}{}",
                cut_list(list, share.saturating_sub(ROOM_FOR_COUNT))
            ),
        });
    cut.collect::<String>().into()
}

/// As many whole items as fit, and the number of omitted ones.
fn cut_list(list: &str, most: usize) -> String {
    let items: Vec<&str> = list.split(", ").collect();
    let mut end = 0;
    let mut kept = 0;
    for item in &items {
        let longer = end + item.len() + if kept == 0 { 0 } else { ", ".len() };
        if longer > most {
            break;
        }
        (end, kept) = (longer, kept + 1);
    }
    if kept == 0 {
        let end = (0..=most).rev().find(|at| list.is_char_boundary(*at));
        return format!("{}…", &list[..end.unwrap_or(0)]);
    }
    format!("{} and {} more", &list[..end], items.len() - kept)
}

/// An event about to be recorded.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    pub action: Action,
    pub subject_id: Option<i64>,
    /// The subject's name at that time.
    pub subject: &'a str,
    /// The changes in words, of any length; never a secret. The stored text is `bounded`.
    pub detail: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_kinds_tells_them_apart() {
        let begins: std::collections::BTreeSet<&str> =
            Kind::ALL.iter().map(|kind| &kind.as_str()[..3]).collect();
        assert_eq!(begins.len(), Kind::ALL.len());
    }

    fn list(count: usize) -> String {
        let all: Vec<String> = (0..count)
            .map(|n| format!("mailbox-{n}@acme.test"))
            .collect();
        all.join(", ")
    }

    #[test]
    fn a_short_detail_stays_as_it_is() {
        let detail = format!("senders: {}", list(100));
        assert!(detail.len() < MOST_DETAIL);
        assert_eq!(bounded(&detail), detail);
    }

    #[test]
    fn a_long_list_ends_with_how_many_more_there_were() {
        let detail = format!("name: “a” → “b”; senders: {} → {}", list(3), list(1_000));
        let kept = bounded(&detail);
        assert!(kept.len() <= MOST_DETAIL && kept.len() > MOST_DETAIL - 100);
        let (rest, count) = kept
            .strip_suffix(" more")
            .unwrap()
            .rsplit_once(" and ")
            .unwrap();
        // Short lists are kept whole.
        let list_after = rest.strip_prefix(&format!("name: “a” → “b”; senders: {} → ", list(3)));
        let shown = list_after.unwrap().split(", ").count();
        assert_eq!(shown + count.parse::<usize>().unwrap(), 1_000);
    }

    #[test]
    fn long_lists_share_the_room() {
        let detail = format!(
            "scope: {} → {}; senders: {} → {}; recipients: {} → {}",
            list(500),
            list(501),
            list(502),
            list(503),
            list(504),
            list(505)
        );
        let kept = bounded(&detail);
        assert!(kept.len() <= MOST_DETAIL, "{}", kept.len());
        assert_eq!(kept.matches(" more").count(), 6);
        assert!(kept.contains("; recipients: mailbox-0@acme.test, "));
    }

    #[test]
    fn whatever_stands_in_it_is_cut() {
        for odd in [
            "é".repeat(10_000),
            "; ".repeat(10_000),
            " → ".repeat(10_000),
            ", ".repeat(10_000),
            format!("a; {}", "x".repeat(10_000)),
        ] {
            assert!(bounded(&odd).len() <= MOST_DETAIL);
        }
    }
}
