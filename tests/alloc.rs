//! A kept-alive exchange allocates nothing in steady state, however its bodies are framed: counted over the whole
//! process.
//!
//! Owns the process (one test, its own binary): the counting allocator sees client, proxy and backend alike.

mod ends;

use std::sync::Arc;
use std::time::Instant;

use ends::Exchange;
use speedmimi::{config, server};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 5_000;
/// What the clock's second, a tick's log line or a table that grows once may allocate meanwhile.
const ALLOCATIONS_MAX: usize = 50;
/// What one look of control at the machine and the counters may take.
const LOOK_ALLOCATIONS_MAX: usize = 200;

const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
const GET: &str = "GET /some/path?with=query HTTP/1.1\r\n";
const POST: &str = "POST /some/path?with=query HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";

/// A head with the fields of a usual client.
fn request(line: &str) -> Vec<u8> {
    format!("{line}Host: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// A body of `count` chunks of `size` bytes.
fn chunks(count: usize, size: usize) -> Vec<u8> {
    let chunk = [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
    [&chunk.repeat(count)[..], b"0\r\n\r\n"].concat()
}

fn plain_answer() -> (Vec<u8>, &'static [u8]) {
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nServer: test\r\n\r\n0123456789".to_vec(), b"0123456789")
}

fn answered_in_chunks(count: usize, size: usize) -> Exchange {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: test\r\n\r\n";
    let answer = [&head[..], &chunks(count, size)].concat();
    Exchange { request: request(GET), request_end: b"\r\n\r\n", answer, answer_end: LAST_CHUNK }
}

fn sent_in_chunks(count: usize, size: usize) -> Exchange {
    let request = [request(POST), chunks(count, size)].concat();
    let (answer, answer_end) = plain_answer();
    Exchange { request, request_end: LAST_CHUNK, answer, answer_end }
}

#[test]
fn a_kept_alive_exchange_allocates_nothing() {
    let (answer, answer_end) = plain_answer();
    assert_allocates_nothing("a GET", Exchange { request: request(GET), request_end: b"\r\n\r\n", answer, answer_end });
    assert_allocates_nothing("an answer in chunks", answered_in_chunks(3, 100));
    assert_allocates_nothing("a large answer in chunks", answered_in_chunks(8, 10_000));
    assert_allocates_nothing("an upload in chunks", sent_in_chunks(3, 100));
    // As much as is kept to be sent again; buffers for more are not, for the memory's sake.
    assert_allocates_nothing("a large upload in chunks", sent_in_chunks(3, 3_000));
    assert_allocates_nothing("an upload that fills the retry buffer", sent_in_chunks(3, 5_000));
}

fn assert_allocates_nothing(what: &str, exchange: Exchange) {
    let exchange = Arc::new(exchange);
    let port = ends::backend(&exchange);
    let text = format!(
        "grpc: {{enabled: false}}\n\
         server: {{host: 127.0.0.1, port: 0, workers: 1, fd_tables: shared}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {port}}}]}}\n\
         routing: {{default: {{path: /, upstream: default}}}}\n"
    );
    let plan = config::document::Document::from_text(&text, "test.yaml", |_| None).expect("a sound configuration");
    let proxy = server::start(plan).expect("a started proxy");
    let mut client = ends::connect(proxy.addr(0).expect("an address"));
    ends::ask(&mut client, &exchange, 500);
    let region = Region::new(ALLOCATOR);
    let began = Instant::now();
    ends::ask(&mut client, &exchange, REQUESTS);
    let taken = began.elapsed();
    let change = region.change();
    let counted = change.allocations + change.reallocations;
    // Control looks at the machine once a second, beside.
    let beside = ALLOCATIONS_MAX + LOOK_ALLOCATIONS_MAX * (1 + taken.as_secs() as usize);
    assert!(
        counted <= beside,
        "{what}: {counted} allocations in {REQUESTS} exchanges ({taken:?}): {change:?}; at most {beside} are no part of them"
    );
    drop(client);
    proxy.stop();
}
