//! Any bytes as a chunked body: never a panic, the same data, trailers and end for every way of delivery, and what is
//! encoded again decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::http::chunked::{CHUNK_END, ChunkDecoder, write_chunk_head, write_last_chunk};
use speedmimi::http::framing::Sender;
use speedmimi::http::trailers::Passing;

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    Partial(Vec<u8>),
    Done { data: Vec<u8>, trailers: Vec<u8>, consumed: usize },
}

fuzz_target!(|input: &[u8]| {
    let Some((&control, body)) = input.split_first() else { return };
    let whole = decode(body, body.len().max(1));
    assert_eq!(decode(body, 1 + usize::from(control & 15)), whole);
    if let Outcome::Done { data, trailers, .. } = whole {
        let mut encoded = Vec::new();
        for chunk in data.chunks(1 + usize::from(control >> 4)) {
            encoded.extend_from_slice(write_chunk_head(chunk.len() as u64, &mut [0; 18]));
            encoded.extend_from_slice(chunk);
            encoded.extend_from_slice(CHUNK_END);
        }
        write_last_chunk(&mut encoded, &trailers);
        let consumed = encoded.len();
        assert_eq!(decode(&encoded, 7), Outcome::Done { data, trailers, consumed });
    }
});

fn decode(body: &[u8], step: usize) -> Outcome {
    let mut decoder = ChunkDecoder::new(Sender::Client, Passing::Http);
    let mut data = Vec::new();
    let mut consumed = 0;
    for piece in body.chunks(step) {
        let mut piece = piece.to_vec();
        let Ok(decoded) = decoder.decode(&mut piece) else { return Outcome::Refused };
        data.extend_from_slice(&piece[decoded.data]);
        consumed += decoded.consumed;
        if decoded.done {
            return Outcome::Done { data, trailers: decoder.trailers().to_vec(), consumed };
        }
        assert_eq!(decoded.consumed, piece.len());
    }
    Outcome::Partial(data)
}
