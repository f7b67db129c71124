//! The file that declares an account's domains and keys. All errors in it are reported together.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use chrono::NaiveDateTime;
use toml::de::{DeTable, DeValue};

use crate::accounts::email::Email;
use crate::cli::key::arguments::parse_allowed;
use crate::cli::outcome::one_line;
use crate::domains::name::DomainName;
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::{Allowed, PARTS, RuleChange, RulePart};

pub struct Declaration {
    pub account: Email,
    pub domains: Vec<DomainEntry>,
    pub keys: Vec<KeyEntry>,
}

pub struct DomainEntry {
    pub line: usize,
    pub name: DomainName,
    /// The operator attests it. If false, its status is left as it is.
    pub is_verified: bool,
}

/// For an existing key, `None` leaves a property unchanged (except the domains).
pub struct KeyEntry {
    pub line: usize,
    pub name: KeyName,
    pub description: Option<Description>,
    /// `None`: all domains, which the file must state explicitly.
    pub domains: Option<Vec<DomainName>>,
    pub expires: Option<Expires>,
    pub rule: RuleChange,
    pub is_paused: Option<bool>,
    pub secret_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
pub enum Expires {
    Never,
    At(NaiveDateTime),
}

/// Its name in messages.
impl fmt::Display for KeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key “{}”", self.name)
    }
}

impl Declaration {
    /// # Errors
    /// One sentence for each problem, with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems = Problems {
            text,
            found: Vec::new(),
        };
        for error in &errors {
            let line = problems.line(error.span().unwrap_or_default());
            problems.add(line, one_line(error.message()));
        }
        // Values that cannot be parsed would otherwise be reported as missing.
        let declaration = match errors.is_empty() {
            true => read(root.get_ref(), &mut problems),
            false => None,
        };
        match declaration {
            Some(declaration) if problems.found.is_empty() => Ok(declaration),
            _ => Err(problems.told()),
        }
    }
}

/// The errors found, by line.
struct Problems<'t> {
    text: &'t str,
    found: Vec<(usize, String)>,
}

impl Problems<'_> {
    fn line(&self, place: Range<usize>) -> usize {
        let before = self.text.bytes().take(place.start);
        before.filter(|byte| *byte == b'\n').count() + 1
    }

    fn add(&mut self, line: usize, why: String) {
        self.found.push((line, why));
    }

    fn told(mut self) -> Vec<String> {
        self.found.sort();
        let told = |(line, why)| format!("line {line}: {why}");
        self.found.into_iter().map(told).collect()
    }
}

fn read(root: &DeTable, problems: &mut Problems) -> Option<Declaration> {
    let mut root = Table::new(root, 1);
    let account = root.required("account", problems, |v| parsed(v, Email::parse));
    let domains = root.tables("domain", problems, read_domain);
    let keys = root.tables("key", problems, read_key);
    root.refuse_others(problems);
    let names = domains
        .iter()
        .map(|d| (d.line, format!("domain {}", d.name)));
    refuse_twice(names, problems);
    refuse_twice(keys.iter().map(|key| (key.line, key.to_string())), problems);
    let files = keys.iter().filter_map(|key| {
        let path = key.secret_file.as_ref()?.display();
        Some((key.line, format!("secret_file {path}")))
    });
    refuse_twice(files, problems);
    Some(Declaration {
        account: account?,
        domains,
        keys,
    })
}

fn refuse_twice(entries: impl Iterator<Item = (usize, String)>, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (line, entry) in entries {
        if !seen.insert(entry.clone()) {
            problems.add(line, format!("the {entry} is declared twice"));
        }
    }
}

fn read_domain(table: &mut Table, problems: &mut Problems) -> Option<DomainEntry> {
    let name = table.required("name", problems, |v| parsed(v, DomainName::parse));
    let is_verified = table.optional("verified", problems, flag);
    Some(DomainEntry {
        line: table.line,
        name: name?,
        is_verified: is_verified.unwrap_or(false),
    })
}

fn read_key(table: &mut Table, problems: &mut Problems) -> Option<KeyEntry> {
    let name = table.required("name", problems, |v| parsed(v, KeyName::parse));
    let domains = table.required("domains", problems, domains);
    let description = table.optional("description", problems, |v| parsed(v, Description::parse));
    let expires = table.optional("expires", problems, expires);
    let mut rule = RuleChange::default();
    for part in PARTS {
        if let Some(allowed) = table.optional(part.name, problems, |v| allowed(part, v)) {
            rule.set(part, allowed);
        }
    }
    let is_paused = table.optional("paused", problems, flag);
    let secret_file = table.optional("secret_file", problems, path);
    Some(KeyEntry {
        line: table.line,
        name: name?,
        description,
        domains: domains?,
        expires,
        rule,
        is_paused,
        secret_file,
    })
}

/// A table that is read member by member; unknown members are rejected.
struct Table<'a> {
    members: &'a DeTable<'a>,
    line: usize,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(members: &'a DeTable<'a>, line: usize) -> Self {
        Self {
            members,
            line,
            known: Vec::new(),
        }
    }

    fn required<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: impl Fn(&DeValue) -> Result<T, String>,
    ) -> Option<T> {
        if !self.members.contains_key(name) {
            problems.add(self.line, format!("{name} is missing"));
        }
        self.optional(name, problems, read)
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: impl Fn(&DeValue) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        let value = self.members.get(name)?;
        let line = problems.line(value.span());
        read(value.get_ref())
            .map_err(|why| problems.add(line, format!("{name}: {why}")))
            .ok()
    }

    /// The entries under `[[name]]`, as far as they can be parsed.
    fn tables<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: impl Fn(&mut Table, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        self.known.push(name);
        let Some(value) = self.members.get(name) else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        let one = std::slice::from_ref(value);
        for entry in value.get_ref().as_array().map_or(one, |array| array) {
            let line = problems.line(entry.span());
            match entry.get_ref().as_table() {
                Some(members) if value.get_ref().is_array() => {
                    let mut table = Table::new(members, line);
                    entries.extend(read(&mut table, problems));
                    table.refuse_others(problems);
                }
                _ => problems.add(line, format!("{name}: begin each with a line [[{name}]]")),
            }
        }
        entries
    }

    fn refuse_others(&self, problems: &mut Problems) {
        for name in self.members.keys() {
            if !self.known.contains(&name.get_ref().as_ref()) {
                let line = problems.line(name.span());
                let known = self.known.join(", ");
                problems.add(
                    line,
                    format!("“{}” is unknown here; known are {known}", name.get_ref()),
                );
            }
        }
    }
}

fn text<'a>(value: &'a DeValue) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| "expected text in quotes".to_owned())
}

fn parsed<T, E: fmt::Display>(
    value: &DeValue,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, String> {
    parse(text(value)?).map_err(|why| why.to_string())
}

fn flag(value: &DeValue) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| "expected true or false".to_owned())
}

fn path(value: &DeValue) -> Result<PathBuf, String> {
    match text(value)? {
        "" => Err("name a file".to_owned()),
        path => Ok(path.into()),
    }
}

fn domains(value: &DeValue) -> Result<Option<Vec<DomainName>>, String> {
    match value {
        DeValue::String(text) if text == "all" => Ok(None),
        DeValue::Array(names) if !names.is_empty() => names
            .iter()
            .map(|name| parsed(name.get_ref(), DomainName::parse))
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Err("write \"all\", or list domains".to_owned()),
    }
}

/// With or without quotes.
fn expires(value: &DeValue) -> Result<Expires, String> {
    let text = match value {
        DeValue::Datetime(at) => at.to_string(),
        _ => text(value)?.to_owned(),
    };
    match &text[..] {
        "never" => Ok(Expires::Never),
        // A number of days would mean a different day at each run.
        text => Expiry::parse_instant(text)
            .map(Expires::At)
            .map_err(|why| why.to_string()),
    }
}

fn allowed(part: &RulePart, value: &DeValue) -> Result<Allowed, String> {
    match value {
        DeValue::String(text) if text == "any" => Ok(Allowed::Any),
        DeValue::Array(entries) if !entries.is_empty() => {
            let parse = |entry: &DeValue| parse_allowed(part, text(entry)?);
            let entries = entries.iter().map(|entry| parse(entry.get_ref()));
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            Allowed::joined(&entries).map_err(|why| why.to_string())
        }
        _ => Err("write \"any\", or list addresses".to_owned()),
    }
}
