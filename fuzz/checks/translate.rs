//! What holds of every translation between HTTP/2 and HTTP/1.1, whatever is translated: what comes out is one message to
//! our own strict parser or none at all, with nothing behind it, no field of the connection but our own, and the same
//! meaning.
//!
//! Shared by the fuzz target and the property test of the suite. Never makes up an input.

use std::net::{IpAddr, Ipv4Addr};

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use speedmimi::http::body::Source;
use speedmimi::http::framing::{BodyFraming, ResponseFraming, Sender};
use speedmimi::http::head::{FieldKind, FieldTable, Fields, RequestHead};
use speedmimi::http::parse::{Asked, HeadEnd, HeadLimits, parse_request, parse_response};
use speedmimi::http::trailers::Passing;
use speedmimi::http::translate::request_out::{self, Carriage, Content};
use speedmimi::http::translate::{self, Answer, Body, RequestIn, read_trailers, response_head, response_in};
use speedmimi::http::write::{Edits, Forward, write_request};

/// The first byte chooses direction and circumstances, what is translated follows: for messages of HTTP/2 a line `METHOD
/// URI` or `STATUS`, and lines `name:value`; for those of HTTP/1.1 the bytes of a head.
pub fn any(input: &[u8]) {
    let Some((&control, text)) = input.split_first() else { return };
    let facts = Facts { is_end: control & 4 != 0, is_websocket: control & 8 != 0, is_head: control & 16 != 0 };
    match control & 3 {
        0 => request_from_http2(text, facts),
        1 => response_from_http2(text, facts),
        2 => request_from_http1(text, facts),
        _ => response_from_http1(text, facts),
    }
}

#[derive(Clone, Copy)]
struct Facts {
    is_end: bool,
    is_websocket: bool,
    is_head: bool,
}

/// The first line, and the lines behind it as far as they are fields to the codec.
fn message(text: &[u8]) -> (&[u8], HeaderMap) {
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut fields = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        // Names in capitals are refused by the codec.
        if let (Ok(name), Ok(value)) = (HeaderName::from_lowercase(&line[..colon]), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    (first, fields)
}

fn request_from_http2(text: &[u8], facts: Facts) {
    let (line, fields) = message(text);
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(uri)) else { return };
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.headers) = (method, uri, fields);
    check_request_in(&parts, facts);
    check_trailers_in(&parts.headers);
}

/// Whether it was taken.
fn check_request_in(parts: &http::request::Parts, facts: Facts) -> bool {
    let protocol = facts.is_websocket.then_some("websocket");
    let request =
        RequestIn { parts, protocol, is_end: facts.is_end, fields_max: 100, list_bytes_max: 16 * 1024, luck: [7; 16] };
    let mut out = Vec::new();
    let Ok(opening) = request.write_head(&mut out) else { return false };
    let mut table = FieldTable::default();
    let Ok(parsed) = parse_request(&out, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table) else {
        return false;
    };
    let (head, len) = parsed.expect("a whole head");
    assert_eq!(len, out.len(), "nothing comes behind it");
    let switches = opening.websocket.is_some();
    let method = if switches { &Method::GET } else { &parts.method };
    assert_eq!(head.method_name(), method.as_str().as_bytes());
    assert_eq!(head.target(), parts.uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes()));
    assert_eq!(opening.is_head, *method == Method::HEAD);
    let framing = head.framing();
    match opening.body {
        Body::None => assert!(matches!(framing, BodyFraming::None | BodyFraming::Length(0)), "{framing:?}"),
        Body::Identity if switches => assert_eq!(framing, BodyFraming::None),
        Body::Identity => assert!(matches!(framing, BodyFraming::Length(_)), "{framing:?}"),
        Body::Chunked => assert_eq!(framing, BodyFraming::Chunked),
    }
    check_own_fields(head.fields(), switches, opening.body == Body::Chunked);
    assert!(head.fields().of_kind(FieldKind::Te).all(|value| value.eq_ignore_ascii_case(b"trailers")));
    assert_eq!(head.is_websocket(), switches);
    check_passed_on(head.fields(), &parts.headers, &["cookie", "host", "sec-websocket-key"]);
    let crumbs: Vec<&[u8]> = parts.headers.get_all("cookie").iter().map(|value| value.as_bytes()).collect();
    // Whitespace around a value is none of it: a last crumb may be empty.
    let crumbs = (!crumbs.is_empty()).then(|| crumbs.join(&b"; "[..]));
    let crumbs: Vec<&[u8]> = crumbs.iter().map(|all| all.trim_ascii()).collect();
    assert_eq!(head.fields().of_kind(FieldKind::Cookie).collect::<Vec<&[u8]>>(), crumbs);
    true
}

/// Of what only neighbours tell each other there is what we say ourselves.
fn check_own_fields(fields: Fields<'_>, switches: bool, is_chunked: bool) {
    let count = |kind| fields.of_kind(kind).count();
    let own = |kind, is_there: bool| assert_eq!(count(kind), usize::from(is_there), "{kind:?}");
    own(FieldKind::Connection, switches);
    own(FieldKind::Upgrade, switches);
    own(FieldKind::TransferEncoding, is_chunked);
    own(FieldKind::KeepAlive, false);
    own(FieldKind::ProxyConnection, false);
    assert!(count(FieldKind::ContentLength) <= 1);
}

/// Every other field is there as it came, and no more of them.
fn check_passed_on(fields: Fields<'_>, came: &HeaderMap, ours: &[&str]) {
    let is_ours = |name: &[u8]| ours.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(name)) || is_framing(name);
    let passed = fields.iter().filter(|field| !is_ours(field.name));
    let mut passed: Vec<(Vec<u8>, &[u8])> =
        passed.map(|field| (field.name.to_ascii_lowercase(), field.value)).collect();
    let came = came.iter().filter(|(name, _)| !is_ours(name.as_str().as_bytes()));
    let mut came: Vec<(Vec<u8>, &[u8])> =
        came.map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().trim_ascii())).collect();
    passed.sort();
    came.sort();
    assert_eq!(passed, came);
}

fn is_framing(name: &[u8]) -> bool {
    matches!(
        FieldKind::of(name),
        FieldKind::Connection
            | FieldKind::ContentLength
            | FieldKind::Http2Settings
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::Te
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
    )
}

fn check_trailers_in(fields: &HeaderMap) {
    let mut out = Vec::new();
    translate::write_trailers(&mut out, Some(fields));
    check_end(&out, Sender::Client);
}

/// What ends a body in chunks is an end with nothing behind it, and its trailers are such as may be.
fn check_end(end: &[u8], sender: Sender) {
    for passing in [Passing::Http, Passing::Grpc] {
        let (mut source, mut trailers, mut end) = (Source::chunked(sender, passing), Vec::new(), end.to_vec());
        if let Ok(piece) = source.take(&mut end, &mut trailers) {
            assert!(source.is_done() && piece.consumed == end.len() && piece.data.is_empty());
            check_trailer_lines(&trailers);
        }
    }
}

fn check_trailer_lines(lines: &[u8]) {
    let Ok(trailers) = read_trailers(lines) else { panic!("trailers that we wrote can't be read") };
    for name in trailers.keys() {
        let kind = FieldKind::of(name.as_str().as_bytes());
        assert!(!is_framing(name.as_str().as_bytes()) && kind != FieldKind::Host, "{name}");
    }
}

fn response_from_http2(text: &[u8], facts: Facts) {
    let (line, fields) = message(text);
    let Ok(status) = StatusCode::from_bytes(line) else { return };
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.headers) = (status, fields);
    check_response_in(&parts, facts);
    let mut lines = Vec::new();
    response_in::write_trailers(&mut lines, &parts.headers);
    check_end(&[b"0\r\n", &lines[..], b"\r\n"].concat(), Sender::Backend);
}

fn check_response_in(parts: &http::response::Parts, facts: Facts) {
    let mut out = Vec::new();
    let asked = match facts {
        Facts { is_websocket: true, .. } => response_in::Asked::Tunnel { accept: "proof" },
        Facts { is_head, .. } => response_in::Asked::Answer { is_head },
    };
    let is_interim = parts.status.is_informational();
    let body = if is_interim {
        response_in::write_interim(&mut out, parts).map(|()| None)
    } else {
        response_in::write_head(&mut out, parts, asked, facts.is_end).map(Some)
    };
    let Ok(body) = body else { return };
    let asked = Asked { head: facts.is_head && !facts.is_websocket, upgrade: facts.is_websocket };
    let mut table = FieldTable::default();
    let Ok(parsed) = parse_response(&out, &mut HeadEnd::default(), asked, &HeadLimits::RESPONSE, &mut table) else {
        return;
    };
    let (head, len) = parsed.expect("a whole head");
    assert_eq!(len, out.len(), "nothing comes behind it");
    let switches = body == Some(response_in::Body::Tunnel);
    assert_eq!(head.status(), if switches { 101 } else { parts.status.as_u16() });
    match body {
        None | Some(response_in::Body::Tunnel) => {}
        Some(response_in::Body::Length(n)) => {
            let framing = head.framing();
            assert!(framing == ResponseFraming::Length(n) || framing == ResponseFraming::None && n == 0, "{framing:?}");
        }
        Some(response_in::Body::Chunked) => assert_eq!(head.framing(), ResponseFraming::Chunked),
    }
    check_own_fields(head.fields(), switches, body == Some(response_in::Body::Chunked));
    assert!(head.fields().of_kind(FieldKind::TransferEncoding).all(|value| value == b"chunked"));
    check_passed_on(head.fields(), &without_te(&parts.headers), &["sec-websocket-accept"]);
}

/// TE is a request's, but nothing that hurts in an answer.
fn without_te(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    fields.remove("te");
    fields
}

fn request_from_http1(text: &[u8], facts: Facts) {
    let mut table = FieldTable::default();
    let parsed = parse_request(text, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table);
    let Ok(Some((head, _))) = parsed else { return };
    let mut out = Vec::new();
    write_request(&mut out, &head, &forward(&head));
    let carriage = Carriage { over_tls: facts.is_end, has_extended_connect: facts.is_websocket };
    let Ok(taken) = request_out::take(&out, carriage) else { return };
    let (outbound, len) = taken.expect("a whole head");
    assert_eq!(len, out.len());
    let switches = matches!(outbound.content, Content::Tunnel { .. });
    assert_eq!((switches, outbound.is_head), (head.is_websocket(), head.method_name() == b"HEAD"));
    let is_end = matches!(outbound.content, Content::Body(Source::Done));
    let (parts, ()) = outbound.request.into_parts();
    for (name, value) in &parts.headers {
        let is_te = name == "te" && value == "trailers";
        assert!(is_te || name == "content-length" || !is_framing(name.as_str().as_bytes()), "{name}");
    }
    assert!(parts.headers.get_all("content-length").iter().count() <= 1);
    assert!(parts.uri.authority().is_some() || parts.headers.contains_key(HOST));
    // Another of us behind it takes it as well, but for hosts and paths that are none here, and what RFC 8441 forbids.
    let again = Facts { is_end, is_websocket: switches, is_head: false };
    check_request_in(&parts, again);
}

fn forward<'a>(head: &RequestHead<'a>) -> Forward<'a> {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Forward {
        path: head.path(),
        backend_host: "b",
        framing: head.framing(),
        peer,
        client: peer,
        peer_is_trusted: false,
        over_tls: false,
        client_certificate: None,
        over_http2: false,
        real_ip_header: "X-Real-IP",
        client_ip_header: None,
        request_id: b"id",
        close: false,
        edits: Edits::default(),
    }
}

fn response_from_http1(text: &[u8], facts: Facts) {
    let mut table = FieldTable::default();
    let Ok(Some((answer, used))) = response_head(text, Asked { head: facts.is_head, upgrade: false }, &mut table)
    else {
        return;
    };
    assert!(used <= text.len());
    let (response, source) = match answer {
        Answer::Interim(response) => (response, None),
        Answer::Final(response, source) => (response, Some(source)),
        Answer::Switched(_) => panic!("nobody asked to switch"),
    };
    assert_ne!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    for name in response.headers().keys() {
        assert!(name == "content-length" || !is_framing(name.as_str().as_bytes()), "{name}");
    }
    let is_end = source.is_none_or(|source| source.is_done());
    let (parts, ()) = response.into_parts();
    check_response_in(&parts, Facts { is_end, is_websocket: false, is_head: facts.is_head });
}
