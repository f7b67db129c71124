//! What a service tells systemd: that it is ready, that it lives, that it ends (sd_notify(3)).

use std::ffi::{OsStr, OsString};
use std::io::Result;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How soon the server is asked again whether it serves already.
const NOT_READY: Duration = Duration::from_millis(50);

/// Signs of life in the time after which the service counts as dead. One may be late, another may
/// fail.
const SIGNS: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceManager {
    socket: OsString,
    /// The time without a sign of life after which it ends this process.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// `None`: this process was not started by one, or it wants to be told nothing.
    pub fn from_environment() -> Option<Self> {
        Self::from(|name| std::env::var_os(name), std::process::id())
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Option<Self> {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|of| of == u64::from(process));
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
        Some(Self {
            socket: variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?,
            watchdog: limit.map(Duration::from_micros),
        })
    }

    /// Tells that this process is about to end.
    pub fn tell_end(&self) {
        self.tell("STOPPING=1");
    }

    /// Tells that the service is ready as soon as `serves` says so, and then that it lives for as
    /// long as `serves` does. Returns when `stop` is dropped.
    pub fn keep_telling(&self, serves: impl Fn() -> bool, stop: &Receiver<()>) {
        while !serves() {
            if stop.recv_timeout(NOT_READY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
        self.tell("READY=1");
        let Some(limit) = self.watchdog else {
            let _ = stop.recv();
            return;
        };
        while stop.recv_timeout(limit / SIGNS) == Err(RecvTimeoutError::Timeout) {
            match serves() {
                true => self.tell("WATCHDOG=1"),
                false => tracing::error!(
                    seconds = limit.as_secs(),
                    "the server does not answer its own request; if that lasts, the service manager ends it"
                ),
            }
        }
    }

    fn tell(&self, what: &str) {
        if let Err(error) = self.send(what) {
            tracing::warn!(%error, what, "the service manager could not be told");
        }
    }

    fn send(&self, what: &str) -> Result<()> {
        let address = match self.socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(OsStr::new(&self.socket))?,
        };
        UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use super::*;

    fn manager(variables: &[(&str, &str)]) -> Option<ServiceManager> {
        let find = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).into())
        };
        ServiceManager::from(find, 42)
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let socket = ("NOTIFY_SOCKET", "/run/notify");
        let limit = |variables: &[_]| manager(&[&[socket], variables].concat()).unwrap().watchdog;
        let half = ("WATCHDOG_USEC", "500000");
        assert_eq!(limit(&[]), None);
        assert_eq!(limit(&[half]), Some(Duration::from_millis(500)));
        assert_eq!(limit(&[half, ("WATCHDOG_PID", "42")]), limit(&[half]));
        assert_eq!(limit(&[half, ("WATCHDOG_PID", "43")]), None);
        assert_eq!(limit(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(manager(&[half]), None);
        assert_eq!(manager(&[("NOTIFY_SOCKET", ""), half]), None);
    }

    /// Receives what is told.
    fn listen() -> (tempfile::TempDir, UnixDatagram, ServiceManager) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let manager = ServiceManager {
            socket: path.into(),
            watchdog: Some(Duration::from_millis(4)),
        };
        (folder, socket, manager)
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut told = [0; 100];
        let length = socket.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_ready_once_it_serves_and_gives_signs_of_life_while_it_does() {
        let (_folder, socket, manager) = listen();
        let (stop, stopped) = mpsc::channel();
        // Not at first, then three times, then not for a while.
        let stop = Cell::new(Some(stop));
        let asked = Cell::new(0);
        let serves = || {
            asked.set(asked.get() + 1);
            if asked.get() == 20 {
                drop(stop.take());
            }
            (3..6).contains(&asked.get())
        };
        manager.keep_telling(serves, &stopped);
        assert_eq!(asked.get(), 20);
        manager.tell_end();
        let told = [(); 4].map(|()| next(&socket));
        assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn an_abstract_socket_is_told_too() {
        let name = format!("tosend-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap();
        manager.tell_end();
        assert_eq!(next(&socket), "STOPPING=1");
    }
}
