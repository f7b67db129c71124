//! An account's activity as CSV (RFC 4180), for spreadsheets.

use super::event::Action;
use super::store::events::Event;
use crate::clock;

const HEADER: [&str; 7] = [
    "time",
    "action",
    "subject_id",
    "subject",
    "detail",
    "actor",
    "address",
];

pub fn header() -> csv::Result<Vec<u8>> {
    write([HEADER])
}

pub fn lines(events: &[Event]) -> csv::Result<Vec<u8>> {
    write(events.iter().map(|event| {
        [
            clock::rfc3339(&event.at),
            event.action.map_or("unknown", Action::as_str).to_owned(),
            event
                .subject_id
                .map_or_else(String::new, |id| id.to_string()),
            harmless(&event.subject),
            harmless(&event.detail),
            harmless(&event.actor),
            event.address.clone().unwrap_or_default(),
        ]
    }))
}

/// A line of any table. Text in it must be harmless.
pub fn line<T: AsRef<[u8]>>(cells: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let written = writer.write_record(cells);
    written.expect("a line alone, in memory");
    writer.into_inner().expect("it is in memory")
}

fn write<const N: usize, T: AsRef<[u8]>>(
    lines: impl IntoIterator<Item = [T; N]>,
) -> csv::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for line in lines {
        writer.write_record(line)?;
    }
    writer.into_inner().map_err(|e| e.into_error().into())
}

/// Text that no spreadsheet interprets as a formula (OWASP, CSV Injection). Where semicolons
/// separate columns, a formula may also begin after each of them.
pub fn harmless(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    let parts = plain.split(';').map(|part| match begins_formula(part) {
        true => format!("'{part}"),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(";")
}

fn begins_formula(text: &str) -> bool {
    // The last four are the full-width forms of the first four.
    let begins = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    text.trim_start_matches(|c: char| c.is_whitespace() || c == '"')
        .starts_with(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula() {
        for (text, cell) in [
            ("Production", "Production"),
            ("a=b", "a=b"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'=1"),
            ("\r=1", "'=1"),
            (" =1", "' =1"),
            ("\"=1", "'\"=1"),
            ("＝1", "'＝1"),
            ("x;=1", "x;'=1"),
            ("a\0b\nc", "abc"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), cell, "{text:?}");
        }
    }

    #[test]
    fn quotes_and_commas_stay_within_their_cell() {
        let line = write([["a", "b,c", "say \"hi\""]]).unwrap();
        assert_eq!(line, b"a,\"b,c\",\"say \"\"hi\"\"\"\r\n");
    }
}
