//! Any bytes as a response head: never a panic, the same for every way of delivery, and what is written for the client
//! is one head with the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::http::framing::ResponseFraming;
use speedmimi::http::head::{FieldTable, ResponseHead};
use speedmimi::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
use speedmimi::http::write::{
    Answer, AnswerFraming, Edits, Persistence, write_interim, write_response, write_switching,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, fields: 40 };

fuzz_target!(|input: &[u8]| {
    let Some((&control, text)) = input.split_first() else { return };
    let asked = Asked { head: control & 1 == 1, upgrade: control & 2 == 2 };
    let mut table = FieldTable::default();
    let whole = parse_response(text, &mut HeadEnd::default(), asked, &LIMITS, &mut table);
    let taken = whole.as_ref().ok().and_then(|found| found.as_ref().map(|(_, len)| *len));
    assert_eq!(taken_in_pieces(text, asked, 1 + usize::from(control >> 2 & 7)), taken);
    if let Ok(Some((head, _))) = whole {
        check_written(&head, asked);
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

fn check_written(head: &ResponseHead<'_>, asked: Asked) {
    let framing = match head.framing() {
        ResponseFraming::None => AnswerFraming::None,
        ResponseFraming::Length(len) => AnswerFraming::Length(len),
        ResponseFraming::Chunked => AnswerFraming::Chunked,
        ResponseFraming::UntilClose => AnswerFraming::Close,
    };
    let answer = Answer {
        framing,
        persistence: Persistence::Default,
        date: b"Sun, 22 Nov 2026 11:00:00 GMT",
        set_cookie: Some("a=b"),
        edits: Edits::default(),
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
    assert_eq!((again.status(), again.reason(), again.framing()), (head.status(), head.reason(), head.framing()));
    assert_eq!(again.backend_load(), None);
}
