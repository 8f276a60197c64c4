//! What is told of an exchange afterwards: its counters and its line in the access log.
//!
//! Owns the line's format and the batch of lines that goes to the writer. Never writes a file and never waits: a batch
//! the writer has no room for is dropped and counted.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::SystemTime;

use super::client::Client;
use super::local::Local;
use crate::config::plan::AccessFormat;
use crate::error::Reason;
use crate::http::class::Protocol;
use crate::http::head::RequestHead;
use crate::shared::command::{AccessSink, LogBatch};
use crate::shared::trouble::Trouble;
use crate::upstream::view::{BackendView, RouteView};

/// Longest path, host, method, referrer or agent that goes into a line, in bytes; what is longer is cut.
const TEXT_BYTES_MAX: usize = 2048;
/// A batch is handed over when it is this large, or at the next tick.
const BATCH_BYTES: usize = 32 * 1024;

/// One worker's end of the access log.
#[derive(Debug)]
pub struct Sink {
    access: AccessSink,
    batch: Vec<u8>,
    lines: u64,
}

impl Sink {
    /// An empty batch for `access`.
    pub fn new(access: AccessSink) -> Self {
        Sink { access, batch: Vec::new(), lines: 0 }
    }

    /// Hands over what there is; called every tick.
    pub fn flush(&mut self, local: &Local) {
        if self.lines == 0 {
            return;
        }
        let capacity = self.batch.len().min(BATCH_BYTES);
        let bytes = std::mem::replace(&mut self.batch, Vec::with_capacity(capacity));
        let lines = std::mem::take(&mut self.lines);
        match self.access.writer.try_send(LogBatch { bytes, lines }) {
            Ok(()) => local.stats.log_lines_written.add(lines),
            Err(_) => local.stats.log_lines_dropped.add(lines),
        }
    }
}

/// What is noted of one exchange.
#[derive(Debug, Default)]
pub struct Record {
    /// The request id, then (only while a log is written) method, host, path, protocol version, referrer, agent.
    text: Vec<u8>,
    ends: [u16; 7],
    client: Option<IpAddr>,
    /// When its head was taken in; 0 for what is no request.
    began_us: u64,
    /// When the try with the backend began that served it last.
    tried_us: u64,
    /// What the clock said last, while that is still so: nothing was waited for since.
    now_us: Option<u64>,
    /// On the clock on the wall; only while a log is written.
    began: Option<SystemTime>,
    is_event_stream: bool,
    /// Microseconds of connecting; `None` on a kept connection.
    pub connect_us: Option<u64>,
    /// Microseconds from the request's head to the answer's.
    pub first_byte_us: Option<u64>,
    /// The answer's status, 0 when there was none.
    pub status: u16,
    /// Why the proxy answered or ended it itself.
    pub reason: Option<Reason>,
    /// What exactly was wrong, where the reason's own words say too little; empty else.
    pub detail: &'static str,
    /// Who served it last.
    pub backend: Option<Rc<BackendView>>,
    /// Tries after the first.
    pub retries: u32,
    /// Bytes of body from the client.
    pub bytes_in: u64,
    /// Bytes to the client, head included.
    pub bytes_out: u64,
}

impl Record {
    /// Begins a record. The rest of the request is noted only when it will be told.
    pub fn begin(
        &mut self,
        local: &Local,
        kept_id: Option<&[u8]>,
        client: IpAddr,
        head: &RequestHead<'_>,
        is_http2: bool,
    ) {
        self.clear();
        self.client = Some(client);
        local.stats.requests.inc();
        self.began_us = crate::clock::stamp_us();
        self.tried_us = self.began_us;
        match kept_id {
            Some(id) => self.note(0, id),
            None => self.note(0, &local.new_request_id()),
        }
        if local.access.borrow().is_none() {
            return;
        }
        self.began = Some(SystemTime::now());
        let version: &[u8] = match head.version() {
            _ if is_http2 => b"HTTP/2.0",
            crate::http::head::Version::Http10 => b"HTTP/1.0",
            crate::http::head::Version::Http11 => b"HTTP/1.1",
        };
        let field = |name| head.fields().get(name).unwrap_or(b"");
        let agent = head.fields().get("User-Agent").unwrap_or(b"");
        let host = head.authority().map_or(b"".as_slice(), |a| a.as_bytes());
        let texts = [head.method_name(), host, head.target(), version, field("Referer"), agent];
        for (i, text) in texts.into_iter().enumerate() {
            self.note(i + 1, text);
        }
    }

    /// Begins a record of what came in place of a request: nothing is known but its sender.
    pub fn begin_unread(&mut self, local: &Local, client: IpAddr) {
        self.clear();
        self.client = Some(client);
        self.note(0, &local.new_request_id());
        if local.access.borrow().is_some() {
            self.began = Some(SystemTime::now());
            self.ends = [self.ends[0]; 7];
        }
    }

    /// Forgets everything but its room.
    pub fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Record { text, ..Record::default() };
    }

    /// The request id.
    pub fn request_id(&self) -> &[u8] {
        self.part(0)
    }

    fn note(&mut self, i: usize, text: &[u8]) {
        self.text.extend_from_slice(&text[..text.len().min(TEXT_BYTES_MAX)]);
        self.ends[i] = self.text.len() as u16;
    }

    fn part(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { usize::from(self.ends[i - 1]) };
        self.text.get(start..usize::from(self.ends[i])).unwrap_or(b"")
    }

    /// Connecting took since `from_us` of the process clock.
    pub fn connected(&mut self, from_us: u64) {
        if self.began.is_some() {
            self.connect_us = Some(crate::clock::stamp_us().saturating_sub(from_us));
        }
    }

    /// Whether times are told of it.
    pub fn is_told(&self) -> bool {
        self.began.is_some()
    }

    /// Another try begins, or one that had to wait in a queue.
    pub fn begin_try(&mut self) {
        self.tried_us = crate::clock::stamp_us();
    }

    /// The answer's head came.
    pub fn answered(&mut self) {
        let now_us = crate::clock::stamp_us();
        self.now_us = Some(now_us);
        self.first_byte_us = Some(now_us.saturating_sub(self.began_us));
        if let Some(backend) = &self.backend {
            backend.stats.latency().first_byte.record(now_us.saturating_sub(self.tried_us));
        }
    }

    /// The answer is an event stream, which ends when the client likes.
    pub fn begin_event_stream(&mut self, local: &Local) {
        if !std::mem::replace(&mut self.is_event_stream, true) {
            local.stats.event_streams_active.inc();
        }
    }

    /// Something was waited for: the time is not what it was.
    pub fn waited(&mut self) {
        self.now_us = None;
    }

    /// Counts how long it took, if an answer's end says anything about that: not where somebody left before it, nor for
    /// what lasts as long as its client likes. Returns the time in microseconds.
    ///
    /// An answer that came and went in one step ends when its head was there: the clock is not read for the write.
    fn count_latency(&mut self, local: &Local) -> u64 {
        let now_us = self.now_us.unwrap_or_else(crate::clock::stamp_us);
        let total_us = now_us.saturating_sub(self.began_us);
        let is_whole = self.reason.is_none_or(Reason::is_answered);
        if is_whole && self.status != 101 && !self.is_event_stream {
            local.stats.latency().record(total_us);
            if let Some(backend) = self.backend.as_ref().filter(|_| self.reason.is_none()) {
                backend.stats.latency().total.record(now_us.saturating_sub(self.tried_us));
            }
        }
        total_us
    }

    /// Counts the exchange, and writes its line.
    pub fn finish(&mut self, client: &Client, route: Option<&RouteView>, protocol: Option<Protocol>) {
        let stats = &client.local.stats;
        stats.client_bytes_in.add(self.bytes_in);
        stats.client_bytes_out.add(self.bytes_out);
        stats.statuses.count(self.status);
        if let Some(reason) = self.reason {
            stats.reasons.count(reason);
            if reason.is_answered() {
                stats.troubles().push(self.trouble(reason, route));
            }
        }
        if self.is_event_stream {
            stats.event_streams_active.dec();
        }
        let total_us = if self.began_us > 0 { self.count_latency(&client.local) } else { 0 };
        let mut access = client.local.access.borrow_mut();
        if let Some(sink) = access.as_mut() {
            match sink.access.format {
                AccessFormat::Json => {
                    let tls = client.session.as_ref().map_or("", |session| session.version);
                    self.json(&mut sink.batch, route, protocol, (tls, total_us));
                }
                AccessFormat::Combined => self.combined(&mut sink.batch),
            }
            sink.lines += 1;
            if sink.batch.len() >= BATCH_BYTES {
                sink.flush(&client.local);
            }
        }
    }

    /// What management tells of an answer that was not the backend's.
    fn trouble(&self, reason: Reason, route: Option<&RouteView>) -> Trouble {
        let text = |i| String::from_utf8_lossy(self.part(i)).into_owned();
        // A query may hold what is nobody else's business.
        let path = text(3).split('?').next().unwrap_or_default().to_owned();
        Trouble {
            at: SystemTime::now(),
            request_id: text(0),
            reason,
            detail: if self.detail.is_empty() { reason.detail() } else { self.detail },
            status: self.status(),
            route: route.map(|route| route.conf.name.clone()),
            has_own_timeout: route.is_some_and(|route| route.conf.response_timeout.is_some()),
            upstream: route.and_then(|route| route.upstream.as_ref()).map(|upstream| upstream.conf.name.clone()),
            backend: self.backend.as_ref().map(|backend| backend.conf.id.clone()),
            client: self.client,
            method: text(1),
            host: text(2),
            path,
            retries: self.retries,
        }
    }

    fn status(&self) -> u16 {
        match (self.status, self.reason) {
            (0, Some(reason)) => reason.status(),
            (status, _) => status,
        }
    }

    fn json(
        &self,
        out: &mut Vec<u8>,
        route: Option<&RouteView>,
        protocol: Option<Protocol>,
        (tls, total_us): (&str, u64),
    ) {
        let mut line = Json { out, is_first: true };
        line.text("time", timestamp(self.began).as_bytes());
        line.text("request_id", self.part(0));
        line.text("client", self.client.map(|ip| ip.to_string()).unwrap_or_default().as_bytes());
        line.text("method", self.part(1));
        line.text("host", self.part(2));
        line.text("path", self.part(3));
        line.text("protocol", protocol.map_or("", Protocol::name).as_bytes());
        line.text("route", route.map_or("", |r| &r.conf.name).as_bytes());
        let upstream = route.and_then(|r| r.upstream.as_ref()).map_or("", |u| &u.conf.name);
        line.text("upstream", upstream.as_bytes());
        line.text("backend", self.backend.as_ref().map_or("", |b| &b.conf.id).as_bytes());
        line.number("status", u64::from(self.status()));
        line.text("reason", self.reason.map_or("", Reason::code).as_bytes());
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.millis("connect_ms", self.connect_us);
        line.millis("first_byte_ms", self.first_byte_us);
        line.millis("total_ms", Some(total_us));
        line.number("retries", u64::from(self.retries));
        line.text("tls", tls.as_bytes());
        out.extend_from_slice(b"}\n");
    }

    /// `client - - [time] "request" status bytes "referrer" "agent"`.
    fn combined(&self, out: &mut Vec<u8>) {
        let client = self.client.map(|ip| ip.to_string()).unwrap_or_default();
        out.extend_from_slice(client.as_bytes());
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(clf_time(self.began).as_bytes());
        out.extend_from_slice(b"] \"");
        for (i, part) in [1, 3, 4].into_iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            quoted(out, self.part(part));
        }
        out.extend_from_slice(format!("\" {} {} \"", self.status(), self.bytes_out).as_bytes());
        quoted(out, non_empty(self.part(5)));
        out.extend_from_slice(b"\" \"");
        quoted(out, non_empty(self.part(6)));
        out.extend_from_slice(b"\"\n");
    }
}

fn non_empty(text: &[u8]) -> &[u8] {
    if text.is_empty() { b"-" } else { text }
}

/// As httpd writes what came from a client: quotes and backslashes escaped, everything unprintable as `\xhh`.
fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

struct Json<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl Json<'_> {
    fn raw(&mut self, key: &str, value: &[u8]) {
        self.out.push(if std::mem::take(&mut self.is_first) { b'{' } else { b',' });
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out.extend_from_slice(value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.raw(key, itoa::Buffer::new().format(value).as_bytes());
    }

    fn millis(&mut self, key: &str, us: Option<u64>) {
        match us {
            Some(us) => self.raw(key, format!("{}.{:03}", us / 1000, us % 1000).as_bytes()),
            None => self.raw(key, b"null"),
        }
    }

    fn text(&mut self, key: &str, value: &[u8]) {
        self.raw(key, b"\"");
        // What is no UTF-8 is shown as U+FFFD: a line is always valid JSON.
        let mut escaped = String::with_capacity(value.len() + 1);
        for c in String::from_utf8_lossy(value).chars() {
            match c {
                '"' => escaped.push_str("\\\""),
                '\\' => escaped.push_str("\\\\"),
                c if (c as u32) < 0x20 || c == '\u{7f}' => {
                    let _ = write!(escaped, "\\u{:04x}", c as u32);
                }
                c => escaped.push(c),
            }
        }
        self.out.extend_from_slice(escaped.as_bytes());
        self.out.push(b'"');
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: Option<SystemTime>) -> String {
    let (date, ms) = civil(time);
    let [y, mo, d, h, mi, s] = date;
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{ms:03}Z")
}

fn clf_time(time: Option<SystemTime>) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let ([y, mo, d, h, mi, s], _) = civil(time);
    let month = MONTHS.get(mo as usize - 1).unwrap_or(&"Jan");
    format!("{d:02}/{month}/{y:04}:{h:02}:{mi:02}:{s:02} +0000")
}

/// Year, month, day, hour, minute, second in UTC, and milliseconds (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", 2013, civil_from_days).
fn civil(time: Option<SystemTime>) -> ([u64; 6], u64) {
    let since = time.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    ([year, month, day, second / 3600, second / 60 % 60, second % 60], u64::from(since.subsec_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_told_as_other_tools_tell_them() {
        let time = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007));
        assert_eq!(timestamp(time), "2024-02-29T12:34:56.007Z");
        assert_eq!(clf_time(time), "29/Feb/2024:12:34:56 +0000");
    }

    #[test]
    fn what_a_client_sent_cannot_break_a_line() {
        let mut out = Vec::new();
        quoted(&mut out, b"a\"b\\c\n\x80");
        assert_eq!(out, br#"a\"b\\c\x0a\x80"#);
        let mut out = Vec::new();
        Json { out: &mut out, is_first: true }.text("k", b"a\"\\\n\x80\x7f");
        assert_eq!(String::from_utf8(out).unwrap(), "{\"k\":\"a\\\"\\\\\\u000a\u{fffd}\\u007f\"");
    }
}
