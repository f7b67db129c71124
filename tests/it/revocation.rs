//! A key that was revoked is refused: if the answer to a revocation was there at t0, no request
//! whose first byte is sent after t0 is accepted, by any node.
//!
//! Each key is asked about all the time, before, while and after it is revoked on another node. The
//! last tests turn the program on verifiers that are wrong, and it must find them out.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use actix_web::web::Data;
use chrono::TimeDelta;
use diesel::connection::SimpleConnection;
use diesel::{Connection as _, SqliteConnection};
use rand::RngExt;
use tosend_dashboard::clock;
use tosend_dashboard::db::verdict_changes::{Change, Changes, Reader};
use tosend_dashboard::db::{self, Connection, migrations};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::secret::KeyHash;
use tosend_dashboard::keys::store::{self, Rotation};
use tosend_dashboard::keys::verification::store::LiveKey;
use tosend_dashboard::keys::verification::{
    Answers, Lookup, Remembering, Verifier, store as verification_store,
};
use tosend_dashboard::server::Components;

use crate::support::*;

const VERIFY: &str = "/v2/verify";
/// Each has a key of its own at a time.
const PROBERS: usize = 8;
/// Accepts that are seen before a revocation.
const BEFORE: usize = 2;
/// Refusals that the prober must see afterwards, and the one who revoked as well.
const AFTER: usize = 4;
/// For what never comes, not for what is slow.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the wrong verifiers keep an answer, at least. Where the machine is so busy that nobody
/// asks again in this time, no request can find it out, and the next one is tried.
const KEPT: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(100),
    Duration::from_millis(1_000),
];

/// Two nodes on one database, or twice the same one, and the owner of an account with keys.
struct Scene<'a> {
    revoking: String,
    asked: String,
    cookie: String,
    database: &'a Database,
    store: KeyStore,
}

impl<'a> Scene<'a> {
    fn new(database: &'a Database, revoking: &str, asked: &str) -> Self {
        let owner = Visitor::new(revoking.to_owned());
        owner.sign_up();
        Self {
            revoking: revoking.to_owned(),
            asked: asked.to_owned(),
            cookie: owner.cookie().unwrap(),
            database,
            store: KeyStore::of(database),
        }
    }

    fn keys(&self, number: usize) -> Vec<Made> {
        self.store.create_many(number, &NewScope::AllDomains)
    }

    /// The id of a verified domain of this name.
    fn domain(&self, name: &str) -> i64 {
        attest(self.database, name);
        let id = format!("SELECT id FROM sending_domains WHERE name = '{name}'");
        self.database.number(&id)
    }

    /// Revokes every key under the eyes of a prober of its own, who asks by this path. Gives how
    /// many requests were accepted that began afterwards; ends early when there is one.
    fn accepts_after(
        &self,
        path: &str,
        keys: Vec<Made>,
        revoke: impl Fn(&mut Wire, &Made) + Sync,
    ) -> usize {
        let keys = Mutex::new(keys.into_iter());
        let accepts = AtomicUsize::new(0);
        let work = || {
            let mut crew = Crew::of(self);
            while accepts.load(Ordering::SeqCst) == 0 {
                let Some(target) = keys.lock().unwrap().next() else {
                    break;
                };
                let found = crew.accepts_after(path, &target.key, |wire| revoke(wire, &target));
                accepts.fetch_add(found, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            let crews: Vec<_> = (0..PROBERS).map(|_| scope.spawn(work)).collect();
            for crew in crews {
                // Fails as the crew did, which tells why.
                crew.join().unwrap_or_else(|why| resume_unwind(why));
            }
        });
        accepts.into_inner()
    }

    /// As the form on the page does it, which may ask for the name of a key that is in use.
    fn submit(&self, wire: &mut Wire, target: &Made, what: &str, location: &str) {
        let form = format!("name={NAME}");
        let request = format!(
            "POST /api-keys/{}/{what} HTTP/1.1\r\nhost: node\r\ncookie: {}\r\n\
             sec-fetch-site: same-origin\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
            target.id,
            self.cookie,
            form.len()
        );
        let mut answer = wire.send(&request);
        let mut locations = vec![location];
        if answer.status == 503 {
            answer = known(|| wire.send(&request));
            // It may have been done before nobody could say so.
            locations.push("/api-keys?notice=gone");
        }
        assert_eq!(answer.status, 303);
        let leads_to = |to: &&str| answer.head.contains(&format!("location: {to}\r\n"));
        assert!(locations.iter().any(leads_to), "{}", answer.head);
    }

    fn delete(&self, wire: &mut Wire, target: &Made) {
        self.submit(wire, target, "delete", "/api-keys?notice=deleted");
    }

    fn pause(&self, wire: &mut Wire, target: &Made) {
        let page = format!("/api-keys/{}?notice=paused", target.id);
        self.submit(wire, target, "pause", &page);
    }
}

/// A prober and one who revokes, with their connections.
struct Crew {
    prober: Wire,
    /// To the node that revokes, and to the other one.
    own: [Wire; 2],
}

impl Crew {
    fn of(scene: &Scene) -> Self {
        Self {
            prober: Wire::to(&scene.asked),
            own: [Wire::to(&scene.revoking), Wire::to(&scene.asked)],
        }
    }

    /// Has the key asked about all the time, revokes it, and gives how many requests were accepted
    /// that began when it was revoked.
    fn accepts_after(&mut self, path: &str, key: &str, revoke: impl FnOnce(&mut Wire)) -> usize {
        let Self { prober, own } = self;
        let acknowledged = OnceLock::new();
        let (tell, told) = mpsc::channel();
        let answers: Vec<Answered> = thread::scope(|scope| {
            scope.spawn(|| {
                let tell = tell;
                let mut left = AFTER;
                while left > 0 {
                    left -= usize::from(acknowledged.get().is_some());
                    // Fails when the one who revokes has failed.
                    let answer = known(|| prober.get(path, key));
                    if tell.send(answer).is_err() {
                        break;
                    }
                }
            });
            for _ in 0..BEFORE {
                assert_eq!(told.recv_timeout(LIMIT).unwrap().status, 200, "a good key");
            }
            revoke(&mut own[0]);
            acknowledged.set(Instant::now()).unwrap();
            let asked = (0..AFTER).map(|n| known(|| own[n % 2].get(path, key)));
            asked.collect::<Vec<_>>().into_iter().chain(told).collect()
        });
        let acknowledged = acknowledged.into_inner().unwrap();
        let begun_after = |answer: &&Answered| answer.begun > acknowledged;
        let after = |status| {
            let begun_after = answers.iter().filter(begun_after);
            begun_after.filter(|answer| answer.status == status).count()
        };
        let strange = answers.iter().find(|a| !matches!(a.status, 200 | 403));
        assert!(strange.is_none(), "{strange:?}");
        assert!(after(200) + after(403) >= 2 * AFTER, "too few have asked");
        after(200)
    }
}

/// Deleted keys, in each database.
fn deletions() -> usize {
    rounds("TOSEND_TEST_REVOCATIONS", 1_000, 10_000)
}

/// Two servers on PostgreSQL, each a process of its own.
fn on_two_nodes(test: impl FnOnce(&Scene)) {
    let database = Database::new(Backend::Postgres);
    let [here, there] = [(); 2].map(|()| Dashboard::start(&database, &[]));
    test(&Scene::new(&database, &here.base, &there.base));
}

/// One server on SQLite.
fn on_one_node(test: impl FnOnce(&Scene)) {
    let database = Database::new(Backend::Sqlite);
    let node = Dashboard::start(&database, &[]);
    test(&Scene::new(&database, &node.base, &node.base));
}

fn accepts_after_delete(scene: &Scene, number: usize) -> usize {
    let keys = scene.keys(number);
    scene.accepts_after(VERIFY, keys, |wire, key| scene.delete(wire, key))
}

fn no_deleted_key_is_accepted(scene: &Scene) {
    assert_eq!(accepts_after_delete(scene, deletions()), 0);
}

#[test]
fn no_deleted_key_is_accepted_by_two_nodes_on_postgres() {
    on_two_nodes(no_deleted_key_is_accepted);
}

#[test]
fn no_deleted_key_is_accepted_by_one_node_on_sqlite() {
    on_one_node(no_deleted_key_is_accepted);
}

fn no_paused_key_is_accepted(scene: &Scene) {
    let keys = scene.keys(deletions() / 20);
    let accepts = scene.accepts_after(VERIFY, keys, |wire, key| scene.pause(wire, key));
    assert_eq!(accepts, 0);
}

#[test]
fn no_paused_key_is_accepted_by_two_nodes_on_postgres() {
    on_two_nodes(no_paused_key_is_accepted);
}

#[test]
fn no_paused_key_is_accepted_by_one_node_on_sqlite() {
    on_one_node(no_paused_key_is_accepted);
}

fn no_key_of_a_paused_account_is_accepted(scene: &Scene) {
    let set = |what| cli(scene.database, &["account", what, "--account", EMAIL], "").unwrap();
    let key = &scene.keys(1)[0].key;
    let mut crew = Crew::of(scene);
    for _ in 0..deletions() / 50 {
        let accepts = crew.accepts_after(VERIFY, key, |_| drop(set("pause")));
        assert_eq!(accepts, 0);
        set("resume");
    }
}

#[test]
fn no_key_of_a_paused_account_is_accepted_by_two_nodes_on_postgres() {
    on_two_nodes(no_key_of_a_paused_account_is_accepted);
}

#[test]
fn no_key_of_a_paused_account_is_accepted_by_one_node_on_sqlite() {
    on_one_node(no_key_of_a_paused_account_is_accepted);
}

/// A key for two domains, or for all, is for one from then on: the other one is asked for.
fn accepts_after_narrowing(scene: &Scene, number: usize) -> usize {
    let [kept, lost] = ["kept.test", "lost.test"].map(|name| scene.domain(name));
    let narrow = |_: &mut Wire, key: &Made| {
        let narrowed = scene
            .store
            .edit(key.id, NewScope::Domains(vec![kept]), None);
        narrowed.unwrap();
    };
    let of_scope = |scope| {
        let keys = scene.store.create_many(number / 2, &scope);
        scene.accepts_after("/v2/verify?domain=lost.test", keys, narrow)
    };
    of_scope(NewScope::Domains(vec![kept, lost])) + of_scope(NewScope::AllDomains)
}

fn no_key_opens_a_domain_that_it_lost(scene: &Scene) {
    assert_eq!(accepts_after_narrowing(scene, deletions() / 20), 0);
}

#[test]
fn no_key_opens_a_domain_that_it_lost_on_two_nodes_on_postgres() {
    on_two_nodes(no_key_opens_a_domain_that_it_lost);
}

#[test]
fn no_key_opens_a_domain_that_it_lost_on_one_node_on_sqlite() {
    on_one_node(no_key_opens_a_domain_that_it_lost);
}

/// Soon, but a while after what happens next.
fn soon() -> TimeDelta {
    TimeDelta::milliseconds(rand::rng().random_range(2..30))
}

/// Until the clock, which is the database's too, has passed an instant that lay so far ahead at
/// most.
fn wait_out(ahead: TimeDelta) {
    let end = clock::now() + ahead;
    while clock::now() <= end {
        thread::sleep(Duration::from_micros(100));
    }
}

fn accepts_after_expiry(scene: &Scene, number: usize) -> usize {
    let expire = |_: &mut Wire, key: &Made| {
        let ahead = soon();
        let expiry = Expiry::known(Some(clock::now() + ahead));
        let edited = scene.store.edit(key.id, NewScope::AllDomains, Some(expiry));
        let end = edited.unwrap().expires_at.unwrap();
        wait_out(end - clock::now());
    };
    scene.accepts_after(VERIFY, scene.keys(number), expire)
}

fn no_expired_key_is_accepted(scene: &Scene) {
    assert_eq!(accepts_after_expiry(scene, deletions() / 20), 0);
}

#[test]
fn no_expired_key_is_accepted_by_two_nodes_on_postgres() {
    on_two_nodes(no_expired_key_is_accepted);
}

#[test]
fn no_expired_key_is_accepted_by_one_node_on_sqlite() {
    on_one_node(no_expired_key_is_accepted);
}

/// A key is replaced and then stops: at once, by itself a little later, or by hand. The successor
/// works all the time.
fn accepts_after_rotation(scene: &Scene, number: usize) -> usize {
    let replace = |wire: &mut Wire, key: &Made| {
        let overlap = match key.id % 3 {
            0 => Some(TimeDelta::zero()),
            1 => Some(soon()),
            _ => None,
        };
        let rotation = Rotation {
            overlap,
            stops_when_quiet: None,
            expiry: None,
        };
        let successor = scene.store.rotate(key.id, &rotation).unwrap();
        let mut assert_works =
            || assert_eq!(known(|| wire.get(VERIFY, &successor.key)).status, 200);
        assert_works();
        match overlap {
            Some(overlap) => wait_out(overlap),
            None => drop(scene.store.change(key.id, store::stop)),
        }
        assert_works();
    };
    scene.accepts_after(VERIFY, scene.keys(number), replace)
}

fn no_key_is_accepted_after_its_rotation(scene: &Scene) {
    assert_eq!(accepts_after_rotation(scene, deletions() / 20), 0);
}

#[test]
fn no_key_is_accepted_after_its_rotation_by_two_nodes_on_postgres() {
    on_two_nodes(no_key_is_accepted_after_its_rotation);
}

#[test]
fn no_key_is_accepted_after_its_rotation_by_one_node_on_sqlite() {
    on_one_node(no_key_is_accepted_after_its_rotation);
}

/// Asks the database, as the product does, but is slow to tell what it said.
struct Slow {
    conn: Connection,
    delay: Duration,
}

impl Lookup for Slow {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
        let looked = verification_store::look_up_of_any_account(&mut self.conn, hashes);
        thread::sleep(self.delay);
        Ok(looked?.answers())
    }
}

/// Wrong: remembers which keys work.
struct Caching {
    lookup: Slow,
    kept: Duration,
    known: HashMap<KeyHash, (Instant, Arc<LiveKey>)>,
}

impl Lookup for Caching {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
        self.known
            .retain(|_, (since, _)| since.elapsed() < self.kept);
        let mut answer = |hash: &KeyHash| {
            if let Some((_, key)) = self.known.get(hash) {
                return Ok(Some(key.clone()));
            }
            let found = self.lookup.look_up(&[*hash])?.remove(0);
            if let Some(key) = &found {
                self.known.insert(*hash, (Instant::now(), key.clone()));
            }
            Ok(found)
        };
        hashes.iter().map(&mut answer).collect()
    }
}

type Flights = Arc<Mutex<HashMap<KeyHash, Arc<OnceLock<Option<Arc<LiveKey>>>>>>>;

/// Wrong: whoever asks for a key that is being looked up gets the answer of that lookup.
struct Joining {
    lookup: Slow,
    /// What any thread that verifies is looking up.
    flights: Flights,
}

impl Lookup for Joining {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
        let mut own = Vec::new();
        let mut flights = self.flights.lock().unwrap();
        let mut join = |hash: &KeyHash| {
            let begin = || {
                own.push(*hash);
                Arc::default()
            };
            flights.entry(*hash).or_insert_with(begin).clone()
        };
        let joined: Vec<Arc<OnceLock<_>>> = hashes.iter().map(&mut join).collect();
        drop(flights);
        for (hash, answer) in own.iter().zip(self.lookup.look_up(&own)?) {
            let flight = self.flights.lock().unwrap().remove(hash).unwrap();
            flight.set(answer).unwrap();
        }
        Ok(joined.iter().map(|flight| flight.wait().clone()).collect())
    }
}

/// How many requests are accepted too late when both nodes look keys up in this way.
fn accepts_with<L: Lookup + 'static>(
    backend: Backend,
    lookup: impl Fn(Slow) -> L + Clone + Send + Sync + 'static,
    delay: Duration,
    accepts: impl FnOnce(&Scene) -> usize,
) -> usize {
    let alter = |components: &mut Components| {
        let db = components.context.db.clone();
        let lookup = lookup.clone();
        let lookups = Verifier::with_lookup(1, move || {
            let conn = db.connect().unwrap();
            Box::new(lookup(Slow { conn, delay }))
        });
        components.verifier = Data::new(lookups);
    };
    let here = App::altered(Database::new(backend), alter);
    let there = App::altered(here.database.again(), alter);
    accepts(&Scene::new(&here.database, &here.url(""), &there.url("")))
}

/// Enough to find out a verifier that is wrong.
const ENOUGH: usize = 1_000;

fn a_cache_is_found_out(backend: Backend) {
    let kinds = [
        (0, accepts_after_delete as fn(&Scene, usize) -> usize),
        // Who narrows or replaces a key looks at it before they acknowledge it.
        (1, accepts_after_narrowing),
        (1, accepts_after_expiry),
        (1, accepts_after_rotation),
    ];
    for (number, (shortest, kind)) in kinds.into_iter().enumerate() {
        let is_found_out = KEPT[shortest..].iter().any(|&kept| {
            let caching = move |lookup| Caching {
                lookup,
                kept,
                known: HashMap::new(),
            };
            let accepts = |scene: &Scene| kind(scene, ENOUGH);
            accepts_with(backend, caching, Duration::ZERO, accepts) > 0
        });
        assert!(is_found_out, "{number}: answers were kept");
    }
}

#[test]
fn a_cache_is_found_out_on_postgres() {
    a_cache_is_found_out(Backend::Postgres);
}

#[test]
fn a_cache_is_found_out_on_sqlite() {
    a_cache_is_found_out(Backend::Sqlite);
}

fn joining_lookups_in_flight_is_found_out(backend: Backend) {
    let is_found_out = KEPT.iter().any(|&kept| {
        let flights = Flights::default();
        let joining = move |lookup| Joining {
            lookup,
            flights: flights.clone(),
        };
        let accepts = |scene: &Scene| accepts_after_delete(scene, ENOUGH);
        accepts_with(backend, joining, kept, accepts) > 0
    });
    assert!(is_found_out, "lookups in flight were joined");
}

#[test]
fn joining_lookups_in_flight_is_found_out_on_postgres() {
    joining_lookups_in_flight_is_found_out(Backend::Postgres);
}

#[test]
fn joining_lookups_in_flight_is_found_out_on_sqlite() {
    joining_lookups_in_flight_is_found_out(Backend::Sqlite);
}

#[test]
fn a_lookup_that_is_only_slow_is_not_blamed() {
    for backend in Backend::all() {
        let accepts = |scene: &Scene| accepts_after_delete(scene, ENOUGH / 8);
        assert_eq!(accepts_with(backend, |slow| slow, KEPT[0], accepts), 0);
    }
}

/// How a verifier with the product's memory can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// None, but that it never looks whether SQLite's file is still the same.
    BlindToFile,
    /// It takes it that nothing has changed.
    DoesNotAsk,
    /// It asks what has changed before it knows which requests it will answer.
    AsksTooEarly,
    /// It does not look at the marks of changes.
    NumbersOnly,
    /// It does not look whether changes are recorded.
    BlindToTriggers,
}

/// The product's memory, used wrongly.
struct Careless {
    flaw: Flaw,
    conn: Connection,
    reader: Reader,
    remembering: Remembering,
    early: Option<Changes>,
}

impl Careless {
    fn new(flaw: Flaw, mut conn: Connection) -> Self {
        Self {
            flaw,
            reader: Reader::begin(&mut conn).unwrap().expect("all triggers"),
            conn,
            remembering: Remembering::new(1_000),
            early: None,
        }
    }

    fn read(&mut self) -> db::Result<Changes> {
        let position = self.remembering.position();
        let mut changes = self.reader.read(&mut self.conn, position)?;
        let seen = position.map(|position| Change {
            position: position.clone(),
            account_id: None,
        });
        match (self.flaw, seen) {
            (Flaw::DoesNotAsk, Some(seen)) => changes.rows = vec![seen],
            (Flaw::NumbersOnly, Some(seen)) if changes.rows[0].position.n == seen.position.n => {
                changes.rows[0] = seen;
            }
            (Flaw::BlindToTriggers, _) => changes.are_recorded = true,
            _ => {}
        }
        Ok(changes)
    }
}

impl Lookup for Careless {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
        let changes = match self.early.take() {
            Some(changes) => changes,
            None => self.read()?,
        };
        let (answers, _) = self.remembering.answer(&mut self.conn, &changes, hashes)?;
        if self.flaw == Flaw::AsksTooEarly {
            self.early = Some(self.read()?);
        }
        Ok(answers)
    }
}

/// A node whose verifier has this flaw, or the product's.
fn node(database: Database, flaw: Option<Flaw>) -> App {
    App::altered(database, |components| {
        if let Some(flaw) = flaw {
            let db = components.context.db.clone();
            let lookup =
                move || -> Box<dyn Lookup> { Box::new(Careless::new(flaw, db.connect().unwrap())) };
            components.verifier = Data::new(Verifier::with_lookup(1, lookup));
        }
    })
}

/// Whether a key works, for a server that may have to find its database first.
fn verdict(app: &App, key: &str) -> u16 {
    let program = app.program(key);
    let mut status = 503;
    until("a verdict", || {
        status = program.verdict();
        status != 503
    });
    status
}

fn a_memory_without_the_question_is_found_out(backend: Backend, flaw: Flaw) {
    let here = node(Database::new(backend), Some(flaw));
    let there = node(here.database.again(), Some(flaw));
    let scene = Scene::new(&here.database, &here.url(""), &there.url(""));
    assert!(accepts_after_delete(&scene, ENOUGH) > 0, "{flaw:?}");
}

#[test]
fn a_memory_that_does_not_ask_is_found_out_on_postgres() {
    a_memory_without_the_question_is_found_out(Backend::Postgres, Flaw::DoesNotAsk);
}

#[test]
fn a_memory_that_does_not_ask_is_found_out_on_sqlite() {
    a_memory_without_the_question_is_found_out(Backend::Sqlite, Flaw::DoesNotAsk);
}

#[test]
fn a_memory_that_asks_too_early_is_found_out_on_postgres() {
    a_memory_without_the_question_is_found_out(Backend::Postgres, Flaw::AsksTooEarly);
}

#[test]
fn a_memory_that_asks_too_early_is_found_out_on_sqlite() {
    a_memory_without_the_question_is_found_out(Backend::Sqlite, Flaw::AsksTooEarly);
}

/// What a node says of a key that works, and then is not in a dump that is restored under it; meanwhile
/// the numbers of changes have come to the same one again.
fn verdict_after_restoring(flaw: Option<Flaw>) -> u16 {
    let app = node(Database::new(Backend::Postgres), flaw);
    let owner = app.owner();
    let (id, key) = owner.create_key("Key", "");
    let dump = app.database.folder.path().join("dump");
    let set = |status: &str| {
        let sql = format!("UPDATE api_keys SET status = '{status}' WHERE id = {id}");
        app.database.execute(&sql);
    };
    set("paused");
    let args = ["-Fc", "-f", dump.to_str().unwrap(), app.database.direct()];
    tool("pg_dump", &args);
    let newest = || app.database.number("SELECT max(n) FROM verdict_changes");
    set("active");
    let before = newest();
    assert_eq!(verdict(&app, &key), 200);
    let restore = ["--clean", "--if-exists", "--single-transaction", "-d"];
    let args = [
        &restore[..],
        &[app.database.direct(), dump.to_str().unwrap()],
    ]
    .concat();
    tool("pg_restore", &args);
    // Of another account.
    while newest() < before {
        let sql =
            "INSERT INTO accounts (title, status, created_at) VALUES ('Other', 'active', now());
             UPDATE accounts SET status = 'paused' WHERE title = 'Other';
             DELETE FROM accounts WHERE title = 'Other'";
        app.database.execute(sql);
    }
    assert_eq!(newest(), before);
    verdict(&app, &key)
}

fn tool(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
fn a_restored_dump_whose_changes_have_caught_up_is_noticed_on_postgres() {
    assert_eq!(verdict_after_restoring(None), 403);
}

#[test]
fn a_memory_that_looks_at_numbers_only_is_found_out_on_postgres() {
    assert_eq!(verdict_after_restoring(Some(Flaw::NumbersOnly)), 200);
}

/// What a node says, once, of a key that works, and then is paused in another file that takes the place of
/// the database.
fn verdict_after_mv(flaw: Option<Flaw>) -> u16 {
    let app = node(Database::new(Backend::Sqlite), flaw);
    let owner = app.owner();
    let (id, key) = owner.create_key("Key", "");
    let other = app.database.folder.path().join("other.db");
    cli(&app.database, &["backup", other.to_str().unwrap()], "").unwrap();
    let mut conn = SqliteConnection::establish(other.to_str().unwrap()).unwrap();
    let sql = format!("UPDATE api_keys SET status = 'paused' WHERE id = {id}");
    conn.batch_execute(&sql).unwrap();
    drop(conn);
    assert_eq!(verdict(&app, &key), 200);
    for end in ["-wal", "-shm"] {
        let mut path = app.database.file().into_os_string();
        path.push(end);
        std::fs::remove_file(path).unwrap();
    }
    std::fs::rename(&other, app.database.file()).unwrap();
    let answer = app.program(&key).try_verify();
    answer.expect("an answer").status
}

#[test]
fn another_sqlite_file_in_the_place_of_the_database_is_noticed_on_sqlite() {
    assert_eq!(verdict_after_mv(None), 503);
}

#[test]
fn a_memory_that_is_blind_to_the_file_is_found_out_on_sqlite() {
    // 503 also if the machine is too slow.
    until("it is found out", || {
        verdict_after_mv(Some(Flaw::BlindToFile)) == 200
    });
}

/// Ways to keep a change of a key from being recorded.
fn ways_to_stop_recording(backend: Backend) -> Vec<String> {
    let rebuilt = "CREATE TABLE links AS SELECT * FROM api_key_domains; DROP TABLE api_key_domains;
         ALTER TABLE links RENAME TO api_key_domains";
    // Otherwise SQLite looks whether triggers of other tables still fit.
    let without_a_look = match backend {
        Backend::Sqlite => "PRAGMA legacy_alter_table = ON;",
        Backend::Postgres => "",
    };
    let mut ways = Vec::new();
    match backend {
        Backend::Sqlite => {
            let file = include_str!("../../src/db/verdict_changes/sqlite.sql");
            let names = file
                .lines()
                .filter_map(|line| line.strip_prefix("CREATE TRIGGER "));
            let names = names.map(|rest| rest.split(' ').next().unwrap());
            ways.extend(names.map(|name| format!("DROP TRIGGER {name}")));
            assert!(ways.len() > 10);
        }
        Backend::Postgres => {
            for (table, name) in [
                ("api_keys", "key"),
                ("accounts", "account"),
                ("sending_domains", "domain"),
                ("api_key_domains", "link"),
            ] {
                for name in [name, "truncated"].map(|name| format!("verdict_{name}")) {
                    ways.push(format!("ALTER TABLE {table} DISABLE TRIGGER {name}"));
                    ways.push(format!("ALTER TABLE {table} ENABLE REPLICA TRIGGER {name}"));
                    ways.push(format!("DROP TRIGGER {name} ON {table}"));
                }
                ways.push(format!("ALTER TABLE {table} ENABLE TRIGGER ALL"));
            }
            ways.push("DROP FUNCTION verdict_of_key() CASCADE".to_owned());
        }
    }
    ways.push(format!("{without_a_look} {rebuilt}"));
    ways
}

both! {
    fn a_trigger_that_is_missing_or_disabled_is_noticed_by_the_next_request(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Key", "");
        let ready = || owner.get("/readyz");
        for way in ways_to_stop_recording(app.database.backend()) {
            assert_eq!(verdict(&app, &key), 200);
            assert_eq!(ready().body, "ready\n", "before {way}");
            app.database.execute(&way);
            let set = |status: &str| app.database.execute(&format!("UPDATE api_keys SET status = '{status}' WHERE id = {id}"));
            for _ in 0..3 {
                set("paused");
                assert_eq!(verdict(&app, &key), 403, "{way}");
                set("active");
                assert_eq!(verdict(&app, &key), 200, "{way}");
            }
            let told = ready();
            assert_eq!(told.status, 200);
            assert!(told.body.contains("triggers of the database are missing or disabled"), "{way}: {}", told.body);
            migrations::run(&app.database.open()).unwrap();
            until("the triggers are back", || verdict(&app, &key) == 200 && ready().body == "ready\n");
        }
    }
}

fn verdict_without_a_trigger(backend: Backend) -> u16 {
    let app = node(Database::new(backend), Some(Flaw::BlindToTriggers));
    let owner = app.owner();
    let (id, key) = owner.create_key("Key", "");
    assert_eq!(verdict(&app, &key), 200);
    app.database.execute(match backend {
        Backend::Sqlite => "DROP TRIGGER verdict_key_updated",
        Backend::Postgres => "ALTER TABLE api_keys DISABLE TRIGGER verdict_key",
    });
    let sql = format!("UPDATE api_keys SET status = 'paused' WHERE id = {id}");
    app.database.execute(&sql);
    verdict(&app, &key)
}

#[test]
fn a_memory_that_is_blind_to_triggers_is_found_out_on_postgres() {
    assert_eq!(verdict_without_a_trigger(Backend::Postgres), 200);
}

#[test]
fn a_memory_that_is_blind_to_triggers_is_found_out_on_sqlite() {
    assert_eq!(verdict_without_a_trigger(Backend::Sqlite), 200);
}
