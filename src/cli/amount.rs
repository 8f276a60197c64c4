//! How amounts are written on the command line: `10m`, `64KiB`, `50%`.
//!
//! Owns their reading. Never decides which make sense for a command.

use std::time::Duration;

use crate::config::values;

/// A count from 1 to a billion: `64`, `50k`, `1.5m`.
///
/// # Errors
/// When it is none.
pub fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no count like 64, 50k or 1.5m, from 1 to 1000m");
    let lower = text.to_ascii_lowercase();
    let (number, factor) = [("k", 1e3), ("m", 1e6), ("g", 1e9), ("", 1.0)]
        .into_iter()
        .find_map(|(ending, factor)| Some((lower.strip_suffix(ending)?, factor)))
        .ok_or_else(wrong)?;
    let count = plain(number).ok_or_else(wrong)? * factor;
    if (1.0..=1e9).contains(&count) { Ok(count.round() as u64) } else { Err(wrong()) }
}

/// As [`count`], and 0.
///
/// # Errors
/// When it is none.
pub fn count_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { count(text) }
}

/// A part of the whole, within 0..=1: `50%`, or `0.5`.
///
/// # Errors
/// When it is none.
pub fn part(text: &str) -> Result<f64, String> {
    let part = match text.strip_suffix('%') {
        Some(number) => plain(number).map(|number| number / 100.0),
        None => plain(text).filter(|&number| number <= 1.0),
    };
    part.filter(|part| *part <= 1.0).ok_or_else(|| format!("`{text}` is no part like 50% or 0.5"))
}

/// Bytes: `4KiB`, `1MiB`, `300`; at most 1 GiB.
///
/// # Errors
/// When it is none.
pub fn size(text: &str) -> Result<u64, String> {
    values::size(text, 0, 1 << 30).map_err(|_| format!("`{text}` is no size like 300, 4KiB or 1MiB, at most 1GiB"))
}

/// `20ms`, `30s`, `10m`; from a millisecond to a week.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let week = Duration::from_secs(7 * 24 * 3600);
    let wrong = |_| format!("`{text}` is no duration like 20ms, 30s or 10m, at most a week");
    values::duration(text, Duration::from_millis(1), week).map_err(wrong)
}

/// Digits with at most one point between them.
fn plain(text: &str) -> Option<f64> {
    let sound = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let sound = sound && text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_digit());
    if sound { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_scale() {
        assert_eq!(
            (count("64"), count("50k"), count("1.5M"), count("1g")),
            (Ok(64), Ok(50_000), Ok(1_500_000), Ok(1_000_000_000))
        );
        assert_eq!((part("50%"), part("0.25"), part("100%"), part("0")), (Ok(0.5), Ok(0.25), Ok(1.0), Ok(0.0)));
        assert_eq!((size("4KiB"), size("0"), count_or_none("0")), (Ok(4096), Ok(0), Ok(0)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "k", "-1", "+1", "0", "1e3", "5 k", ".5k", "5.", "1.2.3", "inf", "nan", "9999999999999999999999k"]
        {
            assert!(count(text).is_err(), "{text}");
        }
        for text in ["", "%", "101%", "2", "-1%", "1e9%", "nan"] {
            assert!(part(text).is_err(), "{text}");
        }
        assert!(size("2GiB").is_err() && duration("8").is_err());
    }
}
