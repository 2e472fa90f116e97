//! Test servers: sockets that keep what they receive.

#![allow(dead_code, reason = "each test uses some of it")]

use std::net::UdpSocket;
use std::time::Duration;

/// Longer than anything takes, so a hanging test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Server(UdpSocket);

impl Server {
    pub(crate) fn start() -> Self {
        Self::bind("127.0.0.1:0")
    }

    pub(crate) fn bind(address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// Returns what arrived since the last call.
    pub(crate) fn datagrams(&self) -> Vec<String> {
        const END: &str = "end";
        // The loopback keeps the order: everything sent earlier arrives before this.
        self.0
            .send_to(END.as_bytes(), self.0.local_addr().unwrap())
            .unwrap();
        let mut datagrams = Vec::new();
        loop {
            let mut buffer = [0; 65_536];
            let length = self.0.recv(&mut buffer).unwrap();
            let datagram = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if datagram == END {
                return datagrams;
            }
            datagrams.push(datagram);
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        lines(&self.datagrams())
    }
}

pub(crate) fn lines(datagrams: &[String]) -> Vec<String> {
    let lines = datagrams.iter().flat_map(|datagram| datagram.split('\n'));
    lines.map(str::to_owned).collect()
}
