//! What happens in an account, as its activity tells it: who did what, from where.

use std::net::IpAddr;

use chrono::NaiveDate;

use super::email::Email;

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user, if a person who is signed in does it.
    pub user_id: Option<i64>,
    /// The user's email address, or one of the two below.
    pub name: String,
    pub address: Option<IpAddr>,
}

/// Whoever runs the command line: the names of people have an `@`.
const OPERATOR: &str = "operator";
/// What the server does by itself when its time comes.
const SERVER: &str = "server";

impl Actor {
    pub fn user(id: i64, email: &str, address: IpAddr) -> Self {
        Self {
            user_id: Some(id),
            name: email.to_owned(),
            address: Some(address),
        }
    }

    /// Someone who has no account yet, and makes one.
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

    fn without_address(name: &str) -> Self {
        Self {
            user_id: None,
            name: name.to_owned(),
            address: None,
        }
    }
}

/// An actor's name as people read it.
pub fn actor_label(name: &str) -> &str {
    match name {
        OPERATOR => "the operator (command line)",
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

            /// As the column, the filter and the CSV spell it: the kind of its subject, a dot, a verb.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// As a page says it.
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
    /// Which ends all sessions of the person, but for the one that it is done in.
    PasswordChanged, "account.password_changed", "Password changed";
    SessionStarted, "session.started", "Signed in";
    SessionEnded, "session.ended", "Signed out";
    DomainAdded, "domain.added", "Domain added";
    DomainVerified, "domain.verified", "Domain verified";
    DomainLost, "domain.lost", "Domain no longer verified";
    /// It was pending for too long.
    DomainFailed, "domain.failed", "Domain not verified in time";
    DomainDeleted, "domain.deleted", "Domain deleted";
    KeyCreated, "key.created", "Key created";
    KeyEdited, "key.edited", "Key edited";
    KeyPaused, "key.paused", "Key paused";
    KeyResumed, "key.resumed", "Key resumed";
    /// Its subject is the key that is replaced.
    KeyRotated, "key.rotated", "Key rotated";
    /// After a rotation: at its time, when it was quiet for long enough, or by hand.
    KeyStopped, "key.stopped", "Key stopped";
    KeyExpired, "key.expired", "Key expired";
    KeyDeleted, "key.deleted", "Key deleted";
}

impl Action {
    pub fn from_column(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.as_str() == text)
    }

    pub fn is_of(self, kind: Kind) -> bool {
        self.as_str().split('.').next() == Some(kind.as_str())
    }
}

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Key,
    Domain,
    Session,
    Account,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Key, Self::Domain, Self::Session, Self::Account];

    /// The first word of its actions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Domain => "domain",
            Self::Session => "session",
            Self::Account => "account",
        }
    }

    /// As a page says it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "Keys",
            Self::Domain => "Domains",
            Self::Session => "Sessions",
            Self::Account => "Account",
        }
    }
}

/// Which part of an account's activity someone wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub kind: Option<Kind>,
    /// A part of the actor's name, in any case.
    pub actor: String,
    pub key_id: Option<i64>,
    /// The first and the last day, in UTC.
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
}

/// One thing that happened, about to be recorded.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    pub action: Action,
    pub subject_id: Option<i64>,
    /// What it happened to, as it was called then.
    pub subject: &'a str,
    /// What changed, in words; never a secret.
    pub detail: &'a str,
}
