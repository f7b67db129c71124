//! An address that is reserved before the server listens on it.

use std::io::Result;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

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
