//! The exact texts that transports and clients print, and their classification.
//!
//! A row is a whole segment of a text. A segment begins at the start of the text, at the start of a
//! line, or after `": "`, and ends at the end of the line or at a `:`. In a row, `*` stands for
//! characters without a space, `#` for an integer. Suffixes that programs append are ignored:
//! ` (os error 104)` and reqwest's ` for url (...)`.
//!
//! A row is added once its text was observed in practice. The test `seen` lists that text.

use super::{Failure, NetworkErrorKind as Kind};

/// Rows with the same classification.
pub(super) type Rows = (Failure, &'static [&'static str]);

const fn network(kind: Kind) -> Failure {
    Failure::network(kind)
}

/// The rows.
pub(super) const TABLE: &[Rows] = &[
    (
        network(Kind::Econnrefused),
        &[
            "Connection refused",
            "connection refused",
            "connect ECONNREFUSED *",
            "[Errno #] Connection refused",
            "No connection could be made because the target machine actively refused it.",
            "[WinError 10061] No connection could be made because the target machine actively refused it",
        ],
    ),
    (
        network(Kind::Econnreset),
        &[
            "Connection reset by peer",
            "connection reset by peer",
            "connection reset",
            "read ECONNRESET",
            "[Errno #] Connection reset by peer",
            "An existing connection was forcibly closed by the remote host.",
            "[WinError 10054] An existing connection was forcibly closed by the remote host",
            // One stream of an HTTP/2 connection.
            "stream error received",
            "stream error detected",
            "stream error: stream ID #; *; received from peer",
            "[92] Stream error in the HTTP/2 framing layer (HTTP/2 stream # was not closed cleanly",
        ],
    ),
    (
        network(Kind::ConnectionDropped),
        &[
            "Broken pipe",
            "broken pipe",
            "write EPIPE",
            "stream closed because of a broken pipe",
            "Software caused connection abort",
            "An established connection was aborted by the software in your host machine.",
            "connection aborted",
            "Socket is not connected",
            "Transport endpoint is not connected",
            "use of closed network connection",
            "connection closed before message completed",
            "client error (SendRequest)",
            "client error (Canceled)",
            "client error (ChannelClosed)",
            "operation was canceled: connection closed",
            "operation was canceled: connection was not ready",
            // The whole HTTP/2 connection.
            "http2 error",
            "connection error received",
            "connection error detected",
            "protocol error: not a result of an error",
            "protocol error: unspecific protocol error detected",
            "protocol error: unexpected internal error encountered",
            "http2: client connection lost",
            "http2: server sent GOAWAY and closed the connection; LastStreamID=#, ErrCode=*, debug=*",
            "[16] Error in the HTTP2 framing layer",
            "[35] SSL connect error (OpenSSL SSL_connect",
            "[56] Failure when receiving data from the peer (Recv failure",
            "[56] Failure when receiving data from the peer (OpenSSL SSL_read",
            "socket hang up",
            "other side closed",
            "Client network socket disconnected before secure TLS connection was established",
            "Server disconnected without sending a response.",
            "Remote end closed connection without response",
            "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
            "('Connection aborted.', ConnectionResetError(#, 'Connection reset by peer'))",
            "stream disconnected before completion",
            // A TLS message that was damaged in transit, or a connection that a failing server
            // closed: the same certificates and settings can succeed the next time. A load balancer
            // that restarts responds to a handshake in plain HTTP, which is reported as a corrupt
            // message.
            "received corrupt message of type *",
            "received unexpected message",
            "received unexpected handshake message",
            "cannot decrypt peer's message",
            "peer sent excess record size",
            "peer misbehaved",
            "received fatal alert: CloseNotify",
            "received fatal alert: BadRecordMac",
            "received fatal alert: DecryptionFailed",
            "received fatal alert: RecordOverflow",
            "received fatal alert: InternalError",
            "received fatal alert: UserCanceled",
            "error:*:SSL routines:*:wrong version number",
            "error:*:SSL routines:*:decryption failed or bad record mac",
            "error:*:SSL routines:*:tlsv1 alert internal error",
            "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:#)",
            "remote error: tls: internal error",
            "remote error: tls: bad record MAC",
            "The message received was unexpected or badly formatted.",
        ],
    ),
    (
        network(Kind::PartialChunks),
        &[
            "error reading a body from connection",
            "end of file before message length reached",
            "unexpected EOF during chunk size line",
            "connection error: unexpected end of file",
            "peer closed connection without sending TLS close_notify",
            "tls handshake eof",
            "error:*:SSL routines:*:unexpected eof while reading",
            "EOF occurred in violation of protocol (_ssl.c:#)",
            "error decoding response body, request id",
            "io: Peer disconnected",
            "protocol: chunk length cannot be read as a number",
            "body data reading stalled",
            "[18] Transferred a partial file (transfer closed with # bytes remaining to read)",
            "[18] Transferred a partial file (transfer closed with outstanding read data remaining)",
            "peer closed connection without sending complete message body (incomplete chunked read)",
            "peer closed connection without sending complete message body (received # bytes, expected #)",
            "Response payload is not completed",
            "Response ended prematurely",
            "('Connection broken: IncompleteRead(# bytes read)', IncompleteRead(# bytes read))",
            "Post \"*\": EOF",
            "corrupt deflate stream",
            "corrupt gzip stream does not have a matching checksum",
        ],
    ),
    (
        network(Kind::NoBytes),
        &["[52] Server returned nothing (no headers, no data) (Empty reply from server)"],
    ),
    (
        network(Kind::Timeout),
        &[
            "Connection timed out",
            "connection timed out",
            "Operation timed out",
            "operation timed out",
            "deadline has elapsed",
            "A connection attempt failed because the connected party did not properly respond after a period of time, or established connection failed because connected host has failed to respond.",
            "connect ETIMEDOUT *",
            "read ETIMEDOUT",
            "Headers Timeout Error",
            "Body Timeout Error",
            "Connect Timeout Error",
            "The operation was aborted due to timeout",
            "HTTP connect timeout occurred after *",
            "HTTP read timeout occurred after *",
            "request has timed out",
            "request or operation took longer than the configured timeout time",
            "[28] Timeout was reached (Operation timed out after # milliseconds with # bytes received)",
            "[28] Timeout was reached (Operation timed out after # milliseconds with # out of # bytes received)",
            "[28] Timeout was reached (Connection timed out after # milliseconds)",
            "idle timeout waiting for SSE",
            "The handshake operation timed out",
            "The read operation timed out",
            "Read timed out. (read timeout=*)",
            "Request timed out.",
            "i/o timeout",
            "net/http: TLS handshake timeout",
            "net/http: timeout awaiting response headers",
            "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
            "context deadline exceeded",
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
        ],
    ),
    (
        network(Kind::DnsError),
        &[
            "dns error",
            "error resolving DNS",
            "failed to lookup address information",
            "Name or service not known",
            "nodename nor servname provided, or not known",
            "Temporary failure in name resolution",
            "No address associated with hostname",
            "[Errno #] Name or service not known",
            "[Errno #] nodename nor servname provided, or not known",
            "[Errno #] Temporary failure in name resolution",
            "[Errno #] getaddrinfo failed",
            "No such host is known.",
            "getaddrinfo ENOTFOUND *",
            "getaddrinfo EAI_AGAIN *",
            "Couldn't resolve host name",
            "[6] Couldn't resolve host name (Could not resolve host",
            "[6] Could not resolve hostname (Could not resolve host",
        ],
    ),
    (
        network(Kind::FetchError),
        &[
            "error sending request",
            "error trying to connect",
            "client error (Connect)",
            "tcp connect error",
            "tcp open error",
            "tunnel error",
            "SOCKS error",
            "Network is unreachable",
            "network is unreachable",
            "Network is down",
            "No route to host",
            "no route to host",
            "Cannot assign requested address",
            "Can't assign requested address",
            "A socket operation was attempted to an unreachable network.",
            "A socket operation was attempted to an unreachable host.",
            "dispatch failure",
            "failed to connect to the server",
            "[7] Couldn't connect to server (Failed to connect to * port # after # ms",
            "[7] Could not connect to server (Failed to connect to * port # after # ms",
            "[7] Could not connect to server (Failed to connect to * after # ms",
            "JsValue(TypeError: Failed to fetch)",
            "JsValue(TypeError: Failed to fetch",
            "TypeError: Failed to fetch",
            "TypeError: network error",
            "TypeError: NetworkError when attempting to fetch resource.",
            "TypeError: Load failed",
            "Connection error.",
            "All connection attempts failed",
            "Cannot connect to host * ssl",
            "Max retries exceeded with url",
        ],
    ),
    (
        network(Kind::SseAborted),
        &[
            "BodyStreamBuffer was aborted",
            "AbortError: The operation was aborted",
            "AbortError: This operation was aborted",
        ],
    ),
    (
        network(Kind::RuntimeKilled),
        &[
            "Runtime exited with error",
            "* * Task timed out after * seconds",
            "FUNCTION_INVOCATION_TIMEOUT",
            "error code: 1102",
        ],
    ),
    (
        network(Kind::SslError),
        &[
            "invalid peer certificate",
            "invalid certificate revocation list",
            "peer sent no certificates",
            "peer is incompatible",
            "peer doesn't support any known protocol",
            // An alert means that the server rejects this handshake, except for the alerts above.
            "received fatal alert",
            "error:*:SSL routines",
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
            "[60] SSL peer certificate or SSH remote key was not OK (SSL certificate problem",
            "The server certificate could not be validated.",
            "The certificate chain was issued by an authority that is not trusted.",
            "The target principal name is incorrect.",
            "self-signed certificate",
            "self signed certificate in certificate chain",
            "self-signed certificate in certificate chain",
            "unable to verify the first certificate",
            "unable to get local issuer certificate",
            "certificate has expired",
            "Hostname/IP does not match certificate's altnames",
            "tls: failed to verify certificate",
            "x509: certificate signed by unknown authority",
            "x509: certificate has expired or is not yet valid",
            "remote error: tls: handshake failure",
            "remote error: tls: bad certificate",
        ],
    ),
    // A client's errors about the application's own mistakes, after texts in the rows above.
    (
        Failure::fatal(),
        &[
            "invalid URL, scheme is not http",
            "invalid URL, scheme is missing",
            "invalid URL, host is missing",
            "unsupported scheme *",
            "client error (UserUnsupportedRequestMethod)",
            "client error (UserUnsupportedVersion)",
            "client error (UserAbsoluteUriRequired)",
            "proxy authorization required",
            "error from user's Body stream",
        ],
    ),
];

/// Rows that match only at the end of a line. Before a `:` these words have other uses, and the
/// first two are followed by the reason, which can be a faulty answer.
pub(super) const ALONE: &[Rows] = &[
    (
        network(Kind::PartialChunks),
        &[
            "error decoding response body",
            "request or response body error",
            "Premature close",
        ],
    ),
    (
        network(Kind::ConnectionDropped),
        &[
            "connection error",
            "channel closed",
            "operation was canceled",
            "connection closed via error",
            "Server disconnected",
        ],
    ),
    (network(Kind::SseAborted), &["Stream ended"]),
    (
        network(Kind::Timeout),
        &[
            "timeout: global",
            "timeout: per call",
            "timeout: resolve",
            "timeout: connect",
            "timeout: send request",
            "timeout: send body",
            "timeout: receive response",
            "timeout: receive body",
        ],
    ),
    (
        network(Kind::DnsError),
        &["host not found", "no such host", "server misbehaving"],
    ),
    (
        network(Kind::FetchError),
        &["connection failed", "transport error", "fetch failed"],
    ),
];

/// Segments of the output of gRPC clients and of `Debug`. Messages do not contain them.
pub(super) const PIECES: &[Rows] = &[
    (
        Failure::rate_limited(),
        &[
            "status: ResourceExhausted, message",
            "code: 'Some resource has been exhausted', message",
        ],
    ),
    (
        Failure::server(),
        &[
            "status: Unavailable, message",
            "code: 'The service is currently unavailable'",
            "code: 'The service is currently unavailable', message",
        ],
    ),
    (
        network(Kind::Econnrefused),
        &["ConnectionRefused, message", "ConnectionRefused, error"],
    ),
    (
        network(Kind::Econnreset),
        &["ConnectionReset, message", "ConnectionReset, error"],
    ),
    (
        network(Kind::ConnectionDropped),
        &[
            "BrokenPipe, message",
            "BrokenPipe, error",
            "ConnectionAborted, message",
            "hyper::Error(Http2, Error { kind",
            "hyper::Error(IncompleteMessage) }",
            "hyper_util::client::legacy::Error(SendRequest, hyper::Error(IncompleteMessage)) }",
            "hyper_util::client::legacy::Error(SendRequest, hyper::Error(Http2, Error { kind",
        ],
    ),
    (
        network(Kind::PartialChunks),
        &["UnexpectedEof, error", "hyper::Error(Body, Error { kind"],
    ),
    (
        network(Kind::Timeout),
        &[
            "TimedOut }",
            "reqwest::Error { kind: Body, source: TimedOut } }",
            "hyper_util::client::legacy::Error(Connect, TimedOut) *",
            "TimedOut, message",
            "TimedOut, error",
            "status: DeadlineExceeded, message",
            "code: 'Deadline expired before operation could complete', message",
        ],
    ),
    (
        network(Kind::DnsError),
        &[
            "hyper::Error(Connect, ConnectError(\"dns error\", Custom { kind",
            "hyper_util::client::legacy::Error(Connect, ConnectError(\"dns error\", Custom { kind",
            "no record found for Query { name",
            "no records found for Query { name",
        ],
    ),
];

/// The codes of ` (os error #)` that only one system uses, with their classification and message.
/// Windows prints its texts in the user's language.
pub(super) const OS_ERRORS: &[(i32, Kind, &str)] = &[
    (10_050, Kind::FetchError, "os error 10050"),
    (10_051, Kind::FetchError, "os error 10051"),
    (10_053, Kind::ConnectionDropped, "os error 10053"),
    (10_054, Kind::Econnreset, "os error 10054"),
    (10_060, Kind::Timeout, "os error 10060"),
    (10_061, Kind::Econnrefused, "os error 10061"),
    (10_065, Kind::FetchError, "os error 10065"),
    (11_001, Kind::DnsError, "os error 11001"),
    (11_002, Kind::DnsError, "os error 11002"),
    (11_004, Kind::DnsError, "os error 11004"),
    // From its TLS: a damaged message, and certificates.
    (
        -2_146_893_018,
        Kind::ConnectionDropped,
        "os error -2146893018",
    ),
    (-2_146_893_019, Kind::SslError, "os error -2146893019"),
    (-2_146_893_022, Kind::SslError, "os error -2146893022"),
    (-2_146_893_016, Kind::SslError, "os error -2146893016"),
    (-2_146_762_487, Kind::SslError, "os error -2146762487"),
    (-2_146_762_481, Kind::SslError, "os error -2146762481"),
    (-2_146_762_495, Kind::SslError, "os error -2146762495"),
];
