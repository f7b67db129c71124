//! What the program is installed with, the units and the files for containers, agrees with the
//! program.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Args;
use tosend_dashboard::config::Settings;

use crate::support::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = "/usr/local/bin/tosend-dashboard";
/// Where the service and the container keep their data.
const FOLDER: &str = "/var/lib/tosend-dashboard";
const SERVICE: &str = "packaging/tosend-dashboard.service";
const SOCKET: &str = "packaging/tosend-dashboard.socket";
const USERS: &str = "packaging/tosend-dashboard.sysusers";

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A file's lines without comments, trimmed, with those that continue joined.
fn lines(name: &str) -> Vec<String> {
    let joined = text(name).replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// What follows these words on each line that begins with them.
fn after<'a>(lines: &'a [String], words: &str) -> Vec<&'a str> {
    let found = lines.iter().filter_map(|line| line.strip_prefix(words));
    found.map(str::trim).collect()
}

/// What follows these words on the only line that begins with them.
fn only<'a>(lines: &'a [String], words: &str) -> &'a str {
    let found = after(lines, words);
    assert_eq!(found.len(), 1, "{words}");
    found[0]
}

fn settings() -> BTreeSet<String> {
    let command = Settings::augment_args(clap::Command::new("settings"));
    let names = command.get_arguments().filter_map(|setting| {
        let name = setting.get_env()?.to_str()?;
        Some(name.to_owned())
    });
    names.collect()
}

/// Every variable of the program that a text names, such as in a comment.
fn variables(text: &str) -> BTreeSet<String> {
    let is_end = |c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_';
    let words = text.split(is_end).filter(|w| w.starts_with("TOSEND_"));
    words.map(str::to_owned).collect()
}

#[test]
fn the_variables_that_packages_name_are_settings() {
    let settings = settings();
    let mut count = 0;
    for file in ["Dockerfile", "compose.yaml", SERVICE, SOCKET] {
        // In the unit's comment, as a placeholder.
        let text = text(file).replace("TOSEND_NAME=value", "");
        let named = variables(&text);
        let unknown: Vec<_> = named.difference(&settings).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        count += named.len();
    }
    assert!(count > 5, "{count}");
}

#[test]
fn the_image_is_built_with_the_rust_of_the_project() {
    let toolchain = lines("rust-toolchain.toml");
    let version = only(&toolchain, "channel = ").trim_matches('"');
    let dockerfile = lines("Dockerfile");
    let bases = after(&dockerfile, "FROM ");
    assert_eq!(bases.len(), 2);
    let (build, run) = (bases[0], bases[1]);
    let debian = build.strip_prefix(&format!("rust:{version}-slim-"));
    // The names of Debian's versions, for the same glibc in both stages.
    let number = match debian.and_then(|rest| rest.strip_suffix(" AS build")) {
        Some("bookworm") => 12,
        Some("trixie") => 13,
        other => panic!("{build}: {other:?}"),
    };
    assert_eq!(run, format!("gcr.io/distroless/cc-debian{number}:nonroot"));
    assert!(dockerfile.contains(&format!("ENV RUSTUP_TOOLCHAIN={version}")));
}

/// Everything that cargo needs is let through to the build, and nothing that is private.
#[test]
fn the_build_sees_the_sources_only() {
    let let_in = lines(".dockerignore");
    assert_eq!(let_in[0], "*");
    let names: BTreeSet<&str> = let_in[1..]
        .iter()
        .map(|line| line.strip_prefix('!').expect("only what is let in"))
        .collect();
    for name in &names {
        assert!(Path::new(ROOT).join(name).exists(), "{name}");
    }
    for private in [".git", "data", "target", ".env"] {
        assert!(!names.contains(private), "{private}");
    }
    let needed = [
        ".cargo",
        "askama.toml",
        "Cargo.lock",
        "Cargo.toml",
        "migrations",
        "src",
    ];
    for name in needed.iter().chain(&["static", "templates"]) {
        assert!(names.contains(name), "{name}");
    }
    // Its `path`s must be there, or cargo refuses the manifest.
    for path in after(&lines("Cargo.toml"), "path = ") {
        let folder = path.trim_matches('"').split('/').next().unwrap();
        assert!(names.contains(folder), "{path}");
    }
}

#[test]
fn the_container_serves_where_its_settings_say_and_is_not_root() {
    let dockerfile = lines("Dockerfile");
    let listen: SocketAddr = only(&dockerfile, "ENV TOSEND_LISTEN=").parse().unwrap();
    assert!(
        listen.ip().is_unspecified(),
        "the container's port is forwarded"
    );
    assert_eq!(only(&dockerfile, "EXPOSE "), listen.port().to_string());

    let (user, group) = only(&dockerfile, "USER ").split_once(':').unwrap();
    let (user, group): (u32, u32) = (user.parse().unwrap(), group.parse().unwrap());
    assert!(user > 0 && group > 0);
    assert!(text("Dockerfile").contains(&format!(
        "install -d -m 700 -o {user} -g {group} /image{FOLDER}"
    )));
    assert!(dockerfile.contains(&format!(
        "COPY --from=build --chown={user}:{group} /image{FOLDER} {FOLDER}"
    )));
    // The default database and secret are below the working directory.
    assert_eq!(after(&dockerfile, "WORKDIR ").last(), Some(&FOLDER));
    assert_eq!(only(&dockerfile, "VOLUME "), FOLDER);

    assert_eq!(only(&dockerfile, "ENTRYPOINT "), format!("[\"{BINARY}\"]"));
    let health = only(&dockerfile, "HEALTHCHECK ");
    assert!(
        health.ends_with(&format!("CMD [\"{BINARY}\", \"healthcheck\"]")),
        "{health}"
    );
    assert_eq!(only(&dockerfile, "STOPSIGNAL "), "SIGTERM");
}

#[test]
fn the_composition_fits_the_container() {
    let dockerfile = lines("Dockerfile");
    let compose = lines("compose.yaml");
    let port = only(&dockerfile, "EXPOSE ");
    assert!(compose.contains(&format!("- 127.0.0.1:{port}:{port}")));
    assert!(compose.contains(&format!("- dashboard:{FOLDER}")));
    // No port of it is open to other machines.
    let ports = compose.iter().filter(|line| {
        let parts: Vec<&str> = line.trim_start_matches("- ").split(':').collect();
        parts.last().is_some_and(|last| last.parse::<u16>().is_ok()) && parts.len() > 1
    });
    let ports: Vec<_> = ports.filter(|line| line.starts_with("- ")).collect();
    assert_eq!(ports.len(), 2);
    assert!(
        ports.iter().all(|line| line.starts_with("- 127.0.0.1:")),
        "{ports:?}"
    );
    for image in after(&compose, "image: ") {
        let is_pinned = image == "tosend-dashboard" || image.contains(':');
        assert!(is_pinned && !image.ends_with(":latest"), "{image}");
    }
}

/// Environment variables can be seen by others: the password of the database is in files alone.
#[test]
fn the_composition_has_its_passwords_in_files() {
    let compose = lines("compose.yaml");
    for (variable, secret) in [
        ("TOSEND_DATABASE_URL_FILE", "database_url"),
        ("POSTGRES_PASSWORD_FILE", "database_password"),
    ] {
        for line in [
            format!("{variable}: /run/secrets/{secret}"),
            format!("secrets: [{secret}]"),
            format!("file: secrets/{secret}"),
        ] {
            assert!(compose.contains(&line), "{line}");
        }
        assert!(text("docs/operating.md").contains(&format!("> secrets/{secret}")));
    }
    let is_open = |line: &&String| line.contains("PASSWORD:") || line.contains("DATABASE_URL:");
    let open: Vec<_> = compose.iter().filter(is_open).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// The values of the variables in a composition are ones that the program takes.
#[test]
fn the_composition_s_settings_are_valid() {
    let database = Database::new(Backend::Sqlite);
    let mut check = command(&database);
    for line in lines("compose.yaml") {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name.starts_with("TOSEND_") && name != "TOSEND_DATABASE_URL_FILE" {
            let value = match value.split_once(":-") {
                Some((_, default)) => default.trim_end_matches('}'),
                None => value,
            };
            check.env(name, value);
        }
    }
    let output = check.arg("migrate").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The units, with the program at its place in this tree.
fn units() -> (tempfile::TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = [SERVICE, SOCKET].map(|unit| {
        let here = text(unit).replace(BINARY, env!("CARGO_BIN_EXE_tosend-dashboard"));
        let path = folder.path().join(Path::new(unit).file_name().unwrap());
        fs::write(&path, here).unwrap();
        path
    });
    (folder, paths)
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let (_folder, units) = units();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .unwrap();
    assert!(
        output.status.success() && said(&output).is_empty(),
        "{}",
        said(&output)
    );
}

/// The exposure, from 0 to 10: 1.2, of which the most is for the network that a server needs.
#[test]
fn the_service_may_do_little() {
    let (_folder, [service, _]) = units();
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=13", "--no-pager"])
        .arg(service)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_service_has_its_user_its_folder_and_its_socket() {
    let service = lines(SERVICE);
    let user = only(&service, "User=");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    let output = Command::new("systemd-sysusers")
        .arg(format!("--root={}", folder.path().display()))
        .arg(Path::new(ROOT).join(USERS))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let users = fs::read_to_string(folder.path().join("etc/passwd")).unwrap();
    let made = users
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")));
    assert!(
        made.is_some_and(|line| line.contains(&format!(":{FOLDER}:"))),
        "{users}"
    );

    assert_eq!(only(&service, "Group="), user);
    assert_eq!(only(&service, "WorkingDirectory="), FOLDER);
    assert_eq!(
        format!("/var/lib/{}", only(&service, "StateDirectory=")),
        FOLDER
    );
    assert_eq!(only(&service, "ExecStart="), BINARY);
    assert_eq!(only(&service, "Requires="), "tosend-dashboard.socket");
    // One address, as the program demands, and the one that it would listen on by itself.
    let command = Settings::augment_args(clap::Command::new("settings"));
    let listen = command
        .get_arguments()
        .find(|setting| setting.get_id() == "listen");
    let default = listen.unwrap().get_default_values()[0].to_str().unwrap();
    assert_eq!(only(&lines(SOCKET), "ListenStream="), default);
}

/// The exit code of a wrong setting, with which the service is not started again.
#[test]
fn a_wrong_setting_ends_the_service_for_good() {
    let database = Database::new(Backend::Sqlite);
    let output = command(&database)
        .args(["--drain-seconds", "x"])
        .output()
        .unwrap();
    let code = output.status.code().unwrap().to_string();
    assert_eq!(only(&lines(SERVICE), "RestartPreventExitStatus="), code);
}

/// A database that is away for long does not end the service for good, and does not make it busy.
#[test]
fn the_service_is_started_again_for_as_long_as_it_fails() {
    let service = lines(SERVICE);
    assert_eq!(only(&service, "StartLimitIntervalSec="), "0");
    assert_eq!(only(&service, "Restart="), "always");
    let pause: u32 = only(&service, "RestartSec=").parse().unwrap();
    assert!(pause >= 2);
    let after: Vec<&str> = only(&service, "After=").split(' ').collect();
    assert!(after.contains(&"postgresql.service"), "{after:?}");
}
