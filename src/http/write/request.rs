//! A request's head, as the backend gets it.
//!
//! Owns what tells the backend of the client. Never decides whom to believe: that comes in with [`Forward`].

use std::net::IpAddr;

use super::copy::{Named, copy_fields};
use super::kinds::{HOP_BY_HOP, Kinds};
use super::{Edits, GROWTH_BYTES, write_address, write_line, write_number, write_via};
use crate::http::framing::BodyFraming;
use crate::http::head::{FieldKind, RequestHead, TargetForm, Version};

/// What [`write_request`] has to know beside the head.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The path to ask the backend for, without query; `*` stays `*`. Empty means `/`.
    pub path: &'a [u8],
    /// What `Host` says when the request has none (HTTP/1.0): the backend's `host:port`.
    pub backend_host: &'a str,
    /// How the body will be sent.
    pub framing: BodyFraming,
    /// The connection's peer: the last hop of `X-Forwarded-For`.
    pub peer: IpAddr,
    /// The client as [`crate::http::peer::client_address`] found it: the value of `real_ip_header`.
    pub client: IpAddr,
    /// Whether the forwarding fields that came with the request are kept.
    pub peer_is_trusted: bool,
    /// Whether the client's connection is TLS.
    pub over_tls: bool,
    /// The certificate of the client's own TLS session, as the value of `Client-Cert` (RFC 9440, section 2.2).
    pub client_certificate: Option<&'a [u8]>,
    /// Whether the request came by HTTP/2.
    pub over_http2: bool,
    /// The header that tells backends the client's address; a token. Left out when it means something else already.
    pub real_ip_header: &'a str,
    /// The header that only trusted peers may send.
    pub client_ip_header: Option<&'a str>,
    /// Visible ASCII: [`RequestHead::request_id`] of a trusted peer, else a made one.
    pub request_id: &'a [u8],
    /// Ask the backend to close after its answer.
    pub close: bool,
    pub edits: Edits<'a>,
}

/// Appends the head of the request as the backend gets it.
///
/// The target is in origin-form or `*`; `Host` is the client's, the authority of an absolute-form target, or what the
/// edits set; where there is none (HTTP/1.0) it is `backend_host`. The version is 1.1. `TE: trailers` is passed on
/// (RFC 9110, section 10.1.4), `Expect` too, but not from HTTP/1.0 clients.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.reserve(head.fields.head.len() + GROWTH_BYTES);
    write_request_line(out, head, forward);
    let keeps_host = write_host(out, head, forward);
    let real_ip_kind = FieldKind::of(forward.real_ip_header.as_bytes());
    let owned = [
        Some(forward.real_ip_header).filter(|_| real_ip_kind != FieldKind::XRealIp),
        forward.client_ip_header.filter(|_| !forward.peer_is_trusted),
    ];
    let named = Named::by(owned, head.connection, &forward.edits, SPARED);
    copy_fields(out, head.fields, ends(head, forward, keeps_host, real_ip_kind), named);
    if let Some(left) = head.max_forwards
        && !forward.edits.replaces(b"max-forwards")
    {
        write_number(out, b"Max-Forwards", left.saturating_sub(1));
    }
    write_forwarding_fields(out, head, forward, real_ip_kind);
    match forward.framing {
        BodyFraming::None => {}
        BodyFraming::Length(_) if forward.framing == head.framing => {}
        BodyFraming::Length(len) => write_number(out, b"Content-Length", len),
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    write_connection(out, head, forward);
    forward.edits.write(out);
    out.extend_from_slice(b"\r\n");
}

fn write_request_line(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.extend_from_slice(head.method_name);
    out.push(b' ');
    out.extend_from_slice(if forward.path.is_empty() { b"/" } else { forward.path });
    out.extend_from_slice(head.query);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes `Host` first when it isn't the client's own line; whether that line is kept instead.
fn write_host(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) -> bool {
    let host = match (forward.edits.host(), head.authority) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(_)) if head.form != TargetForm::Absolute => return true,
        (None, Some(authority)) => authority.as_bytes(),
        (None, None) => forward.backend_host.as_bytes(),
    };
    write_line(out, b"Host", host);
    false
}

/// Fields of requests that the proxy always makes anew, or leaves out. What stands in `Client-Cert` was proven to this
/// proxy (RFC 9440, section 2.4), whoever the peer is.
const MADE_ANEW: Kinds = Kinds::of(&[FieldKind::ClientCert, FieldKind::XForwardedFor, FieldKind::XRequestId]);

/// Fields that only trusted peers may send.
const OF_TRUSTED_PEERS: Kinds = Kinds::of(&[
    FieldKind::Forwarded,
    FieldKind::XForwardedHost,
    FieldKind::XForwardedOther,
    FieldKind::XForwardedProto,
    FieldKind::XRealIp,
]);

/// What a request can't lose by being named somewhere.
const SPARED: Kinds = Kinds::of(&[FieldKind::Host, FieldKind::ContentLength, FieldKind::Trailer]);

/// Which kinds of fields don't go on to the backend as they came.
#[inline]
fn ends(head: &RequestHead<'_>, forward: &Forward<'_>, keeps_host: bool, real_ip_kind: FieldKind) -> Kinds {
    HOP_BY_HOP
        .and(MADE_ANEW)
        .and(if forward.peer_is_trusted { Kinds::NONE } else { OF_TRUSTED_PEERS })
        .with_if(real_ip_kind == FieldKind::XRealIp, FieldKind::XRealIp)
        .with_if(!keeps_host, FieldKind::Host)
        .with_if(forward.framing != head.framing, FieldKind::ContentLength)
        .with_if(forward.framing != BodyFraming::Chunked, FieldKind::Trailer)
        .with_if(head.max_forwards.is_some(), FieldKind::MaxForwards)
        .with_if(head.version == Version::Http10, FieldKind::Expect)
}

/// Writes what tells the backend where the request comes from.
fn write_forwarding_fields(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>, real_ip_kind: FieldKind) {
    let edits = &forward.edits;
    let writes = |name: &str| edits.is_empty() || !edits.replaces(name.as_bytes());
    let keeps = |kind| forward.peer_is_trusted && head.fields.of_kind(kind).next().is_some();
    if writes("X-Forwarded-For") {
        write_forwarded_for(out, head, forward);
    }
    if writes("X-Forwarded-Proto") && !keeps(FieldKind::XForwardedProto) {
        out.extend_from_slice(match forward.over_tls {
            true => b"X-Forwarded-Proto: https\r\n" as &[u8],
            false => b"X-Forwarded-Proto: http\r\n",
        });
    }
    if writes("X-Forwarded-Host")
        && !keeps(FieldKind::XForwardedHost)
        && let Some(authority) = head.authority
    {
        write_line(out, b"X-Forwarded-Host", authority.as_bytes());
    }
    if may_tell_the_address(real_ip_kind) && writes(forward.real_ip_header) {
        out.extend_from_slice(forward.real_ip_header.as_bytes());
        out.extend_from_slice(b": ");
        write_address(out, forward.client);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(certificate) = forward.client_certificate.filter(|_| writes("Client-Cert")) {
        write_line(out, b"Client-Cert", certificate);
    }
    if writes("X-Request-ID") {
        write_line(out, b"X-Request-ID", forward.request_id);
    }
    if writes("Via") {
        match forward.over_http2 {
            true => out.extend_from_slice(b"Via: 2.0 speedmimi\r\n"),
            false => write_via(out, head.version),
        }
    }
}

/// Whether a field of that kind can carry the client's address; `X-Forwarded-For` does so already.
fn may_tell_the_address(kind: FieldKind) -> bool {
    matches!(kind, FieldKind::Other | FieldKind::XRealIp | FieldKind::XForwardedOther)
}

fn write_forwarded_for(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if forward.peer_is_trusted {
        for value in head.fields.of_kind(FieldKind::XForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    write_address(out, forward.peer);
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields of the connection to the backend.
fn write_connection(out: &mut Vec<u8>, head: &RequestHead<'_>, forward: &Forward<'_>) {
    if let Some(protocol) = head.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        write_line(out, b"Upgrade", protocol);
        return;
    }
    match (head.wants_trailers, forward.close) {
        (false, false) => {}
        (false, true) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, false) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (true, true) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE, close\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{any_line, lines};
    use super::*;
    use crate::http::head::FieldTable;
    use crate::http::parse::{HeadEnd, HeadLimits, parse_request};
    use proptest::prelude::*;

    const FORWARD: Forward<'static> = Forward {
        path: b"/p",
        backend_host: "backend:81",
        framing: BodyFraming::None,
        peer: IpAddr::V4(std::net::Ipv4Addr::new(9, 8, 7, 6)),
        client: IpAddr::V4(std::net::Ipv4Addr::new(1, 2, 3, 4)),
        peer_is_trusted: false,
        over_tls: false,
        client_certificate: None,
        over_http2: false,
        real_ip_header: "X-Real-IP",
        client_ip_header: None,
        request_id: b"id-1",
        close: false,
        edits: Edits { set: &[], add: &[], remove: &[] },
    };
    const TRUSTED: Forward<'static> = Forward { peer_is_trusted: true, ..FORWARD };

    /// The lines that a request with these lines is forwarded as, framing as it came.
    fn forwarded(text: &str, forward: &Forward<'_>) -> Vec<String> {
        let mut table = FieldTable::default();
        let end = &mut HeadEnd::default();
        let (head, _) = parse_request(text.as_bytes(), end, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
        let mut out = b"before ".to_vec();
        write_request(&mut out, &head, &Forward { framing: head.framing(), ..*forward });
        lines(&out, "before ")
    }

    fn get(lines: &str, forward: &Forward<'_>) -> Vec<String> {
        forwarded(&format!("GET /x?q HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), forward)
    }

    /// What the proxy adds for an untrusted peer.
    const ADDED: [&str; 6] = [
        "X-Forwarded-For: 9.8.7.6",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a",
        "X-Real-IP: 1.2.3.4",
        "X-Request-ID: id-1",
        "Via: 1.1 speedmimi",
    ];

    /// Start line, host, `between`, what is added, `after`.
    fn expected(between: &[&str], after: &[&str]) -> Vec<String> {
        [&["GET /p?q HTTP/1.1", "Host: a"], between, &ADDED, after].concat().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_request_goes_on_as_it_came() {
        let lines = "Accept: */*\r\nA:b\r\nB: c \r\nCookie: d=e\r\nCookie: f=g\r\nX-Empty:\r\nVia: 1.0 x\r\nExpect: 100-continue\r\n";
        let between = [
            "Accept: */*",
            "A: b",
            "B: c",
            "Cookie: d=e",
            "Cookie: f=g",
            "X-Empty: ",
            "Via: 1.0 x",
            "Expect: 100-continue",
        ];
        assert_eq!(get(lines, &FORWARD), expected(&between, &[]));
    }

    #[test]
    fn fields_of_the_connection_end_here() {
        let lines = "Connection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTrailer: A\r\n\
                     Upgrade: websocket\r\nHTTP2-Settings: A\r\nProxy-Authorization: A\r\nx-secret: 1\r\nX-Other: 2\r\nTE: gzip\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&["X-Other: 2"], &[]));
    }

    #[test]
    fn naming_vital_fields_in_connection_removes_nothing() {
        let lines = "Connection: close, Host, Via, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Real-IP, X-Request-ID\r\n\
                     Content-Length: 3\r\nVia: 1.1 x\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&["Content-Length: 3", "Via: 1.1 x"], &[]));
    }

    #[test]
    fn an_untrusted_peer_cannot_forge_where_it_comes_from() {
        let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
                     Forwarded: for=6\r\nX-Real-IP: 6\r\nX-Request-ID: 6\r\nX_Forwarded_For: 6\r\nX_Real-IP: 6\r\nx_request_id: 6\r\n";
        assert_eq!(get(lines, &FORWARD), expected(&[], &[]));
        let named = Forward { client_ip_header: Some("CF-IP"), ..FORWARD };
        assert_eq!(get("CF-IP: 6\r\ncf_ip: 6\r\nCF-IP2: 7\r\n", &named), expected(&["CF-IP2: 7"], &[]));
    }

    #[test]
    fn a_trusted_peer_is_believed() {
        let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 5.5.5.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
                     X-Forwarded-Port: 1\r\nForwarded: for=6\r\nX-Real-IP: 6\r\nX_Forwarded_For: 6\r\n";
        let got = get(lines, &TRUSTED);
        let wanted = [
            "GET /p?q HTTP/1.1",
            "Host: a",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: h",
            "X-Forwarded-Port: 1",
            "Forwarded: for=6",
            "X-Forwarded-For: 6.6.6.6, 5.5.5.5, 9.8.7.6",
            "X-Real-IP: 1.2.3.4",
            "X-Request-ID: id-1",
            "Via: 1.1 speedmimi",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn forwards_are_counted_down_and_certificates_are_not_forged() {
        let got = forwarded("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 010\r\n\r\n", &FORWARD);
        assert_eq!(got[2], "Max-Forwards: 9");
        assert_eq!(get("Max-Forwards: 0\r\n", &FORWARD), expected(&["Max-Forwards: 0"], &[]));
        for base in [FORWARD, TRUSTED] {
            let certificates =
                "Client-Cert: :AA==:\r\nclient_cert: x\r\nCLIENT-CERT: :AA==:\r\nClient-Cert-Chain: x\r\n";
            assert_eq!(get(certificates, &base), expected(&[], &[]), "nobody is believed");
            let got = get(certificates, &Forward { client_certificate: Some(b":AQ==:"), ..base });
            let told: Vec<_> = got.iter().filter(|line| line.to_ascii_lowercase().starts_with("client")).collect();
            assert_eq!(told, ["Client-Cert: :AQ==:"]);
        }
    }

    #[test]
    fn the_real_ip_header_can_have_another_name() {
        let forward = Forward { real_ip_header: "True-Client-IP", ..FORWARD };
        let got = get("True-Client-IP: 6\r\ntrue_client_ip: 6\r\nX-Real-IP: 6\r\n", &forward);
        assert!(
            got.contains(&"True-Client-IP: 1.2.3.4".into()) && got.iter().all(|line| !line.ends_with(": 6")),
            "{got:?}"
        );
        for name in ["X-Forwarded-For", "Content-Length", "Host", "Transfer-Encoding"] {
            let got = get("", &Forward { real_ip_header: name, ..FORWARD });
            assert!(got.iter().filter(|line| line.starts_with(name)).count() <= 1, "{name}");
            assert!(!got.contains(&format!("{name}: 1.2.3.4")), "{name}");
        }
    }

    #[test]
    fn host_is_the_clients_the_targets_or_the_routes() {
        let host = |text: &str, forward: &Forward<'_>| {
            let mut got = forwarded(text, forward);
            got.retain(|line| line.to_ascii_lowercase().starts_with("host:"));
            got
        };
        assert_eq!(host("GET / HTTP/1.1\r\nhost:a:1\r\n\r\n", &FORWARD), ["host: a:1"]);
        assert_eq!(host("GET http://b:2/ HTTP/1.1\r\nHost: a\r\n\r\n", &FORWARD), ["Host: b:2"]);
        assert_eq!(host("GET http://b/ HTTP/1.0\r\n\r\n", &FORWARD), ["Host: b"]);
        assert_eq!(host("GET / HTTP/1.0\r\n\r\n", &FORWARD), ["Host: backend:81"]);
        assert_eq!(forwarded("GET / HTTP/1.0\r\n\r\n", &FORWARD).iter().filter(|line| line.ends_with(": ")).count(), 0);
        let set = [("host".to_owned(), "c".to_owned())];
        let forward = Forward { edits: Edits { set: &set, ..Edits::default() }, ..FORWARD };
        assert_eq!(host("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &forward), ["Host: c"]);
    }

    #[test]
    fn edits_come_last_and_spare_the_framing() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let set =
            pairs(&[("X-User", "op"), ("X-Forwarded-Proto", "https"), ("Content-Length", "9"), ("Connection", "x")]);
        let add = pairs(&[("A", "2")]);
        let remove = ["via".to_owned(), "b".to_owned(), "content-length".to_owned(), "host".to_owned()];
        let forward = Forward { edits: Edits { set: &set, add: &add, remove: &remove }, ..FORWARD };
        let got = get("A: 1\r\nB: 1\r\nX-User: evil\r\nX_User: evil\r\nContent-Length: 3\r\n", &forward);
        let wanted = [
            "GET /p?q HTTP/1.1",
            "Host: a",
            "A: 1",
            "Content-Length: 3",
            "X-Forwarded-For: 9.8.7.6",
            "X-Forwarded-Host: a",
            "X-Real-IP: 1.2.3.4",
            "X-Request-ID: id-1",
            "X-User: op",
            "X-Forwarded-Proto: https",
            "A: 2",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn framing_is_made_anew() {
        let chunked = expected(&["Trailer: A"], &["Transfer-Encoding: chunked"]);
        assert_eq!(get("transfer-encoding: CHUNKED\r\nTrailer: A\r\n", &FORWARD), chunked);
        assert_eq!(get("Content-Length:0\r\n", &FORWARD), expected(&["Content-Length: 0"], &[]));
        let mut table = FieldTable::default();
        let text = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let end = &mut HeadEnd::default();
        let (head, _) = parse_request(text, end, &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
        let mut out = Vec::new();
        write_request(&mut out, &head, &Forward { framing: BodyFraming::Length(12), ..FORWARD });
        let got = lines(&out, "");
        assert!(got.contains(&"Content-Length: 12".into()) && !got.iter().any(|line| line.contains("chunked")));
    }

    #[test]
    fn what_the_connection_does_next_is_said_anew() {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nTE: trailers\r\n";
        let close = Forward { close: true, ..FORWARD };
        assert_eq!(
            get(upgrade, &FORWARD),
            expected(&["Sec-WebSocket-Key: k"], &["Connection: Upgrade", "Upgrade: websocket"])
        );
        assert_eq!(
            get("TE: trailers\r\nConnection: te\r\n", &FORWARD),
            expected(&[], &["TE: trailers", "Connection: TE"])
        );
        assert_eq!(get("TE: trailers\r\n", &close), expected(&[], &["TE: trailers", "Connection: TE, close"]));
        assert_eq!(get("Connection: keep-alive\r\n", &close), expected(&[], &["Connection: close"]));
    }

    #[test]
    fn an_http_1_0_request_is_forwarded_as_1_1() {
        let got = forwarded("GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", &FORWARD);
        assert_eq!(got[0], "GET /p HTTP/1.1");
        assert!(got.contains(&"Via: 1.0 speedmimi".into()) && !got.iter().any(|line| line.starts_with("Expect")));
    }

    fn any_request() -> impl Strategy<Value = String> {
        let start = prop_oneof![
            3 => Just("GET /a?b HTTP/1.1"),
            1 => Just("POST http://h:1/a/../b HTTP/1.1"),
            1 => Just("OPTIONS * HTTP/1.1"),
            1 => Just("WHAT /%41 HTTP/1.0"),
        ];
        (start, prop::collection::vec(any_line(), 0..6))
            .prop_map(|(start, lines)| format!("{start}\r\nHost: a\r\n{}\r\n", lines.concat()))
    }

    proptest! {
        #[test]
        fn a_written_request_reads_back_with_the_same_meaning(text in any_request(), trusted in any::<bool>()) {
            let mut table = FieldTable::default();
            let parsed = parse_request(text.as_bytes(), &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
            if let Ok(Some((head, _))) = parsed {
                let mut out = Vec::new();
                let base = if trusted { TRUSTED } else { FORWARD };
                write_request(&mut out, &head, &Forward { path: head.path(), framing: head.framing(), ..base });
                prop_assert!(out.iter().zip(&out[1..]).all(|(a, b)| (*a == b'\r') == (*b == b'\n')));
                let mut table = FieldTable::default();
                let reread = parse_request(&out, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
                let (again, len) = reread.unwrap().unwrap();
                prop_assert_eq!(len, out.len());
                prop_assert_eq!(again.method_name(), head.method_name());
                prop_assert_eq!((again.path(), again.query()), (head.path(), head.query()));
                prop_assert_eq!(again.framing(), head.framing());
                let host = head.authority().map_or(&b"backend"[..], |authority| authority.host());
                prop_assert_eq!(again.host(), host);
                prop_assert_eq!(again.upgrade(), head.upgrade());
                prop_assert_eq!(again.fields().of_kind(FieldKind::XForwardedFor).count(), 1);
                prop_assert_eq!(again.fields().of_kind(FieldKind::LookAlike).count(), 0);
                prop_assert!(again.keep_alive());
            }
        }
    }
}
