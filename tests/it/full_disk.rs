//! The disk of SQLite's file is full: keys are verified, keys are revoked and people sign in; nothing
//! else is saved, and the server says so. When there is room again, everything works by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::*;

/// Twice what the server keeps back, and the same again for the data.
const DISK: u32 = 64;
const RESERVE: u64 = 16 * 1024 * 1024;
/// Revoked on each full disk: one of each kind more than once.
const REVOKED: usize = 6;

struct Scene {
    dashboard: Dashboard,
    owner: Visitor,
    good: String,
    /// Keys whose end was answered.
    ended: Vec<String>,
    disk: SmallDisk,
    database: Database,
}

/// Keys that are ended while the disk is full.
type Doomed = Vec<(i64, String)>;

impl Scene {
    fn new() -> Self {
        let database = Database::new(Backend::Sqlite);
        let disk = SmallDisk::mount(&database.folder.path().join("data"), DISK);
        let dashboard = Dashboard::start(&database, &["--key-limit", "1000000"]);
        let owner = dashboard.visitor();
        owner.sign_up();
        attest(&database, "acme.test");
        let (_, good) = owner.create_key("Good", "");
        let (id, gone) = owner.create_key("Gone", "");
        assert_eq!(owner.delete_key(id).status, 303);
        Self {
            dashboard,
            owner,
            good,
            ended: vec![gone],
            database,
            disk,
        }
    }

    fn reserve(&self) -> u64 {
        let mut path = self.database.file().into_os_string();
        path.push(".reserve");
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    fn fill(&self) {
        // So that no write finds its place in what the WAL has used before.
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
        self.disk.fill();
    }

    /// Both kinds of keys are presented all the time until this is dropped.
    fn probers(&self) -> Probers {
        let live = (Key::Good, self.dashboard.program(&self.good));
        let ended = self.ended.last().unwrap();
        let ended = (Key::Bad, self.dashboard.program(ended));
        Probers::start(vec![live, ended])
    }

    /// Deletes or pauses a key as a person does who meets no error.
    fn revoke(&mut self, (id, key): (i64, String)) {
        let how = ["delete", "pause"][self.ended.len() % 2];
        let path = format!("/api-keys/{id}/{how}");
        until("an answer in time", || {
            let answer = self.owner.try_post(&path, &[("name", "Doomed")]).unwrap();
            assert!(
                answer.status == 303 || answer.status == 503 && !is_of_the_disk(&answer),
                "{how}: {} {}",
                answer.status,
                answer.body
            );
            answer.status == 303
        });
        assert_eq!(self.dashboard.program(&key).verdict(), 403, "{how}");
        self.is_in_the_journal();
        self.ended.push(key);
    }

    /// The journal of ends is on the full disk, too.
    fn is_in_the_journal(&self) {
        let last = self.database.number("SELECT last FROM ends_journal");
        let mut path = self.database.file().into_os_string();
        path.push(".ends");
        let journal = std::fs::read_to_string(path).unwrap();
        let has_it = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            line["change"]["n"] == last
        };
        assert!(journal.lines().any(has_it), "{last}");
    }

    /// Sends an email of this size. Returns the status.
    fn sends(&self, megabytes: usize) -> u16 {
        let mut long = email("ada@acme.test");
        long["text"] = json!("0123456789".repeat(megabytes * 100_000));
        let program = self.dashboard.program(&self.good);
        program.try_post(&long).unwrap().status
    }

    fn is_ready(&self) -> bool {
        let ready = self.dashboard.visitor().try_get("/readyz").unwrap();
        ready.status == 200
    }

    /// What cannot be saved is refused with the reason.
    fn refuses_the_rest(&self) {
        assert_eq!(self.sends(1), 503);
        until("a page says why", || {
            let answer = self.owner.try_get("/api-keys/new").unwrap();
            answer.status == 503 && is_of_the_disk(&answer)
        });
        until("/readyz says why", || {
            let ready = self.dashboard.visitor().try_get("/readyz").unwrap();
            ready.status == 503 && ready.body.contains("the disk of the database is full")
        });
    }

    fn signs_in(&self) {
        let visitor = self.dashboard.visitor();
        visitor.sign_in(EMAIL);
        assert_eq!(visitor.get("/api-keys").status, 200);
    }

    fn holds(&self) {
        assert_eq!(self.dashboard.program(&self.good).verdict(), 200);
        for key in &self.ended {
            assert_eq!(self.dashboard.program(key).verdict(), 403);
        }
    }

    fn restart(&mut self) {
        self.dashboard.kill();
        self.dashboard = Dashboard::start(&self.database, &["--key-limit", "1000000"]);
        self.owner.move_to(&self.dashboard.base);
    }

    /// Without a restart.
    fn heals(&self) {
        let low = "ready\nthe disk of the database has only ";
        until("/readyz says that little is left", || {
            let ready = self.dashboard.visitor().try_get("/readyz").unwrap();
            ready.status == 200 && ready.body.starts_with(low)
        });
        assert_eq!(self.reserve(), RESERVE);
        self.signs_in();
        let sent = self
            .dashboard
            .program(&self.good)
            .email_from("ada@acme.test");
        assert_eq!(sent.status, 200, "{}", sent.body);
    }

    fn doomed(&self) -> Doomed {
        let create = |_| self.owner.create_key("Doomed", "");
        (0..REVOKED).map(create).collect()
    }
}

fn is_of_the_disk(answer: &Answer) -> bool {
    answer.body.contains("disk is full") && answer.body.contains("Tell the operator to make room")
}

#[test]
fn revocations_and_verification_go_on_while_the_disk_is_full() {
    let mut scene = Scene::new();
    for round in 0..rounds("TOSEND_TEST_FULL_DISKS", 4, 100) {
        let mut doomed = scene.doomed();
        let last = doomed.split_off(REVOKED - 2);
        let probers = scene.probers();
        scene.fill();
        if round % 2 == 1 {
            scene.signs_in();
        }
        for key in doomed {
            scene.revoke(key);
        }
        assert!(scene.reserve() < RESERVE, "it was not needed");
        scene.refuses_the_rest();
        scene.signs_in();
        probers.see_verdicts_unbroken();
        drop(probers);
        if round % 2 == 0 {
            // Somebody else takes what is freed, too.
            scene.disk.fill();
            scene.restart();
            scene.holds();
        }
        for key in last {
            scene.revoke(key);
        }
        scene.disk.make_room();
        scene.heals();
        scene.holds();
    }
    scene.restart();
    scene.holds();
}

/// Small changes find their place in what the WAL has used before.
#[test]
fn a_full_disk_is_told_and_the_journal_is_written_though_small_changes_succeed() {
    let mut scene = Scene::new();
    let doomed: Doomed = (0..5).flat_map(|_| scene.doomed()).collect();
    assert_eq!(scene.sends(3), 200);
    scene.database.execute("PRAGMA wal_checkpoint(RESTART)");
    scene.disk.fill();
    assert_eq!(scene.sends(12), 503);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert!(!scene.is_ready());
    }
    assert_eq!(scene.reserve(), RESERVE);
    // Their lines in the journal need a new block of the disk.
    for key in doomed {
        scene.revoke(key);
    }
    scene.disk.make_room();
    scene.heals();
}

#[test]
fn pages_and_readyz_say_that_the_disk_of_postgres_is_full() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("space"), 32);
    let place = disk.give_to_postgres();
    let database = Database::on(&cluster);
    let admin = cluster.database("postgres");
    admin.execute(&format!("CREATE TABLESPACE small LOCATION '{place}'"));
    admin.execute("ALTER DATABASE tosend SET TABLESPACE small");
    let dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (_, good) = owner.create_key("Good", "");

    disk.fill();
    let ready = || dashboard.visitor().try_get("/readyz").unwrap();
    // As soon as the form's row finds no place in the pages that the table has.
    until("a page and /readyz say why", || {
        let answer = owner.try_get("/api-keys/new").unwrap();
        let ready = ready();
        answer.status == 503
            && is_of_the_disk(&answer)
            && ready.status == 503
            && ready.body.contains("the disk of the database is full")
    });
    assert_eq!(dashboard.program(&good).verdict(), 200);

    disk.make_room();
    until("/readyz is well", || ready().status == 200);
    owner.create_key("After", "");
}
