//! What can be measured: how clients speak, how the backend is spoken to, and with which sizes unless others are given.
//!
//! Owns the list. Never runs anything.

use super::IdleKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What clients speak to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// HTTP/1.1 in the clear.
    Plain,
    /// TLS, with HTTP/2 or HTTP/1.1 by ALPN.
    Tls,
    /// HTTP/2 in the clear, with prior knowledge.
    ClearHttp2,
}

/// What a program speaks to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear, with prior knowledge.
    ClearHttp2,
}

/// What is measured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// HTTP/1.1 in the clear, connections kept.
    #[default]
    Http,
    /// HTTP/1.1 in the clear, a new connection for each request.
    Connections,
    /// Frames of WebSockets that come back; one counts as a request.
    Frames,
    /// HTTP/1.1 over TLS, connections kept.
    Https,
    /// HTTP/1.1 over TLS, a new connection with a full handshake for each request.
    Handshakes,
    /// The same, the session resumed by ticket.
    Resumptions,
    /// HTTP/2 over TLS, many streams a connection.
    Http2,
    /// Unary gRPC calls over HTTP/2 in the clear on both sides.
    Grpc,
}

impl Measure {
    /// What `--tls` stands for.
    pub const TLS: [Measure; 5] =
        [Measure::Https, Measure::Handshakes, Measure::Resumptions, Measure::Http2, Measure::Grpc];

    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Http => "HTTP",
            Measure::Connections => "HTTP, new connection each",
            Measure::Frames => "WebSocket, a frame and its echo",
            Measure::Https => "HTTPS, kept",
            Measure::Handshakes => "HTTPS, new connection each",
            Measure::Resumptions => "HTTPS, resumed connection each",
            Measure::Http2 => "HTTP/2 over TLS",
            Measure::Grpc => "gRPC, h2c",
        }
    }

    /// What clients speak.
    pub fn front(self) -> Front {
        match self {
            Measure::Http | Measure::Connections | Measure::Frames => Front::Plain,
            Measure::Https | Measure::Handshakes | Measure::Resumptions | Measure::Http2 => Front::Tls,
            Measure::Grpc => Front::ClearHttp2,
        }
    }

    /// What the backend speaks.
    pub fn backend(self) -> Backend {
        if self == Measure::Grpc { Backend::ClearHttp2 } else { Backend::Http1 }
    }

    /// Connections at once, unless others are given.
    pub fn connections(self) -> &'static [u64] {
        if self == Measure::Http { &[64, 1000, 5000] } else { &[64] }
    }

    /// Sizes of bodies, unless others are given.
    pub fn bodies(self) -> &'static [usize] {
        match self {
            Measure::Http | Measure::Https | Measure::Http2 => &[100, 64 << 10],
            Measure::Connections | Measure::Frames | Measure::Handshakes | Measure::Resumptions | Measure::Grpc => {
                &[100]
            }
        }
    }

    /// Kinds of idle connections that belong to it.
    pub fn idle_kinds(self) -> &'static [IdleKind] {
        match self {
            Measure::Http => &[IdleKind::BusyAtOnce, IdleKind::OneByOne, IdleKind::WebSocket],
            Measure::Https => &[IdleKind::Https],
            Measure::Http2 => &[IdleKind::Http2],
            Measure::Connections | Measure::Frames | Measure::Handshakes | Measure::Resumptions | Measure::Grpc => &[],
        }
    }

    /// The target's URL at a port.
    pub fn url(self, port: u16) -> String {
        let scheme = if self.front() == Front::Tls { "https" } else { "http" };
        // By its name: then it is sent as SNI.
        format!("{scheme}://localhost:{port}")
    }

    /// What the load generator is told beside the target. Certificates are not verified: its CPU is not what is
    /// measured, and must not be what holds the others back.
    pub fn arguments(self, streams: usize) -> Vec<String> {
        let streams = format!("--streams={streams}");
        let list: &[&str] = match self {
            Measure::Http => &[],
            Measure::Connections => &["--new-connections"],
            Measure::Frames => &["--websocket"],
            Measure::Https => &["--insecure"],
            Measure::Handshakes => &["--insecure", "--new-connections"],
            Measure::Resumptions => &["--insecure", "--new-connections", "--resume"],
            Measure::Http2 => &["--insecure", "--http2", &streams],
            Measure::Grpc => &["--http2", "--grpc", &streams],
        };
        list.iter().map(|&argument| argument.to_owned()).collect()
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
