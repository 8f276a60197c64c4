//! How amounts are written on the command line: `5k`, `64KiB`, `1m30s`.
//!
//! Owns their reading. Never decides which amounts make sense for a command.

use std::time::Duration;

/// A count: `64`, `5k`, `1m`.
///
/// # Errors
/// When it is no whole number with one of these endings, or too large.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1_000), ("m", 1_000_000), ("", 1)])
        .ok_or_else(|| format!("`{text}` is no count like 64, 5k or 1m"))
}

/// A size in bytes: `100`, `64KiB`, `1MiB`.
///
/// # Errors
/// When it is no whole number with one of these endings, or too large.
pub fn size(text: &str) -> Result<usize, String> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("", 1)])
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("`{text}` is no size like 100, 64KiB or 1MiB"))
}

/// Longer than anything is waited for; a moment so far away can be reckoned with.
const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);

/// A duration: `250ms`, `30s`, `1m30s`; a plain number is seconds.
///
/// # Errors
/// When a part has no known unit, or the sum is too large.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration like 250ms, 30s or 1m30s");
    let fits = |total: Duration| if total <= DURATION_MAX { Ok(total) } else { Err(wrong()) };
    if let Ok(seconds) = text.parse::<u64>() {
        return fits(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_bytes = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_ms = match &rest[digits..digits + unit_bytes] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[digits + unit_bytes..];
    }
    if text.is_empty() { Err(wrong()) } else { fits(total) }
}

fn scaled(text: &str, endings: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = endings.iter().find_map(|&(ending, factor)| Some((text.strip_suffix(ending)?, factor)))?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_scale() {
        assert_eq!(count("5k"), Ok(5_000));
        assert_eq!(count("1m"), Ok(1_000_000));
        assert_eq!(count("64"), Ok(64));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "k", "-1", "+1", "1.5k", "5 k", "99999999999999999999", "99999999999999999m"] {
            assert!(count(text).is_err(), "{text}");
        }
        for text in ["", "s", "5x", "1s5", "99999999999999999h", "1é", "99999999999", "9999h9999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
