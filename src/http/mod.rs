//! HTTP/1.1 from wire to values and back (RFC 9110, RFC 9112). Pure: no socket, no clock, no allocation on the way in.

pub mod class;
