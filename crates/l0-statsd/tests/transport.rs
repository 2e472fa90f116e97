//! Real sockets: what arrives, and what is counted when it cannot.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::UdpSocket;

use common::Server;
use l0_core::Telemetry;
use l0_export::metrics::points;
use l0_statsd::{StatsdBuilder, StatsdInterceptor};

fn point_count() -> usize {
    points(&Telemetry::example()).count()
}

/// Adds so many tags that the points do not fit into one UDP datagram.
fn tagged(mut builder: StatsdBuilder, tags: u8) -> StatsdInterceptor {
    for tag in 0..tags {
        builder = builder.tag(format!("tag_{tag}"), "x".repeat(300));
    }
    builder.build().unwrap()
}

#[test]
fn udp_carries_all_points_in_datagrams_of_whole_lines() {
    let server = Server::start();
    let statsd = tagged(StatsdInterceptor::builder(server.address()), 1);
    statsd.send(&Telemetry::example());

    let datagrams = server.datagrams();
    assert!(datagrams.len() > 1);
    assert!(datagrams.iter().all(|datagram| datagram.len() <= 1_432));
    let tag = format!("|#tag_0:{}", "x".repeat(194));
    let lines = common::lines(&datagrams);
    assert_eq!(lines.len(), point_count());
    for (line, point) in lines.iter().zip(points(&Telemetry::example())) {
        let start = format!("{}:{}|", point.name, point.value);
        assert!(line.starts_with(&start) && line.contains(&tag), "{line}");
    }
    assert_eq!(statsd.dropped(), 0);
}

#[test]
fn udp_goes_over_ipv6_where_there_is_one() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("switched off: no IPv6 here");
        return;
    }
    let server = Server::bind("[::1]:0");
    let statsd = tagged(StatsdInterceptor::builder(server.address()), 0);
    statsd.send(&Telemetry::example());
    assert_eq!(server.lines().len(), point_count());
}

#[test]
fn a_line_longer_than_a_datagram_is_dropped_and_counted() {
    let server = Server::start();
    let statsd = tagged(StatsdInterceptor::builder(server.address()), 8);
    statsd.send(&Telemetry::example());
    assert!(server.datagrams().is_empty());
    assert_eq!(statsd.dropped(), point_count() as u64);
    assert_eq!(statsd.clone().dropped(), statsd.dropped());
}

#[test]
fn a_udp_server_that_restarts_is_found() {
    let address = Server::start().address();
    let statsd = tagged(StatsdInterceptor::builder(&address), 0);
    for _ in 0..3 {
        statsd.send(&Telemetry::example());
    }

    let server = Server::bind(&address);
    statsd.send(&Telemetry::example());
    assert_eq!(server.lines().len(), point_count());
}

#[cfg(unix)]
mod unix {
    use std::env;
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;
    use std::process;

    use super::*;

    /// The path of a socket, removed at the end.
    struct Path(PathBuf);

    impl Path {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("l0-statsd-{}-{name}", process::id()));
            let _ = fs::remove_file(&path);
            Self(path)
        }

        fn statsd(&self, tags: u8) -> StatsdInterceptor {
            let address = format!("unix://{}", self.0.display());
            tagged(StatsdInterceptor::builder(address), tags)
        }

        fn listen(&self) -> UnixDatagram {
            let socket = UnixDatagram::bind(&self.0).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }
    }

    impl Drop for Path {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Returns the datagrams waiting in the socket.
    fn datagrams(socket: &UnixDatagram) -> Vec<String> {
        let mut datagrams = Vec::new();
        loop {
            let mut buffer = [0; 65_536];
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    datagrams.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return datagrams,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_unix_socket_carries_all_points_in_larger_datagrams() {
        let path = Path::new("all");
        let server = path.listen();
        let statsd = path.statsd(8);
        statsd.send(&Telemetry::example());

        let datagrams = datagrams(&server);
        assert!(datagrams.len() > 1);
        assert!(datagrams.iter().all(|datagram| datagram.len() <= 8_192));
        assert_eq!(common::lines(&datagrams).len(), point_count());
        assert_eq!(statsd.dropped(), 0);
    }

    #[test]
    fn a_server_that_starts_later_or_restarts_is_found() {
        let path = Path::new("later");
        let statsd = path.statsd(0);
        let mut dropped = 0;
        for _ in 0..2 {
            // The first time nothing exists there; the second time, the socket of the previous server does.
            statsd.send(&Telemetry::example());
            dropped += point_count();
            assert_eq!(statsd.dropped(), dropped as u64);

            let _ = fs::remove_file(&path.0);
            let server = path.listen();
            statsd.send(&Telemetry::example());
            assert_eq!(common::lines(&datagrams(&server)).len(), point_count());
            assert_eq!(statsd.dropped(), dropped as u64);
        }
    }

    #[test]
    fn a_server_that_does_not_read_loses_points_and_blocks_nothing() {
        let path = Path::new("full");
        let server = path.listen();
        let statsd = path.statsd(0);
        let mut sent = 0;
        // A blocking send would wait forever.
        while statsd.dropped() == 0 {
            statsd.send(&Telemetry::example());
            sent += point_count();
        }
        assert_eq!(statsd.dropped(), point_count() as u64);

        let arrived = common::lines(&datagrams(&server)).len();
        assert_eq!(arrived, sent - point_count());
        statsd.send(&Telemetry::example());
        assert_eq!(common::lines(&datagrams(&server)).len(), point_count());
    }
}
