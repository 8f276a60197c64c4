//! 64-bit keys from bytes, the same in every process, on every machine and in every version.
//!
//! Owns the hash behind `ip_hash`, `hash` and the ids of backends: changing it moves every client of every user to
//! another backend, so its answers are pinned by a test. It is no defence against chosen collisions: with `hash_on:
//! header` a client picks its backend anyway. Never holds a table.

/// Multiplier of a step: odd, its ones and zeros well spread.
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;
/// What an empty input starts from.
const SEED: u64 = 0x243f_6a88_85a3_08d3;

/// The finalizer of SplitMix64: a bijection in which each bit of the input changes half the bits of the output.
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key of `bytes`: little-endian words of eight bytes, the last one padded with zeros, each folded in by a 128-bit
/// multiplication; the length last.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = SEED;
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state, u64::from_le_bytes(word));
    }
    mix(state ^ bytes.len() as u64)
}

/// One word into the state. The rotation keeps the order of words in the result even where a product vanishes.
fn fold(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(MULTIPLIER);
    (product as u64) ^ ((product >> 64) as u64) ^ state.rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_never_change() {
        assert_eq!(of_bytes(b""), PINNED[0]);
        assert_eq!(of_bytes(b"backend1"), PINNED[1]);
        assert_eq!(of_bytes(b"/a/longer/path?with=query"), PINNED[2]);
    }

    const PINNED: [u64; 3] = [0xe9e0_033e_3bad_af36, 0x0988_0d50_abec_3853, 0xc7f6_7b7b_7ca6_0057];

    #[test]
    fn near_inputs_have_keys_of_their_own() {
        let mut keys = HashSet::new();
        for i in 0..50_000 {
            assert!(keys.insert(of_bytes(format!("backend-{i}").as_bytes())));
        }
        for length in 0..64 {
            assert!(keys.insert(of_bytes(&vec![0; length])), "{length} zeros");
        }
    }
}
