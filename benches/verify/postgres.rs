//! A throw-away PostgreSQL with its defaults, but with room for the indexes in its buffers.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tempfile::TempDir;

/// Stopped and removed when dropped.
pub struct Cluster {
    server: Child,
    url: String,
    _folder: TempDir,
}

impl Cluster {
    pub fn start() -> Result<Self> {
        let bin = find_binaries()?;
        let folder = TempDir::with_prefix("tosend-bench-postgres-")?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()))?;
        }
        let command = |program| as_postgres(&bin.join(program), folder.path());
        run(command("initdb").args([
            "--pgdata=data",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = command("postgres")
            .args(["-D", "data", "-k", ".", "-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "shared_buffers=512MB"])
            .spawn()?;
        let cluster = Self {
            server,
            url: format!("postgres://postgres@127.0.0.1:{port}"),
            _folder: folder,
        };
        cluster.wait_until_it_answers()?;
        Ok(cluster)
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = self.admin() {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("PostgreSQL does not answer: {error}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn admin(&self) -> Result<PgConnection> {
        Ok(PgConnection::establish(&format!("{}/postgres", self.url))?)
    }

    /// Gives its URL.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.admin()?
            .batch_execute(&format!("CREATE DATABASE {name}"))?;
        Ok(format!("{}/{name}", self.url))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = self.server.id().to_string();
        // Immediate: nothing is worth keeping.
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.server.wait();
    }
}

fn find_binaries() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders
        .filter(|folder| folder.join("initdb").exists())
        .max()
        .context("install postgresql, or run with --database sqlite")
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path, folder: &Path) -> Command {
    let mut command;
    if is_root() {
        command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
    } else {
        command = Command::new(program);
    }
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
