//! A PostgreSQL server for one test, which may stop, kill or freeze it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use diesel::{Connection, PgConnection};
use tempfile::TempDir;

use super::{Database, Port, until};

/// How PostgreSQL is stopped.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Closes connections and writes everything.
    Fast,
    /// As after a crash.
    Immediate,
}

pub struct Cluster {
    folder: TempDir,
    port: Port,
    postmaster: Option<Child>,
}

impl Cluster {
    pub fn new() -> Self {
        let folder = folder();
        run(program("initdb", folder.path())
            .args([
                "--pgdata=data",
                "--auth=trust",
                "--username=postgres",
                "--no-sync",
            ])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"]));
        Self::started(folder)
    }

    /// A standby, named "standby", of the primary at this address.
    pub fn standby_of(address: &str) -> Self {
        let folder = folder();
        let (host, port) = address.split_once(':').unwrap();
        let primary = format!("host={host} port={port} user=postgres application_name=standby");
        run(program("pg_basebackup", folder.path())
            .args([
                "--pgdata=data",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
            ])
            .args(["--dbname", &primary]));
        Self::started(folder)
    }

    fn started(folder: TempDir) -> Self {
        let mut cluster = Self {
            folder,
            port: Port::reserve(),
            postmaster: None,
        };
        cluster.start();
        cluster
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.postmaster.is_none(), "it runs");
        let log = self.folder.path().join("log");
        let file = fs::File::options().create(true).append(true).open(&log);
        let postmaster = program("postgres", self.folder.path())
            .args(["-D", "data", "-p", &self.port.number.to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=100",
            ])
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                self.folder.path().display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.unwrap())
            .spawn()
            .unwrap();
        self.postmaster = Some(postmaster);
        until("PostgreSQL answers", || {
            let ended = self.postmaster.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
            PgConnection::establish(&self.url("postgres")).is_ok()
        });
    }

    pub fn stop(&mut self, how: Stop) {
        let mut postmaster = self.postmaster.take().expect("it runs");
        let name = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        signal(name, &[postmaster.id()]);
        postmaster.wait().unwrap();
    }

    /// `kill -9` of every process: unwritten data is lost.
    pub fn kill(&mut self) {
        if self.postmaster.is_none() {
            return;
        }
        let processes = self.freeze();
        signal("KILL", &processes);
        self.postmaster.take().unwrap().wait().unwrap();
        // Otherwise the next start would find their shared memory in use.
        until("its processes are gone", || {
            processes
                .iter()
                .all(|id| matches!(state(*id), None | Some('Z')))
        });
    }

    /// Stops every process, with all connections open, until `thaw`.
    pub fn freeze(&self) -> Vec<u32> {
        let postmaster = self.postmaster.as_ref().expect("it runs").id();
        signal("STOP", &[postmaster]);
        // Once stopped, it starts no more children.
        until("it stands still", || {
            matches!(state(postmaster), None | Some('T' | 'Z'))
        });
        let processes = [vec![postmaster], children(postmaster)].concat();
        signal("STOP", &processes);
        processes
    }

    pub fn thaw(&self) {
        let postmaster = self.postmaster.as_ref().expect("it runs").id();
        signal("CONT", &[vec![postmaster], children(postmaster)].concat());
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        let is_promoted = self.database("postgres").text("SELECT pg_promote()");
        assert_eq!(is_promoted, "true");
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    pub fn database(&self, name: &str) -> Database {
        Database::at(&format!("postgres://postgres@{}", self.address()), name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// PostgreSQL refuses to run as root, and must own its folder.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(folder.path()));
    }
    folder
}

/// One of PostgreSQL's programs; it ends with this process, even if this process is killed.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--pdeathsig=KILL").arg(programs().join(name));
    command.env_clear().current_dir(folder);
    command
}

/// The newest installed version, as in `tests/run`.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let paths = versions.map(|version| version.unwrap().path());
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().unwrap().to_string_lossy();
        name.parse().unwrap_or(0)
    };
    paths.max_by_key(number).unwrap().join("bin")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Processes that have already ended are ignored.
fn signal(name: &str, processes: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}"));
    command.args(processes.iter().map(u32::to_string));
    command.output().unwrap();
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|id| stat(*id).is_some_and(|(_, its_parent)| its_parent == parent))
        .collect()
}

fn state(process: u32) -> Option<char> {
    stat(process).map(|(state, _)| state)
}

/// The state of a process, and its parent.
fn stat(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
