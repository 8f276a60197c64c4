//! What gRPC lays upon HTTP/2: its deadline, and its way of saying that something went wrong.
//!
//! Owns the grammar of `grpc-timeout`, the codes that stand for our statuses, and the encoding of a message (gRPC over
//! HTTP/2, "Requests" and "Responses"; "HTTP to gRPC Status Code Mapping"). Never reads a gRPC message.

use std::time::Duration;

use crate::error::Reason;

/// Longest value of `grpc-timeout`, in digits.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// How long the client waits, by its `grpc-timeout`; `None` for what is none.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Whether a content type is gRPC itself, and not one of its relatives, which have answers of their own (grpc-web).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let Some((name, rest)) = content_type.split_at_checked(NAME.len()) else { return false };
    name.eq_ignore_ascii_case(NAME) && matches!(rest, [] | [b'+' | b';' | b' ' | b'\t', ..])
}

/// The code for an answer of ours with this reason. DEADLINE_EXCEEDED says that the call may have happened, and is for time
/// that was up while it was answered; what another try may cure is UNAVAILABLE.
pub const fn code(reason: Reason) -> u8 {
    match reason {
        Reason::ConnectTimeout | Reason::BackendStalled => UNAVAILABLE,
        _ => code_of_status(reason.status()),
    }
}

const UNAVAILABLE: u8 = 14;

const fn code_of_status(status: u16) -> u8 {
    match status {
        400 => 13,
        403 => 7,
        404 | 405 | 505 => 12,
        413 | 414 | 431 => 8,
        504 => 4,
        408 | 421 | 502 | 503 => UNAVAILABLE,
        _ => 2,
    }
}

/// Appends a `grpc-message`: what is not visible ASCII, and the percent sign, percent-encoded.
pub fn write_message(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        let ms = |value: &str| timeout(value.as_bytes()).map(|timeout| timeout.as_micros());
        assert_eq!(ms("1H"), Some(3_600_000_000));
        assert_eq!(ms("2M"), Some(120_000_000));
        assert_eq!(ms("99999999S"), Some(99_999_999_000_000));
        assert_eq!((ms("3m"), ms("4u"), ms("5000n")), (Some(3000), Some(4), Some(5)));
        for odd in ["", "S", "1", "1s", "-1S", "+1S", "1 S", "123456789S", "1.5S", " 1S"] {
            assert_eq!(ms(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_grpc_itself_is_grpc() {
        for yes in ["application/grpc", "Application/gRPC+proto", "application/grpc; x=y"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpcx", "application/grp", "text/plain"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn every_answer_of_ours_has_a_code() {
        for &reason in Reason::ALL.iter().filter(|reason| reason.is_answered()) {
            assert_ne!(code(reason), 2, "{reason}");
        }
        assert_eq!([Reason::DeadlineExceeded, Reason::ResponseTimeout].map(code), [4; 2]);
        assert_eq!([Reason::ConnectTimeout, Reason::BackendStalled, Reason::QueueTimeout].map(code), [14; 3]);
        assert_eq!([Reason::Denied, Reason::NoRoute, Reason::BodyTooLarge].map(code), [7, 12, 8]);
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        write_message(&mut out, "50% späť\n");
        assert_eq!(out, b"50%25 sp%C3%A4%C5%A5%0A");
    }
}
