//! The origin's answers as bytes, the common ones kept ready.
//!
//! Owns their wire form and the cache. Never sends.

use super::{Spoil, Stats};
use crate::body;
use crate::websocket;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// Sizes of bodies whose answer is kept ready, at most.
const CACHE_COUNT_MAX: usize = 16;

/// A whole answer: head and body.
pub type Bytes = Rc<Vec<u8>>;

/// Makes answers.
#[derive(Default)]
pub struct Answers {
    ready: Vec<(usize, Bytes)>,
    /// Since 1970, in s; the `Date` of all that is in `ready`.
    second: u64,
}

impl Answers {
    /// Takes note of the time; answers of an earlier second are forgotten.
    pub fn tick(&mut self, now: SystemTime) {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second {
            self.second = second;
            self.ready.clear();
        }
    }

    /// 200 with so many bytes of the pattern.
    pub fn body(&mut self, len: usize) -> Bytes {
        if let Some((_, bytes)) = self.ready.iter().find(|(size, _)| *size == len) {
            return Rc::clone(bytes);
        }
        let bytes = Rc::new(self.answer("200 OK", "text/plain", &body::pattern(len)));
        if self.ready.len() < CACHE_COUNT_MAX {
            self.ready.push((len, Rc::clone(&bytes)));
        }
        bytes
    }

    /// The answer to `HEAD`.
    pub fn head(&self, len: usize) -> Bytes {
        Rc::new(self.answer_head("200 OK", "text/plain", len).into_bytes())
    }

    /// An answer spoilt on purpose; `None` for none at all.
    pub fn spoilt(&self, len: usize, how: Spoil) -> Option<Bytes> {
        let bytes = match how {
            Spoil::Status => self.answer("500 Internal Server Error", "text/plain", b"as told\n"),
            Spoil::Body => {
                let mut wrong = body::pattern(len);
                if let Some(last) = wrong.last_mut() {
                    *last = b'!';
                }
                self.answer("200 OK", "text/plain", &wrong)
            }
            Spoil::Close => return None,
            Spoil::Garbage => b"neither head nor tail\r\n\r\n".to_vec(),
        };
        Some(Rc::new(bytes))
    }

    /// What was counted, as JSON.
    pub fn stats(&self, stats: &Stats) -> Bytes {
        // A struct of numbers always has a JSON form.
        let json = serde_json::to_vec(stats).unwrap_or_default();
        Rc::new(self.answer("200 OK", "application/json", &json))
    }

    /// 404 and 400.
    pub fn error(&self, status: &str) -> Bytes {
        Rc::new(self.answer(status, "text/plain", b""))
    }

    /// The head of an event stream.
    pub fn events(&self) -> Bytes {
        let head = "HTTP/1.1 200 OK\r\nServer: speedmimi-bench\r\nContent-Type: text/event-stream\r\n\
                    Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
        Rc::new(head.as_bytes().to_vec())
    }

    /// 101 for a key.
    pub fn upgrade(&self, key: &[u8]) -> Bytes {
        let accept = websocket::accept_value(key);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        Rc::new(head.into_bytes())
    }

    fn answer(&self, status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.answer_head(status, kind, body.len()).into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    fn answer_head(&self, status: &str, kind: &str, len: usize) -> String {
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(self.second));
        format!(
            "HTTP/1.1 {status}\r\nServer: speedmimi-bench\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n"
        )
    }
}
