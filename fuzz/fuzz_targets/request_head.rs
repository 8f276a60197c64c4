//! Any bytes as a request head: never a panic, the same for every way of delivery, and what is written for a backend
//! is one head with the same meaning and nothing behind it, whatever the rules of the route are.
//!
//! The first five bytes choose delivery, peer, shape, and what rules set, add and remove; the head follows.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use speedmimi::http::framing::BodyFraming;
use speedmimi::http::head::{FieldKind, FieldTable, RequestHead, same_name};
use speedmimi::http::parse::{HeadEnd, HeadLimits, parse_request};
use speedmimi::http::peer::client_address;
use speedmimi::http::target::canonical_path;
use speedmimi::http::write::{Edits, Forward, is_own_field, write_request};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, fields: 40 };
const REAL_IP_HEADERS: [&str; 4] = ["X-Real-IP", "True-Client-IP", "X-Forwarded-For", "X-Forwarded-Client"];
const SET: [(&str, &str); 6] = [
    ("Host", "set.test"),
    ("X-Forwarded-For", "set"),
    ("Via", "1.1 set"),
    ("X-User", "set"),
    ("Content-Length", "7"),
    ("Max-Forwards", "3"),
];
const ADDED: [(&str, &str); 3] = [("X-Added", "1"), ("x-user", "2"), ("Connection", "close")];
const REMOVED: [&str; 5] = ["cookie", "x-request-id", "transfer-encoding", "x-real-ip", "host"];

fuzz_target!(|input: &[u8]| {
    let Some((&[step, peer, shape, changed, removed], text)) = input.split_first_chunk::<5>() else { return };
    let mut table = FieldTable::default();
    let whole = parse_request(text, &mut HeadEnd::default(), &LIMITS, &mut table);
    let taken = whole.as_ref().ok().and_then(|found| found.as_ref().map(|(_, len)| *len));
    assert_eq!(taken_in_pieces(text, 1 + usize::from(step & 7)), taken);
    if let Ok(Some((head, _))) = whole {
        check_path(&head);
        check_written(&head, [peer, shape, changed, removed]);
    }
});

/// How many bytes a head takes that comes in pieces; `None` when it is refused or not whole.
fn taken_in_pieces(text: &[u8], step: usize) -> Option<usize> {
    let mut end = HeadEnd::default();
    let lens = (0..text.len()).step_by(step).chain([text.len()]);
    for len in lens {
        let mut table = FieldTable::default();
        match parse_request(&text[..len], &mut end, &LIMITS, &mut table) {
            Ok(None) => {}
            Ok(Some((_, taken))) => return Some(taken),
            Err(_) => return None,
        }
    }
    None
}

fn check_path(head: &RequestHead<'_>) {
    let (mut room, mut again) = (Vec::new(), Vec::new());
    assert_eq!(head.canonical_path(&mut room), canonical_path(head.path(), &mut again));
    if let Ok(path) = head.canonical_path(&mut room) {
        assert!(path == b"*" || path.starts_with(b"/"));
        assert!(path.split(|&b| b == b'/').all(|segment| segment != b"." && segment != b".."));
        assert_eq!(canonical_path(path, &mut again), Ok(path));
    }
}

fn check_written(head: &RequestHead<'_>, [peer, shape, changed, removed]: [u8; 4]) {
    let (set, add) = (chosen(&SET, changed), chosen(&ADDED, removed >> 5));
    let remove: Vec<String> =
        chosen(&REMOVED.map(|name| (name, "")), removed).into_iter().map(|(name, _)| name).collect();
    let edits = Edits { set: &set, add: &add, remove: &remove };
    let forward = forward(head, peer, shape, edits);
    let mut out = Vec::new();
    write_request(&mut out, head, &forward);
    assert!(out.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n')));
    let mut table = FieldTable::default();
    let (again, len) =
        parse_request(&out, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
    assert_eq!(len, out.len());
    assert_eq!((again.method_name(), again.path(), again.query()), (head.method_name(), head.path(), head.query()));
    assert_eq!(again.framing(), forward.framing);
    assert_eq!(again.upgrade(), head.upgrade());
    assert_eq!(again.keep_alive(), !forward.close || head.upgrade().is_some());
    let host = set.iter().find(|(name, _)| name == "Host").map(|(_, value)| value.as_bytes());
    assert_eq!(again.host(), host.unwrap_or(head.authority().map_or(b"b", |authority| authority.host())));
    assert_eq!(again.fields().of_kind(FieldKind::LookAlike).count(), 0);
    check_provenance(&again, &forward);
    check_edits(&again, edits);
}

fn forward<'a>(head: &RequestHead<'a>, peer: u8, shape: u8, edits: Edits<'a>) -> Forward<'a> {
    let from = match peer & 3 {
        0 | 1 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        2 => IpAddr::V6(Ipv4Addr::new(192, 0, 2, 255).to_ipv6_mapped()),
        _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let trusted = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap());
    let trusted = if peer & 4 == 4 { &trusted[..] } else { &[] };
    let client_ip_header = (peer & 8 == 8).then_some("CF-Connecting-IP");
    let client = client_address(from, head.fields(), trusted, client_ip_header);
    Forward {
        path: head.path(),
        backend_host: "b",
        framing: match shape & 3 {
            // A protocol that is switched to comes without a body.
            0 | 1 => head.framing(),
            _ if head.upgrade().is_some() => head.framing(),
            2 => BodyFraming::Length(u64::from(shape)),
            _ => BodyFraming::Chunked,
        },
        peer: from,
        client: client.address,
        peer_is_trusted: client.peer_is_trusted,
        over_tls: peer & 16 == 16,
        client_certificate: None,
        over_http2: false,
        real_ip_header: REAL_IP_HEADERS[usize::from(shape >> 2 & 3)],
        client_ip_header,
        request_id: b"id",
        close: shape & 16 == 16,
        edits,
    }
}

/// The rules whose bits are set.
fn chosen(rules: &[(&str, &str)], bits: u8) -> Vec<(String, String)> {
    let is_chosen = |i: usize| bits >> i & 1 == 1;
    let chosen = rules.iter().enumerate().filter(|(i, _)| is_chosen(*i)).map(|(_, rule)| rule);
    chosen.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn check_provenance(again: &RequestHead<'_>, forward: &Forward<'_>) {
    let all: Vec<&[u8]> = again.fields().of_kind(FieldKind::XForwardedFor).collect();
    let is_set = forward.edits.set.iter().any(|(name, _)| name == "X-Forwarded-For");
    let last = if is_set { "set".to_owned() } else { forward.peer.to_canonical().to_string() };
    assert!(matches!(all[..], [list] if list.ends_with(last.as_bytes())));
    let owned = [FieldKind::Forwarded, FieldKind::ClientCert].map(|kind| again.fields().of_kind(kind).count());
    assert!(forward.peer_is_trusted || owned == [0, 0]);
    if let Some(name) = forward.client_ip_header.filter(|_| !forward.peer_is_trusted) {
        assert!(!again.fields().iter().any(|field| same_name(field.name, name.as_bytes())));
    }
}

/// What is set is there once, what is removed is not, and nothing touches the framing.
fn check_edits(again: &RequestHead<'_>, edits: Edits<'_>) {
    let can_be_edited = |name: &str| !is_own_field(name) && name != "Host" && name != "host";
    let values = |name: &str| {
        let named = again.fields().iter().filter(|field| same_name(field.name, name.as_bytes()));
        named.map(|field| field.value).collect::<Vec<&[u8]>>()
    };
    for (name, value) in edits.set.iter().filter(|(name, _)| can_be_edited(name)) {
        let added = edits.add.iter().filter(|(added, _)| added.eq_ignore_ascii_case(name));
        let expected = [value].into_iter().chain(added.map(|(_, value)| value)).map(String::as_bytes);
        assert!(values(name).into_iter().eq(expected), "{name}");
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| can_be_edited(name)) {
        assert_eq!(values(name).last(), Some(&value.as_bytes()), "{name}");
    }
    for name in edits.remove.iter().filter(|name| can_be_edited(name)) {
        assert!(values(name).is_empty(), "{name}");
    }
}
