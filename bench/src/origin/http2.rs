//! The origin's connections of HTTP/2: what a request is answered with, now or when its delay is over.
//!
//! Owns the blocks of answers. Never touches a socket.

use super::{Counters, Options, Spoil, Stats, bump};
use crate::body;
use crate::h2::hpack;
use crate::h2::server::Answer;
use crate::http::request::{Ask, Request};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// Sizes of bodies whose answer is kept ready, at most.
const CACHE_COUNT_MAX: usize = 16;

/// The fields and the body of an answer.
type Ready = (Rc<Vec<u8>>, Rc<Vec<u8>>);

/// Makes answers.
#[derive(Default)]
pub struct Answers {
    ready: Vec<(usize, Ready)>,
    /// Since 1970, in s; the `date` of all that is in `ready`.
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

    /// The answer to a request; nothing when its stream is to be reset.
    pub fn make(&mut self, options: &Options, counters: &Counters, request: &Request, echo: Vec<u8>) -> Option<Answer> {
        match request.ask {
            Ask::Stats => Some(self.stats(&counters.stats())),
            Ask::StatsAnew => Some(self.stats(&counters.stats_anew())),
            Ask::Unknown | Ask::WebSocket(_) | Ask::Events { .. } => Some(self.answer("404", "text/plain", Vec::new())),
            Ask::Grpc | Ask::Body(_) => {
                let number = bump(&counters.requests);
                if options.fail_every > 0 && number.is_multiple_of(options.fail_every) {
                    bump(&counters.spoilt);
                    return self.spoilt(request, options.fail_with);
                }
                Some(self.good(request, echo))
            }
        }
    }

    fn stats(&self, stats: &Stats) -> Answer {
        // A struct of numbers always has a JSON form.
        let json = serde_json::to_vec(stats).unwrap_or_default();
        self.answer("200", "application/json", json)
    }

    fn good(&mut self, request: &Request, echo: Vec<u8>) -> Answer {
        let Ask::Body(len) = request.ask else {
            let mut head = Vec::new();
            hpack::put_field(&mut head, ":status", "200");
            hpack::put_field(&mut head, "content-type", "application/grpc");
            return Answer { head: Rc::new(head), body: Rc::new(echo), trailers: Some(TRAILERS) };
        };
        let (head, body) = self.body(len);
        let body = if request.wants_body { body } else { Rc::default() };
        Answer { head, body, trailers: None }
    }

    fn spoilt(&mut self, request: &Request, how: Spoil) -> Option<Answer> {
        match how {
            Spoil::Status => Some(self.answer("500", "text/plain", b"as told\n".to_vec())),
            Spoil::Body => {
                let mut wrong = self.good(request, vec![0; 5]);
                if let Some(last) = Rc::make_mut(&mut wrong.body).last_mut() {
                    *last = b'!';
                }
                Some(wrong)
            }
            Spoil::Close | Spoil::Garbage => None,
        }
    }

    fn body(&mut self, len: usize) -> Ready {
        if let Some((_, ready)) = self.ready.iter().find(|(size, _)| *size == len) {
            return ready.clone();
        }
        let made = self.answer("200", "text/plain", body::pattern(len));
        let ready = (made.head, made.body);
        if self.ready.len() < CACHE_COUNT_MAX {
            self.ready.push((len, ready.clone()));
        }
        ready
    }

    fn answer(&self, status: &str, kind: &str, body: Vec<u8>) -> Answer {
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(self.second));
        let mut head = Vec::new();
        hpack::put_field(&mut head, ":status", status);
        hpack::put_field(&mut head, "server", "speedmimi-bench");
        hpack::put_field(&mut head, "date", &date);
        hpack::put_field(&mut head, "content-type", kind);
        hpack::put_field(&mut head, "content-length", &body.len().to_string());
        Answer { head: Rc::new(head), body: Rc::new(body), trailers: None }
    }
}
