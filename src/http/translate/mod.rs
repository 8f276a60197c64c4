//! Between HTTP/2's messages and HTTP/1.1's bytes (RFC 9113, section 8). Pure.
//!
//! Owns which field and which pseudo-header field becomes what on the other side. The core of the proxy speaks HTTP/1.1
//! bytes alone: what comes in by HTTP/2 is written as such and parsed as strictly as if it had come so, and what goes out
//! was written by `http::write`. Never sees a frame, a stream or a window.

use ::http::HeaderMap;

mod request_in;
pub mod request_out;
pub mod response_in;
mod response_out;
mod websocket;

pub use request_in::{Body, Opening, RequestIn, write_trailers};
pub use response_out::{Answer, read_trailers, response_head};
pub use websocket::{Accept, KEY_BYTES, accept_for};

/// How large a list of fields is (RFC 9113, section 6.5.2), in bytes with 32 added a field; pseudo-header fields are not in it.
pub fn list_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| field_bytes(name.as_str(), value.as_bytes())).sum()
}

fn field_bytes(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + 32
}
