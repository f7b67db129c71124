//! The database fails in all the ways that databases do: whoever asks about a key meanwhile gets
//! the right verdict or none, and afterwards all is well again without a restart.

use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use tosend_dashboard::keys::secret::PlainKey;

use crate::support::*;

/// A server with an owner, a key that works and some that do not.
struct Scene {
    dashboard: Dashboard,
    owner: Visitor,
    good: String,
    bad: [String; 2],
}

impl Scene {
    fn on(database: &Database) -> Self {
        let dashboard = Dashboard::start(database, &[]);
        let owner = dashboard.visitor();
        owner.sign_up();
        let (id, deleted) = owner.create_key("Deleted", "");
        owner.delete_key(id);
        let (_, good) = owner.create_key("Good", "");
        let unknown = PlainKey::generate().expose().to_owned();
        Self {
            dashboard,
            owner,
            good,
            bad: [deleted, unknown],
        }
    }

    fn keys(&self) -> Vec<(Key, &str)> {
        let bad = self.bad.iter().map(|key| (Key::Bad, key.as_str()));
        [(Key::Good, self.good.as_str())]
            .into_iter()
            .chain(bad)
            .collect()
    }

    /// As many programs as asked for present each key.
    fn probers(&self, each: usize) -> Probers {
        let programs = self.keys().into_iter().flat_map(|(key, text)| {
            let program = move |_| (key, self.dashboard.program(text));
            (0..each).map(program)
        });
        let probers = Probers::start(programs.collect());
        probers.see_verdicts();
        probers
    }

    /// Waits until verdicts and pages come again, and keep coming.
    fn heals(&self) {
        let is_well = || self.verifies() && page(&self.owner, "/api-keys") == Some(200);
        until("all is well again", || (0..10).all(|_| is_well()));
    }

    fn verifies(&self) -> bool {
        let mut keys = self.keys().into_iter();
        keys.all(|(key, text)| verdict(&self.dashboard, text) == Some(key.verdict()))
    }
}

/// The status of a page, asked for once: 503, if the database does not answer in time.
fn page(visitor: &Visitor, path: &str) -> Option<u16> {
    visitor.try_get(path).map(|answer| answer.status)
}

/// The status of a verdict, asked for once.
fn verdict(dashboard: &Dashboard, key: &str) -> Option<u16> {
    let answer = dashboard.program(key).try_verify();
    answer.map(|answer| answer.status)
}

#[test]
fn postgres_is_stopped_and_started_later() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    for how in [Stop::Fast, Stop::Immediate] {
        cluster.stop(how);
        probers.see_unavailable();
        cluster.start();
        scene.heals();
    }
    probers.end();
}

#[test]
fn postgres_is_restarted_again_and_again() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    for _ in 0..5 {
        cluster.stop(Stop::Immediate);
        cluster.start();
        probers.see_verdicts();
    }
    scene.heals();
    probers.end();
}

#[test]
fn postgres_is_frozen_with_its_connections_open() {
    let cluster = Cluster::new();
    let database = Database::on(&cluster);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    for _ in 0..2 {
        cluster.freeze();
        probers.see_unavailable();
        // No new connection has an answer either.
        probers.see_unavailable();
        cluster.thaw();
        scene.heals();
    }
    probers.end();
}

/// With a use that is still to be written, a page that waits and a deletion that waits.
#[test]
fn a_server_ends_when_told_to_though_its_database_is_frozen_on_postgres() {
    let cluster = Cluster::new();
    let database = Database::on(&cluster);
    let mut scene = Scene::on(&database);
    let (id, _) = scene.owner.create_key("Waiting", "");
    // So that the use is still to be written.
    let mut lock = PgConnection::establish(&database.url).unwrap();
    lock.batch_execute("BEGIN; LOCK TABLE api_key_uses IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    assert_eq!(scene.dashboard.program(&scene.good).verify().status, 200);
    cluster.freeze();
    std::thread::scope(|scope| {
        scope.spawn(|| scene.owner.try_get("/api-keys"));
        let answer = scene.owner.try_post(&format!("/api-keys/{id}/delete"), &[]);
        assert_eq!(answer.unwrap().status, 503);
    });
    assert!(scene.dashboard.terminate());
}

/// A server that reaches its PostgreSQL through a proxy.
fn behind_a_proxy(database: &mut Database) -> Proxy {
    let address = std::env::var("TOSEND_TEST_POSTGRES").unwrap();
    let proxy = Proxy::to(address.rsplit('@').next().unwrap());
    database.url = format!("postgres://postgres@{}/{}", proxy.address, database.name);
    proxy
}

#[test]
fn the_network_swallows_everything_on_postgres() {
    let mut database = Database::new(Backend::Postgres);
    let proxy = behind_a_proxy(&mut database);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    proxy.swallow();
    probers.see_unavailable();
    probers.see_unavailable();
    proxy.restore();
    scene.heals();
    // And so that the old connections never come back to life.
    proxy.swallow();
    probers.see_unavailable();
    proxy.cut();
    proxy.restore();
    scene.heals();
    probers.end();
}

#[test]
fn the_network_forgets_the_connections_of_verification_on_postgres() {
    let mut database = Database::new(Backend::Postgres);
    let proxy = behind_a_proxy(&mut database);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    proxy.forget();
    until("verdicts again", || (0..10).all(|_| scene.verifies()));
    assert!(probers.end() > 0, "somebody waited in vain");
}

#[test]
fn the_network_refuses_everything_on_postgres() {
    let mut database = Database::new(Backend::Postgres);
    let proxy = behind_a_proxy(&mut database);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    proxy.refuse();
    probers.see_unavailable();
    proxy.restore();
    scene.heals();
    probers.end();
}

#[test]
fn connections_are_cut_in_the_middle_of_an_answer_on_postgres() {
    let mut database = Database::new(Backend::Postgres);
    let proxy = behind_a_proxy(&mut database);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    // Each time elsewhere in an answer, from its first byte on.
    for (n, bytes) in (0..1_000).step_by(37).enumerate() {
        proxy.cut_after(bytes);
        until("a cut", || proxy.cuts() == n + 1);
        probers.see_verdicts();
    }
    scene.heals();
    probers.end();
}

#[test]
fn sqlite_is_locked_by_another_process() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (id, key) = scene.owner.create_key("To delete", "");
    let delete = format!("/api-keys/{id}/delete");
    let mut other = SqliteConnection::establish(database.file().to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN EXCLUSIVE").unwrap();

    let probers = scene.probers(2);
    let refused = scene.owner.try_post(&delete, &[]).unwrap();
    assert_eq!(refused.status, 503);
    // What was not acknowledged has not happened.
    assert_eq!(scene.dashboard.program(&key).verify().status, 200);
    // Readers do not wait for writers.
    probers.see_verdicts_unbroken();
    probers.end();

    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(scene.owner.post(&delete, &[]).status, 303);
    assert_eq!(scene.dashboard.program(&key).verify().status, 403);
}

/// Holds a table so that whoever reads it waits, until dropped.
fn lock(database: &Database, table: &str) -> PgConnection {
    let mut conn = PgConnection::establish(&database.url).unwrap();
    let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    conn.batch_execute(&sql).unwrap();
    conn
}

fn waiting(database: &Database) -> i64 {
    database.number(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
}

/// Waits until a page is there many times in a row. On a busy machine single ones may be too late.
fn see_pages_unbroken(visitor: &Visitor, path: &str) {
    until("pages keep coming", || {
        (0..30).all(|_| page(visitor, path) == Some(200))
    });
}

#[test]
fn pages_that_hang_do_not_starve_verification_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let scene = Scene::on(&database);
    let probers = scene.probers(2);
    let lock = lock(&database, "sessions");
    let is_over = AtomicBool::new(false);
    let ask = || {
        let visitor = scene.dashboard.visitor();
        visitor.set_cookie(scene.owner.cookie());
        while !is_over.load(Ordering::SeqCst) {
            assert_eq!(page(&visitor, "/api-keys"), Some(503));
        }
    };
    std::thread::scope(|scope| {
        let _over = SetWhenDropped(&is_over);
        for _ in 0..40 {
            scope.spawn(ask);
        }
        until("pages hang", || waiting(&database) > 0);
        probers.see_verdicts_unbroken();
    });
    drop(lock);
    scene.heals();
    probers.end();
}

#[test]
fn verification_that_hangs_does_not_starve_pages_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let scene = Scene::on(&database);
    let lock = lock(&database, "api_keys");
    let is_over = AtomicBool::new(false);
    let ask = || {
        while !is_over.load(Ordering::SeqCst) {
            assert_eq!(verdict(&scene.dashboard, &scene.good), Some(503));
        }
    };
    std::thread::scope(|scope| {
        let _over = SetWhenDropped(&is_over);
        for _ in 0..40 {
            scope.spawn(ask);
        }
        until("verification hangs", || waiting(&database) > 0);
        see_pages_unbroken(&scene.owner, "/domains");
    });
    drop(lock);
    scene.heals();
}

#[test]
fn a_flood_of_verification_does_not_starve_pages_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let scene = Scene::on(&database);
    let probers = scene.probers(10);
    see_pages_unbroken(&scene.owner, "/api-keys");
    probers.end();
}
