//! What kind of traffic a request is, for `protocols` and the balancing rules.
//!
//! Owns the enum of protocols and how a request is classed. Never looks at routes.

use crate::http::head::RequestHead;

/// The kinds of traffic that `routing.NAME.protocols` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Http = 0,
    /// Plain requests over TLS.
    Https = 1,
    /// `Connection: upgrade` with `Upgrade: websocket`.
    Websocket = 2,
    /// `Accept` has `text/event-stream`.
    Sse = 3,
    /// `Content-Type: application/grpc…`.
    Grpc = 4,
}

impl Protocol {
    /// How many there are; the length of an array indexed by protocol.
    pub const COUNT: usize = 5;
    /// All of them, by index.
    pub const ALL: [Protocol; Protocol::COUNT] =
        [Protocol::Http, Protocol::Https, Protocol::Websocket, Protocol::Sse, Protocol::Grpc];

    /// The name used in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::Websocket => "websocket",
            Protocol::Sse => "sse",
            Protocol::Grpc => "grpc",
        }
    }
}

/// The kind of traffic that a request is; `over_tls` when the client's connection is.
///
/// WebSocket, then gRPC, then event streams; what is none of them goes by the connection.
pub fn classify(head: &RequestHead<'_>, over_tls: bool) -> Protocol {
    if head.is_websocket() {
        Protocol::Websocket
    } else if head.is_grpc() {
        Protocol::Grpc
    } else if head.accepts_event_stream() {
        Protocol::Sse
    } else if over_tls {
        Protocol::Https
    } else {
        Protocol::Http
    }
}
