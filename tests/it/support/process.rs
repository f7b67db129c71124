//! The program in its own process, for tests that need the real binary.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Database, EMAIL, PASSWORD, Program, Visitor, until};

const BINARY: &str = env!("CARGO_BIN_EXE_tosend-dashboard");

/// The program with a clean environment, a test's database, and a free port.
pub fn command(database: &Database) -> Command {
    with_environment(Command::new(BINARY), database)
}

fn with_environment(mut command: Command, database: &Database) -> Command {
    command
        .env_clear()
        .env("TOSEND_DATABASE_URL", &database.url)
        .env("TOSEND_SECRET_FILE", database.folder.path().join("secret"))
        .env("TOSEND_DNS_SERVERS", database.dns.address.to_string())
        .env("TOSEND_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .current_dir(database.folder.path());
    if let Some(journal) = &database.journal {
        command.env("TOSEND_JOURNAL", journal);
    }
    command
}

/// The command without a stderr: the descriptor is closed.
pub fn without_stderr(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    let variables = command.get_envs();
    shell
        .args(["-c", r#"exec "$0" "$@" 2>&-"#])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .current_dir(command.get_current_dir().unwrap());
    shell
}

/// The command with these sockets passed as systemd passes them: as the descriptors from 3 on.
pub fn with_sockets(command: &Command, sockets: &[OwnedFd]) -> Command {
    let mut shell = Command::new("/bin/sh");
    let variables = command.get_envs();
    let [first, more @ ..] = sockets else {
        panic!("no socket");
    };
    assert!(more.len() <= 1, "the shell moves stdin and stdout only");
    let script = match more {
        [] => "exec 3<&0 0</dev/null",
        _ => "exec 3<&0 4>&1 0</dev/null 1>/dev/null",
    };
    shell
        .arg("-c")
        .arg(format!(
            r#"{script}; export LISTEN_PID=$$ LISTEN_FDS={}; exec "$0" "$@""#,
            sockets.len()
        ))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .current_dir(command.get_current_dir().unwrap())
        .stdin(first.try_clone().unwrap());
    if let [second] = more {
        shell.stdout(second.try_clone().unwrap());
    }
    shell
}

/// Runs a command with this standard input, and repeats it if the database did not answer in time.
/// `Err`: its stderr.
pub fn cli(database: &Database, args: &[&str], stdin: &str) -> Result<String, String> {
    let mut ended = None;
    until("a database that answers", || {
        let result = cli_once(database, args, stdin);
        let is_late = result.as_ref().is_err_and(|why| is_late(why));
        ended = Some(result);
        !is_late
    });
    ended.expect("it ran")
}

/// Whether an error says that the database did not answer in time.
pub fn is_late(error: &str) -> bool {
    let reasons = ["timed out", "is locked", "canceling statement due to"];
    reasons.iter().any(|reason| error.contains(reason))
}

fn cli_once(database: &Database, args: &[&str], stdin: &str) -> Result<String, String> {
    let mut child = command(database)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// The operator creates an account with `PASSWORD`. Returns the output.
pub fn create_account(database: &Database, email: &str, title: &str) -> String {
    let who = ["--email", email, "--title", title];
    let args = [&["account", "create"], &who[..], &["--password-stdin"]].concat();
    cli(database, &args, PASSWORD).unwrap()
}

/// The operator attests that the first account owns a domain. Returns the output.
pub fn attest(database: &Database, domain: &str) -> String {
    let args = ["domain", "add", "--account", EMAIL, domain, "--verified"];
    cli(database, &args, "").unwrap()
}

/// A running server; killed when dropped.
pub struct Dashboard {
    child: Child,
    /// The line it printed at start.
    pub greeting: String,
    pub base: String,
    pub log: PathBuf,
}

impl Dashboard {
    /// Starts on a free port and waits for the greeting.
    pub fn start(database: &Database, args: &[&str]) -> Self {
        Self::start_with(database, args, &[])
    }

    /// Like `start`, with additional environment variables.
    pub fn start_with(database: &Database, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command(database);
        command.args(args).envs(env.iter().copied());
        Self::spawn_with_log(database, command)
    }

    /// Like `start`, on a listener that stays open when the server ends.
    pub fn on_listener(database: &Database, listener: &TcpListener, args: &[&str]) -> Self {
        let mut server = command(database);
        server.args(args);
        let kept = listener.try_clone().unwrap().into();
        Self::spawn_with_log(database, with_sockets(&server, &[kept]))
    }

    /// Like `start`, with these limits of open files.
    pub fn start_limited(database: &Database, soft: u32, hard: u32) -> Self {
        Self::start_limited_with(database, soft, hard, &[])
    }

    /// The same, with additional environment variables.
    pub fn start_limited_with(
        database: &Database,
        soft: u32,
        hard: u32,
        env: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new("/usr/bin/prlimit");
        command.arg(format!("--nofile={soft}:{hard}")).arg(BINARY);
        let mut command = with_environment(command, database);
        command.envs(env.iter().copied());
        Self::spawn_with_log(database, command)
    }

    fn spawn_with_log(database: &Database, mut command: Command) -> Self {
        let log = database.folder.path().join("log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command.stderr(file);
        Self::spawn(command, log)
    }

    /// Runs a server with an unusual stderr or other changes.
    pub fn run(database: &Database, alter: impl FnOnce(Command) -> Command) -> Self {
        let command = alter(command(database));
        Self::spawn(command, database.folder.path().join("log"))
    }

    fn spawn(mut command: Command, log: PathBuf) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // It holds the test's end of stderr, which only the server should hold.
        drop(command);
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut greeting)
            .unwrap();
        let base = greeting
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .unwrap_or_else(|| {
                panic!(
                    "no URL: {greeting} {}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                )
            })
            .trim_end_matches('.')
            .to_owned();
        Self {
            child,
            greeting,
            base,
            log,
        }
    }

    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.base.clone())
    }

    pub fn program(&self, key: &str) -> Program {
        Program::new(self.base.clone(), key)
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`: without a chance to clean up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as "HUP".
    pub fn signal(&self, name: &str) {
        let killed = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
    }

    /// Sends SIGTERM, and returns whether the server then exited successfully.
    pub fn terminate(&mut self) -> bool {
        self.signal("TERM");
        self.ends_well()
    }

    /// Whether the server still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the server to exit, and returns whether it did so successfully.
    pub fn ends_well(&mut self) -> bool {
        let mut ended = None;
        until("the server ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().success()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
