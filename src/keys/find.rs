//! Which key somebody has in hand, by what they paste: a line of a file or a log, or the form that
//! lists show.

use super::secret::{PlainKey, Truncated};
use super::store::{self, EndedHow, Key, Standing};
use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};

const PREFIX: &str = "tsend_";
const ADMIN: &str = "admin_";
const TAIL_CHARS: usize = 38;
/// How many characters of a key its truncated form shows behind the prefix, and at the end.
const SHOWN_FIRST: usize = 2;
const SHOWN_LAST: usize = 4;

/// Which key it is, or what is wrong. Never holds what was pasted.
#[derive(Debug)]
pub enum Identified {
    /// A key of the account, maybe one that has ended.
    Key(Box<Key>),
    /// A truncated form, and the keys that are shown like it, maybe none, those that live first.
    ShownAs(Vec<Key>),
    /// A whole key, but none of the account's.
    NotOfAccount,
    Wrong(Wrong),
}

/// Why what was pasted is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("Paste a key, or a line that holds one.")]
    Empty,
    #[error("This is no key of ToSend: a key begins with tsend_. It may be another service's.")]
    NoPrefix,
    #[error(
        "This is an admin key (tsend_admin_…), which is for managing an account. Sending needs an API key."
    )]
    Admin,
    #[error("This key is too short: it has {0} characters instead of 44. Some are missing.")]
    TooShort(usize),
    #[error("This key is too long: it has {0} characters instead of 44. Something was added.")]
    TooLong(usize),
    #[error(
        "This key holds a character that no key has: behind tsend_ there are only a-z, A-Z, 0-9."
    )]
    Characters,
    #[error(
        "A character is missing or mistyped: this key has the right length, but its last characters do not fit the others."
    )]
    Checksum,
}

/// Tells which key of the account was pasted. Of several keys, the first whole one counts.
pub fn identify(conn: &mut Connection, account: AccountId, pasted: &str) -> db::Result<Identified> {
    Ok(match read(pasted) {
        Ok(Pasted::Whole(key)) => match store::find_by_hash(conn, account, &key.hash())? {
            Some(key) => Identified::Key(Box::new(key)),
            None => Identified::NotOfAccount,
        },
        Ok(Pasted::Truncated(form)) => {
            Identified::ShownAs(store::find_by_truncated(conn, account, &form)?)
        }
        Err(wrong) => Identified::Wrong(wrong),
    })
}

impl Identified {
    /// The account's keys that it may be.
    pub fn keys(&self) -> &[Key] {
        match self {
            Self::Key(key) => std::slice::from_ref(key),
            Self::ShownAs(keys) => keys,
            Self::NotOfAccount | Self::Wrong(_) => &[],
        }
    }

    /// What it is, as people read it.
    pub fn sentence(&self, account: AccountStatus) -> String {
        match self {
            Self::Key(key) => format!("This is {}", describe(key, account)),
            Self::ShownAs(keys) => match &keys[..] {
                [] => "No key of this account is shown like this, nor was one that ended in the last 90 days.".to_owned(),
                [key] => format!("This looks like {}", describe(key, account)),
                keys => {
                    let keys = keys.iter().map(|key| describe(key, account));
                    format!("It may be any of these: {}", keys.collect::<Vec<_>>().join(" "))
                }
            },
            Self::NotOfAccount => "This is a whole key, but none of this account's. It belongs to another account or another ToSend installation, or it ended more than 90 days ago.".to_owned(),
            Self::Wrong(wrong) => wrong.to_string(),
        }
    }
}

/// A key and whether it works, as the end of a sentence.
pub fn describe(key: &Key, account: AccountStatus) -> String {
    let by = |who: &Option<String>| {
        let who = who.as_deref().map(|who| format!(" by {who}"));
        who.unwrap_or_default()
    };
    let standing = match key.standing(&account) {
        Standing::Active => "which works".to_owned(),
        Standing::Paused(paused) => {
            let since = paused.at.as_ref().map(clock::for_people);
            let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
            format!("which is paused{since}{}", by(&paused.by))
        }
        Standing::DomainNotVerified => {
            "which cannot send: none of its domains is verified".to_owned()
        }
        Standing::AccountPaused => "which does not work while the account is paused".to_owned(),
        Standing::Ended(end) => {
            let how = match end.how {
                EndedHow::Deleted => "was deleted",
                EndedHow::Expired => "expired",
                EndedHow::Stopped => "was stopped after it was replaced",
            };
            let at = clock::for_people(&end.at);
            format!("which {how} on {at}{} and never works again", by(&end.by))
        }
    };
    format!("“{}” ({}), {standing}.", key.name, key.truncated)
}

enum Pasted {
    Whole(PlainKey),
    Truncated(Truncated),
}

/// The best of what stands in the text: a whole key, else a truncated form, else the first thing
/// that is wrong.
fn read(text: &str) -> Result<Pasted, Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::Empty);
    }
    let mut best = Err(Wrong::NoPrefix);
    for (start, _) in text.match_indices(PREFIX) {
        let found = read_at(&text[start..]);
        match (&found, &best) {
            (Ok(Pasted::Whole(_)), _) => return found,
            (Ok(_), Err(_)) | (Err(_), Err(Wrong::NoPrefix)) => best = found,
            _ => {}
        }
    }
    best
}

/// Reads what begins with the prefix.
fn read_at(text: &str) -> Result<Pasted, Wrong> {
    let behind = &text[PREFIX.len()..];
    if behind.starts_with(ADMIN) {
        return Err(Wrong::Admin);
    }
    let tail = alphanumeric(behind);
    if let Some(key) = PlainKey::parse(&text.as_bytes()[..PREFIX.len() + tail.len()]) {
        return Ok(Pasted::Whole(key));
    }
    if let Some(form) = truncated(tail, &behind[tail.len()..]) {
        return Ok(Pasted::Truncated(form));
    }
    let word = behind.split(ends_word).next().unwrap_or_default();
    let word = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
    match (PREFIX.len() + word.chars().count(), word.len() > tail.len()) {
        (_, true) => Err(Wrong::Characters),
        (chars, _) if tail.len() < TAIL_CHARS => Err(Wrong::TooShort(chars)),
        (chars, _) if tail.len() > TAIL_CHARS => Err(Wrong::TooLong(chars)),
        _ => Err(Wrong::Checksum),
    }
}

fn alphanumeric(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric());
    &text[..end.unwrap_or(text.len())]
}

/// The form that lists show, with whatever somebody typed or a log put in the middle.
fn truncated(first: &str, rest: &str) -> Option<Truncated> {
    let last = rest.trim_start_matches(['…', '.', '*', '•', '·']);
    let last = (last.len() < rest.len()).then(|| alphanumeric(last))?;
    (first.len() == SHOWN_FIRST && last.len() == SHOWN_LAST).then(|| Truncated {
        first8: format!("{PREFIX}{first}"),
        last4: last.to_owned(),
    })
}

/// What never stands in a key, and often beside one.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"'`“”„‘’«»,;:&|()[]{}<>\\…".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";

    /// What was read, in one word or by the sentence.
    fn told(text: &str) -> String {
        match read(text) {
            Ok(Pasted::Whole(key)) => {
                assert_eq!(key.expose(), KEY);
                "whole".to_owned()
            }
            Ok(Pasted::Truncated(form)) => form.to_string(),
            Err(wrong) => format!("{wrong:?}"),
        }
    }

    #[test]
    fn a_key_is_found_inside_a_line() {
        for line in [
            "{}",
            "  {}\r\n",
            "TOSEND_API_KEY={}",
            "export TOSEND_API_KEY=\"{}\" # the shop",
            "Authorization: Bearer {}",
            "curl -H 'Authorization: Bearer {}' https://x.test/v2/info",
            "GET /v2/info?api_key={}&x=1 403",
            r#"{"api_key":"{}","n":1}"#,
            "api_key: “{}”.",
            "the key {}, which begins with tsend_",
            "tsend_ab…12qQ is {}",
            "{}-old",
            "{}{}",
        ] {
            assert_eq!(told(&line.replace("{}", KEY)), "whole", "{line}");
        }
    }

    #[test]
    fn the_truncated_form_is_known_however_it_is_typed() {
        for form in [
            "tsend_ab…12qQ",
            "tsend_ab...12qQ",
            "tsend_ab******************12qQ",
            "key “tsend_ab…12qQ” was used.",
            "tsend_ab••••12qQ",
        ] {
            assert_eq!(told(form), "tsend_ab…12qQ", "{form}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let mistyped = KEY.replace("efg", "egf");
        for (text, wrong) in [
            ("", "Empty"),
            (" \n\t", "Empty"),
            ("sk_live_0123456789abcdef", "NoPrefix"),
            ("TOSEND_API_KEY=", "NoPrefix"),
            (&KEY["tsend_".len()..], "NoPrefix"),
            ("tsend_admin_abcdefghijklmnopqrstuvwxyz", "Admin"),
            ("tsend_", "TooShort(6)"),
            (&KEY[..43], "TooShort(43)"),
            (&format!("\"{}\",", &KEY[..40]), "TooShort(40)"),
            ("tsend_ab…2qQ", "TooShort(8)"),
            (&format!("{KEY}x"), "TooLong(45)"),
            (&mistyped, "Checksum"),
            (&format!("KEY={mistyped}."), "Checksum"),
            (&KEY.replace("def", "d-f"), "Characters"),
            (&KEY.replace("def", "déf"), "Characters"),
            (&KEY.replace("def", "d\u{200B}f"), "Characters"),
        ] {
            assert_eq!(told(text), wrong, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(tsend_|admin_|\\PC|[0-9A-Za-z]{0,40}|[….*]){0,12}") {
            let _ = read(&text);
        }

        #[test]
        fn nothing_that_is_told_holds_what_was_pasted(tail in "[0-9A-Za-z]{12,60}") {
            let text = format!("tsend_{tail}");
            if let Err(wrong) = read(&text) {
                let told = format!("{wrong} {wrong:?}");
                prop_assert!(!told.contains(&tail[..6]), "{}", told);
            }
        }
    }
}
