//! The bytes of every body: a fixed pattern, so that both ends know what has to arrive.
//!
//! Owns the pattern and its bound. Never reads or writes a socket.

/// Largest body that is asked for or served, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// The first `len` bytes of the pattern.
///
/// The period (26 × 251 bytes) is prime to every power of two, so a block that is lost, doubled or swapped shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + ((i + i / 251) % 26) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_the_wrong_place_shows() {
        let body = pattern(1 << 17);
        for block in [512, 4096, 16384, 65536] {
            assert_ne!(body[..block], body[block..2 * block], "{block}");
        }
    }
}
