//! nginx and Caddy, configured as in docs/gateways.md and docs/scaling.md.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::files::root;
use super::{Port, until};

const NGINX: &str = "/usr/sbin/nginx";
const CADDY: &str = "/usr/bin/caddy";

/// A gateway with a configuration from the documentation, except for the addresses.
pub struct Gateway {
    pub address: SocketAddr,
    process: Child,
    _port: Port,
    _folder: TempDir,
}

impl Gateway {
    pub fn nginx(dashboard: &str, upstream: SocketAddr) -> Self {
        Self::start(|address, folder| {
            let addresses = [
                ("listen 80;", format!("listen {address};")),
                ("server 127.0.0.1:8080;", format!("server {dashboard};")),
                ("http://127.0.0.1:3000;", format!("http://{upstream};")),
            ];
            nginx_with(&documented("docs/gateways.md", "nginx", &addresses), folder)
        })
    }

    /// The proxy in front of two nodes of docs/scaling.md. The header `X-Node` of an answer has the
    /// addresses of the nodes that were asked.
    pub fn balancing(nodes: [SocketAddr; 2]) -> Self {
        let [first, second] = nodes;
        Self::start(|address, folder| {
            let addresses = [
                ("listen 80;", format!("listen {address};")),
                ("server 192.0.2.1:8080 ", format!("server {first} ")),
                ("server 192.0.2.2:8080 ", format!("server {second} ")),
            ];
            let site = documented("docs/scaling.md", "nginx", &addresses);
            let site = format!("add_header X-Node $upstream_addr always;\n{site}");
            nginx_with(&site, folder)
        })
    }

    pub fn caddy(dashboard: &str, upstream: SocketAddr) -> Self {
        Self::start(|address, folder| {
            let addresses = [
                ("api.acme.com {", format!("http://{address} {{")),
                (
                    "forward_auth 127.0.0.1:8080",
                    format!("forward_auth {dashboard}"),
                ),
                (
                    "reverse_proxy 127.0.0.1:3000",
                    format!("reverse_proxy {upstream}"),
                ),
            ];
            let site = documented("docs/gateways.md", "caddyfile", &addresses);
            let config = folder.join("Caddyfile");
            // Its admin port would be the same for all tests.
            fs::write(&config, format!("{{\n\tadmin off\n}}\n{site}")).unwrap();
            let mut command = command(CADDY);
            command
                .arg("run")
                .args([Path::new("--config"), &config])
                .env_clear()
                .env("HOME", folder);
            command
        })
    }

    /// Runs a command for an address and a folder of its own, until it is dropped.
    fn start(prepare: impl FnOnce(SocketAddr, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::reserve();
        let address = port.address();
        let log = folder.path().join("stderr");
        let mut process = prepare(address, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        until("the gateway answers", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
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

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that ends with this process, even if this process is killed.
fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", program]);
    command
}

/// nginx with a site, in a folder of its own.
fn nginx_with(site: &str, folder: &Path) -> Command {
    let config = folder.join("nginx.conf");
    fs::write(&config, around(site, folder)).unwrap();
    let mut command = command(NGINX);
    command
        .args([Path::new("-c"), &config])
        .args([Path::new("-p"), folder])
        .args([Path::new("-e"), &folder.join("error.log")]);
    command
}

/// The only code block of this language in a document, with its addresses replaced.
fn documented(document: &str, language: &str, addresses: &[(&str, String)]) -> String {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let blocks: Vec<&str> = text.split(&format!("```{language}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "blocks of {language} in {document}");
    let mut lines = blocks[0].split("```").next().unwrap().to_owned();
    for (from, to) in addresses {
        assert_eq!(lines.matches(from).count(), 1, "{from} in {document}");
        lines = lines.replace(from, to);
    }
    lines
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
