//! Sends the numbers of each run to the Datadog agent.
//!
//! ```console
//! $ cargo run -p l0-examples --bin datadog --features datadog
//! $ DD_DOGSTATSD_URL=udp://127.0.0.1:8125 cargo run -p l0-examples --bin datadog --features datadog
//! $ DD_DOGSTATSD_URL=unix:///var/run/datadog/dsd.socket cargo run -p l0-examples --bin datadog --features datadog
//! ```
//!
//! Without `DD_DOGSTATSD_URL`, the example prints what the agent would receive.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io;
use std::net::UdpSocket;

use l0_core::{L0, Monitoring, keys};
use l0_providers::openai::ChatRequest;
use l0_statsd::StatsdInterceptor;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (address, agent) = match std::env::var("DD_DOGSTATSD_URL") {
        Ok(address) => (address, None),
        Err(_) => {
            let agent = UdpSocket::bind("127.0.0.1:0")?;
            (agent.local_addr()?.to_string(), Some(agent))
        }
    };
    let statsd = StatsdInterceptor::builder(address)
        .tag("env", "example")
        .tag_keys([keys::MODEL])?
        .build()?;

    let (client, _server) = l0_examples::client(1).await?;
    let l0 = L0::builder()
        .monitoring(Monitoring::new().metadata(keys::MODEL, "gpt-4o-mini"))
        .interceptor(statsd.clone())
        .build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0.stream_from(client.chat(&request)).start();
    run.text().await?;

    if let Some(agent) = agent {
        print_received(&agent)?;
    }
    println!("\npoints not sent: {}", statsd.dropped());
    Ok(())
}

/// Prints the received datagrams. On the loopback, a sent datagram has already arrived.
fn print_received(agent: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; 65_536];
    agent.set_nonblocking(true)?;
    loop {
        match agent.recv(&mut datagram) {
            Ok(length) => println!("{}", String::from_utf8_lossy(&datagram[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
