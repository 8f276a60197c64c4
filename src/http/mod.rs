//! HTTP/1.1 from wire to values and back (RFC 9110, RFC 9112). Pure: no socket, no clock, no allocation on the way in.

pub mod authority;
pub mod body;
pub mod chunked;
pub mod class;
mod fields;
pub mod frame;
pub mod framing;
pub mod grpc;
pub mod head;
pub mod parse;
pub mod peer;
pub mod proxy_header;
mod start_line;
pub mod status;
pub mod target;
pub mod trailers;
pub mod translate;
pub mod write;
