//! The notes on the page of a key that replaces another or was replaced: which key is the other
//! one, and how the old key ends by itself.

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};

use super::super::secret::Truncated;
use super::super::store::{Key, NextEnd, Peer};
use crate::clock;
use crate::keys::usage::sparkline::Sparkline;

/// A replaced key that was not used for this long, while the new one was, has probably no user left.
const QUIET: TimeDelta = TimeDelta::hours(1);

/// A sentence that contains an instant, which pages show in the visitor's time zone.
pub struct Sentence {
    pub before: String,
    pub at: Option<NaiveDateTime>,
    pub after: String,
}

impl Sentence {
    fn plain(text: String) -> Self {
        Self {
            before: text,
            at: None,
            after: String::new(),
        }
    }
}

impl NextEnd {
    /// How the key ends. `verb`: the action with which people end it.
    pub fn sentences(&self, verb: &str) -> Vec<Sentence> {
        let unused = |span| format!("it has not been used for {}", clock::hours(span));
        let when_quiet = self.when_quiet.as_ref().map(unused);
        let in_time = |how: &str, at: &NaiveDateTime, after: String| Sentence {
            before: format!("It {how} in {}, on", clock::left(at)),
            at: Some(*at),
            after,
        };
        if self.is_open_ended {
            let is_open_ended = Sentence::plain(match when_quiet {
                Some(when_quiet) => format!("It stops once {when_quiet}."),
                None => format!("It keeps working until you {verb} it."),
            });
            let expiry = self.at.as_ref();
            let expiry = expiry.map(|at| in_time("expires", at, ".".to_owned()));
            return [is_open_ended].into_iter().chain(expiry).collect();
        }
        let how = if self.is_expiry { "expires" } else { "stops" };
        let after = match when_quiet {
            Some(when_quiet) => format!(", or once {when_quiet}."),
            None => ".".to_owned(),
        };
        let end = self.at.as_ref().map(|at| in_time(how, at, after));
        end.into_iter().collect()
    }
}

/// A note on a key's page.
#[derive(Default)]
pub struct RotationNote<'a> {
    pub is_warning: bool,
    pub begin: &'static str,
    /// The other key.
    pub peer: Option<&'a Peer>,
    pub end: &'static str,
    pub last_uses: Vec<LastUsed>,
    pub next_end: Vec<Sentence>,
    pub keep: Option<Button>,
    pub stop: Option<Button>,
    /// The old key and the new one, while both work.
    pub lanes: Option<[Lane; 2]>,
}

/// The traffic of one of the two keys.
pub struct Lane {
    pub label: &'static str,
    pub id: i64,
    pub truncated: Truncated,
    pub last_used_at: Option<NaiveDateTime>,
    /// Whether it is the key of the page.
    pub is_here: bool,
}

impl Lane {
    fn of_peer(label: &'static str, peer: &Peer) -> Self {
        Self {
            label,
            id: peer.id,
            truncated: peer.truncated.clone(),
            last_used_at: peer.last_used_at,
            is_here: false,
        }
    }

    fn of_key(label: &'static str, key: &Key) -> Self {
        Self {
            label,
            id: key.id,
            truncated: key.truncated.clone(),
            last_used_at: key.last_used_at(),
            is_here: true,
        }
    }

    /// Its calls in the last 24 hours.
    pub fn line<'a>(&self, lines: &'a HashMap<i64, Sparkline>) -> Option<&'a Sparkline> {
        lines.get(&self.id)
    }
}

/// When a key was last used, if ever.
pub struct LastUsed {
    pub whose: &'static str,
    pub at: Option<NaiveDateTime>,
}

pub struct Button {
    pub id: &'static str,
    pub path: String,
    pub label: &'static str,
}

impl<'a> RotationNote<'a> {
    /// Whether the old key can be stopped without harm, as far as its use tells.
    pub fn verdict(&self) -> Option<String> {
        let [old, new] = self.lanes.as_ref()?;
        let now = clock::now();
        let Some(new_used) = new.last_used_at else {
            return Some("The new key has not been used yet: no program has it.".to_owned());
        };
        match old.last_used_at {
            None => Some("The old key has never been used: it is safe to stop it.".to_owned()),
            Some(old_used) if old_used < new_used && old_used + QUIET <= now => Some(format!(
                "The old key has been quiet for {}, and the new one is in use: it is safe to stop the old key.",
                clock::left(&(now + (now - old_used)))
            )),
            Some(_) => Some("Both keys are in use: some program still has the old one.".to_owned()),
        }
    }

    /// The notes of a key that replaces another, was replaced, or both.
    pub fn of(key: &'a Key) -> Vec<Self> {
        let replaces = key.predecessor.as_ref().map(|old| Self::replaces(key, old));
        let replaced = key.successor.as_ref().map(|new| Self::replaced(key, new));
        let is_alone = key.successor.is_none() && !key.has_ended() && stops(key);
        let alone = is_alone.then(|| Self::without_successor(key));
        let notes = [replaces, replaced, alone].into_iter();
        notes.flatten().collect()
    }

    fn replaces(key: &Key, old: &'a Peer) -> Self {
        let next = old.next_end(key);
        let last_uses = vec![LastUsed {
            whose: "Old key",
            at: old.last_used_at,
        }];
        if key.has_ended() {
            return Self {
                begin: "This key replaced",
                peer: Some(old),
                end: ", which has not ended.",
                last_uses,
                next_end: next.sentences("delete"),
                ..Self::default()
            };
        }
        let path = |verb: &str| format!("/api-keys/{}/{verb}?from={}", old.id, key.id);
        let stops = old.stops_at.is_some() || old.stops_when_quiet.is_some();
        Self {
            begin: "This key replaces",
            peer: Some(old),
            end: ".",
            last_uses,
            next_end: next.sentences("stop"),
            lanes: Some([Lane::of_peer("Old key", old), Lane::of_key("New key", key)]),
            keep: stops.then(|| Button {
                id: "keep-old",
                path: path("keep"),
                label: "Do not stop the old key automatically",
            }),
            stop: Some(Button {
                id: "stop-old",
                path: path("stop"),
                label: "Stop the old key now",
            }),
            ..Self::default()
        }
    }

    fn replaced(key: &Key, new: &'a Peer) -> Self {
        let last_uses = vec![
            LastUsed {
                whose: "New key",
                at: new.last_used_at,
            },
            LastUsed {
                whose: "This key",
                at: key.last_used_at(),
            },
        ];
        if key.has_ended() {
            return Self {
                begin: "This key was replaced by",
                peer: Some(new),
                end: ".",
                last_uses,
                ..Self::default()
            };
        }
        Self {
            begin: "This key is replaced by",
            peer: Some(new),
            end: ".",
            last_uses,
            next_end: key.next_end().sentences("stop"),
            lanes: Some([Lane::of_key("Old key", key), Lane::of_peer("New key", new)]),
            keep: stops(key).then(|| keep(key)),
            stop: Some(Button {
                id: "stop",
                path: format!("/api-keys/{}/stop", key.id),
                label: "Stop this key now",
            }),
            ..Self::default()
        }
    }

    fn without_successor(key: &Key) -> Self {
        Self {
            is_warning: true,
            begin: "This key was replaced, and its replacement has ended since.",
            next_end: key.next_end().sentences("delete"),
            keep: key.stops_at.map(|_| keep(key)),
            ..Self::default()
        }
    }
}

/// Whether the key, having been replaced, stops by itself.
fn stops(key: &Key) -> bool {
    key.stops_at.is_some() || key.stops_when_quiet.is_some()
}

fn keep(key: &Key) -> Button {
    Button {
        id: "keep",
        path: format!("/api-keys/{}/keep", key.id),
        label: "Do not stop this key automatically",
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn each_way_to_end_has_its_sentences() {
        let at = clock::now() + TimeDelta::days(7);
        let quiet = Some(TimeDelta::hours(24));
        for (at, is_expiry, is_open_ended, when_quiet, told) in [
            (
                None,
                false,
                true,
                None,
                "It keeps working until you stop it.",
            ),
            (
                None,
                false,
                true,
                quiet,
                "It stops once it has not been used for 24 hours.",
            ),
            (
                Some(at),
                true,
                true,
                None,
                "It keeps working until you stop it. It expires in 7 days, on *.",
            ),
            (Some(at), true, false, None, "It expires in 7 days, on *."),
            (
                Some(at),
                false,
                false,
                quiet,
                "It stops in 7 days, on *, or once it has not been used for 24 hours.",
            ),
        ] {
            let next = NextEnd {
                at,
                is_expiry,
                is_open_ended,
                when_quiet,
            };
            let sentences = next.sentences("stop").into_iter();
            let texts = sentences.map(|sentence| {
                let at = if sentence.at.is_some() { " *" } else { "" };
                format!("{}{at}{}", sentence.before, sentence.after)
            });
            assert_eq!(texts.collect::<Vec<_>>().join(" "), told);
        }
    }
}
