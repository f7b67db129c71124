//! Finds the keys that a person pastes: lines of a file or a log, or the truncated form that lists
//! show. A text often holds several keys, and all of them are reported.

use super::secret::{KeyHash, PlainKey, Truncated};
use super::store::{self, EndedHow, Key, Standing};
use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};

const PREFIX: &str = "tsend_";
const ADMIN: &str = "admin_";
const TAIL_CHARS: usize = 38;
/// How many characters the truncated form shows after the prefix, and at the end.
const SHOWN_FIRST: usize = 2;
const SHOWN_LAST: usize = 4;
/// The maximum number of keys looked up for one text.
pub const MOST_KEYS: usize = 100;

/// What was found in a text. Never holds the pasted text itself.
#[derive(Debug, Default)]
pub struct FoundKeys {
    /// The account's keys in the text: working keys first, then other live ones.
    pub keys: Vec<FoundKey>,
    /// Everything else in the text that looks like a key, in the order of the text.
    pub others: Vec<Other>,
    /// Whether the text held more keys than were looked up.
    pub is_cut: bool,
}

#[derive(Debug)]
pub struct FoundKey {
    pub key: Key,
    /// How certain the match is.
    pub by: FoundBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    Whole,
    /// A truncated form that no other key of the account has.
    Form,
    /// A truncated form shared with other keys.
    SharedForm,
}

/// Something that is not a key of the account.
#[derive(Debug)]
pub struct Other {
    /// The line in the text, from 1; none if the text holds nothing else.
    pub line: Option<usize>,
    pub why: NotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error(
        "This is a complete key, but not one of this account's. It belongs to another account or another ToSend installation, or it ended more than 90 days ago."
    )]
    Key,
    #[error("No key of this account looks like this, and none that ended in the last 90 days did.")]
    Form,
    #[error(transparent)]
    NotAKey(#[from] NotAKey),
}

/// Why the pasted text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    #[error("Paste a key, or a line that contains one.")]
    Empty,
    #[error("This is not a ToSend key: those begin with tsend_. It may be another service's.")]
    NoPrefix,
    #[error(
        "This is an admin key (tsend_admin_…), which manages an account. Sending needs an API key."
    )]
    Admin,
    #[error("This key is too short: it has {0} characters instead of 44. Some are missing.")]
    TooShort(usize),
    #[error("This key is too long: it has {0} characters instead of 44. Something was added.")]
    TooLong(usize),
    #[error(
        "This key contains a character that no key has: after tsend_ there are only a-z, A-Z and 0-9."
    )]
    Characters,
    #[error(
        "A character is missing or mistyped: this key has the right length, but its last characters do not fit the others."
    )]
    Checksum,
}

/// Finds the keys of the account that a text holds.
pub fn identify(conn: &mut Connection, account: AccountId, text: &str) -> db::Result<FoundKeys> {
    let Read { pasted, is_cut } = read(text);
    let mut hashes: Vec<KeyHash> = Vec::new();
    let mut forms: Vec<&Truncated> = Vec::new();
    for (_, pasted) in &pasted {
        match pasted {
            Ok(Pasted::Whole(key)) => hashes.push(key.hash()),
            Ok(Pasted::Form(form)) => forms.push(form),
            Err(_) => {}
        }
    }
    let by_hash = store::find_by_hashes(conn, account, &hashes)?;
    let by_form = store::find_by_forms(conn, account, &forms)?;
    let mut findings = FoundKeys {
        is_cut,
        ..FoundKeys::default()
    };
    let is_alone = pasted.len() == 1;
    for (line, pasted) in &pasted {
        let why = match pasted {
            Ok(Pasted::Whole(key)) => match by_hash.get(&key.hash()) {
                Some(key) => {
                    findings.add(key, FoundBy::Whole);
                    continue;
                }
                None => NotFound::Key,
            },
            Ok(Pasted::Form(form)) => {
                let alike: Vec<&Key> = by_form.iter().filter(|k| k.truncated == *form).collect();
                let by = match alike.len() {
                    0 | 1 => FoundBy::Form,
                    _ => FoundBy::SharedForm,
                };
                for key in &alike {
                    findings.add(key, by);
                }
                if !alike.is_empty() {
                    continue;
                }
                NotFound::Form
            }
            Err(wrong) => NotFound::NotAKey(*wrong),
        };
        findings.others.push(Other {
            line: (!is_alone).then_some(*line),
            why,
        });
    }
    Ok(findings)
}

impl FoundKeys {
    /// Adds a key once: a text with a whole key often shows its truncated form too.
    fn add(&mut self, key: &Key, by: FoundBy) {
        let known = self.keys.iter_mut().find(|found| found.key.id == key.id);
        match known {
            Some(found) if by == FoundBy::Whole => found.by = by,
            Some(_) => {}
            None => self.keys.push(FoundKey {
                key: key.clone(),
                by,
            }),
        }
    }

    /// Puts the keys that need attention first.
    pub fn sort(&mut self, account: AccountStatus) {
        self.keys.sort_by_key(|found| {
            let standing = found.key.standing(&account);
            (!standing.works(), found.key.has_ended())
        });
    }

    /// A sentence for people if only part of the text was examined.
    pub fn cut(&self) -> Option<String> {
        self.is_cut.then(|| {
            format!(
                "Only the first {MOST_KEYS} keys of the text were looked at. Look for the others separately."
            )
        })
    }
}

impl FoundKey {
    /// The finding, as a sentence for people.
    pub fn sentence(&self, account: AccountStatus) -> String {
        let begin = match self.by {
            FoundBy::Whole => "This is",
            FoundBy::Form => "This looks like",
            FoundBy::SharedForm => "It may be",
        };
        format!("{begin} {}", describe(&self.key, account))
    }
}

impl Other {
    /// The finding, as a sentence for people.
    pub fn sentence(&self) -> String {
        match self.line {
            Some(line) => format!("Line {line}: {}", self.why),
            None => self.why.to_string(),
        }
    }
}

/// A key and whether it works, as the end of a sentence.
fn describe(key: &Key, account: AccountStatus) -> String {
    let by = |who: &Option<String>| {
        let who = who.as_deref().map(|who| format!(" by {who}"));
        who.unwrap_or_default()
    };
    let standing = match key.standing(&account) {
        Standing::Active | Standing::Stopping(_) | Standing::Expiring(_) => {
            "which works".to_owned()
        }
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
    Form(Truncated),
}

/// Texts that look like keys, each with its line, from 1.
struct Read {
    pasted: Vec<(usize, Result<Pasted, NotAKey>)>,
    is_cut: bool,
}

/// Everything in the text that is a key or looks like one, each once; if there is nothing, the
/// reason.
fn read(text: &str) -> Read {
    let starts: Vec<usize> = text.match_indices(PREFIX).map(|(start, _)| start).collect();
    let mut read = Read {
        pasted: Vec::new(),
        is_cut: false,
    };
    // A bare prefix is often only a mention of what keys look like.
    let mut mention = None;
    let (mut line, mut counted) = (1, 0);
    for (at, &start) in starts.iter().enumerate() {
        line += text[counted..start].matches('\n').count();
        counted = start;
        let end = starts.get(at + 1).copied().unwrap_or(text.len());
        let found = read_at(&text[start..end]);
        if matches!(found, Err(NotAKey::TooShort(chars)) if chars == PREFIX.len()) {
            mention = mention.or(Some((line, found)));
            continue;
        }
        let is_known = read.pasted.iter().any(|(_, known)| match (known, &found) {
            (Ok(Pasted::Whole(known)), Ok(Pasted::Whole(key))) => known.hash() == key.hash(),
            (Ok(Pasted::Form(known)), Ok(Pasted::Form(form))) => known == form,
            _ => false,
        });
        if is_known {
            continue;
        }
        if read.pasted.len() == MOST_KEYS {
            read.is_cut = true;
            break;
        }
        read.pasted.push((line, found));
    }
    if read.pasted.is_empty() {
        let why = match text.trim() {
            "" => NotAKey::Empty,
            _ => NotAKey::NoPrefix,
        };
        read.pasted.push(mention.unwrap_or((1, Err(why))));
    }
    read
}

/// Reads a text that begins with the prefix.
fn read_at(text: &str) -> Result<Pasted, NotAKey> {
    let behind = &text[PREFIX.len()..];
    if behind.starts_with(ADMIN) {
        return Err(NotAKey::Admin);
    }
    let tail = alphanumeric(behind);
    if let Some(key) = PlainKey::parse(&text.as_bytes()[..PREFIX.len() + tail.len()]) {
        return Ok(Pasted::Whole(key));
    }
    if let Some(form) = truncated(tail, &behind[tail.len()..]) {
        return Ok(Pasted::Form(form));
    }
    let word = behind.split(ends_word).next().unwrap_or_default();
    let word = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
    match (PREFIX.len() + word.chars().count(), word.len() > tail.len()) {
        (_, true) => Err(NotAKey::Characters),
        (chars, _) if tail.len() < TAIL_CHARS => Err(NotAKey::TooShort(chars)),
        (chars, _) if tail.len() > TAIL_CHARS => Err(NotAKey::TooLong(chars)),
        _ => Err(NotAKey::Checksum),
    }
}

fn alphanumeric(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric());
    &text[..end.unwrap_or(text.len())]
}

/// The truncated form, with whatever a person or a log put in the middle.
fn truncated(first: &str, rest: &str) -> Option<Truncated> {
    let last = rest.trim_start_matches(['…', '.', '*', '•', '·']);
    let last = (last.len() < rest.len()).then(|| alphanumeric(last))?;
    (first.len() == SHOWN_FIRST && last.len() == SHOWN_LAST).then(|| Truncated {
        first8: format!("{PREFIX}{first}"),
        last4: last.to_owned(),
    })
}

/// Characters that never occur in a key, and often next to one.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"'`“”„‘’«»,;:&|()[]{}<>\\…".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";

    /// Everything that was read, each as one word or a sentence.
    fn all_told(text: &str) -> Vec<String> {
        let told = |pasted: Result<Pasted, NotAKey>| match pasted {
            Ok(Pasted::Whole(key)) => {
                assert!(text.contains(key.expose()));
                "whole".to_owned()
            }
            Ok(Pasted::Form(form)) => form.to_string(),
            Err(wrong) => format!("{wrong:?}"),
        };
        let pasted = read(text).pasted.into_iter();
        pasted.map(|(_, pasted)| told(pasted)).collect()
    }

    /// The only thing that was read.
    fn told(text: &str) -> String {
        let all = all_told(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.into_iter().next().unwrap()
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

    #[test]
    fn all_keys_of_a_text_are_read_each_once() {
        let other = PlainKey::generate();
        let (other, mistyped) = (other.expose(), KEY.replace("efg", "egf"));
        for (text, all) in [
            (format!("old={KEY} new={other}"), &["whole", "whole"][..]),
            (format!("{KEY}{other}"), &["whole", "whole"]),
            (format!("{KEY}\n{KEY}\r\n{KEY}"), &["whole"]),
            (
                format!("tsend_ab…12qQ is {KEY}, tsend_ab...12qQ"),
                &["tsend_ab…12qQ", "whole"],
            ),
            (
                format!("tsend_…\n{mistyped}\n{KEY}\ntsend_admin_x"),
                &["Checksum", "whole", "Admin"],
            ),
        ] {
            assert_eq!(all_told(&text), all, "{text}");
        }
        let lines: Vec<usize> = read(&format!("a\n{KEY} {other}\n\n{mistyped}"))
            .pasted
            .iter()
            .map(|(line, _)| *line)
            .collect();
        assert_eq!(lines, [2, 2, 4]);
    }

    #[test]
    fn a_text_of_very_many_keys_is_cut_and_that_is_told() {
        let keys = |number| {
            let keys = (0..number).map(|_| PlainKey::generate().expose().to_owned());
            let read = read(&keys.collect::<Vec<_>>().join("\n"));
            (read.pasted.len(), read.is_cut)
        };
        assert_eq!(keys(MOST_KEYS), (MOST_KEYS, false));
        assert_eq!(keys(MOST_KEYS + 1), (MOST_KEYS, true));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(tsend_|admin_|\\PC|[0-9A-Za-z]{0,40}|[….*]){0,12}") {
            let _ = read(&text);
        }

        #[test]
        fn nothing_that_is_told_holds_what_was_pasted(tail in "[0-9A-Za-z]{12,60}") {
            let text = format!("tsend_{tail}");
            for (_, pasted) in read(&text).pasted {
                if let Err(wrong) = pasted {
                    let told = format!("{wrong} {wrong:?}");
                    prop_assert!(!told.contains(&tail[..6]), "{}", told);
                }
            }
        }
    }
}
