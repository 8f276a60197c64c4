//! Requests that others collected, sent to a proxy byte for byte: what reaches the backend is judged, and what the
//! client is answered.
//!
//! Owns the runs over `tests/conformance`; `corpus` looks at the backend's side, `cases` at the client's. `peers` puts
//! nginx and HAProxy in the proxy's place to see that the harness finds what is known of them. Never decides itself
//! what is unambiguous: that is for other people's parsers (`judge`).

mod cases;
mod corpus;
mod judge;
mod peers;
mod speedmimi;

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::client::Door;
use crate::origin::Origin;
use crate::wire::lock;

/// Proxies that are asked side by side; each has one client and one origin, so that captures cannot mix.
const LANES_COUNT: usize = 24;

/// A proxy with an origin of its own.
pub struct Lane {
    pub door: Door,
    pub origin: Origin,
}

/// Puts every item through some lane, each lane one at a time; results in the order of the items.
fn drive<I: Sync, R: Send>(lanes: &[Lane], items: &[I], ask: impl Fn(&Lane, &I) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = ask(lane, item);
                    lock(&results).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no lane failed");
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The list in a compressed file of `tests/conformance`.
fn data(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name);
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list = serde_json::from_reader(flate2::read::GzDecoder::new(file));
    list.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A text that must be there.
fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_else(|| panic!("no {key} in {item}"))
}

/// Bytes of the `hex` of an item.
fn payload(item: &Value) -> Vec<u8> {
    let digits = text(item, "hex").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.unwrap_or_else(|| panic!("bad hex in {item}"))
}
