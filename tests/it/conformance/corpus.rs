//! The corpus: nothing ambiguous and nothing a strict parser refuses reaches the backend.
//!
//! Owns sending the payloads and capturing the backend's side. Never waits for longer than the proxy's own deadlines:
//! each payload is over when the proxy closes, which its read and idle timeouts make certain.

use std::io;

use serde_json::Value;

use super::judge::{self, Judgement, Verdict};
use super::{Lane, data, drive, payload, text};
use crate::client::Client;
use crate::origin::{Exchange, Next, Origin};
use crate::wire::Trouble;

/// A field that the proxy under test has to put into each request it knows of.
pub const MARK: &str = "X-Conformance-Mark: 7c1f0e";

/// What became of a corpus.
pub struct Outcome {
    pub judgements: Vec<Judgement>,
    /// How many payloads every parser, strict ones and others, reads as the same complete requests.
    pub plain: usize,
    /// Those of them of which nothing complete was relayed.
    pub withheld: Vec<String>,
}

impl Outcome {
    /// The payloads with that verdict.
    pub fn with(&self, verdict: Verdict) -> Vec<&Judgement> {
        self.judgements.iter().filter(|j| j.verdict == verdict).collect()
    }

    /// The figures in a line.
    pub fn summary(&self) -> String {
        let relayed = self.judgements.iter().filter(|j| j.requests > 0).count();
        let picky = self.with(Verdict::Clean).iter().filter(|j| !j.refused_by.is_empty()).count();
        format!(
            "{} payloads: {relayed} relayed, {} ambiguous, {} refused by a strict parser, {picky} refused by another \
             one for its own reasons; {} of {} plain ones relayed",
            self.judgements.len(),
            self.with(Verdict::Ambiguous).len(),
            self.with(Verdict::Refused).len(),
            self.plain - self.withheld.len(),
            self.plain,
        )
    }
}

/// An origin that records, answers what is complete, and ends after each request, so that no connection is shared by
/// two payloads.
pub fn capturing_origin() -> Origin {
    Origin::start_permissive(capture)
}

fn capture(exchange: &mut Exchange) -> io::Result<Next> {
    if exchange.request.fields.lists("expect", "100-continue") {
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    match exchange.body() {
        Ok(_) | Err(Trouble::Garbage { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    exchange.finish(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(Next::Listen)
}

/// Sends the corpus through the lanes and has judged what arrived.
pub fn run(name: &str, lanes: &[Lane]) -> Outcome {
    let corpus = data("corpus.json.gz");
    let payloads: Vec<(&str, Vec<u8>)> = corpus.iter().map(|item| (text(item, "id"), payload(item))).collect();
    let captures = drive(lanes, &payloads, |lane, (_, bytes)| capture_one(lane, bytes));
    let sent = payloads.iter().map(|(id, bytes)| (*id, vec![bytes.as_slice()]));
    let arrived = payloads.iter().zip(&captures).map(|((id, _), c)| (*id, c.iter().map(Vec::as_slice).collect()));
    let plain = judge::judge(&format!("{name}-sent"), "", sent);
    let judgements = judge::judge(name, MARK, arrived);
    let is_plain = |j: &Judgement| j.verdict == Verdict::Clean && j.requests > 0 && j.refused_by.is_empty();
    let plain: Vec<_> = plain.iter().zip(&judgements).filter(|(sent, _)| is_plain(sent)).collect();
    let withheld = plain.iter().filter(|(_, arrived)| arrived.requests == 0).map(|(sent, _)| sent.id.clone()).collect();
    Outcome { plain: plain.len(), withheld, judgements }
}

/// The bytes of each connection that the payload caused at the lane's origin.
fn capture_one(lane: &Lane, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut client = Client::open(&lane.door);
    // The proxy may have refused and closed by now; a reset ends the wait as well as an end does.
    let _ = client.try_send(bytes);
    let _ = client.wire.take_to_end();
    drop(client);
    lane.origin.settle().into_iter().map(|c| c.bytes).collect()
}

/// Fails unless all is clean and what is plainly right was relayed, but for the payloads in `refused` (with the reason),
/// each of which has to be refused.
pub fn assert_clean(outcome: &Outcome, refused: &[(&str, &[&str])]) {
    println!("{}", outcome.summary());
    let faulty = outcome.judgements.iter().filter(|j| j.verdict != Verdict::Clean);
    let faults: Vec<String> = faulty.map(|j| format!("  {:?} {}: {}", j.verdict, j.id, j.why)).collect();
    assert!(faults.is_empty(), "{}\n{}", outcome.summary(), faults.join("\n"));
    // Refusing everything would be clean, too.
    let expected = || refused.iter().flat_map(|(_, ids)| ids.iter());
    let missing: Vec<_> = outcome.withheld.iter().filter(|id| !expected().any(|e| e == id)).collect();
    assert!(missing.is_empty(), "{}; plain, but not relayed: {missing:?}", outcome.summary());
    let relayed: Vec<_> = expected().filter(|e| !outcome.withheld.iter().any(|id| id == *e)).collect();
    assert!(relayed.is_empty(), "relayed, though they should be refused: {relayed:?}");
}

/// The corpus is whole; a truncated file would pass everything.
#[test]
fn the_corpus_is_whole() {
    let corpus: Vec<Value> = data("corpus.json.gz");
    assert_eq!(corpus.len(), 797);
    assert_eq!(corpus.iter().map(|item| payload(item).len()).sum::<usize>(), 140839);
}
