//! The client's end of a connection: asks on streams and compares what comes back while it streams.
//!
//! Owns streams and the verdict on an answer. Never touches a socket, never decides what to ask.

use super::fields::Fields;
use super::frame::{self, PREFACE, code, flag, kind, setting};
use super::hpack::Blocks;
use super::link::{Item, Link, State, is_allowed};
use crate::conns::Failure;
use crate::http::{Malformed, fields};
use std::collections::VecDeque;

/// What is asked, and what has to come back.
pub struct Job {
    /// The request's fields, in the forms that they are sent in.
    pub blocks: Blocks,
    /// The request's body.
    pub body: Vec<u8>,
    /// The status that is expected.
    pub status: u16,
    /// Every byte of the expected body; any body when there is none.
    pub expect: Option<Vec<u8>>,
    /// Whether `grpc-status: 0` has to come, too.
    pub grpc: bool,
}

/// A request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// As it was asked.
    pub key: usize,
    /// Its status, when one came.
    pub status: Option<u16>,
    /// Whether the answer is the expected one.
    pub verdict: Result<(), Failure>,
}

struct Call {
    stream: u32,
    key: usize,
    job: usize,
    /// Bytes of the request's body sent.
    sent: usize,
    window: i64,
    status: Option<u16>,
    /// Bytes of the answer's body so far, and whether all were right.
    body: usize,
    body_ok: bool,
    length: Option<u64>,
    grpc_ok: bool,
}

/// The client's end of one connection.
pub struct Client {
    link: Link,
    calls: Calls,
    next_stream: u32,
    /// The job whose fields the peer keeps.
    kept: Option<usize>,
    /// Asked for, but above the streams that the peer allows at once.
    waiting: VecDeque<(usize, usize)>,
}

#[derive(Default)]
struct Calls {
    open: Vec<Call>,
    /// The peer takes no further streams.
    going: bool,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            link: Link::new(PREFACE, &[(setting::ENABLE_PUSH, 0)]),
            calls: Calls::default(),
            next_stream: 1,
            kept: None,
            waiting: VecDeque::new(),
        }
    }
}

impl Client {
    /// What is to be sent; the caller takes from the front.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.link.state.out
    }

    /// Whether nothing may be asked any more.
    pub fn is_going(&self) -> bool {
        self.calls.going || self.next_stream > (1 << 30)
    }

    /// Asks, at once or when the peer allows another stream.
    pub fn ask(&mut self, key: usize, job: usize, jobs: &[Job]) {
        if self.calls.open.len() >= self.link.state.peer.streams_max {
            return self.waiting.push_back((key, job));
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        let asked = &jobs[job];
        let block = self.block(job, asked);
        let state = &mut self.link.state;
        state.put_headers(stream, asked.body.is_empty(), block);
        let mut call = Call {
            stream,
            key,
            job,
            sent: 0,
            window: state.peer.window,
            status: None,
            body: 0,
            body_ok: true,
            length: None,
            grpc_ok: false,
        };
        call.send_body(state, asked);
        self.calls.open.push(call);
    }

    /// The form of a job's fields that is sent now.
    fn block<'j>(&mut self, job: usize, asked: &'j Job) -> &'j [u8] {
        // A peer with a smaller table gets nothing to keep. What it dropped is not referred to either: its settings come
        // before its first answer, and until then nothing is asked a second time.
        let small = self.link.state.peer.table_bytes < super::hpack::TABLE_BYTES;
        match self.kept {
            _ if small => &asked.blocks.plain,
            None => {
                self.kept = Some(job);
                &asked.blocks.first
            }
            Some(kept) if kept == job => &asked.blocks.again,
            Some(_) => &asked.blocks.plain,
        }
    }

    /// Gives a request up.
    pub fn cancel(&mut self, key: usize) {
        self.waiting.retain(|(waiting, _)| *waiting != key);
        if let Some(at) = self.calls.open.iter().position(|call| call.key == key) {
            let call = self.calls.open.swap_remove(at);
            frame::put_reset(self.out(), call.stream, code::CANCEL);
        }
    }

    /// Takes bytes as they came and reports which requests have ended.
    ///
    /// # Errors
    /// When they are not HTTP/2.
    pub fn feed(&mut self, bytes: &[u8], jobs: &[Job], done: &mut Vec<Done>) -> Result<(), Malformed> {
        let calls = &mut self.calls;
        self.link.feed(bytes, |state, item| calls.item(state, item, jobs, done))?;
        while !self.waiting.is_empty() && self.calls.open.len() < self.link.state.peer.streams_max {
            let Some((key, job)) = self.waiting.pop_front() else { break };
            if self.calls.going {
                done.push(Done { key, status: None, verdict: Err(Failure::Refused) });
            } else {
                self.ask(key, job, jobs);
            }
        }
        Ok(())
    }
}

impl Calls {
    fn item(&mut self, state: &mut State, item: Item, jobs: &[Job], done: &mut Vec<Done>) -> Result<(), Malformed> {
        match item {
            Item::Headers { stream, end, fields } => {
                let Some(at) = self.position(stream) else { return Ok(()) };
                match self.open[at].fields(fields, end) {
                    Ok(()) if end => done.push(self.finish(at, state, jobs)),
                    Ok(()) => {}
                    Err(Malformed(_)) => done.push(self.fail(at, state, Failure::Malformed)),
                }
            }
            Item::Data { stream, end, bytes } => {
                let Some(at) = self.position(stream) else { return Ok(()) };
                let call = &mut self.open[at];
                if let Some(expect) = &jobs[call.job].expect {
                    call.body_ok &= expect.get(call.body..call.body + bytes.len()) == Some(bytes);
                }
                call.body += bytes.len();
                if end {
                    done.push(self.finish(at, state, jobs));
                }
            }
            Item::Reset { stream, code } => {
                if let Some(at) = self.position(stream) {
                    let call = self.open.swap_remove(at);
                    let failure = if code == code::REFUSED_STREAM { Failure::Refused } else { Failure::Closed };
                    done.push(Done { key: call.key, status: None, verdict: Err(failure) });
                }
            }
            Item::GoAway { last } => {
                self.going = true;
                let lost = self.open.extract_if(.., |call| call.stream > last);
                done.extend(lost.map(|call| Done { key: call.key, status: None, verdict: Err(Failure::Refused) }));
            }
            Item::Window { stream, by } => {
                for call in self.open.iter_mut().filter(|call| call.stream == stream) {
                    call.window += by;
                }
                self.send_bodies(state, jobs);
            }
            Item::Settings { window_change } => {
                self.open.iter_mut().for_each(|call| call.window += window_change);
                self.send_bodies(state, jobs);
            }
        }
        Ok(())
    }

    fn position(&self, stream: u32) -> Option<usize> {
        self.open.iter().position(|call| call.stream == stream)
    }

    fn send_bodies(&mut self, state: &mut State, jobs: &[Job]) {
        for call in &mut self.open {
            call.send_body(state, &jobs[call.job]);
        }
    }

    fn fail(&mut self, at: usize, state: &mut State, failure: Failure) -> Done {
        let call = self.open.swap_remove(at);
        frame::put_reset(&mut state.out, call.stream, code::CANCEL);
        Done { key: call.key, status: call.status, verdict: Err(failure) }
    }

    fn finish(&mut self, at: usize, state: &mut State, jobs: &[Job]) -> Done {
        let call = self.open.swap_remove(at);
        if call.sent < jobs[call.job].body.len() {
            // Answered early: the rest is not sent, and the peer must not wait for it.
            frame::put_reset(&mut state.out, call.stream, code::CANCEL);
        }
        Done { key: call.key, status: call.status, verdict: call.verdict(&jobs[call.job]) }
    }
}

impl Call {
    /// Takes a block: an interim head, the head, or trailers.
    fn fields(&mut self, all: &Fields, end: bool) -> Result<(), Malformed> {
        let trailers = self.status.is_some();
        let mut status = None;
        for (at, (name, value)) in all.iter().enumerate() {
            match name {
                b":status" if at == 0 && !trailers => status = Some(three_digits(value)?),
                _ if !is_allowed(name, value) => return Err(Malformed("a field that HTTP/2 does not know")),
                b"content-length" => fields::only_length(&mut self.length, value)?,
                b"grpc-status" => self.grpc_ok = value == b"0",
                _ => {}
            }
        }
        match (trailers, status) {
            (true, _) if end => Ok(()),
            (true, _) => Err(Malformed("trailers that end nothing")),
            (false, None) => Err(Malformed("an answer without a status")),
            (false, Some(100..200)) if end => Err(Malformed("an interim answer that is the last")),
            (false, Some(100..200)) => {
                self.length = None;
                Ok(())
            }
            (false, Some(_)) => {
                self.status = status;
                Ok(())
            }
        }
    }

    fn send_body(&mut self, state: &mut State, job: &Job) {
        while self.sent < job.body.len() {
            let len = state.allowance(self.window, job.body.len() - self.sent);
            if len == 0 {
                return;
            }
            let piece = &job.body[self.sent..self.sent + len];
            self.sent += len;
            self.window -= len as i64;
            state.window -= len as i64;
            let flags = if self.sent == job.body.len() { flag::END_STREAM } else { 0 };
            frame::put(&mut state.out, kind::DATA, flags, self.stream, piece);
        }
    }

    fn verdict(&self, job: &Job) -> Result<(), Failure> {
        if self.status != Some(job.status) || job.grpc && !self.grpc_ok {
            return Err(if self.status.is_none() { Failure::Malformed } else { Failure::Status });
        }
        if self.length.is_some_and(|length| length != self.body as u64) {
            return Err(Failure::Malformed);
        }
        let whole = job.expect.as_ref().is_none_or(|expect| expect.len() == self.body);
        if self.body_ok && whole { Ok(()) } else { Err(Failure::Body) }
    }
}

fn three_digits(value: &[u8]) -> Result<u16, Malformed> {
    let text = std::str::from_utf8(value).ok().filter(|t| t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|t| t.parse().ok()).ok_or(Malformed("a status that is none"))
}
