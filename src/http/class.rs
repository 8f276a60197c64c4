//! What kind of traffic a request is, for `protocols` and the balancing rules.
//!
//! Owns the enum of protocols and how a request is classed. Never looks at routes.

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
