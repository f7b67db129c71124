//! The lines of the journal of ends, and what they say together.

use std::collections::BTreeMap;
use std::io::{BufRead, Error, ErrorKind, Result};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first line. Changes before `from` are no longer in the file.
    Journal { id: String, from: i64 },
    /// `at`: in microseconds since 1970. Written before the COMMIT.
    Change {
        n: i64,
        at: i64,
        entries: Vec<Value>,
    },
    /// The change with this number was committed.
    Done(i64),
    /// The change with this number and instant was rolled back. Another process may have written a
    /// change with the same number before this line.
    Undone { n: i64, at: i64 },
}

impl Line {
    pub fn text(&self) -> String {
        serde_json::json!(self).to_string() + "\n"
    }
}

/// A change that a database may have missed.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalChange {
    /// Read only of those that are asked for.
    pub entries: Vec<Value>,
    /// Whether a database is known to have had it.
    pub is_done: bool,
    pub(super) at: i64,
    /// Where it stands in the file, from 1.
    line: usize,
}

/// The content of the file, without the changes that were rolled back.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    pub id: String,
    /// The number of the first change that it can have.
    pub from: i64,
    pub changes: BTreeMap<i64, JournalChange>,
    /// The first line that is not one, except for the last line, which a crash may have cut off.
    unreadable: Option<usize>,
}

/// What shows that the file is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("its line {0} cannot be read")]
    Unreadable(usize),
    #[error("the change {n} is missing before its line {line}")]
    Missing { n: i64, line: usize },
    #[error("it ends with the change {newest}, but there were {known}")]
    CutOff { newest: i64, known: i64 },
    #[error("its change {n}, in line {line}, is another one than the database has")]
    Other { n: i64, line: usize },
}

impl Contents {
    /// The number of the newest change; the one before `from` if there is none.
    pub fn newest(&self) -> i64 {
        let newest = self.changes.last_key_value();
        newest.map_or(self.from - 1, |(n, _)| *n)
    }

    /// The changes after this number.
    pub fn after(&self, last: i64) -> impl Iterator<Item = (i64, &JournalChange)> + Clone {
        let later = self.changes.range(last.saturating_add(1)..);
        later.map(|(n, change)| (*n, change))
    }

    /// Whether every line is one, as far as the file itself shows.
    pub(super) fn check_lines(&self) -> std::result::Result<(), Damage> {
        self.unreadable
            .map_or(Ok(()), |line| Err(Damage::Unreadable(line)))
    }

    /// Whether no other change was committed in the place of one that could not be written yet.
    pub(super) fn check_places(
        &self,
        unwritten: &BTreeMap<i64, i64>,
    ) -> std::result::Result<(), Damage> {
        for (n, at) in unwritten {
            if let Some(other) = self.changes.get(n).filter(|c| c.is_done && c.at != *at) {
                let (n, line) = (*n, other.line);
                return Err(Damage::Other { n, line });
            }
        }
        Ok(())
    }

    /// Whether it has all changes up to `known`, and every change before those that it has.
    /// `unwritten`: the numbers and instants of those that could not be written yet.
    ///
    /// # Errors
    /// What shows that it has been damaged.
    pub fn check(
        &self,
        known: i64,
        unwritten: &BTreeMap<i64, i64>,
    ) -> std::result::Result<(), Damage> {
        self.check_lines()?;
        self.check_places(unwritten)?;
        let mut next = self.from;
        for (n, change) in &self.changes {
            let missing = (next..*n).find(|n| !unwritten.contains_key(n));
            if let Some(n) = missing {
                let line = change.line;
                return Err(Damage::Missing { n, line });
            }
            next = n + 1;
        }
        match (next..=known).find(|n| !unwritten.contains_key(n)) {
            Some(missing) => Err(Damage::CutOff {
                newest: missing - 1,
                known,
            }),
            None => Ok(()),
        }
    }

    /// `number`: of this line, from 1. `last`: the entries of earlier changes are not kept.
    fn take(&mut self, line: &[u8], number: usize, last: i64) -> Result<()> {
        match serde_json::from_slice(line) {
            Ok(Line::Journal { id, from }) if number == 1 => (self.id, self.from) = (id, from),
            _ if number == 1 => {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "it is not a journal of ends",
                ));
            }
            Ok(Line::Change { n, .. }) if n < self.from => {}
            Ok(Line::Change { n, at, entries }) => {
                let entries = if n > last { entries } else { Vec::new() };
                let change = JournalChange {
                    entries,
                    is_done: false,
                    at,
                    line: number,
                };
                self.changes.insert(n, change);
            }
            Ok(Line::Done(n)) => {
                if let Some(change) = self.changes.get_mut(&n) {
                    change.is_done = true;
                }
            }
            Ok(Line::Undone { n, at }) => {
                if self.changes.get(&n).is_some_and(|change| change.at == at) {
                    self.changes.remove(&n);
                }
            }
            // Of a line that a crash cut off, nothing was committed.
            Err(_) if !line.ends_with(b"\n") => {
                tracing::debug!(number, "the last line of the journal of ends is cut off");
            }
            Ok(Line::Journal { .. }) | Err(_) => {
                self.unreadable.get_or_insert(number);
            }
        }
        Ok(())
    }
}

/// Reads a file, with the entries of the changes after this number.
///
/// # Errors
/// If it cannot be read, or does not begin as a journal does.
pub(super) fn read_from(mut file: impl BufRead, last: i64) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        contents.take(&line, number, last)?;
    }
    match contents.id.is_empty() {
        true => Err(Error::new(ErrorKind::InvalidData, "it is empty")),
        false => Ok(contents),
    }
}

/// The id of the journal in this file.
///
/// # Errors
/// As above.
pub(super) fn read_id(mut file: impl BufRead) -> Result<String> {
    let (mut contents, mut line) = (Contents::default(), Vec::new());
    file.read_until(b'\n', &mut line)?;
    contents.take(&line, 1, i64::MAX)?;
    Ok(contents.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Contents {
        let text = lines.join("\n");
        read_from(text.as_bytes(), 0).unwrap()
    }

    fn check(lines: &[&str], known: i64) -> std::result::Result<(), Damage> {
        read(lines).check(known, &BTreeMap::new())
    }

    const HEAD: &str = r#"{"journal":{"id":"a","from":3}}"#;
    const THIRD: &str = r#"{"change":{"n":3,"at":1,"entries":[]}}"#;
    const FOURTH: &str = r#"{"change":{"n":4,"at":2,"entries":[]}}"#;
    const FIFTH: &str = r#"{"change":{"n":5,"at":3,"entries":[]}}"#;

    #[test]
    fn what_is_missing_is_told_from_what_never_was() {
        assert_eq!(check(&[HEAD], 2), Ok(()));
        assert_eq!(check(&[HEAD, THIRD, FOURTH, FIFTH, ""], 4), Ok(()));
        let (newest, known) = (4, 5);
        assert_eq!(
            check(&[HEAD, THIRD, FOURTH, ""], 5),
            Err(Damage::CutOff { newest, known })
        );
        let missing = Damage::Missing { n: 4, line: 3 };
        assert_eq!(check(&[HEAD, THIRD, FIFTH, ""], 5), Err(missing));
        // In whatever order they were written, and without those that were rolled back.
        assert_eq!(check(&[HEAD, FOURTH, THIRD, ""], 4), Ok(()));
        let undone = r#"{"undone":{"n":4,"at":2}}"#;
        assert_eq!(check(&[HEAD, THIRD, FOURTH, undone, ""], 3), Ok(()));
    }

    #[test]
    fn only_the_last_line_may_be_cut_off() {
        assert_eq!(check(&[HEAD, THIRD, &FOURTH[..20]], 3), Ok(()));
        for garbled in [&FOURTH[..20], "", HEAD] {
            let lines = [HEAD, THIRD, garbled, FOURTH, FIFTH, ""];
            assert_eq!(check(&lines, 5), Err(Damage::Unreadable(3)), "{garbled}");
        }
        assert!(read_from(&b"nonsense"[..], 0).is_err());
        assert!(read_from(&b""[..], 0).is_err());
    }

    #[test]
    fn what_could_not_be_written_is_no_damage_unless_another_took_its_place() {
        let unwritten = BTreeMap::from([(4, 2), (5, 3)]);
        let with = |lines: &[&str]| read(lines).check(5, &unwritten);
        assert_eq!(with(&[HEAD, THIRD, ""]), Ok(()));
        let other = FOURTH.replace("\"at\":2", "\"at\":9");
        assert_eq!(with(&[HEAD, THIRD, &other, ""]), Ok(()));
        assert_eq!(
            with(&[HEAD, THIRD, &other, r#"{"done":4}"#, ""]),
            Err(Damage::Other { n: 4, line: 3 })
        );
    }
}
