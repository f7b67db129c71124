//! Servers as processes of their own: the dashboard, and the reference it is compared with.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use anyhow::{Context, Result, bail, ensure};

use crate::seed::{Database, PASSWORD};

/// The argument that makes this program the reference.
pub const REFERENCE: &str = "--reference";

/// Linux counts a process's CPU time in these, whatever its own clock does (proc(5), USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Server {
    pub fn dashboard(database: &Database) -> Result<Self> {
        let mut command = database.command();
        command.args(["--listen", "127.0.0.1:0"]);
        Self::start(command, database.folder.join("log"))
    }

    /// One that also delivers to this relay.
    pub fn delivering(database: &Database, relay: SocketAddr) -> Result<Self> {
        let mut command = database.command();
        command
            .args(["--listen", "127.0.0.1:0"])
            .env("TOSEND_SMTP_URL", format!("smtp://{relay}"));
        Self::start(command, database.folder.join("delivery.log"))
    }

    pub fn reference(folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(REFERENCE);
        Self::start(command, folder.join("reference.log"))
    }

    /// Waits until it says where it serves.
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Self {
            child: command.stderr(File::create(&log)?).spawn()?,
            address: SocketAddr::from(([0; 4], 0)),
            log,
        };
        let mut greeting = String::new();
        let stdout = server.child.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut greeting)?;
        server.address = greeting
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://")?.parse().ok())
            .with_context(|| format!("a server did not start: {greeting}{}", server.log()))?;
        Ok(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// # Errors
    /// If it has warned of anything: what was measured was not its usual work.
    pub fn check_log(&self) -> Result<()> {
        let log = self.log();
        let is_bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        match log.lines().find(is_bad) {
            Some(line) => bail!("a server was not well: {line}"),
            None => Ok(()),
        }
    }

    /// CPU time since its start, also of threads that have ended.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit(')').next().context("no fields")?;
        let user_and_system = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = user_and_system.map(|n| n.parse().unwrap_or(0)).sum();
        Ok(TICK * ticks)
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.child.id()
        ))?)
    }

    /// Signs in as an account's owner and gives the `Cookie` header for the keys page.
    pub fn sign_in(&self, email: &str) -> Result<String> {
        let client = reqwest::blocking::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let answer = client
            .post(format!("http://{}/login", self.address))
            .header("sec-fetch-site", "same-origin")
            .form(&[("email", email), ("password", PASSWORD)])
            .send()?;
        let cookie = answer.headers().get("set-cookie").context("no cookie")?;
        let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
        let header = format!("Cookie: {pair}\r\n");
        let page = client
            .get(format!("http://{}/api-keys", self.address))
            .header("cookie", pair)
            .send()?;
        let rows = page.text()?.matches("<tr id=\"key-").count();
        ensure!(rows == 25, "the keys page of {email} shows {rows} rows");
        Ok(header)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reference: nothing but actix-web and one route, with as many workers as the dashboard has,
/// which is actix-web's default for both.
pub fn serve_reference() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().route("/", web::get().to(async || "ok")))
            .listen(listener)?
            .run();
        writeln!(std::io::stdout(), "http://{address}")?;
        Ok(server.await?)
    })
}
