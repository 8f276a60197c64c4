//! Just enough WebSocket (RFC 6455) for tests: the handshake of the RFC's example, frames out and in.
//!
//! Owns framing for both ends of a test. Never fragments, never negotiates extensions.

use crate::wire::{Trouble, Wire};

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 2;
/// Opcode of a closing frame.
pub const CLOSE: u8 = 8;

/// The answer to [`request`]; key and proof are those of RFC 6455 section 1.3.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A handshake for that path.
pub fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A final frame; clients mask (RFC 6455 section 5.3), servers don't.
pub fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let flag = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..=125 => out.push(flag | n as u8),
        n @ 126..=0xffff => {
            out.push(flag | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(flag | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    out.extend_from_slice(&key[..if mask.is_some() { 4 } else { 0 }]);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Reads a frame and takes its mask off.
pub fn read(wire: &mut Wire) -> Result<Frame, Trouble> {
    let start = wire.take(2)?;
    let length = match start[1] & 0x7f {
        126 => wire.take(2)?,
        127 => wire.take(8)?,
        short => vec![short],
    };
    let length = length.iter().fold(0usize, |n, &byte| n << 8 | usize::from(byte));
    let key = if start[1] & 0x80 == 0 { vec![0; 4] } else { wire.take(4)? };
    let payload = wire.take(length)?.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Ok(Frame { opcode: start[0] & 0x0f, payload })
}
