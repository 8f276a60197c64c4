//! Why the proxy answered a request itself: one enum, each reason with the party to blame, its status, its RFC 9209
//! error type and the words for log and body.
//!
//! Owns the mapping from reason to wire; never formats an answer (that is `proxy::reply`) and never logs.

use std::fmt;

/// Who has to act for the fault to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// What the client sent, or failed to send in time.
    Client,
    /// What a backend did, or failed to do in time.
    Backend,
    /// The configuration or the capacity that the operator gave us.
    Operator,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $blame:ident, $type:literal, $detail:literal;)*) => {
        /// One counted, logged reason for an answer of our own, or for ending an exchange without one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The stable name used in logs, metrics and the management API.
            pub const fn code(self) -> &'static str { match self { $(Reason::$name => $code),* } }

            /// The status of the answer; 499 and 0-body reasons never reach the wire.
            pub const fn status(self) -> u16 { match self { $(Reason::$name => $status),* } }

            /// Who has to act.
            pub const fn blame(self) -> Blame { match self { $(Reason::$name => Blame::$blame),* } }

            /// The error type of the `Proxy-Status` field (RFC 9209, section 2.3).
            pub const fn proxy_status_type(self) -> &'static str { match self { $(Reason::$name => $type),* } }

            /// What happened, in words for the body and the `details` parameter.
            pub const fn detail(self) -> &'static str { match self { $(Reason::$name => $detail),* } }
        }
    };
}

reasons! {
    /// The request head or body framing is malformed or ambiguous.
    BadRequest = "bad_request", 400, Client, "http_request_error", "malformed or ambiguous request";
    /// `allow`/`deny` of the route.
    Denied = "denied", 403, Client, "http_request_denied", "refused by the route's address list";
    /// No route matches host and path.
    NoRoute = "no_route", 404, Client, "destination_not_found", "no route matches this host and path";
    /// Over HTTP/2: a host that the certificate of the connection is not for.
    Misdirected = "misdirected", 421, Client, "http_request_error", "this connection is not for that host";
    /// `CONNECT`, `TRACE` with a body and other methods that are not served.
    MethodNotServed = "method_not_served", 405, Client, "http_request_error", "this method is not served";
    /// The request head did not arrive in `server.read_timeout`.
    HeadTimeout = "head_timeout", 408, Client, "http_request_error", "the request head took too long";
    /// The request body stalled for `server.read_timeout`.
    BodyTimeout = "body_timeout", 408, Client, "http_request_error", "the request body stalled";
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge = "body_too_large", 413, Client, "http_request_error", "the request body is too large";
    /// The target is longer than [`crate::limits::TARGET_BYTES_MAX`] or than what the head may hold.
    TargetTooLong = "target_too_long", 414, Client, "http_request_error", "the request target is too long";
    /// The head is larger than `max_header_bytes` or has more than `max_headers` fields.
    HeadTooLarge = "head_too_large", 431, Client, "http_request_error", "the request head is too large";
    /// The client went away before its answer was complete; never sent.
    ClientClosed = "client_closed", 499, Client, "connection_terminated", "the client closed the connection";
    /// The client took no byte for `server.write_timeout`; never sent.
    ClientStalled = "client_stalled", 499, Client, "connection_write_timeout", "the client stopped reading";
    /// HTTP/2.0 in an HTTP/1 request line, and other versions; a line without any is a [`Reason::BadRequest`].
    VersionNotServed = "version_not_served", 505, Client, "http_request_error", "this HTTP version is not served";
    /// The backend refused the connection, or the network said it cannot be reached.
    ConnectFailed = "connect_failed", 502, Backend, "connection_refused", "the backend refused the connection";
    /// The backend reset or closed the connection before a whole response head.
    BackendClosed = "backend_closed", 502, Backend, "connection_terminated", "the backend closed the connection early";
    /// The backend said that it has not begun with the request: `REFUSED_STREAM`, or a GOAWAY that leaves it out (RFC 9113,
    /// section 8.7).
    BackendRefused = "backend_refused", 502, Backend, "http_request_error", "the backend refused the request unseen";
    /// What the backend sent is not HTTP, or breaks its framing.
    BackendProtocol = "backend_protocol", 502, Backend, "http_protocol_error", "the backend's answer is not valid HTTP";
    /// A 101 that nobody asked for, or that does not prove that the WebSocket was understood.
    BackendUpgrade = "backend_upgrade", 502, Backend, "http_upgrade_failed", "the backend switched protocols unasked";
    /// A WebSocket for a backend that speaks HTTP/2 without extended CONNECT (RFC 8441, section 3).
    UpgradeUnsupported = "upgrade_unsupported", 502, Operator, "http_upgrade_failed",
        "the backend takes no WebSocket over HTTP/2";
    /// The backend's name has no address.
    BackendUnresolved = "backend_unresolved", 502, Backend, "dns_error", "the backend's name has no address";
    /// The answer broke off after its head was sent; ends the client's connection.
    BackendTruncated = "backend_truncated", 502, Backend, "http_response_incomplete", "the backend's answer broke off";
    /// The TLS handshake with the backend failed for another reason than its certificate.
    BackendTls = "backend_tls", 502, Backend, "tls_protocol_error", "the TLS handshake with the backend failed";
    /// The backend's certificate was not accepted.
    BackendCertificate = "backend_certificate", 502, Backend, "tls_certificate_error",
        "the backend's certificate is not valid for it; see upstreams.NAME.tls";
    /// Connecting, with TLS its handshake too, took longer than `connect_timeout`.
    ConnectTimeout = "connect_timeout", 504, Backend, "connection_timeout", "connecting to the backend took too long";
    /// The response head took longer than `response_timeout`.
    ResponseTimeout = "response_timeout", 504, Backend, "http_response_timeout", "the backend took too long to answer";
    /// The time is up that the client gave the whole exchange (`grpc-timeout`).
    DeadlineExceeded = "deadline_exceeded", 504, Client, "http_response_timeout", "the client's deadline has passed";
    /// No byte of a running answer, or no byte taken of a running upload, for too long.
    BackendStalled = "backend_stalled", 504, Backend, "connection_read_timeout", "the backend stalled";
    /// No backend of the upstream is active and healthy.
    NoBackend = "no_backend", 503, Operator, "destination_unavailable", "no backend is active and healthy";
    /// All backends are at `max_conn` and there is no queue.
    BackendsFull = "backends_full", 503, Operator, "connection_limit_reached", "All backends at connection limit";
    /// The upstream's queue is full.
    QueueFull = "queue_full", 503, Operator, "connection_limit_reached", "the queue for a backend is full";
    /// The request waited longer than `queue.timeout`.
    QueueTimeout = "queue_timeout", 503, Operator, "connection_limit_reached", "waited too long for a backend";
    /// No descriptor was left to reach a backend.
    NoDescriptor = "no_descriptor", 503, Operator, "proxy_internal_error", "out of file descriptors";
    /// No local port was left to reach a backend.
    NoLocalPort = "no_local_port", 503, Operator, "proxy_internal_error",
        "no local port is left to reach the backend; add upstreams.NAME.local_addresses";
    /// An operator took the backend out with `force`.
    BackendCut = "backend_cut", 503, Operator, "destination_unavailable", "the backend was taken out of service";
    /// `tunnel_timeout` without a byte either way; never sent.
    TunnelIdle = "tunnel_idle", 499, Client, "connection_read_timeout", "the tunnel was idle for too long";
    /// `shutdown_timeout` passed, or a second signal came; never sent.
    Shutdown = "shutdown", 499, Operator, "proxy_internal_response", "the proxy is stopping";
}

impl Reason {
    /// How many reasons there are; the length of a counter array.
    pub const COUNT: usize = Reason::ALL.len();

    /// The key of the deadline that passed, where one did.
    pub const fn timer(self) -> Option<&'static str> {
        match self {
            Reason::HeadTimeout | Reason::BodyTimeout => Some("server.read_timeout"),
            Reason::ClientStalled => Some("server.write_timeout"),
            Reason::ConnectTimeout => Some("upstreams.NAME.connect_timeout"),
            Reason::ResponseTimeout => Some("upstreams.NAME.response_timeout"),
            Reason::BackendStalled => Some("upstreams.NAME.read_timeout"),
            Reason::QueueTimeout => Some("upstreams.NAME.queue.timeout"),
            Reason::TunnelIdle => Some("server.tunnel_timeout"),
            Reason::Shutdown => Some("server.shutdown_timeout"),
            _ => None,
        }
    }

    /// Whether an answer with this reason can be sent at all.
    pub const fn is_answered(self) -> bool {
        self.status() != 499
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A reason with what exactly was wrong, e.g. which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The counted reason.
    pub reason: Reason,
    /// A fixed text that says more than [`Reason::detail`]; never holds bytes from the wire.
    pub detail: &'static str,
}

impl Fault {
    /// A fault with a text of its own.
    pub const fn new(reason: Reason, detail: &'static str) -> Self {
        Fault { reason, detail }
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Fault { reason, detail: reason.detail() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::COUNT);
    }

    #[test]
    fn the_discriminant_is_the_index_of_the_counter() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
