//! Real connection faults, created on the loopback interface. The typed error and its texts alone must
//! lead to the same classification.
//!
//! The certificates in `tls` are self-signed and valid for `localhost`. `localhost.pem` and
//! `expired.pem` use the key in the folder.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use l0_core::NetworkErrorKind::{
    ConnectionDropped, DnsError, Econnrefused, Econnreset, PartialChunks, SslError, Timeout,
};
use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use reqwest::{Certificate, Client, ClientBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

const LOCALHOST: &str = include_str!("tls/localhost.pem");
const EXPIRED: &str = include_str!("tls/expired.pem");
const STRANGER: &str = include_str!("tls/stranger.pem");
const KEY: &str = include_str!("tls/key.pem");

/// The timeout of clients that are meant to time out.
const SHORT: Duration = Duration::from_millis(50);

/// An error that consists of a text only.
#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Text {}

/// Asserts that the error, typed and as text, is read as a network error of this kind, and that nothing
/// of its URL is sent.
fn assert_reads(fault: &str, error: &(dyn StdError + 'static), kind: NetworkErrorKind) {
    let mut links = vec![error.to_string()];
    let mut source = error.source();
    while let Some(link) = source {
        links.push(link.to_string());
        source = link.source();
    }
    let joined = Text(links.join(": "));
    let lines = links.iter().enumerate().skip(1);
    let lines = lines.map(|(index, link)| format!("    {}: {link}\n", index - 1));
    let lines = Text(format!(
        "{}\n\nCaused by:\n{}",
        links[0],
        lines.collect::<String>()
    ));
    let inside = Text(format!("the stream failed: {joined}"));

    let expected = FailureKind::Network(kind);
    assert_eq!(Failure::read(error).kind, expected, "{fault}: {error:?}");
    for text in [&joined, &lines, &inside] {
        assert_eq!(Failure::read(text).kind, expected, "{fault}: {text}");
    }
    // An error whose client keeps no reason is only known to be a network error.
    let outermost = Failure::read(&Text(links.swap_remove(0)));
    assert!(outermost.network_error_kind().is_some(), "{fault}: {error}");

    for message in [redact::message(error), redact::message(&joined)] {
        assert!(!message.is_empty() && message != "unknown error", "{fault}");
        for word in [
            "prompt",
            "http://",
            "https://",
            "127.0.0.1",
            "localhost",
            ".invalid",
        ] {
            assert!(!message.contains(word), "{fault}: {message}");
        }
    }
}

fn client() -> ClientBuilder {
    Client::builder().no_proxy().retry(reqwest::retry::never())
}

fn trusting(certificate: &str) -> ClientBuilder {
    let certificate = Certificate::from_pem(certificate.as_bytes()).expect("is a certificate");
    client().tls_certs_only([certificate])
}

/// Resolves the name itself: systems differ in the addresses of `localhost`.
fn trusting_localhost(address: SocketAddr) -> ClientBuilder {
    trusting(LOCALHOST).resolve("localhost", address)
}

/// Requests an answer, and reads it until it fails.
async fn failure_of(client: ClientBuilder, origin: &str) -> reqwest::Error {
    let client = client.build().expect("can be built");
    let url = format!("{origin}/v1/chat?q=prompt");
    let mut response = match client.get(url).send().await {
        Ok(response) => response,
        Err(error) => return error,
    };
    loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the answer is complete"),
            Err(error) => return error,
        }
    }
}

/// Serves every connection, and returns the address.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Reads until the client disconnects, so unread data does not cause a reset.
async fn wait_for_the_end(mut stream: TcpStream) -> io::Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_connection() {
    // Bound but not listening, so no other program gets the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("is an address");
    socket.bind(any).expect("a port is free");
    let address = socket.local_addr().expect("is bound");

    let error = failure_of(client(), &format!("http://{address}")).await;
    assert_reads("refused", &error, Econnrefused);
    let message = redact::message(&error);
    assert!(message.contains("Connection refused"), "{message}");
    let error = TcpStream::connect(address).await.expect_err("is refused");
    assert_reads("refused", &error, Econnrefused);
}

#[tokio::test]
async fn a_connection_that_is_reset_or_closed() {
    const BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (fault, answer, reset, kind) in [
        ("reset before the answer", "", true, Econnreset),
        ("reset in the body", BODY, true, Econnreset),
        ("closed before the answer", "", false, ConnectionDropped),
        (
            "closed in the head",
            "HTTP/1.1 200",
            false,
            ConnectionDropped,
        ),
        ("cut body", BODY, false, PartialChunks),
        ("cut between chunks", CHUNKS, false, PartialChunks),
    ] {
        let address = server(move |mut stream| async move {
            read_request(&mut stream).await?;
            stream.write_all(answer.as_bytes()).await?;
            if reset {
                stream.set_zero_linger()?;
            }
            Ok(())
        })
        .await;
        let error = failure_of(client(), &format!("http://{address}")).await;
        assert_reads(fault, &error, kind);
    }
}

#[tokio::test]
async fn a_bad_chunk() {
    for (fault, chunks) in [
        ("a size that is not a number", "3\r\nabc\r\nxyz\r\n"),
        ("a size that is missing", "3\r\nabc\r\n\r\n"),
        ("a chunk that is too long", "3\r\nabcdef\r\n"),
        ("a chunk that is cut off", "5\r\nabc"),
    ] {
        let address = server(move |mut stream| async move {
            read_request(&mut stream).await?;
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream
                .write_all(format!("{head}{chunks}").as_bytes())
                .await?;
            stream.shutdown().await?;
            wait_for_the_end(stream).await
        })
        .await;
        let error = failure_of(client(), &format!("http://{address}")).await;
        assert_reads(fault, &error, PartialChunks);
    }
}

#[tokio::test]
async fn a_name_that_is_not_resolved() {
    // A name of this length is refused without a lookup.
    let host = format!("{}.invalid", "a".repeat(64));
    let error = failure_of(client(), &format!("http://{host}")).await;
    assert_reads("name", &error, DnsError);
    let error = TcpStream::connect((host.as_str(), 80))
        .await
        .expect_err("no such name");
    assert_reads("name", &error, DnsError);
}

#[tokio::test]
async fn a_time_out() {
    for (fault, answer) in [
        ("no answer", ""),
        (
            "no end",
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        ),
    ] {
        let address = server(move |mut stream| async move {
            read_request(&mut stream).await?;
            stream.write_all(answer.as_bytes()).await?;
            pending().await
        })
        .await;
        for client in [client().timeout(SHORT), client().read_timeout(SHORT)] {
            let error = failure_of(client, &format!("http://{address}")).await;
            assert_reads(fault, &error, Timeout);
        }
        let origin = format!("http://{address}");
        let answer = failure_of(client(), &origin);
        let error = tokio::time::timeout(SHORT, answer)
            .await
            .expect_err("elapsed");
        assert_reads(fault, &error, Timeout);
    }
    let silent = server(|stream| async move {
        let _open = stream;
        pending().await
    })
    .await;
    let client = trusting_localhost(silent).connect_timeout(SHORT);
    let error = failure_of(client, &format!("https://localhost:{}", silent.port())).await;
    assert_reads("no handshake", &error, Timeout);
}

fn acceptor(certificate: &str, asks_for_another: bool) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is one");
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("is a key");
    let config = ServerConfig::builder();
    let config = if asks_for_another {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("is a certificate");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        config.with_client_cert_verifier(verifier.expect("has a root"))
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.expect("the key is the certificate's")))
}

#[tokio::test]
async fn a_bad_certificate_is_never_retried() {
    for (fault, certificate, client, host) in [
        ("stranger", LOCALHOST, trusting(STRANGER), "localhost"),
        ("expired", EXPIRED, trusting(EXPIRED), "localhost"),
        (
            "another name",
            LOCALHOST,
            trusting(LOCALHOST),
            "example.invalid",
        ),
    ] {
        let acceptor = acceptor(certificate, false);
        let address = server(move |stream| {
            let accepted = acceptor.accept(stream);
            async move { accepted.await.map(drop) }
        })
        .await;
        let origin = format!("https://{host}:{}", address.port());
        let error = failure_of(client.resolve(host, address), &origin).await;
        assert_reads(fault, &error, SslError);
        assert!(
            !Failure::read(&error)
                .network_error_kind()
                .expect("is one")
                .is_retryable()
        );
    }
}

#[tokio::test]
async fn a_client_certificate_required_by_the_server() {
    let acceptor = acceptor(LOCALHOST, true);
    let address = server(move |stream| {
        let accepted = acceptor.accept(stream);
        async move { accepted.await.map(drop) }
    })
    .await;
    let origin = format!("https://localhost:{}", address.port());
    let error = failure_of(trusting_localhost(address), &origin).await;
    assert_reads("no certificate", &error, SslError);
}

#[tokio::test]
async fn a_handshake_that_fails() {
    const ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];
    let alert = |description: u8| [&ALERT[..], &[description]].concat();
    for (fault, answer, kind) in [
        // The server rejects this client's handshake, and will reject the next one too.
        ("alert: handshake_failure", alert(40), SslError),
        ("alert: certificate_unknown", alert(46), SslError),
        ("alert: protocol_version", alert(70), SslError),
        ("alert: unknown", alert(199), SslError),
        // The server has an internal problem, or bytes were damaged. The next attempt can succeed.
        ("alert: bad_record_mac", alert(20), ConnectionDropped),
        ("alert: internal_error", alert(80), ConnectionDropped),
        (
            "plain HTTP",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec(),
            ConnectionDropped,
        ),
        (
            "corrupt",
            vec![22, 3, 3, 0, 4, 2, 0, 0, 0],
            ConnectionDropped,
        ),
        (
            "too long",
            vec![22, 3, 3, 0xff, 0xff, 2, 0, 0, 0],
            ConnectionDropped,
        ),
        (
            "out of order",
            vec![23, 3, 3, 0, 4, 2, 0, 0, 0],
            ConnectionDropped,
        ),
        ("closed", vec![], PartialChunks),
    ] {
        let address = server(move |mut stream| {
            let answer = answer.clone();
            async move {
                stream.readable().await?;
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                wait_for_the_end(stream).await
            }
        })
        .await;
        let origin = format!("https://localhost:{}", address.port());
        let error = failure_of(trusting_localhost(address), &origin).await;
        assert_reads(fault, &error, kind);
    }
}

#[tokio::test]
async fn a_secure_connection_that_breaks() {
    // A record that was not encrypted with the connection's key.
    let damaged = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
    for (fault, record, kind) in [
        ("damaged", damaged, ConnectionDropped),
        ("closed without close_notify", vec![], PartialChunks),
    ] {
        let acceptor = acceptor(LOCALHOST, false);
        let address = server(move |stream| {
            let accepted = acceptor.accept(stream);
            let record = record.clone();
            async move {
                let mut stream = accepted.await?;
                let mut request = [0; 4096];
                while !request.ends_with(b"\r\n\r\n") {
                    let length = stream.read(&mut request).await?;
                    request.rotate_left(length);
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc";
                stream.write_all(answer).await?;
                stream.flush().await?;
                let (mut stream, _) = stream.into_inner();
                stream.write_all(&record).await?;
                stream.shutdown().await?;
                wait_for_the_end(stream).await
            }
        })
        .await;
        let origin = format!("https://localhost:{}", address.port());
        let error = failure_of(trusting_localhost(address), &origin).await;
        assert_reads(fault, &error, kind);
    }
}

/// Reads up to the request's HEADERS frame. Preface and SETTINGS come first.
async fn read_http2_request(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        if head[3] == 1 {
            return Ok(());
        }
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("is short");
    let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_and_a_connection_that_goes_away() {
    let rst_stream = |code: u8| frame(3, 0, 1, &[0, 0, 0, code]);
    // No request is answered, not even the first.
    let go_away = |code: u8| frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
    let go_away_saying = |words: &[u8]| frame(7, 0, 0, &[&[0; 8], words].concat());
    // `:status: 200`, and three bytes of the body.
    let begun = [frame(1, 4, 1, &[0x88]), frame(0, 0, 1, b"abc")].concat();
    let in_body = |frame: Vec<u8>| [begun.clone(), frame].concat();

    for (fault, answer, kind) in [
        ("GOAWAY: no error", go_away(0), ConnectionDropped),
        ("GOAWAY: internal error", go_away(2), ConnectionDropped),
        ("GOAWAY: calm down", go_away(11), ConnectionDropped),
        (
            "GOAWAY with words",
            go_away_saying(b"max_age"),
            ConnectionDropped,
        ),
        ("GOAWAY in the body", in_body(go_away(2)), ConnectionDropped),
        ("RST_STREAM: internal error", rst_stream(2), Econnreset),
        ("RST_STREAM: refused", rst_stream(7), Econnreset),
        ("RST_STREAM: cancelled", rst_stream(8), Econnreset),
        ("RST_STREAM in the body", in_body(rst_stream(2)), Econnreset),
        // SETTINGS frames belong to no stream.
        (
            "a frame that is not allowed",
            frame(4, 0, 1, &[]),
            ConnectionDropped,
        ),
        (
            "a frame that is cut off",
            begun[..12].to_vec(),
            PartialChunks,
        ),
        ("closed in the body", begun.clone(), ConnectionDropped),
    ] {
        let closes = fault.starts_with("closed") || fault.ends_with("cut off");
        let address = server(move |mut stream| {
            let answer = answer.clone();
            async move {
                stream.write_all(&frame(4, 0, 0, &[])).await?;
                read_http2_request(&mut stream).await?;
                stream.write_all(&answer).await?;
                if closes {
                    stream.shutdown().await?;
                }
                wait_for_the_end(stream).await
            }
        })
        .await;
        let client = client().http2_prior_knowledge();
        let error = failure_of(client, &format!("http://{address}")).await;
        assert_reads(fault, &error, kind);
    }
}
