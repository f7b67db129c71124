//! Caddy, configured as in docs/gateways.md.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::nginx::documented;
use super::{Port, until};

const CADDY: &str = "/usr/bin/caddy";

/// Caddy with the configuration from docs/gateways.md, except for the addresses.
pub struct Caddy {
    pub address: SocketAddr,
    process: Child,
    _port: Port,
    _folder: TempDir,
}

impl Caddy {
    pub fn start(dashboard: &str, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::reserve();
        let address = port.address();
        let mut lines = documented("docs/gateways.md", "caddyfile");
        for (from, to) in [
            ("api.acme.com {", format!("http://{address} {{")),
            (
                "forward_auth 127.0.0.1:8080",
                format!("forward_auth {dashboard}"),
            ),
            (
                "reverse_proxy 127.0.0.1:3000",
                format!("reverse_proxy {upstream}"),
            ),
        ] {
            assert_eq!(lines.matches(from).count(), 1, "{from} in docs/gateways.md");
            lines = lines.replace(from, &to);
        }
        let config = folder.path().join("Caddyfile");
        // Its admin port would be the same for all tests.
        fs::write(&config, format!("{{\n\tadmin off\n}}\n{lines}")).unwrap();
        let log = folder.path().join("log");
        // It ends with this process, even if this process is killed.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig=KILL", CADDY, "run"])
            .args([Path::new("--config"), &config])
            .env_clear()
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        until("Caddy answers", || {
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

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
