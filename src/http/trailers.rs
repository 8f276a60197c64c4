//! Which fields of a trailer section go on (RFC 9110, section 6.5).
//!
//! Owns the rules, for content of any kind and for gRPC's, whose calls end with fields of the application's choice. Never
//! scans bytes, and never says how large a section may be.

use crate::http::head::{Field, FieldKind, same_name};

/// Whose trailer fields these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passing {
    /// Of content that may be anything: what RFC 9110, section 6.5.1 forbids stays here, and so does every name that the
    /// proxy knows.
    #[default]
    Http,
    /// Of a gRPC call: whoever reads them takes them for metadata behind the call and for nothing else. Only what is about
    /// messages and connections stays here, and what says who the client is.
    Grpc,
    /// Written by ourselves: they passed a rule before, and a bound on their size.
    Ours,
}

impl Passing {
    /// The rule for a body of that content type.
    pub const fn of(is_grpc: bool) -> Passing {
        if is_grpc { Passing::Grpc } else { Passing::Http }
    }

    /// Whether the field goes on.
    pub fn takes(self, field: &Field<'_>) -> bool {
        match self {
            Passing::Http => field.kind == FieldKind::Other && !is_forbidden(field.name),
            Passing::Grpc => match field.kind {
                FieldKind::LookAlike => {
                    let kind = FieldKind::of(&dashed(field.name));
                    !is_of_message(kind) && kind != FieldKind::XRequestId
                }
                kind => !is_of_message(kind),
            },
            Passing::Ours => true,
        }
    }
}

/// Whether the field frames or routes a message, is about a connection, or tells what the proxy itself has to say of the
/// client or the backend.
fn is_of_message(kind: FieldKind) -> bool {
    match kind {
        FieldKind::ClientCert
        | FieldKind::Connection
        | FieldKind::ContentLength
        | FieldKind::Forwarded
        | FieldKind::Host
        | FieldKind::Http2Settings
        | FieldKind::KeepAlive
        | FieldKind::ProxyAuthenticate
        | FieldKind::ProxyAuthenticationInfo
        | FieldKind::ProxyAuthorization
        | FieldKind::ProxyConnection
        | FieldKind::Te
        | FieldKind::Trailer
        | FieldKind::TransferEncoding
        | FieldKind::Upgrade
        | FieldKind::Via
        | FieldKind::XBackendLoad
        | FieldKind::XForwardedFor
        | FieldKind::XForwardedHost
        | FieldKind::XForwardedOther
        | FieldKind::XForwardedProto
        | FieldKind::XRealIp => true,
        FieldKind::Accept
        | FieldKind::ContentType
        | FieldKind::Cookie
        | FieldKind::Date
        | FieldKind::Expect
        | FieldKind::LookAlike
        | FieldKind::MaxForwards
        | FieldKind::Other
        | FieldKind::XRequestId => false,
    }
}

/// The name that somebody sees who reads `_` as `-`.
fn dashed(name: &[u8]) -> Vec<u8> {
    name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect()
}

/// Whether a field that the proxy doesn't know may be none of a trailer section: routing, request modifiers,
/// authentication, content format, control of caches and answers (RFC 9110, section 6.5.1). With underscores too.
fn is_forbidden(name: &[u8]) -> bool {
    const NAMES: [&str; 19] = [
        "age",
        "allow",
        "authorization",
        "cache-control",
        "expires",
        "from",
        "location",
        "origin",
        "pragma",
        "range",
        "referer",
        "retry-after",
        "server",
        "set-cookie",
        "sec-websocket-key",
        "user-agent",
        "vary",
        "warning",
        "www-authenticate",
    ];
    const PREFIXES: [&str; 6] = ["accept-", "access-control-", "content-", "if-", "proxy-", "sec-"];
    let begins_with = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| same_name(start, prefix.as_bytes()));
    NAMES.iter().any(|forbidden| same_name(name, forbidden.as_bytes())) || PREFIXES.iter().any(begins_with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(passing: Passing, name: &str) -> bool {
        let (name, value) = (name.as_bytes(), &b"1"[..]);
        passing.takes(&Field { name, value, kind: FieldKind::of(name) })
    }

    #[test]
    fn what_is_of_messages_and_connections_never_goes_on() {
        for name in [
            "Content-Length",
            "Content_Length",
            "Transfer-Encoding",
            "Host",
            "Connection",
            "Keep_Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Via",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "x-forwarded_any",
            "X_Real_IP",
            "X-Request_ID",
            "Client_Cert",
        ] {
            assert!(!takes(Passing::Http, name) && !takes(Passing::Grpc, name), "{name}");
        }
    }

    #[test]
    fn a_call_ends_with_what_its_application_says() {
        for name in [
            "grpc-status",
            "x-request-id",
            "date",
            "cookie",
            "content-encoding",
            "content-type",
            "content_type",
            "accept-language",
            "accept",
            "authorization",
            "retry-after",
            "user_id",
            "retry_delay_ms",
            "max_forwards",
        ] {
            assert!(takes(Passing::Grpc, name), "{name}");
        }
    }

    #[test]
    fn other_content_ends_with_nothing_that_its_head_has_to_say() {
        for name in [
            "Authorization",
            "Content-Type",
            "Content-Encoding",
            "Content_Encoding",
            "Set_Cookie",
            "Cookie",
            "Date",
            "If-Match",
            "Accept-Language",
            "Sec-Fetch-Mode",
        ] {
            assert!(!takes(Passing::Http, name), "{name}");
        }
        for name in ["grpc-status", "x_sum", "X-Sum", "Server-Timing", "Acceptance", "Digest"] {
            assert!(takes(Passing::Http, name), "{name}");
        }
    }
}
