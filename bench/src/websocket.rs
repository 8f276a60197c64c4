//! As much of WebSocket (RFC 6455) as an echo needs: the key's answer and short frames.
//!
//! Owns their bytes, and what a client sends first. Never fragments, and refuses frames of 126 bytes and more.

use crate::conns::{Expect, Job};
use crate::http::Malformed;
use crate::target::Target;
use sha1::{Digest, Sha1};

/// Largest payload of a frame, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 125;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 8;

/// The upgrade, and then a frame that has to come back as often as it is sent.
pub fn jobs(target: &Target) -> Vec<Job> {
    let upgrade = format!(
        "GET /websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3BlZWRtaW1pLWJlbmNoIQ==\r\n\r\n",
        target.host
    );
    let payload = b"sixteen bytes !!";
    vec![
        Job { request: upgrade.into_bytes(), expect: Expect::Answer { status: 101, body: Vec::new() } },
        Job { request: client_frame(payload, [0x21, 0x43, 0x65, 0x87]), expect: Expect::Bytes(server_frame(payload)) },
    ]
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub fn accept_value(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    base64(&digest)
}

/// A frame from a client: final, text, masked.
pub fn client_frame(payload: &[u8; 16], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![FINAL | 1, MASKED | payload.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The frame that a server answers it with: the same payload, unmasked.
pub fn server_frame(payload: &[u8; 16]) -> Vec<u8> {
    let mut frame = vec![FINAL | 1, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

/// A frame's echo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Bytes of the frame.
    pub used: usize,
    /// What to send back.
    pub frame: Vec<u8>,
    /// Whether it was a close.
    pub closes: bool,
}

/// The echo of the first frame in `bytes`; `None` when it is not whole.
///
/// # Errors
/// When it is no final, masked frame of up to [`PAYLOAD_BYTES_MAX`] bytes.
pub fn echo(bytes: &[u8]) -> Result<Option<Echo>, Malformed> {
    let [head, length, rest @ ..] = bytes else { return Ok(None) };
    if head & 0xf0 != FINAL || length & MASKED == 0 {
        return Err(Malformed("a frame that is not final and masked"));
    }
    let len = usize::from(length & !MASKED);
    if len > PAYLOAD_BYTES_MAX {
        return Err(Malformed("a frame of more than 125 bytes"));
    }
    let (Some(mask), Some(payload)) = (rest.get(..4), rest.get(4..4 + len)) else { return Ok(None) };
    let mut frame = vec![*head, len as u8];
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(Some(Echo { used: 2 + 4 + len, frame, closes: head & 0x0f == CLOSE }))
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_gets_its_answer() {
        assert_eq!(accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_frame_comes_back_unmasked() {
        let frame = client_frame(b"sixteen bytes !!", [1, 2, 3, 4]);
        for len in 0..frame.len() {
            assert_eq!(echo(&frame[..len]), Ok(None), "{len} bytes");
        }
        let expected = Echo { used: frame.len(), frame: server_frame(b"sixteen bytes !!"), closes: false };
        assert_eq!(echo(&frame), Ok(Some(expected)));
        assert!(echo(&server_frame(b"sixteen bytes !!")).is_err());
    }
}
