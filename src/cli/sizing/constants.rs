//! What a request, a connection and a byte cost: measured by `speedmimi-bench calibrate`, or built in.
//!
//! Owns the constants and their file. Never measures.

use serde::{Deserialize, Serialize};

/// A measured value: the lower quartile of its rounds, their median, the upper quartile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub const fn new(low: f64, median: f64, high: f64) -> Spread {
        Spread { low, median, high }
    }

    /// Without a spread.
    pub const fn exactly(value: f64) -> Spread {
        Spread::new(value, value, value)
    }

    /// So many times as much.
    pub fn times(self, factor: f64) -> Spread {
        Spread::new(self.low * factor, self.median * factor, self.high * factor)
    }

    /// Both together.
    pub fn plus(self, other: Spread) -> Spread {
        Spread::new(self.low + other.low, self.median + other.median, self.high + other.high)
    }

    /// Half of what it is more than another one; never less than nothing.
    pub fn half_over(self, other: Spread) -> Spread {
        let half = |a: f64, b: f64| ((a - b) / 2.0).max(0.0);
        Spread::new(half(self.low, other.low), half(self.median, other.median), half(self.high, other.high))
    }

    /// Whether it makes sense.
    fn is_sound(self) -> bool {
        let all = [self.low, self.median, self.high];
        all.iter().all(|value| value.is_finite() && *value >= 0.0)
            && self.low <= self.median
            && self.median <= self.high
    }
}

/// CPU time in µs, memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constants {
    /// A request in the clear on a kept connection, answered with 100 bytes, with thousands of connections.
    pub http_request_us: Spread,
    /// The same over TLS.
    pub tls_request_us: Spread,
    /// The same over HTTP/2 and TLS.
    pub http2_request_us: Spread,
    /// A KiB of a body more.
    pub http_kib_us: Spread,
    pub tls_kib_us: Spread,
    pub http2_kib_us: Spread,
    /// A frame of a WebSocket passed on.
    pub websocket_frame_us: Spread,
    /// What a new connection costs beside its requests, to its end.
    pub connection_us: Spread,
    /// The same with a full handshake of TLS.
    pub handshake_us: Spread,
    /// What the proxy has for an idle connection.
    pub idle_bytes: Spread,
    pub tls_idle_bytes: Spread,
    pub http2_idle_bytes: Spread,
    pub websocket_idle_bytes: Spread,
    /// What the kernel has for one end of a connection.
    pub socket_bytes: Spread,
}

impl Constants {
    /// Those in the program.
    pub const BUILT_IN: Constants = Constants {
        http_request_us: Spread::new(14.7, 15.7, 17.4),
        tls_request_us: Spread::new(16.5, 17.5, 19.2),
        http2_request_us: Spread::new(10.6, 16.1, 17.8),
        http_kib_us: Spread::new(0.13, 0.14, 0.19),
        tls_kib_us: Spread::new(0.24, 0.26, 0.30),
        http2_kib_us: Spread::new(0.70, 0.73, 0.80),
        websocket_frame_us: Spread::new(4.7, 6.5, 8.0),
        connection_us: Spread::new(36.0, 38.5, 42.5),
        handshake_us: Spread::new(95.0, 101.0, 110.0),
        idle_bytes: Spread::new(17.0, 58.0, 140.0),
        tls_idle_bytes: Spread::new(2586.0, 4408.0, 4600.0),
        http2_idle_bytes: Spread::new(26_425.0, 28_211.0, 28_900.0),
        websocket_idle_bytes: Spread::new(1748.0, 1842.0, 1900.0),
        socket_bytes: Spread::new(3640.0, 3750.0, 4300.0),
    };

    fn all(&self) -> [Spread; 14] {
        [
            self.http_request_us,
            self.tls_request_us,
            self.http2_request_us,
            self.http_kib_us,
            self.tls_kib_us,
            self.http2_kib_us,
            self.websocket_frame_us,
            self.connection_us,
            self.handshake_us,
            self.idle_bytes,
            self.tls_idle_bytes,
            self.http2_idle_bytes,
            self.websocket_idle_bytes,
            self.socket_bytes,
        ]
    }
}

/// What `speedmimi-bench calibrate` writes; what else is in it is for people.
#[derive(Debug, Deserialize)]
struct Calibration {
    /// Machine, kernel, program.
    facts: Vec<String>,
    constants: Constants,
}

/// Constants and the facts of their measurement from the text of a file.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<(Constants, Vec<String>), String> {
    let calibration: Calibration = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match calibration.constants.all().iter().all(|spread| spread.is_sound()) {
        true => Ok((calibration.constants, calibration.facts)),
        false => Err("a constant is negative, or its quartiles are out of order".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_is_read_and_nonsense_refused() {
        let constants = serde_json::to_value(Constants::BUILT_IN).unwrap();
        let text = |constants: &serde_json::Value| {
            serde_json::json!({"facts": ["a machine"], "constants": constants, "rounds": []}).to_string()
        };
        assert_eq!(read(&text(&constants)), Ok((Constants::BUILT_IN, vec!["a machine".to_owned()])));
        let mut wrong = constants.clone();
        wrong["idle_bytes"]["low"] = 1e9.into();
        assert!(read(&text(&wrong)).unwrap_err().contains("out of order"));
        wrong["idle_bytes"]["low"] = (-1).into();
        assert!(read(&text(&wrong)).is_err());
        let mut missing = constants;
        missing.as_object_mut().unwrap().remove("tls_kib_us");
        assert!(read(&text(&missing)).unwrap_err().contains("tls_kib_us"));
        assert!(read("").is_err());
    }

    /// The measuring program writes this file in a test of its own.
    #[test]
    fn what_calibrate_writes_is_read() {
        let (constants, facts) = read(include_str!("../../../bench/tests/calibration.json")).unwrap();
        assert_eq!((constants.handshake_us, facts), (Spread::new(100.0, 101.0, 104.0), vec!["a machine".to_owned()]));
    }

    #[test]
    fn built_in_constants_make_sense() {
        assert!(Constants::BUILT_IN.all().iter().all(|spread| spread.is_sound()));
    }
}
