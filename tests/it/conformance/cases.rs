//! The cases: one request each, with a verdict for every status and what became of the connection.
//!
//! Owns sending them and looking up verdicts; never knows a proxy. Where one differs on purpose, the case stands in a
//! list of the caller's with the sentence of the RFC that allows it.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::{Lane, data, drive, payload, text};
use crate::client::{Client, Door};
use crate::origin::{Exchange, Next, Origin};
use crate::wire::{Response, Trouble, Wire};

/// How long a connection may stay silent where silence is a pass.
const SILENCE: Duration = Duration::from_millis(400);
/// How long an answer, or the end after it, may take where it is needed for a pass.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the end of a connection that may also stay open is waited for.
const END: Duration = Duration::from_millis(400);

/// A verdict of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Allowed, but not the best.
    Warn,
    Fail,
}

/// One case and how it went.
#[derive(Debug)]
pub struct Result {
    pub id: String,
    pub level: String,
    pub about: String,
    /// Whether it counts, by those who collected the cases.
    pub scored: bool,
    /// Whether the verdict also depends on content, which the table alone can't tell.
    pub by_content: bool,
    /// `STATUS/STATE`, e.g. `400/ClosedByServer` or `null/TimedOut`.
    pub seen: String,
    pub verdict: Verdict,
}

impl Result {
    /// The case in a line.
    pub fn line(&self) -> String {
        format!("  {:?} {} {} {}: {}", self.verdict, self.level, self.id, self.seen, self.about)
    }
}

/// What a client saw.
struct Answer {
    status: Option<u16>,
    /// The whole answer, if it was one.
    response: Option<Response>,
    state: &'static str,
}

/// An origin that accepts whatever comes: all refusing is left to the proxy. It sends content back.
pub fn permissive_origin() -> Origin {
    Origin::start_permissive(permit)
}

fn permit(exchange: &mut Exchange) -> io::Result<Next> {
    let body = match exchange.body() {
        Ok(body) => body,
        Err(Trouble::Garbage { .. }) => Vec::new(),
        Err(other) => return Err(other.into()),
    };
    let content = match exchange.request.method.as_str() {
        "HEAD" => Vec::new(),
        _ if exchange.path() == "/echo" => [exchange.request.raw.as_slice(), body.as_slice()].concat(),
        _ if body.is_empty() => b"ok".to_vec(),
        _ => body,
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nAllow: GET, HEAD, POST, OPTIONS\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    exchange.finish(&[head.as_bytes(), &content].concat())
}

/// Runs all cases over the lanes. The proxy's read timeout must be longer than [`PATIENCE`].
pub fn run(lanes: &[Lane]) -> Vec<Result> {
    drive(lanes, &data("cases.json.gz"), one)
}

fn one(lane: &Lane, case: &Value) -> Result {
    let host = match &lane.door {
        Door::Tcp(addr) => addr.to_string(),
        Door::Unix(_) => "a.test".to_owned(),
    };
    let bytes = replace(&payload(case), b"HOSTHOST", host.as_bytes());
    let answer = ask(lane, case, &bytes);
    let verdict = judge(case, &answer);
    let status = answer.status.map_or_else(|| "null".to_owned(), |s| s.to_string());
    Result {
        id: text(case, "id").to_owned(),
        level: text(case, "level").to_owned(),
        about: text(case, "desc").to_owned(),
        scored: case["scored"].as_bool().unwrap_or(false),
        by_content: case["body"].as_bool().unwrap_or(false),
        seen: format!("{status}/{}", answer.state),
        verdict,
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn ask(lane: &Lane, case: &Value, bytes: &[u8]) -> Answer {
    let silent = Answer { status: None, response: None, state: "TimedOut" };
    let mut client = Client::open(&lane.door);
    client.bound(if judge(case, &silent) == Verdict::Pass { SILENCE } else { PATIENCE });
    // The proxy may answer and close before it has read all.
    let _ = client.try_send(bytes);
    let method = String::from_utf8_lossy(bytes.split(|&b| b == b' ').next().unwrap_or_default()).into_owned();
    let mut answer = match client.wire.response_head(&method) {
        Ok(head) => Answer { status: Some(head.status), response: Some(head), state: "Open" },
        Err(Trouble::Quiet { .. }) => return silent,
        Err(_) => return Answer { status: None, response: None, state: "ClosedByServer" },
    };
    finish(&mut client.wire, &mut answer);
    if answer.state == "Open" && end_matters(case, &answer) {
        client.bound(END);
        answer.state = match client.wire.take_some() {
            Ok(more) if more.is_empty() => "ClosedByServer",
            Err(Trouble::Socket(_)) => "ClosedByServer",
            _ => "Open",
        };
    }
    answer
}

/// Reads the rest of the answer; an interim one is left as it is.
fn finish(wire: &mut Wire, answer: &mut Answer) {
    let Some(response) = answer.response.as_mut().filter(|r| r.status >= 200) else { return };
    match wire.body(response.framing) {
        Ok((body, trailers)) => (response.body, response.trailers) = (body, trailers),
        Err(Trouble::Quiet { .. }) => {}
        Err(_) => answer.state = "ClosedByServer",
    }
}

/// Whether the verdict differs with what becomes of the connection.
fn end_matters(case: &Value, answer: &Answer) -> bool {
    let of = |state| lookup(case, answer.status, state);
    case["table"].is_object() && of("Open") != of("ClosedByServer")
}

fn judge(case: &Value, answer: &Answer) -> Verdict {
    if case["table"].is_object() {
        return content(text(case, "id"), answer).unwrap_or_else(|| lookup(case, answer.status, answer.state));
    }
    let Some(status) = answer.status else {
        let pass = case["expectTimeout"] == true && answer.state == "TimedOut";
        return if pass { Verdict::Pass } else { Verdict::Fail };
    };
    let within = |range: &Value| range[0].as_i64() <= Some(status.into()) && Some(status.into()) <= range[1].as_i64();
    let fits = case["statuses"].as_array().into_iter().flatten().any(within);
    let body = answer.response.as_ref().map(Response::text);
    let same = match case["bodyText"].as_str() {
        Some(expected) if (200..300).contains(&status) => body.as_deref() == Some(expected),
        _ => true,
    };
    if fits && same { Verdict::Pass } else { Verdict::Fail }
}

fn lookup(case: &Value, status: Option<u16>, state: &str) -> Verdict {
    let of = |status: &str| case["table"][format!("{status}/{state}")].as_str();
    let found = match status {
        None => of("null"),
        // Statuses that no table names stand for their class.
        Some(s) => of(&s.to_string()).or_else(|| of(&(s / 100 * 100).to_string())),
    };
    match found {
        Some("Pass") => Verdict::Pass,
        Some("Warn") => Verdict::Warn,
        _ => Verdict::Fail,
    }
}

/// Cases whose verdict is in the content; `None` for all others and where there is no 200.
fn content(id: &str, answer: &Answer) -> Option<Verdict> {
    let response = answer.response.as_ref().filter(|r| r.status == 200)?;
    let good = match id {
        "COMP-POST-CL-BODY" | "COMP-CHUNKED-BODY" | "COMP-CHUNKED-TRAILER-VALID" => response.text() == "hello",
        "COMP-CHUNKED-MULTI" => response.text() == "hello world",
        "COMP-CHUNKED-HEX-UPPERCASE" => response.text() == "helloworld",
        "COMP-DATE-HEADER" => response.fields.all("date").len() == 1,
        _ => return None,
    };
    Some(if good { Verdict::Pass } else { Verdict::Fail })
}

/// The figures in a line: all scored cases, those at MUST level, and both without the ones that depend on content.
pub fn summary(results: &[Result]) -> String {
    let count = |of: &dyn Fn(&&Result) -> bool| {
        let counted: Vec<&Result> = results.iter().filter(|r| r.scored && of(r)).collect();
        let passed = |v: Verdict| counted.iter().filter(|r| r.verdict == v).count();
        format!("{} pass and {} warn of {}", passed(Verdict::Pass), passed(Verdict::Warn), counted.len())
    };
    format!(
        "scored: {}; at MUST level: {}; by table alone: {}, at MUST level {}",
        count(&|_| true),
        count(&|r| r.level == "Must"),
        count(&|r| !r.by_content),
        count(&|r| r.level == "Must" && !r.by_content),
    )
}

/// Fails unless every scored case at MUST level passes or is excused, each excuse is needed, and the score holds.
pub fn assert_musts(results: &[Result], excused: &[(&str, &str)], passes_min: usize) {
    println!("{}", summary(results));
    let fails = |r: &&Result| r.scored && r.level == "Must" && r.verdict == Verdict::Fail;
    let failed: Vec<&Result> = results.iter().filter(fails).collect();
    let is_excused = |r: &Result| excused.iter().any(|(id, _)| r.id == *id);
    let faults: Vec<String> = failed.iter().filter(|r| !is_excused(r)).map(|r| r.line()).collect();
    assert!(faults.is_empty(), "{}\n{}", summary(results), faults.join("\n"));
    let idle: Vec<_> = excused.iter().filter(|(id, _)| !failed.iter().any(|r| r.id == *id)).collect();
    assert!(idle.is_empty(), "no longer needed: {idle:?}");
    let passes = results.iter().filter(|r| r.scored && r.verdict == Verdict::Pass).count();
    assert!(passes >= passes_min, "{passes} passes, at least {passes_min} were reached before");
}

/// The cases are whole; a truncated file would pass everything.
#[test]
fn the_cases_are_whole() {
    let cases = data("cases.json.gz");
    assert_eq!(cases.len(), 216);
    assert_eq!(cases.iter().filter(|c| c["scored"] == true).count(), 177);
}
