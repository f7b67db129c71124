//! What happens in an account, as its activity tells it: who did what, from where.

use std::net::IpAddr;

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
        OPERATOR => "The operator, on the command line",
        SERVER => "The server, by itself",
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
    AccountPaused, "account.paused", "Account paused";
    AccountResumed, "account.resumed", "Account resumed";
    /// Which ends all sessions.
    PasswordChanged, "account.password_changed", "Password changed";
    SessionStarted, "session.started", "Signed in";
    SessionEnded, "session.ended", "Signed out";
    DomainAdded, "domain.added", "Domain added";
    DomainVerified, "domain.verified", "Domain verified";
    DomainLost, "domain.lost", "Domain no longer verified";
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
