//! A local port for a server that a test starts and may stop for a while.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port that no other program gets while this is held, whether the test's server is listening
/// there or not. That server can bind the address although it is in use (`SO_REUSEADDR`), as
/// servers do; while it is not listening, clients are refused.
pub struct Port {
    pub number: u16,
    _socket: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address: SocketAddr = getsockname(&socket).unwrap().try_into().unwrap();
        Self {
            number: address.port(),
            _socket: socket,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}
