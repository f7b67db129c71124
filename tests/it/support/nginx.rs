//! nginx, configured as in docs/gateways.md and docs/scaling.md, and the program behind a gateway.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::{Port, until};

const NGINX: &str = "/usr/sbin/nginx";

/// nginx with a configuration from the documentation, except for the addresses.
pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
    _port: Port,
    _folder: TempDir,
}

impl Nginx {
    /// The gateway of docs/gateways.md.
    pub fn start(dashboard: &str, upstream: SocketAddr) -> Self {
        let addresses = [
            ("server 127.0.0.1:8080;", format!("server {dashboard};")),
            ("http://127.0.0.1:3000;", format!("http://{upstream};")),
        ];
        Self::documented_in("docs/gateways.md", &addresses, "")
    }

    /// The proxy in front of two nodes of docs/scaling.md. The header `X-Node` of an answer has the
    /// addresses of the nodes that were asked.
    pub fn balancing(nodes: [SocketAddr; 2]) -> Self {
        let [first, second] = nodes;
        let addresses = [
            ("server 192.0.2.1:8080 ", format!("server {first} ")),
            ("server 192.0.2.2:8080 ", format!("server {second} ")),
        ];
        let more = "add_header X-Node $upstream_addr always;\n";
        Self::documented_in("docs/scaling.md", &addresses, more)
    }

    fn documented_in(document: &str, addresses: &[(&str, String)], more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::reserve();
        let address = port.address();
        let mut lines = documented(document, "nginx");
        let listen = ("listen 80;", format!("listen {address};"));
        for (from, to) in [&listen].into_iter().chain(addresses) {
            assert_eq!(lines.matches(from).count(), 1, "{from} in {document}");
            lines = lines.replace(from, to);
        }
        lines.insert_str(0, more);
        let config = folder.path().join("nginx.conf");
        fs::write(&config, around(&lines, folder.path())).unwrap();
        let log = folder.path().join("error.log");
        // It ends with this process, even if this process is killed.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig=KILL", NGINX])
            .args([Path::new("-c"), &config])
            .args([Path::new("-p"), folder.path()])
            .args([Path::new("-e"), &log])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        until("nginx answers", || {
            let ended = process.try_wait().unwrap();
            let said = || fs::read_to_string(folder.path().join("stderr")).unwrap();
            assert!(ended.is_none(), "{}", said());
            TcpStream::connect(address).is_ok()
        });
        Self {
            address,
            process,
            _port: port,
            _folder: folder,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The only code block of this language in a document.
pub(super) fn documented(document: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = text.split(&format!("```{language}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "blocks of {language} in {document}");
    blocks[0].split("```").next().unwrap().to_owned()
}

/// The rest of a distribution's nginx.conf around a site, in one folder.
fn around(site: &str, folder: &Path) -> String {
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{paths}{site}}}\n"
    )
}

/// A request as it reached the upstream. Header names are in lower case.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// All values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let values = self.headers.iter().filter(|(n, _)| n == name);
        values.map(|(_, value)| value.as_str()).collect()
    }
}

/// A program that trusts its gateway: it records every request, and answers `/fails` with 500.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let (theirs, end) = (Arc::clone(&seen), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                if let Some(request) = read(&stream) {
                    let answer = answer(&request);
                    // Recorded before the answer, so that a test that has the answer finds it.
                    theirs.lock().unwrap().push(request);
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        });
        Self {
            address,
            seen,
            is_over,
            thread: Some(thread),
        }
    }

    /// The requests that arrived since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().unwrap().join();
    }
}

/// Reads one request, as nginx sends it.
fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let (line, rest) = lines.split_first()?;
    let headers: Vec<(String, String)> = rest
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line: line.clone(),
        headers,
        body,
    })
}

fn answer(request: &Seen) -> String {
    let status = match request.line.contains(" /fails ") {
        true => "500 Internal Server Error",
        false => "200 OK",
    };
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 8\r\n\r\nupstream")
}
