//! The socket: sends datagrams to the server, or reports immediately that it did not.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
#[cfg(unix)]
use std::os::unix::net::{self as unix, UnixDatagram};

use crate::error::BuildError;

/// Fits into one Ethernet frame, with space for the headers of tunnels.
const UDP_LIMIT: usize = 1_432;

/// The maximum that Datadog's agent reads at once from a Unix socket.
#[cfg(unix)]
const UNIX_LIMIT: usize = 8_192;

/// A non-blocking socket. It is not connected: then the refusal of one datagram is not reported as the failure
/// of the next, and a server that starts later or restarts is found.
#[derive(Debug)]
pub(crate) enum Socket {
    Udp {
        socket: UdpSocket,
        server: SocketAddr,
    },
    #[cfg(unix)]
    Unix {
        socket: UnixDatagram,
        server: unix::SocketAddr,
    },
}

impl Socket {
    pub(crate) fn open(address: &str) -> Result<Self, BuildError> {
        match address.split_once("://") {
            None => Self::udp(address, address),
            Some(("udp", server)) => Self::udp(address, server),
            #[cfg(unix)]
            Some(("unix", path)) if path.starts_with('/') => Self::unix(address, path),
            Some(_) => Err(BuildError::UnsupportedAddress(address.to_owned())),
        }
    }

    fn udp(address: &str, server: &str) -> Result<Self, BuildError> {
        let unresolved = |source| BuildError::Resolve {
            address: address.to_owned(),
            source,
        };
        let servers: Vec<_> = server.to_socket_addrs().map_err(unresolved)?.collect();
        // Servers listen on IPv4 by default, and UDP does not report that nothing listens.
        let server = servers.iter().find(|server| server.is_ipv4());
        let server = *server
            .or(servers.first())
            .ok_or_else(|| unresolved(io::Error::other("the name has no address")))?;
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let open = || {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self::Udp {
            socket: open().map_err(BuildError::Socket)?,
            server,
        })
    }

    #[cfg(unix)]
    fn unix(address: &str, path: &str) -> Result<Self, BuildError> {
        let server =
            unix::SocketAddr::from_pathname(path).map_err(|source| BuildError::Resolve {
                address: address.to_owned(),
                source,
            })?;
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self::Unix {
            socket: open().map_err(BuildError::Socket)?,
            server,
        })
    }

    /// Returns the maximum length of a datagram, in bytes.
    pub(crate) fn limit(&self) -> usize {
        match self {
            Self::Udp { .. } => UDP_LIMIT,
            #[cfg(unix)]
            Self::Unix { .. } => UNIX_LIMIT,
        }
    }

    /// Returns `true` if the system accepted the datagram.
    pub(crate) fn send(&self, datagram: &[u8]) -> bool {
        let sent = match self {
            Self::Udp { socket, server } => socket.send_to(datagram, server),
            #[cfg(unix)]
            Self::Unix { socket, server } => socket.send_to_addr(datagram, server),
        };
        sent.is_ok()
    }
}
