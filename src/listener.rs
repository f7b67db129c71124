//! The address of the server: reserved before it listens there, or kept open by a service manager.

use std::io::Result;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Connections waiting to be accepted; the system may allow fewer.
const BACKLOG: i32 = 2048;

/// While it is reserved, no other program can listen there, and clients are refused.
pub struct ReservedAddress(OwnedFd);

impl ReservedAddress {
    /// # Errors
    /// If another program listens there, or the address does not belong to this machine.
    pub fn reserve(address: SocketAddr) -> Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Connections of an earlier process that are still closing must not be in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        Ok(Self(socket))
    }

    /// # Errors
    /// If another program reserved the address at the same time and listened first.
    pub fn listen(self) -> Result<TcpListener> {
        listen(&self.0, BACKLOG)?;
        Ok(self.0.into())
    }
}

/// The listener that a service manager passed to this process and keeps open when it ends
/// (sd_listen_fds(3)), if there is one.
///
/// # Errors
/// One sentence on what was passed instead.
pub fn inherited() -> std::result::Result<Option<TcpListener>, String> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    if count > 1 {
        return Err(format!(
            "{count} sockets were passed by LISTEN_FDS: the server serves exactly one, so the socket unit may have one ListenStream= only"
        ));
    }
    let wrong = "the socket that was passed by LISTEN_FDS is not one that listens for TCP: write ListenStream=ADDRESS:PORT and Accept=no in the socket unit";
    let listener = passed.take_tcp_listener(0).map_err(|_| wrong.to_owned())?;
    match listener {
        Some(listener) if !sockopt::socket_acceptconn(&listener).unwrap_or(false) => {
            Err(wrong.to_owned())
        }
        listener => Ok(listener),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn clients_are_refused_until_it_is_listened_on() {
        let reserved = ReservedAddress::reserve(([127, 0, 0, 1], 0).into()).unwrap();
        let taken = rustix::net::getsockname(&reserved.0).unwrap();
        let address: SocketAddr = taken.try_into().unwrap();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        let listener = reserved.listen().unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        TcpStream::connect(address).unwrap();
        let in_use = ReservedAddress::reserve(address).map(|_| ()).unwrap_err();
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn of_two_that_start_together_one_listens() {
        let first = ReservedAddress::reserve(([127, 0, 0, 1], 0).into()).unwrap();
        let taken = rustix::net::getsockname(&first.0).unwrap();
        let second = ReservedAddress::reserve(taken.try_into().unwrap()).unwrap();
        let _listener = second.listen().unwrap();
        assert_eq!(first.listen().unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
