//! What is asked, and how: the options that `load` and the staged test have in common, and the requests they make.
//!
//! Owns their reading and their contradictions. Never sends anything.

use crate::amount;
use crate::body::{self, BODY_BYTES_MAX};
use crate::clients::{Ask, Order, Speech};
use crate::error::{Error, Result, Trying};
use crate::http::fields;
use crate::target::Target;
use crate::websocket;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Source addresses at most: 127.0.0.1 and up.
pub const SOURCES_MAX: usize = 250;
/// Requests per second over all connections, at most.
pub const RATE_MAX: u64 = 10_000_000;
/// How long a request may take at most: what takes longer is no latency any more.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(1800);
/// How long a request may take, unless somebody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Fields that make the framing: they can't be given.
const FRAMING: [&str; 5] = ["connection", "content-length", "transfer-encoding", "upgrade", "te"];

/// What is asked, and how.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Traffic {
    /// Bytes of the expected body, which are in the path when the URL has none; with --websocket: of each frame
    #[arg(long, default_value = "100", value_parser = amount::size)]
    pub body: usize,
    /// The method of the requests
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// A further field of the requests, as 'Name: value'; may be given several times, `Host` replaces the usual one
    #[arg(long = "header", value_name = "FIELD")]
    pub headers: Vec<Field>,
    /// Bytes of the body that each request has
    #[arg(long, value_name = "SIZE", value_parser = amount::size)]
    pub send: Option<usize>,
    /// A file that is the body of each request
    #[arg(long, value_name = "FILE", conflicts_with = "send")]
    pub body_file: Option<PathBuf>,
    /// The status of a good answer; with another than 200 any body is good
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    pub expect_status: u16,
    /// Take any body as good: for a target with something else than `speedmimi-bench origin` behind it
    #[arg(long)]
    pub any_body: bool,
    /// How long to load before measuring
    #[arg(long, default_value = "500ms", value_parser = amount::duration)]
    pub warmup: Duration,
    /// A request without a whole answer after so long has failed [default: 10s; in stages 60s]
    #[arg(long, value_parser = amount::duration)]
    pub timeout: Option<Duration>,
    /// Source addresses (127.0.0.1 and up) to connect from; 0: one per 10,000 connections
    #[arg(long, default_value_t = 0)]
    pub sources: usize,
    /// Also measure CPU time and memory of this process and its descendants
    #[arg(long)]
    pub pid: Option<u32>,
    /// One request a connection
    #[arg(long, conflicts_with_all = ["http2", "websocket", "events"])]
    pub new_connections: bool,
    /// Requests at once on each connection of HTTP/2
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Unary gRPC calls, each with a message of --body bytes that has to come back
    #[arg(long, requires = "http2", conflicts_with_all = ["websocket", "events"])]
    pub grpc: bool,
    /// WebSockets instead of requests: upgraded once, then frames of --body bytes that have to come back
    #[arg(long, conflicts_with_all = ["http2", "events"])]
    pub websocket: bool,
    /// Event streams instead of requests: each connection reads one; latency is from the origin's stamp in each event.
    /// Without a path in the URL an event comes every 10 ms, from `speedmimi-bench origin` on this machine
    #[arg(long, conflicts_with_all = ["http2", "rate"])]
    pub events: bool,
    /// Open loop: so many requests per second over all connections, each due at a time of its own. Latency is from
    /// that time, however late the request could be sent
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub rate: Option<u64>,
    /// How the times of an open loop are spaced
    #[arg(long, value_enum, default_value_t = Arrivals::Constant, requires = "rate")]
    pub arrivals: Arrivals,
    /// What the times of --arrivals poisson are drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Load a target that is not on this machine, or has a name. It has to be yours: this is enough load to hurt others
    #[arg(long)]
    pub i_own_this_target: bool,
    /// The protocol.
    #[command(flatten)]
    pub speech: Speech,
}

/// How the times of an open loop are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// All alike.
    Constant,
    /// As of many clients that know nothing of each other: exponentially distributed.
    Poisson,
}

/// A field of a request, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: String,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Field, String> {
        let (name, value) = fields::field(text.as_bytes()).map_err(|e| format!("`{text}`: {}", e.0))?;
        let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, value) = (owned(name), owned(value));
        if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(format!("`{name}` makes the framing: it follows from the other options"));
        }
        Ok(Field { name, value })
    }
}

impl Default for Traffic {
    /// As without any option: `GET` of 100 bytes over kept connections, in the clear.
    fn default() -> Self {
        Traffic {
            body: 100,
            method: "GET".into(),
            headers: Vec::new(),
            send: None,
            body_file: None,
            expect_status: 200,
            any_body: false,
            warmup: Duration::from_millis(500),
            timeout: None,
            sources: 0,
            pid: None,
            new_connections: false,
            streams: 1,
            grpc: false,
            websocket: false,
            events: false,
            rate: None,
            arrivals: Arrivals::Constant,
            seed: 1,
            i_own_this_target: false,
            speech: Speech::default(),
        }
    }
}

impl Traffic {
    /// Whether the options make sense together.
    ///
    /// # Errors
    /// Which does not, and what is allowed.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Usage(text));
        if self.body > BODY_BYTES_MAX || self.send.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
            return wrong(format!("--body and --send: at most {BODY_BYTES_MAX} bytes"));
        }
        if self.websocket && self.body > websocket::PAYLOAD_BYTES_MAX {
            return wrong(format!("--body {}: a frame has at most {} bytes", self.body, websocket::PAYLOAD_BYTES_MAX));
        }
        if self.streams == 0 || self.streams > 1 && !self.speech.http2 {
            return wrong("--streams is at least 1, and more than 1 with --http2 only".into());
        }
        if self.timeout().is_zero() || self.timeout() > TIMEOUT_MAX {
            return wrong(format!("--timeout has to be above 0, and {TIMEOUT_MAX:?} at most"));
        }
        if !fields::is_token(self.method.as_bytes()) || matches!(self.method.as_str(), "HEAD" | "CONNECT") {
            return wrong(format!("--method {}: a method whose answers have bodies", self.method));
        }
        if !(200..=599).contains(&self.expect_status) {
            return wrong(format!("--expect-status {}: outside 200..=599", self.expect_status));
        }
        if self.sources > SOURCES_MAX {
            return wrong(format!("--sources {}: outside 0..={SOURCES_MAX}", self.sources));
        }
        if self.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
            return wrong(format!("--rate: outside 1..={RATE_MAX}"));
        }
        Ok(())
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// What is asked, in order: with WebSockets the upgrade, then the frame; else one request.
    ///
    /// # Errors
    /// When the body's file can't be read.
    pub fn asks(&self, target: &Target) -> Result<Vec<Ask>> {
        let path = || target.path.clone().unwrap_or_else(|| format!("/{}", self.body));
        if self.grpc {
            return Ok(vec![Ask::Call { message: body::pattern(self.body) }]);
        }
        if self.websocket {
            let path = target.path.clone().unwrap_or_else(|| "/websocket".into());
            return Ok(vec![
                Ask::Upgrade { path, headers: self.fields() },
                Ask::Echo { payload: body::pattern(self.body) },
            ]);
        }
        let any = self.any_body || self.expect_status != 200;
        Ok(vec![Ask::Order(Order {
            method: self.method.clone(),
            path: if self.events { self.events_path(target) } else { path() },
            headers: self.fields(),
            body: self.request_body()?,
            status: self.expect_status,
            expect: (!any).then(|| body::pattern(self.body)),
            last: self.new_connections,
        })])
    }

    fn events_path(&self, target: &Target) -> String {
        target.path.clone().unwrap_or_else(|| "/events?every=10ms".into())
    }

    fn fields(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.headers.iter().map(|f| (f.name.clone(), f.value.clone())).collect();
        if self.events {
            all.push(("Accept".into(), "text/event-stream".into()));
        }
        all
    }

    fn request_body(&self) -> Result<Vec<u8>> {
        match (&self.body_file, self.send) {
            (Some(file), _) => {
                let bytes = fs::read(file).trying(|| format!("reading {}", file.display()))?;
                if bytes.len() > BODY_BYTES_MAX {
                    return Err(Error::Usage(format!("{}: above {BODY_BYTES_MAX} bytes", file.display())));
                }
                Ok(bytes)
            }
            (None, Some(len)) => Ok(body::pattern(len)),
            (None, None) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_as_they_are_typed() {
        let field: Field = "X-Case: a b ".parse().unwrap();
        assert_eq!((field.name.as_str(), field.value.as_str()), ("X-Case", "a b"));
        for wrong in ["no colon", "A b: c", "Content-Length: 3", "connection: close", "X: a\r\nY: b"] {
            assert!(wrong.parse::<Field>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn contradictions_are_wrong_usage() {
        let good = Traffic::default;
        assert!(good().check().is_ok());
        for (name, traffic) in [
            ("streams", Traffic { streams: 2, ..good() }),
            ("frame", Traffic { websocket: true, body: 1 << 20, ..good() }),
            ("method", Traffic { method: "HEAD".into(), ..good() }),
            ("status", Traffic { expect_status: 101, ..good() }),
            ("rate", Traffic { rate: Some(0), ..good() }),
            ("timeout", Traffic { timeout: Some(TIMEOUT_MAX + Duration::from_secs(1)), ..good() }),
        ] {
            assert!(matches!(traffic.check(), Err(Error::Usage(_))), "{name}");
        }
    }
}
