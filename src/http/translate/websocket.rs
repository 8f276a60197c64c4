//! The two fields that a WebSocket handshake has in HTTP/1.1 and not in HTTP/2 (RFC 6455, section 4; RFC 8441).
//!
//! Owns the key that stands in for the client's and the answer it has to get. Never chooses the key: luck is handed in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Random bytes of a key.
pub const KEY_BYTES: usize = 16;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What `Sec-WebSocket-Accept` has to say for the switch to be the backend's answer to our key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept(String);

/// The value of `Sec-WebSocket-Accept` for that of a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
pub fn accept_for(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

impl Accept {
    /// Makes the value of `Sec-WebSocket-Key` and what has to come back.
    pub(super) fn for_key(luck: [u8; KEY_BYTES]) -> (String, Accept) {
        let key = STANDARD.encode(luck);
        let accept = accept_for(key.as_bytes());
        (key, Accept(accept))
    }

    /// Whether this is it.
    pub fn fits(&self, value: &[u8]) -> bool {
        value == self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        let (key, accept) = Accept::for_key(*b"the sample nonce");
        assert_eq!(key, "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(accept.fits(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accept.fits(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
    }
}
