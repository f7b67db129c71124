//! What was answered holds, whatever happens to the process next.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use rand::RngExt;

use crate::support::*;

/// For what never comes, not for what is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// What was acknowledged, and what may have happened besides.
#[derive(Default)]
struct Ledger {
    acknowledged: usize,
    live: Vec<String>,
    deleted: Vec<String>,
    /// Keys whose deletion was sent and not answered.
    either: Vec<String>,
    /// Keys whose creation was sent and not answered.
    unknown: usize,
    emails: Vec<String>,
}

/// Writers at work on a server that may die over it.
struct Work {
    owner: Visitor,
    base: Mutex<String>,
    ledger: Mutex<Ledger>,
    acknowledgement: Condvar,
    names: AtomicUsize,
}

impl Work {
    fn new(dashboard: &Dashboard, database: &Database) -> Self {
        let owner = dashboard.visitor();
        owner.sign_up();
        attest(database, "acme.test");
        Self {
            owner,
            base: dashboard.base.clone().into(),
            ledger: Mutex::default(),
            acknowledgement: Condvar::new(),
            names: AtomicUsize::default(),
        }
    }

    fn move_to(&self, dashboard: &Dashboard) {
        self.owner.move_to(&dashboard.base);
        *self.base.lock().unwrap() = dashboard.base.clone();
    }

    /// Works as fast as it can; at some acknowledgement or other the blow falls. Gives the ledger.
    fn until_struck(&self, blow: impl FnOnce()) -> Ledger {
        let enough = rand::rng().random_range(1..=40);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetWhenDropped(&is_over);
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        self.create_send_and_delete();
                    }
                });
            }
            let ledger = self.ledger.lock().unwrap();
            let too_few = |ledger: &mut Ledger| ledger.acknowledged < enough;
            // Right after an acknowledgement, when what it promised may be under way still.
            let wait = self
                .acknowledgement
                .wait_timeout_while(ledger, LIMIT, too_few);
            let (ledger, wait) = wait.unwrap();
            assert!(!wait.timed_out(), "never: enough acknowledgements");
            drop(ledger);
            blow();
        });
        std::mem::take(&mut self.ledger.lock().unwrap())
    }

    /// Waits until so many more are acknowledged.
    fn until_more(&self, count: usize) {
        let ledger = self.ledger.lock().unwrap();
        let enough = ledger.acknowledged + count;
        let wait = self
            .acknowledgement
            .wait_timeout_while(ledger, LIMIT, |ledger| ledger.acknowledged < enough);
        assert!(!wait.unwrap().1.timed_out(), "never: more acknowledgements");
    }

    /// Every other key is deleted again. `None`: something was not acknowledged.
    fn create_send_and_delete(&self) -> Option<()> {
        let name = format!("Key {}", self.names.fetch_add(1, Ordering::SeqCst));
        let nonce = acknowledged(self.owner.try_get("/api-keys/new"), 200)?.field("nonce");
        let form = [
            ("nonce", nonce.as_str()),
            ("name", &name),
            ("scope", "all"),
            ("expiry", "none"),
        ];
        self.note(|ledger| ledger.unknown += 1);
        let created = acknowledged(self.owner.try_htmx_post("/api-keys", &form), 200)?;
        let key = created.key();
        self.note(|ledger| {
            ledger.unknown -= 1;
            ledger.acknowledged += 1;
            ledger.live.push(key.clone());
        });
        let program = Program::new(self.base.lock().unwrap().clone(), &key);
        let sent = acknowledged(program.try_post(&email("ada@acme.test")), 200)?.json();
        self.note(|ledger| {
            ledger.acknowledged += 1;
            ledger
                .emails
                .push(sent["message_id"].as_str().unwrap().to_owned());
        });
        let id = created.key_id(&name).filter(|id| id % 2 == 0)?;
        self.note(|ledger| {
            ledger.live.retain(|live| *live != key);
            ledger.either.push(key.clone());
        });
        let path = format!("/api-keys/{id}/delete");
        let answer = self.owner.try_post(&path, &[("name", &name)]);
        let deleted = acknowledged(answer, 303)?;
        assert_eq!(deleted.location(), Some("/api-keys?notice=deleted"));
        self.note(|ledger| {
            ledger.acknowledged += 1;
            ledger.either.retain(|either| *either != key);
            ledger.deleted.push(key);
        });
        Some(())
    }

    fn note(&self, what: impl FnOnce(&mut Ledger)) {
        what(&mut self.ledger.lock().unwrap());
        self.acknowledgement.notify_one();
    }
}

/// A server that fails says 503 or nothing.
fn acknowledged(answer: Option<Answer>, status: u16) -> Option<Answer> {
    let answer = answer.filter(|answer| answer.status != 503)?;
    assert_eq!(answer.status, status, "{}", answer.body);
    Some(answer)
}

impl Ledger {
    fn holds(&self, dashboard: &Dashboard, database: &Database) {
        let status = |key: &String| dashboard.program(key).verdict();
        for key in &self.live {
            assert_eq!(status(key), 200, "an acknowledged key is gone");
        }
        for key in &self.deleted {
            assert_eq!(status(key), 403, "a deleted key works");
        }
        for key in &self.either {
            let first = status(key);
            assert!(matches!(first, 200 | 403), "{first}");
            assert_eq!(status(key), first, "two verdicts");
        }
        let ids = self.emails.join("', '");
        let sql = format!("SELECT count(*) FROM emails WHERE message_id IN ('{ids}')");
        assert_eq!(database.number(&sql), self.emails.len() as i64);
    }
}

fn is_sound(database: &Database) {
    let miscounted = "SELECT count(*) FROM accounts WHERE key_count <>
        (SELECT count(*) FROM api_keys WHERE account_id = accounts.id AND ended_at IS NULL)";
    assert_eq!(database.number(miscounted), 0);
    if database.backend() == Backend::Sqlite {
        let check = "SELECT group_concat(integrity_check) FROM pragma_integrity_check";
        assert_eq!(database.text(check), "ok");
        let dangling = "SELECT count(*) FROM pragma_foreign_key_check";
        assert_eq!(database.number(dangling), 0);
    }
}

/// All rounds together: every key is accounted for.
fn all_hold(ledgers: &[Ledger], dashboard: &Dashboard, database: &Database) {
    for ledger in ledgers {
        ledger.holds(dashboard, database);
    }
    let sum = |of: fn(&Ledger) -> usize| ledgers.iter().map(of).sum::<usize>() as i64;
    let live = database.number("SELECT count(*) FROM api_keys WHERE ended_at IS NULL");
    let least = sum(|ledger| ledger.live.len());
    let most = least + sum(|ledger| ledger.either.len() + ledger.unknown);
    assert!((least..=most).contains(&live), "{least} {live} {most}");
    assert!(sum(|ledger| ledger.deleted.len()) > 0 && sum(|ledger| ledger.emails.len()) > 0);
}

/// What the killed server had sent off, PostgreSQL may still be doing.
fn wait_for_orphans(database: &Database) {
    let orphans = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    if database.backend() == Backend::Postgres {
        until("nothing is under way", || database.number(orphans) == 0);
    }
}

fn survives_kills(backend: Backend) {
    let database = Database::new(backend);
    let start = || Dashboard::start(&database, &["--key-limit", "1000000"]);
    let mut dashboard = start();
    let work = Work::new(&dashboard, &database);
    let mut ledgers = Vec::new();
    for _ in 0..rounds("TOSEND_TEST_KILLS", 5, 20) {
        ledgers.push(work.until_struck(|| dashboard.kill()));
        wait_for_orphans(&database);
        dashboard = start();
        work.move_to(&dashboard);
        // This round, and any one before it.
        let earlier = rand::rng().random_range(0..ledgers.len());
        for ledger in [ledgers.last().unwrap(), &ledgers[earlier]] {
            ledger.holds(&dashboard, &database);
        }
        is_sound(&database);
    }
    all_hold(&ledgers, &dashboard, &database);
}

#[test]
fn what_was_answered_holds_after_kill_9_on_sqlite() {
    survives_kills(Backend::Sqlite);
}

#[test]
fn what_was_answered_holds_after_kill_9_on_postgres() {
    survives_kills(Backend::Postgres);
}

#[test]
fn what_was_answered_holds_after_kill_9_of_postgres_itself() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let dashboard = Dashboard::start(&database, &["--key-limit", "1000000"]);
    let work = Work::new(&dashboard, &database);
    let mut ledgers = Vec::new();
    for _ in 0..rounds("TOSEND_TEST_KILLS", 5, 20).div_ceil(4) {
        ledgers.push(work.until_struck(|| {
            cluster.kill();
            cluster.start();
        }));
        ledgers.last().unwrap().holds(&dashboard, &database);
        is_sound(&database);
    }
    all_hold(&ledgers, &dashboard, &database);
}

/// Another program that looks into a database, and may write a copy.
type Look = fn(file: &Path, copy: &Path) -> Command;

const LOOKS: [(&str, Look); 5] = [
    ("sqlite3: .backup", |file, copy| {
        sqlite3(file, &format!(".backup '{}'", copy.display()))
    }),
    ("sqlite3: VACUUM INTO", |file, copy| {
        sqlite3(file, &format!("VACUUM INTO '{}'", copy.display()))
    }),
    ("sqlite3: a count", |file, _| {
        sqlite3(file, "SELECT count(*) FROM api_keys")
    }),
    ("Python: backup", |file, copy| {
        python(
            "sqlite3.connect(here, 60).backup(sqlite3.connect(copy))",
            file,
            copy,
        )
    }),
    ("Python: a count", |file, copy| {
        python(
            "sqlite3.connect(here, 60).execute('SELECT count(*) FROM emails').fetchall()",
            file,
            copy,
        )
    }),
];

fn sqlite3(file: &Path, what: &str) -> Command {
    let mut command = Command::new("sqlite3");
    command
        .args(["-batch", "-cmd", ".timeout 60000"])
        .arg(file)
        .arg(what);
    command
}

fn python(what: &str, file: &Path, copy: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    let program = format!("import sqlite3, sys; here, copy = sys.argv[1:]; {what}");
    command.args(["-c", &program]).arg(file).arg(copy);
    command
}

/// The files that the process has open and that have no name any more.
fn unlinked_files(process: u32) -> Vec<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    open.filter_map(|entry| entry.unwrap().path().read_link().ok())
        .filter(|target| target.to_string_lossy().ends_with("(deleted)"))
        .collect()
}

/// Whether the process holds a lock on the file.
fn is_locked(process: u32, file: &Path) -> bool {
    let inode = format!(":{}", file.metadata().unwrap().ino());
    let process = process.to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(4);
        words.next() == Some(&process) && words.next().is_some_and(|file| file.ends_with(&inode))
    })
}

/// SQLite would let go of the WAL, and of all that is written there later, to whoever looks at a
/// database on which this process has lost its locks.
#[test]
fn a_look_by_another_program_loses_nothing() {
    let database = Database::new(Backend::Sqlite);
    let start = || Dashboard::start(&database, &["--key-limit", "1000000"]);
    let mut dashboard = start();
    let work = Work::new(&dashboard, &database);
    let mut ledgers = Vec::new();
    for round in 0..rounds("TOSEND_TEST_LOOKS", 2, 5) {
        ledgers.push(work.until_struck(|| {
            for (number, (name, look)) in LOOKS.iter().enumerate() {
                let copy = format!("copy {round} {number}");
                let copy = database.folder.path().join(copy);
                let output = look(&database.file(), &copy).output().unwrap();
                assert!(output.status.success(), "{name}: {output:?}");
                let process = dashboard.process();
                assert_eq!(unlinked_files(process), Vec::<PathBuf>::new(), "{name}");
                for end in ["", "-shm"] {
                    let mut file = database.file().into_os_string();
                    file.push(end);
                    assert!(is_locked(process, Path::new(&file)), "{name}: {file:?}");
                }
                work.until_more(5);
            }
            dashboard.kill();
        }));
        dashboard = start();
        work.move_to(&dashboard);
        ledgers.last().unwrap().holds(&dashboard, &database);
        is_sound(&database);
    }
    all_hold(&ledgers, &dashboard, &database);
}

#[test]
fn a_key_deleted_on_one_node_is_refused_by_another_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let here = Dashboard::start(&database, &[]);
    let there = Dashboard::start(&database, &[]);
    let owner = here.visitor();
    owner.sign_up();
    for _ in 0..20 {
        let (id, key) = owner.create_key("Roaming", "");
        assert_eq!(there.program(&key).verify().status, 200);
        owner.delete_key(id);
        assert_eq!(there.program(&key).verify().status, 403);
    }
    // The nodes share the secret, so a session of one is a session of the other.
    owner.move_to(&there.base);
    assert_eq!(owner.get("/api-keys").status, 200);
}

/// What is written to a file without a name is lost when it is closed.
#[test]
fn nothing_is_accepted_while_the_database_is_not_in_its_place() {
    let database = Database::new(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");
    let (_, key) = owner.create_key("Key", "");
    let program = dashboard.program(&key);
    let sends = || program.try_post(&email("ada@acme.test")).unwrap().status;
    assert_eq!(sends(), 200);
    let (file, away) = (database.file(), database.folder.path().join("away.db"));
    let is_noticed = |dashboard: &Dashboard| {
        assert_eq!(sends(), 503);
        let ready = dashboard.visitor().try_get("/readyz").unwrap();
        assert_eq!(ready.status, 503);
        assert!(
            ready.body.contains("was deleted or replaced"),
            "{}",
            ready.body
        );
    };
    let is_ready = |dashboard: &Dashboard| {
        let ready = dashboard.visitor().try_get("/readyz");
        ready.is_some_and(|ready| ready.status == 200)
    };

    std::fs::rename(&file, &away).unwrap();
    is_noticed(&dashboard);
    std::fs::copy(&away, &file).unwrap();
    is_noticed(&dashboard);
    std::fs::rename(&away, &file).unwrap();
    until("it is ready again", || is_ready(&dashboard));
    until("emails are accepted again", || sends() == 200);
    let log = std::fs::read_to_string(&dashboard.log).unwrap();
    let told = "was deleted or replaced: nothing is accepted";
    assert_eq!(log.matches(told).count(), 1, "{log}");

    // A restart uses what is there.
    assert!(dashboard.terminate());
    cli(&database, &["backup", away.to_str().unwrap()], "").unwrap();
    let mut dashboard = Dashboard::start(&database, &[]);
    std::fs::rename(&away, &file).unwrap();
    until("it is noticed", || !is_ready(&dashboard));
    dashboard.kill();
    // As whoever replaces a database must do.
    for end in ["-wal", "-shm"] {
        let mut path = file.clone().into_os_string();
        path.push(end);
        let _ = std::fs::remove_file(path);
    }
    let dashboard = Dashboard::start(&database, &[]);
    let program = dashboard.program(&key);
    assert_eq!(
        program.try_post(&email("ada@acme.test")).unwrap().status,
        200
    );
}
