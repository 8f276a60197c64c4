//! HTTP/1.1 as a strict outsider reads it: heads, bodies, chunks.
//!
//! Owns wire to values, without sockets or clock. Never shares code with the proxy that is measured: a reader that does
//! would not see its faults.

pub mod chunked;
pub mod fields;
pub mod request;
pub mod response;

use std::fmt;

/// Largest head that is read, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What breaks the message syntax of RFC 9112, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
