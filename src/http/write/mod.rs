//! Heads to bytes: what goes to a backend and what goes back to the client.
//!
//! Owns which fields end here, which are made anew and which are added. Never decides framing, routing or trust: those
//! come in as values. Appends to a buffer that the caller uses again and again; with room in it nothing allocates.
//!
//! Fields that end here: hop-by-hop ones (RFC 9110, section 7.6.1), those that a `Connection` field names, unless the
//! proxy sets them itself or the message would lose its host, framing or provenance, and look-alikes with underscores
//! of every name the proxy knows.

mod address;
mod copy;
mod kinds;
mod request;
mod response;
#[cfg(test)]
mod samples;

pub use address::write_address;
pub use kinds::is_own_field;
pub use request::{Forward, write_request};
pub use response::{Answer, AnswerFraming, Persistence, write_interim, write_response, write_switching};

use crate::http::head::{FieldKind, Version, same_name};
use kinds::RESERVED;

/// What routes change in the fields of a head, applied last. Names are tokens, values hold no control characters.
///
/// What a route sets or removes is removed under its look-alikes with underscores too. Fields of framing and of the
/// connection are never touched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// Replaces all fields of that name.
    pub set: &'a [(String, String)],
    /// Appended beside what is there.
    pub add: &'a [(String, String)],
    /// Removed.
    pub remove: &'a [String],
}

impl Edits<'_> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether fields of that name go because they are set anew or removed.
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(set, _)| same_name(set.as_bytes(), name))
            || self.remove.iter().any(|removed| same_name(removed.as_bytes(), name))
    }

    fn host(&self) -> Option<&str> {
        self.set.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.as_str())
    }

    /// Appends the lines of what is set and added.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.set.iter().chain(self.add) {
            if !RESERVED.has(FieldKind::of(name.as_bytes())) {
                write_line(out, name.as_bytes(), value.as_bytes());
            }
        }
    }
}

/// Bytes that a written head may be longer than the one that came in, edits apart.
const GROWTH_BYTES: usize = 768;

/// Appends one field line.
#[inline]
pub fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, name: &[u8], number: u64) {
    write_line(out, name, itoa::Buffer::new().format(number).as_bytes());
}

/// A field line of its own: the same list as one more member at the end (RFC 9110, sections 5.3 and 7.6.3).
fn write_via(out: &mut Vec<u8>, received: Version) {
    out.extend_from_slice(match received {
        Version::Http10 => b"Via: 1.0 speedmimi\r\n",
        Version::Http11 => b"Via: 1.1 speedmimi\r\n",
    });
}
