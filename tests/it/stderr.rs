//! Whatever becomes of stderr, logging fails nothing: the server starts, answers, delivers and ends.

use std::fs::OpenOptions;
use std::io::{PipeReader, Write, pipe};
use std::process::{Command, Stdio};

use crate::support::*;

/// What a pipe of Linux holds.
const PIPE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy)]
enum Stderr {
    FullDisk,
    Closed,
    WithoutReader,
    /// Its reader is there, and never reads.
    Full,
}

const ALL: [Stderr; 4] = [
    Stderr::FullDisk,
    Stderr::Closed,
    Stderr::WithoutReader,
    Stderr::Full,
];

impl Stderr {
    /// Gives a command such a stderr. The reader is to be kept.
    fn give(self, mut command: Command) -> (Command, Option<PipeReader>) {
        match self {
            Self::FullDisk => {
                let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
                command.stderr(full);
                (command, None)
            }
            Self::Closed => (without_stderr(&command), None),
            Self::WithoutReader => {
                let (reader, writer) = pipe().unwrap();
                drop(reader);
                command.stderr(writer);
                (command, None)
            }
            Self::Full => {
                let (reader, mut writer) = pipe().unwrap();
                writer.write_all(&[b'.'; PIPE_BYTES]).unwrap();
                command.stderr(writer);
                (command, Some(reader))
            }
        }
    }
}

#[test]
fn a_server_answers_and_delivers_whatever_its_stderr_is() {
    for stderr in ALL {
        let database = Database::new(Backend::Sqlite);
        let relay = Relay::start();
        let mut reader = None;
        let mut server = Dashboard::run(&database, |mut command| {
            command
                .env("TOSEND_SMTP_URL", relay.url())
                .env("TOSEND_LOG", "trace");
            let (command, kept) = stderr.give(command);
            reader = kept;
            command
        });
        let owner = server.visitor();
        owner.sign_up();
        attest(&database, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        let program = server.program(&key);
        for _ in 0..3 {
            let answer = program.post(&email("ada@acme.test"));
            assert_eq!(answer.status, 200, "{stderr:?} {}", answer.body);
        }
        let left = "SELECT count(*) FROM emails WHERE status <> 'delivered'";
        until("all are delivered", || database.number(left) == 0);
        let ready = owner.get("/readyz");
        assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
        assert!(server.terminate(), "{stderr:?}");
    }
}

#[test]
fn a_command_ends_with_the_right_code_whatever_its_stderr_is() {
    let database = Database::new(Backend::Sqlite);
    create_account(&database, EMAIL, TITLE);
    for stderr in ALL {
        for (args, code) in [
            (&["key", "list", "--account", EMAIL][..], 0),
            (&["key", "list", "--account", "nobody@acme.test"], 1),
            (&["--key-limit", "none", "migrate"], 2),
            (&["--no-such-flag"], 2),
        ] {
            // Clap writes by itself, and waits while nobody reads.
            if matches!(stderr, Stderr::Full) && args == ["--no-such-flag"] {
                continue;
            }
            let mut command = command(&database);
            command.args(args).env("TOSEND_LOG", "trace");
            let (mut command, _reader) = stderr.give(command);
            let ended = command.stdout(Stdio::null()).status().unwrap();
            assert_eq!(ended.code(), Some(code), "{stderr:?} {args:?}");
        }
    }
}

#[test]
fn what_is_logged_arrives_before_the_end() {
    let database = Database::new(Backend::Sqlite);
    create_account(&database, EMAIL, "Acme");
    let error = cli(
        &database,
        &["key", "list", "--account", "nobody@acme.test"],
        "",
    );
    assert_eq!(
        error.unwrap_err().lines().last(),
        Some("error: there is no account for nobody@acme.test")
    );
}
