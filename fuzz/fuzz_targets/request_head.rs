//! Any bytes as a request head: never a panic, the same for every way of delivery, and what is written for a backend
//! is one head with the same meaning and nothing behind it.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use speedmimi::http::head::{FieldKind, FieldTable, RequestHead};
use speedmimi::http::parse::{HeadEnd, HeadLimits, parse_request};
use speedmimi::http::peer::client_address;
use speedmimi::http::target::canonical_path;
use speedmimi::http::write::{Edits, Forward, write_request};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, fields: 40 };

fuzz_target!(|input: &[u8]| {
    let Some((&control, text)) = input.split_first() else { return };
    let mut table = FieldTable::default();
    let whole = parse_request(text, &mut HeadEnd::default(), &LIMITS, &mut table);
    let taken = whole.as_ref().ok().and_then(|found| found.as_ref().map(|(_, len)| *len));
    assert_eq!(taken_in_pieces(text, 1 + usize::from(control >> 1 & 7)), taken);
    if let Ok(Some((head, _))) = whole {
        check_path(&head);
        check_written(&head, control & 1 == 1);
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
    if let Ok(path) = head.canonical_path(&mut room) {
        assert!(path == b"*" || path.starts_with(b"/"));
        assert!(path.split(|&b| b == b'/').all(|segment| segment != b"." && segment != b".."));
        assert_eq!(canonical_path(path, &mut again), Ok(path));
    }
}

fn check_written(head: &RequestHead<'_>, peer_is_trusted: bool) {
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let trusted = if peer_is_trusted { &["192.0.2.0/24".parse().unwrap()][..] } else { &[] };
    let client = client_address(peer, head.fields(), trusted, None);
    let mut out = Vec::new();
    write_request(
        &mut out,
        head,
        &Forward {
            path: head.path(),
            backend_host: "b",
            framing: head.framing(),
            peer,
            client: client.address,
            peer_is_trusted: client.peer_is_trusted,
            over_tls: false,
            real_ip_header: "X-Real-IP",
            client_ip_header: None,
            request_id: b"id",
            close: false,
            edits: Edits::default(),
        },
    );
    assert!(out.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n')));
    let mut table = FieldTable::default();
    let (again, len) =
        parse_request(&out, &mut HeadEnd::default(), &HeadLimits::RESPONSE, &mut table).unwrap().unwrap();
    assert_eq!(len, out.len());
    assert_eq!((again.method_name(), again.path(), again.query()), (head.method_name(), head.path(), head.query()));
    assert_eq!(again.framing(), head.framing());
    assert_eq!(again.host(), head.authority().map_or(&b"b"[..], |authority| authority.host()));
    assert_eq!((again.upgrade(), again.keep_alive()), (head.upgrade(), true));
    assert_eq!(again.fields().of_kind(FieldKind::XForwardedFor).count(), 1);
    assert_eq!(again.fields().of_kind(FieldKind::LookAlike).count(), 0);
}
