//! Which file may use which. The tables below are the rules; the tests refuse an import that looks up,
//! a circle of files, and a table or a library outside its place.
//!
//! Everything is checked by file, without unit tests. `imports.rs` says what counts as an import.

mod imports;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use imports::Import;
use source::Source;

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(source::read_all);
static IMPORTS: LazyLock<BTreeSet<Import>> = LazyLock::new(|| imports::all(&SOURCES));

/// From the top down. A file may use its own room and the floors below it. Rooms on the same floor may
/// not use each other. A room inside another one counts as a room of its own.
const FLOORS: &[&[&str]] = &[
    &["main.rs", "lib.rs"],
    &["cli/"],
    &["server.rs"],
    &["routes.rs", "scrape/", "upkeep.rs"],
    &["recovery.rs"],
    &["reference/", "mail/"],
    &["emails/"],
    &["keys/pages/"],
    &["keys/verification/"],
    &["keys/usage/"],
    &["keys/"],
    &["domains/", "outbox/"],
    &["accounts/"],
    &["http/"],
    &["config.rs"],
    &["db/", "secret.rs", "relay_url.rs"],
    &[
        "schema.rs",
        "clock.rs",
        "token.rs",
        "visible.rs",
        "background.rs",
        "ending.rs",
        "listener.rs",
        "logging/",
        "metrics.rs",
        "open_files.rs",
        "service_manager.rs",
        "signals.rs",
    ],
];

/// The store that owns each table: only its files may name the table.
const OWNERS: &[(&str, &[&str])] = &[
    (
        "accounts/store/",
        &["accounts", "users", "sessions", "login_attempts", "events"],
    ),
    ("domains/store/", &["sending_domains"]),
    (
        "keys/store/",
        &["api_keys", "api_key_domains", "form_nonces"],
    ),
    ("keys/usage/store/", &["api_key_calls", "api_key_uses"]),
    ("emails/store.rs", &["emails"]),
    ("outbox/store/", &["email_counts", "email_counts_frontier"]),
    (
        "db/",
        &[
            "clock_seen",
            "ends_journal",
            "ends_unwritten",
            "nodes_secret",
        ],
    ),
];

/// Other files that may name a table, and why.
const GUESTS: &[(&str, &[&str], &str)] = &[
    (
        "keys/verification/store.rs",
        &["accounts", "api_keys"],
        "a verdict is one statement: key, account and domains as of one moment",
    ),
    (
        "keys/usage/store/calls.rs",
        &["accounts", "api_keys"],
        "why a key was refused is found by its hash, for many keys at a time",
    ),
    (
        "keys/store/mod.rs",
        &["api_key_uses", "sending_domains"],
        "a list of keys takes as many statements however many keys there are",
    ),
    (
        "keys/store/list.rs",
        &["api_key_uses", "sending_domains"],
        "keys are sorted by their last use and filtered by their domains",
    ),
    (
        "domains/store/delete.rs",
        &["api_key_domains", "api_keys"],
        "a domain is not deleted while live keys are restricted to it; keys stand above domains",
    ),
    (
        "mail/store.rs",
        &["api_keys", "emails"],
        "delivery writes what comes of an email; its page names the key",
    ),
    (
        "mail/queue/store.rs",
        &["accounts", "api_keys", "emails"],
        "the operator looks at emails, with their accounts and keys, and changes what becomes of them",
    ),
    (
        "outbox/store/totals.rs",
        &["emails"],
        "the totals are those of the emails' rows",
    ),
    (
        "outbox/store/waiting.rs",
        &["emails"],
        "pages of keys say how many emails wait, and know nothing else of emails",
    ),
];

/// Libraries, and where they may be used: in files or folders with these names (without `.rs`), and in
/// these files and rooms.
const LIBRARIES: &[(&[&str], &[&str], &[&str])] = &[
    (
        &["diesel", "diesel_migrations"],
        &["store"],
        &["db/", "schema.rs"],
    ),
    (
        &["actix_web", "actix_session"],
        &["pages", "api", "session"],
        &[
            "http/",
            "server.rs",
            "routes.rs",
            "keys/verification/bearer.rs",
        ],
    ),
    (&["hickory_resolver"], &[], &["domains/dns.rs"]),
    (&["prometheus"], &[], &["metrics.rs"]),
];

/// The room and the floor of a file, counted from the top.
fn room_of(file: &str) -> Option<(&'static str, usize)> {
    let floors = FLOORS.iter().enumerate();
    let rooms = floors.flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)));
    let rooms = rooms.filter(|(room, _)| is_in(file, room));
    rooms.max_by_key(|(room, _)| room.len())
}

/// Whether a file is this one, or stands in this folder.
fn is_in(file: &str, place: &str) -> bool {
    file == place || place.ends_with('/') && file.starts_with(place)
}

/// Whether the file or a folder above it has this name.
fn is_called(file: &str, name: &str) -> bool {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    path.split('/').any(|part| part == name)
}

fn refuse(found: &[String]) {
    assert!(
        found.is_empty(),
        "\n{}\n{} found",
        found.join("\n"),
        found.len()
    );
}

/// The imports of each file from each other: where the first one stands, and what they name.
fn ties(imports: &BTreeSet<Import>) -> BTreeMap<(&str, &str), String> {
    let mut ties: BTreeMap<(&str, &str), (usize, BTreeSet<&str>)> = BTreeMap::new();
    for import in imports {
        let tie = ties.entry((&import.from, &import.to));
        let (line, names) = tie.or_insert((import.line, BTreeSet::new()));
        *line = import.line.min(*line);
        names.insert(&import.path);
    }
    let mut told = BTreeMap::new();
    for ((from, to), (line, names)) in ties {
        let names: Vec<&str> = names.into_iter().collect();
        let names = names.join(", ");
        told.insert((from, to), format!("{from}:{line} uses {to}: {names}"));
    }
    told
}

#[test]
fn every_file_stands_on_a_floor_and_every_room_is_there() {
    let sources = &*SOURCES;
    let homeless = sources
        .iter()
        .filter(|source| room_of(&source.path).is_none());
    let mut found: Vec<String> = homeless
        .map(|source| format!("{} stands on no floor", source.path))
        .collect();
    for room in FLOORS.iter().flat_map(|rooms| rooms.iter()) {
        if !sources.iter().any(|source| is_in(&source.path, room)) {
            found.push(format!("{room} is not there"));
        }
    }
    refuse(&found);
}

#[test]
fn nothing_looks_up() {
    let looks_up = |from: &str, to: &str| match (room_of(from), room_of(to)) {
        (Some((room, floor)), Some((other, other_floor))) => room != other && other_floor <= floor,
        // What stands nowhere is below nothing.
        (_, other) => other.is_none(),
    };
    let ties = ties(&IMPORTS);
    let up = ties.iter().filter(|((from, to), _)| looks_up(from, to));
    refuse(&up.map(|(_, told)| told.clone()).collect::<Vec<_>>());
}

#[test]
fn nothing_runs_in_a_circle() {
    let ties = ties(&IMPORTS);
    let mut uses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in ties.keys() {
        uses.entry(from).or_default().push(to);
    }
    let reached_from = |file: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
        while let Some(file) = next.pop() {
            for other in uses.get(file).into_iter().flatten() {
                if reached.insert(*other) {
                    next.push(other);
                }
            }
        }
        reached
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|file| (*file, reached_from(file)))
        .collect();
    let mut circles: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for (file, reached) in &reach {
        let leads_back = |other: &&&str| reach.get(**other).is_some_and(|r| r.contains(file));
        let circle: BTreeSet<&str> = reached.iter().filter(leads_back).copied().collect();
        if circle.contains(file) {
            circles.insert(circle);
        }
    }
    let told = |circle: &BTreeSet<&str>| {
        let within = ties
            .iter()
            .filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
        let lines: Vec<String> = within.map(|(_, told)| format!("  {told}")).collect();
        format!("a circle of {} files:\n{}", circle.len(), lines.join("\n"))
    };
    refuse(&circles.iter().map(told).collect::<Vec<_>>());
}

/// The room of pages that a file stands in, if any.
fn pages_of(file: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = file.split(['/', '.']).collect();
    let end = parts.iter().position(|part| *part == "pages")?;
    Some(parts[..end].to_vec())
}

/// Pages are reached through their routes: no other code builds on them.
#[test]
fn pages_are_used_by_routes_and_each_other_only() {
    let ties = ties(&IMPORTS);
    let from_outside = ties
        .iter()
        .filter(|((from, to), _)| pages_of(to).is_some() && pages_of(from) != pages_of(to))
        .filter(|((from, _), _)| *from != "routes.rs");
    refuse(
        &from_outside
            .map(|(_, told)| told.clone())
            .collect::<Vec<_>>(),
    );
}

#[test]
fn tables_are_named_by_their_owners_only() {
    let sources = &*SOURCES;
    let schema = sources.iter().find(|source| source.path == "schema.rs");
    let mut found = Vec::new();
    let mut tables = BTreeSet::new();
    for words in schema.expect("a schema").tokens.windows(3) {
        // As in `table! { accounts (id) {`.
        if words[0].text == "{" && words[2].text == "(" {
            tables.insert(words[1].text.as_str());
        }
    }
    let owned: BTreeSet<&str> = OWNERS
        .iter()
        .flat_map(|(_, of)| of.iter().copied())
        .collect();
    for table in tables.symmetric_difference(&owned) {
        found.push(format!("the table {table} has no owner, or does not exist"));
    }
    let mut guests: BTreeSet<(String, String)> = GUESTS
        .iter()
        .flat_map(|(file, tables, _)| {
            let of = move |table: &&str| (file.to_string(), table.to_string());
            tables.iter().map(of)
        })
        .collect();
    for source in sources {
        for table in imports::tables_of(source) {
            if table == "*" {
                found.push(format!("{} takes all tables at once", source.path));
            }
            let owner = OWNERS.iter().find(|(_, of)| of.contains(&table.as_str()));
            let is_guest = guests.remove(&(source.path.clone(), table.clone()));
            if let Some((owner, _)) = owner
                && !is_in(&source.path, owner)
                && !is_guest
            {
                found.push(format!(
                    "{} names {table}, which is of {owner}",
                    source.path
                ));
            }
        }
    }
    for (file, table) in guests {
        found.push(format!(
            "{file} does not name {table}, as the exceptions have it"
        ));
    }
    refuse(&found);
}

#[test]
fn libraries_stand_in_their_places_only() {
    let mut found = Vec::new();
    for source in &*SOURCES {
        for (crates, names, places) in LIBRARIES {
            let is_home = names.iter().any(|name| is_called(&source.path, name))
                || places.iter().any(|place| is_in(&source.path, place));
            let used = crates
                .iter()
                .find_map(|name| Some((name, source.line_of(name)?)));
            if let (Some((name, line)), false) = (used, is_home) {
                found.push(format!("{}:{line} uses {name}", source.path));
            }
        }
    }
    refuse(&found);
}
