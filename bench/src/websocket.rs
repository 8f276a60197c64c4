//! As much of WebSocket (RFC 6455) as an echo needs: the key's answer and frames of up to 65,535 bytes.
//!
//! Owns their bytes. Never fragments, and refuses longer frames.

use crate::http::Malformed;
use sha1::{Digest, Sha1};

/// Largest payload of a frame, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 65_535;
/// Largest payload whose length stands in the second byte.
const SHORT_BYTES_MAX: usize = 125;
/// Stands there for a length in the two bytes that follow.
const TWO_BYTES: u8 = 126;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 8;

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub fn accept_value(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    base64(&digest)
}

/// A frame from a client: final, text, masked. Up to [`PAYLOAD_BYTES_MAX`] bytes.
pub fn client_frame(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = head(FINAL | 1, MASKED, payload.len());
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The frame that a server answers it with: the same payload, unmasked.
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(FINAL | 1, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// A frame's first bytes, up to its mask.
fn head(first: u8, masked: u8, len: usize) -> Vec<u8> {
    match len {
        0..=SHORT_BYTES_MAX => vec![first, masked | len as u8],
        _ => {
            let [high, low] = (len.min(PAYLOAD_BYTES_MAX) as u16).to_be_bytes();
            vec![first, masked | TWO_BYTES, high, low]
        }
    }
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
    let [first, length, rest @ ..] = bytes else { return Ok(None) };
    if first & 0xf0 != FINAL || length & MASKED == 0 {
        return Err(Malformed("a frame that is not final and masked"));
    }
    let (len, rest) = match (length & !MASKED, rest) {
        (short, rest) if usize::from(short) <= SHORT_BYTES_MAX => (usize::from(short), rest),
        (TWO_BYTES, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        (TWO_BYTES, _) => return Ok(None),
        _ => return Err(Malformed("a frame of more than 65,535 bytes")),
    };
    let (Some(mask), Some(payload)) = (rest.get(..4), rest.get(4..4 + len)) else { return Ok(None) };
    let mut frame = head(*first, 0, len);
    let used = frame.len() + 4 + len;
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(Some(Echo { used, frame, closes: first & 0x0f == CLOSE }))
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
        for payload in [&b"sixteen bytes !!"[..], &[7; 125], &[7; 126], &[7; 300]] {
            let frame = client_frame(payload, [1, 2, 3, 4]);
            for len in 0..frame.len() {
                assert_eq!(echo(&frame[..len]), Ok(None), "{len} bytes");
            }
            let expected = Echo { used: frame.len(), frame: server_frame(payload), closes: false };
            assert_eq!(echo(&frame), Ok(Some(expected)));
            assert!(echo(&server_frame(payload)).is_err());
        }
        assert!(echo(&[FINAL | 1, MASKED | 127, 0, 0]).is_err());
    }
}
