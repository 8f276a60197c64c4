//! Any bytes as a PROXY header: never a panic, the same for every way of delivery, and nothing behind it matters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::http::proxy_header::parse;

fuzz_target!(|text: &[u8]| {
    let whole = parse(text);
    let in_pieces = (0..=text.len()).map(|len| parse(&text[..len])).find(|parsed| *parsed != Ok(None));
    assert_eq!(in_pieces.as_ref().map_or(Ok(None), Clone::clone).ok().flatten(), whole.ok().flatten());
    if let Ok(Some((_, len))) = whole {
        assert_eq!(parse(&text[..len]), whole);
    }
});
