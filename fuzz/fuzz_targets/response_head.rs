//! Any bytes as a response head: never a panic, the same for every way of delivery, and what is written for the client
//! is one head with the same meaning, whatever the rules of the route are.
//!
//! The first three bytes choose request and delivery, framing and connection, and edits; the head follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::http::framing::ResponseFraming;
use speedmimi::http::head::{FieldKind, FieldTable, ResponseHead, same_name};
use speedmimi::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
use speedmimi::http::write::{
    Answer, AnswerFraming, Edits, Persistence, is_own_field, write_interim, write_response, write_switching,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, fields: 40 };

fuzz_target!(|input: &[u8]| {
    let Some((&[control, shape, edits], text)) = input.split_first_chunk::<3>() else { return };
    let asked = Asked { head: control & 1 == 1, upgrade: control & 2 == 2 };
    let mut table = FieldTable::default();
    let whole = parse_response(text, &mut HeadEnd::default(), asked, &LIMITS, &mut table);
    let taken = whole.as_ref().ok().and_then(|found| found.as_ref().map(|(_, len)| *len));
    assert_eq!(taken_in_pieces(text, asked, 1 + usize::from(control >> 2 & 7)), taken);
    if let Ok(Some((head, _))) = whole {
        check_written(&head, asked, [shape, edits]);
    }
});

/// How many bytes a head takes that comes in pieces; `None` when it is refused or not whole.
fn taken_in_pieces(text: &[u8], asked: Asked, step: usize) -> Option<usize> {
    let mut end = HeadEnd::default();
    let lens = (0..text.len()).step_by(step).chain([text.len()]);
    for len in lens {
        let mut table = FieldTable::default();
        match parse_response(&text[..len], &mut end, asked, &LIMITS, &mut table) {
            Ok(None) => {}
            Ok(Some((_, taken))) => return Some(taken),
            Err(_) => return None,
        }
    }
    None
}

fn check_written(head: &ResponseHead<'_>, asked: Asked, [shape, edits]: [u8; 2]) {
    let framing = framing(head, shape);
    let persistence = [Persistence::Default, Persistence::KeepAlive, Persistence::Close][usize::from(shape >> 2) % 3];
    let set = rules(&[("X-Frame-Options", "DENY"), ("Content-Length", "7"), ("Via", "1.1 set")], edits);
    let add = rules(&[("Vary", "Accept"), ("Connection", "keep-alive")], edits >> 3);
    let remove: Vec<String> =
        rules(&[("server", ""), ("date", ""), ("trailer", "")], edits >> 5).into_iter().map(|(name, _)| name).collect();
    let answer = Answer {
        framing,
        persistence,
        date: b"Sun, 22 Nov 2026 11:00:00 GMT",
        set_cookie: (shape & 128 == 128).then_some("a=b"),
        edits: Edits { set: &set, add: &add, remove: &remove },
    };
    let mut out = Vec::new();
    match head.status() {
        101 => write_switching(&mut out, head, &answer),
        100..200 => write_interim(&mut out, head),
        _ => write_response(&mut out, head, &answer),
    }
    assert!(out.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n')));
    let mut table = FieldTable::default();
    let parsed = parse_response(&out, &mut HeadEnd::default(), asked, &HeadLimits::RESPONSE, &mut table);
    let (again, len) = parsed.unwrap().unwrap();
    assert_eq!(len, out.len());
    assert_eq!(
        (again.status(), again.reason(), again.upgrade().is_some()),
        (head.status(), head.reason(), tells_upgrade(head))
    );
    assert_eq!(again.backend_load(), None);
    assert_eq!(again.fields().of_kind(FieldKind::LookAlike).count(), 0);
    if head.status() >= 200 {
        assert_eq!(again.framing(), read_back(framing));
        assert_eq!(again.keep_alive(), persistence != Persistence::Close && framing != AnswerFraming::Close);
        check_edits(&again, answer.edits);
    }
}

/// Only these two tell which protocol is, or would have to be, switched to.
fn tells_upgrade(head: &ResponseHead<'_>) -> bool {
    matches!(head.status(), 101 | 426) && head.upgrade().is_some()
}

/// The way a body came in, or another one that it can go out in.
fn framing(head: &ResponseHead<'_>, shape: u8) -> AnswerFraming {
    match (head.framing(), shape & 3) {
        (ResponseFraming::None, _) => AnswerFraming::None,
        (ResponseFraming::Length(len), 0 | 1) => AnswerFraming::Length(len),
        (ResponseFraming::Length(_), _) => AnswerFraming::Length(u64::from(shape)),
        (_, 0 | 1) => AnswerFraming::Chunked,
        (..) => AnswerFraming::Close,
    }
}

fn read_back(framing: AnswerFraming) -> ResponseFraming {
    match framing {
        AnswerFraming::None => ResponseFraming::None,
        AnswerFraming::Length(len) => ResponseFraming::Length(len),
        AnswerFraming::Chunked => ResponseFraming::Chunked,
        AnswerFraming::Close => ResponseFraming::UntilClose,
    }
}

/// The rules whose bits are set.
fn rules(rules: &[(&str, &str)], bits: u8) -> Vec<(String, String)> {
    let is_chosen = |i: usize| bits >> i & 1 == 1;
    let chosen = rules.iter().enumerate().filter(|(i, _)| is_chosen(*i)).map(|(_, rule)| rule);
    chosen.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What is set is there once, what is removed is not, and nothing touches the framing.
fn check_edits(again: &ResponseHead<'_>, edits: Edits<'_>) {
    let values = |name: &str| {
        let named = again.fields().iter().filter(|field| same_name(field.name, name.as_bytes()));
        named.map(|field| field.value).collect::<Vec<&[u8]>>()
    };
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_own_field(name)) {
        assert_eq!(values(name), [value.as_bytes()], "{name}");
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| !is_own_field(name)) {
        assert_eq!(values(name).last(), Some(&value.as_bytes()), "{name}");
    }
    for name in edits.remove.iter().filter(|name| !is_own_field(name)) {
        assert!(values(name).is_empty(), "{name}");
    }
}
