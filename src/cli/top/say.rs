//! Numbers as people read them in a narrow place, by the same rules as the dashboard, in ASCII.
//!
//! Owns the formats. Never knows where a number stands.

/// Stands for what is not known.
pub const NONE: &str = "-";

/// A whole number with its thousands apart.
pub fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut told = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// A count that may be large: exact below 100,000, else to three digits.
pub fn count(n: u64) -> String {
    if n < 100_000 { whole(n) } else { short(n as f64) }
}

/// So many a second, without the unit.
pub fn rate(n: Option<f64>) -> String {
    match n {
        Some(n) if n >= 10_000.0 => short(n),
        Some(n) if n == 0.0 || n >= 99.95 => whole(n.round() as u64),
        Some(n) => format!("{n:.1}"),
        None => NONE.to_owned(),
    }
}

/// So many a second, with the unit.
pub fn per_second(n: Option<f64>) -> String {
    n.map_or(NONE.to_owned(), |n| format!("{}/s", rate(Some(n))))
}

/// To three digits, with the letter of its size.
fn short(n: f64) -> String {
    let mut n = n;
    for unit in ["", "K", "M", "G", "T"] {
        // What rounds up to the next size is of the next size.
        if n < 999.5 || unit == "T" {
            return match () {
                () if unit.is_empty() || n >= 99.95 => format!("{n:.0}{unit}"),
                () if n >= 9.995 => format!("{n:.1}{unit}"),
                () => format!("{n:.2}{unit}"),
            };
        }
        n /= 1000.0;
    }
    String::new()
}

/// A part of a hundred, with its sign.
pub fn percent(n: Option<f64>) -> String {
    match n.filter(|n| n.is_finite()) {
        Some(n) if n == 0.0 || n >= 99.95 => format!("{n:.0} %"),
        Some(n) => format!("{n:.1} %"),
        None => NONE.to_owned(),
    }
}

/// Milliseconds, without the unit; from ten seconds on seconds, with it.
pub fn ms(n: Option<f64>) -> String {
    match n {
        Some(n) if n < 9.995 => format!("{n:.2}"),
        Some(n) if n < 99.95 => format!("{n:.1}"),
        Some(n) if n < 9_999.5 => whole(n.round() as u64),
        Some(n) if n < 999_950.0 => format!("{:.1} s", n / 1000.0),
        Some(n) => format!("{} s", whole((n / 1000.0).round() as u64)),
        None => NONE.to_owned(),
    }
}

/// Bytes.
pub fn bytes(n: f64) -> String {
    let (mut n, mut unit) = (n, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if n < 999.5 {
            break;
        }
        (n, unit) = (n / 1024.0, next);
    }
    if unit == "B" || n >= 99.95 { format!("{n:.0} {unit}") } else { format!("{n:.1} {unit}") }
}

/// A length of time, in its two largest units.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes, rest) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// The time of day of a moment, given in milliseconds since 1970.
pub fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_never_show_a_thousand_of_a_size() {
        assert_eq!([0, 999, 1000, 99_999].map(count), ["0", "999", "1,000", "99,999"]);
        assert_eq!([100_000, 999_499, 999_500, 12_345_678].map(count), ["100K", "999K", "1.00M", "12.3M"]);
        assert_eq!(count(u64::MAX), "18446744T");
        assert_eq!(
            [0.0, 0.04, 99.94, 99.95, 9_999.4, 10_000.0].map(|n| rate(Some(n))),
            ["0", "0.0", "99.9", "100", "9,999", "10.0K"]
        );
        assert_eq!(
            [0.001, 9.994, 9.995, 99.95, 9_999.5, 4_260_000.0].map(|n| ms(Some(n))),
            ["0.00", "9.99", "10.0", "100", "10.0 s", "4,260 s"]
        );
        assert_eq!([0.0, 999.0, 1000.0, 1048576.0, 1e9].map(bytes), ["0 B", "999 B", "1.0 KiB", "1.0 MiB", "954 MiB"]);
        assert_eq!(
            [Some(0.0), Some(33.33), Some(99.96), Some(f64::NAN), None].map(percent),
            ["0 %", "33.3 %", "100 %", "-", "-"]
        );
    }

    #[test]
    fn times_are_told_in_two_units() {
        assert_eq!(
            [0, 59, 60, 3599, 3600, 86_399, 90_000].map(span),
            ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 1 h"]
        );
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20 UTC");
    }
}
