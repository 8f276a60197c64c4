//! Between the two versions (RFC 9113, section 8): the bytes of HTTP/1.1 messages to what HTTP/2 sends, and back. Pure.

pub mod accept;
pub mod request_out;
pub mod response_in;
