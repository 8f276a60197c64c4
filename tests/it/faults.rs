//! Every reason for which the proxy answers or ends an exchange itself, provoked: what the client gets, whether its
//! connection lives on, and that this reason and no other was counted, once.
//!
//! Owns the contract's table as a second opinion on `speedmimi::error`. [`Reason::NoDescriptor`] needs a process whose
//! descriptors are used up, which tests that share one process can't have; [`Reason::Shutdown`] is told by the tests of
//! draining, [`Reason::BackendCut`] by those of management, [`Reason::BackendRefused`] and [`Reason::UpgradeUnsupported`]
//! by those of HTTP/2 backends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use speedmimi::error::Reason;
use speedmimi::shared::stats::Totals;

use crate::client::Client;
use crate::dir::Dir;
use crate::fleet::Fleet;
use crate::origin::{self, Next, Origin};
use crate::pki::{self, Pki};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::websocket;
use crate::wire::Response;

/// What becomes of the client's connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Kept,
    Closed,
}
use After::{Closed, Kept};

/// The contract: status and RFC 9209 error type of each reason that is answered; `None` for those that end an exchange
/// without an answer. No default arm: a new reason needs its row.
fn contract(reason: Reason) -> Option<(u16, &'static str)> {
    Some(match reason {
        Reason::BadRequest => (400, "http_request_error"),
        Reason::Denied => (403, "http_request_denied"),
        Reason::NoRoute => (404, "destination_not_found"),
        Reason::MethodNotServed => (405, "http_request_error"),
        Reason::Misdirected => (421, "http_request_error"),
        Reason::HeadTimeout | Reason::BodyTimeout => (408, "http_request_error"),
        Reason::BodyTooLarge => (413, "http_request_error"),
        Reason::TargetTooLong => (414, "http_request_error"),
        Reason::HeadTooLarge => (431, "http_request_error"),
        Reason::VersionNotServed => (505, "http_request_error"),
        Reason::ConnectFailed => (502, "connection_refused"),
        Reason::BackendClosed => (502, "connection_terminated"),
        Reason::BackendProtocol => (502, "http_protocol_error"),
        Reason::BackendRefused => (502, "http_request_error"),
        Reason::BackendUpgrade | Reason::UpgradeUnsupported => (502, "http_upgrade_failed"),
        Reason::BackendUnresolved => (502, "dns_error"),
        Reason::BackendTruncated => (502, "http_response_incomplete"),
        Reason::BackendTls => (502, "tls_protocol_error"),
        Reason::BackendCertificate => (502, "tls_certificate_error"),
        Reason::ConnectTimeout => (504, "connection_timeout"),
        Reason::ResponseTimeout | Reason::DeadlineExceeded => (504, "http_response_timeout"),
        Reason::BackendStalled => (504, "connection_read_timeout"),
        Reason::NoBackend | Reason::BackendCut => (503, "destination_unavailable"),
        Reason::BackendsFull | Reason::QueueFull | Reason::QueueTimeout => (503, "connection_limit_reached"),
        Reason::NoDescriptor | Reason::NoLocalPort => (503, "proxy_internal_error"),
        Reason::ClientClosed | Reason::ClientStalled | Reason::TunnelIdle | Reason::Shutdown => return None,
    })
}

/// The reasons counted so far, each with its number.
fn counted(totals: &Totals) -> Vec<(Reason, u64)> {
    Reason::ALL.iter().map(|&reason| (reason, totals.reasons.of(reason))).filter(|&(_, n)| n > 0).collect()
}

/// Waits for the count of `reason`, and nothing else is counted.
#[track_caller]
fn assert_counted(proxy: &Proxy, reason: Reason) {
    wait::until(&format!("{reason} to be counted"), || proxy.stats().reasons.of(reason) > 0);
    assert_eq!(counted(&proxy.stats()), [(reason, 1)]);
}

/// The answer is the proxy's own for `reason`, and says so in every way it has to.
#[track_caller]
fn assert_answer(answer: &Response, reason: Reason, after: After) {
    let (status, error) = contract(reason).expect("a reason that is answered");
    assert_eq!((answer.status, answer.version.as_str()), (status, "HTTP/1.1"), "{answer:?}");
    let one = |name| answer.fields.one(name).unwrap_or_default();
    let proxy_status = one("proxy-status");
    let details = proxy_status.strip_prefix(&format!("speedmimi; error={error}; details="));
    assert!(details.is_some_and(is_sf_string), "{proxy_status:?}");
    assert_eq!(one("content-type"), "text/plain; charset=utf-8");
    assert!(!one("date").is_empty(), "{answer:?}");
    let id = one("x-request-id");
    assert!(!id.is_empty() && answer.text().contains(&format!("request id: {id}\n")), "{answer:?}");
    assert_eq!(answer.fields.lists("connection", "close"), after == Closed, "{answer:?}");
    let may_come_again = matches!(reason, Reason::BackendsFull | Reason::QueueFull | Reason::QueueTimeout);
    assert_eq!(answer.fields.one("retry-after").is_some(), may_come_again, "{answer:?}");
    assert_eq!(answer.fields.one("allow").is_some(), reason == Reason::MethodNotServed, "{answer:?}");
}

/// Whether this is one string of a structured field and nothing behind it (RFC 9651, section 3.3.3).
fn is_sf_string(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let bare = inside.replace("\\\\", "").replace("\\\"", "");
    bare.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// The whole of a row: the answer to what `client` sent, its connection afterwards, the count.
#[track_caller]
fn assert_row(proxy: &Proxy, client: &mut Client, reason: Reason, after: After) -> Response {
    let answer = client.response();
    assert_answer(&answer, reason, after);
    assert_counted(proxy, reason);
    match after {
        Closed => client.expect_end(),
        Kept => assert_eq!(client.get("/nowhere/else").status, 404, "the connection serves another request"),
    }
    answer
}

/// One route `/` of all paths but `/nowhere`, which has none: so that any kept connection can show that it is one.
fn start(server: &[(&str, &str)], backend: &str, upstream: &str) -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = start_before(&origin, server, backend, upstream);
    (origin, proxy)
}

fn start_before(origin: &Origin, server: &[(&str, &str)], backend: &str, upstream: &str) -> Proxy {
    Proxy::start(server, &on_host(&sections(origin, backend, upstream)))
}

/// Routes only what is for `a.test`, and answers `/nowhere` there with a 404 that is no fault.
fn on_host(sections: &str) -> String {
    let routing = "routing: {default: {hosts: [a.test], upstream: default}, \
                   nowhere: {path: /nowhere, hosts: [a.test], respond: {status: 404, body: nowhere}}}\n";
    let at = sections.find("routing:").expect("a section");
    format!("{}{routing}", &sections[..at])
}

/// Sends bytes over a connection of its own.
fn send(proxy: &Proxy, bytes: impl AsRef<[u8]>) -> Client {
    let mut client = proxy.client();
    client.send(bytes);
    client
}

fn send_get(proxy: &Proxy, target: &str) -> Client {
    send(proxy, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
}

// The client's faults.

#[test]
fn bad_request() {
    for bad in [
        &b"GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\nHost: a.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let (origin, proxy) = start(&[], "", "");
        assert_row(&proxy, &mut send(&proxy, bad), Reason::BadRequest, Closed);
        assert!(origin.requests().is_empty());
    }
}

#[test]
fn bad_request_in_a_chunk() {
    let (origin, proxy) = start(&[], "", "");
    let mut client = send(&proxy, b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    origin.wait_for_in_flight(1);
    client.send(b"lo\r\n0x1\r\n");
    assert_row(&proxy, &mut client, Reason::BadRequest, Closed);
    origin.wait_for_silence();
}

#[test]
fn denied() {
    let origin = Origin::start(origin::by_path);
    let open = on_host(&sections(&origin, "", ""));
    let proxy = Proxy::start(&[], &open.replacen("upstream: default}", "upstream: default, deny: [127.0.0.0/8]}", 1));
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::Denied, Kept);
    assert!(origin.requests().is_empty());
}

#[test]
fn no_route() {
    let (origin, proxy) = start(&[], "", "");
    let mut client = send(&proxy, b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_row(&proxy, &mut client, Reason::NoRoute, Kept);
    assert!(origin.requests().is_empty());
}

#[test]
fn method_not_served() {
    let (_origin, proxy) = start(&[], "", "");
    let mut client = send(&proxy, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    let answer = assert_row(&proxy, &mut client, Reason::MethodNotServed, Closed);
    assert!(answer.fields.lists("allow", "GET") && !answer.fields.lists("allow", "CONNECT"), "{answer:?}");
}

#[test]
fn head_timeout() {
    let (_origin, proxy) = start(&[("read_timeout", "200ms")], "", "");
    assert_row(&proxy, &mut send(&proxy, b"GET / HT"), Reason::HeadTimeout, Closed);
}

#[test]
fn head_timeout_of_a_later_request() {
    let (_origin, proxy) = start(&[("read_timeout", "300ms")], "", "");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    client.send(b"GET / HTTP/1.1\r\nHo");
    assert_row(&proxy, &mut client, Reason::HeadTimeout, Closed);
}

/// Sends one byte at a time with a tenth of a second between, until all are sent or the peer has closed. The pace is
/// what is tested; nobody waits for its end.
fn dribble(client: &Client, bytes: &'static [u8]) -> thread::JoinHandle<()> {
    let mut sender = client.wire.sock.again().expect("a second handle");
    thread::spawn(move || {
        for byte in bytes {
            thread::park_timeout(Duration::from_millis(100));
            if io::Write::write_all(&mut sender, &[*byte]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn head_timeout_of_one_that_comes_byte_by_byte() {
    let (_origin, proxy) = start(&[("read_timeout", "400ms")], "", "");
    let mut client = proxy.client();
    let sending = dribble(&client, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = client.response();
    assert_answer(&answer, Reason::HeadTimeout, Closed);
    assert_counted(&proxy, Reason::HeadTimeout);
    drop(client);
    sending.join().expect("the dribbling thread");
}

#[test]
fn a_body_may_come_byte_by_byte_and_the_backend_has_its_time_from_its_end() {
    let (_origin, proxy) = start(&[("read_timeout", "400ms")], "", "response_timeout: 400ms");
    let mut client = send(&proxy, b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n");
    let sending = dribble(&client, b"0123456789");
    assert_eq!(client.response().text(), "0123456789");
    sending.join().expect("the dribbling thread");
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let origin = Origin::start(|exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
        for byte in b"012345678" {
            thread::park_timeout(Duration::from_millis(100));
            exchange.send(&[*byte])?;
        }
        exchange.finish(b"9")
    });
    let proxy = start_before(&origin, &[], "", "read_timeout: 400ms, response_timeout: 400ms");
    assert_eq!(send_get(&proxy, "/").response().text(), "0123456789");
}

#[test]
fn body_timeout() {
    let (origin, proxy) = start(&[("read_timeout", "200ms")], "", "");
    let mut client = send(&proxy, b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhel");
    assert_row(&proxy, &mut client, Reason::BodyTimeout, Closed);
    origin.wait_for_silence();
}

#[test]
fn body_too_large() {
    let (origin, proxy) = start(&[("max_body_bytes", "10")], "", "");
    let mut client = send(&proxy, b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n");
    assert_row(&proxy, &mut client, Reason::BodyTooLarge, Closed);
    assert!(origin.requests().is_empty());
}

#[test]
fn body_too_large_in_chunks() {
    let (origin, proxy) = start(&[("max_body_bytes", "10")], "", "");
    let head = b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst \r\n";
    let mut client = send(&proxy, head);
    origin.wait_for_in_flight(1);
    client.send(b"5\r\nmore.\r\n");
    assert_row(&proxy, &mut client, Reason::BodyTooLarge, Closed);
    origin.wait_for_silence();
}

#[test]
fn target_too_long() {
    let (_origin, proxy) = start(&[], "", "");
    let request = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(9000));
    assert_row(&proxy, &mut send(&proxy, request), Reason::TargetTooLong, Closed);
}

#[test]
fn target_too_long_for_the_head() {
    let (_origin, proxy) = start(&[("max_header_bytes", "2KiB")], "", "");
    let request = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(3000));
    assert_row(&proxy, &mut send(&proxy, request), Reason::TargetTooLong, Closed);
}

#[test]
fn head_too_large() {
    let (_origin, proxy) = start(&[("max_header_bytes", "4KiB")], "", "");
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(5000));
    assert_row(&proxy, &mut send(&proxy, request), Reason::HeadTooLarge, Closed);
}

#[test]
fn version_not_served() {
    let (_origin, proxy) = start(&[], "", "");
    let mut client = send(&proxy, b"GET / HTTP/2.0\r\nHost: a.test\r\n\r\n");
    assert_row(&proxy, &mut client, Reason::VersionNotServed, Closed);
}

#[test]
fn client_closed() {
    let (origin, proxy) = start(&[], "", "");
    let client = send_get(&proxy, "/never");
    origin.wait_for_in_flight(1);
    client.reset();
    assert_counted(&proxy, Reason::ClientClosed);
    origin.wait_for_silence();
}

#[test]
fn client_stalled() {
    let (origin, proxy) = start(&[("write_timeout", "200ms")], "", "");
    // More than the sockets' buffers take, which grow to some megabytes.
    let _client = send_get(&proxy, "/size/30000000");
    assert_counted(&proxy, Reason::ClientStalled);
    origin.wait_for_silence();
}

#[test]
fn tunnel_idle() {
    let (origin, proxy) = start(&[("tunnel_timeout", "200ms")], "", "");
    let mut client = proxy.client();
    client.upgrade("/ws");
    client.expect_end();
    assert_counted(&proxy, Reason::TunnelIdle);
    origin.wait_for_silence();
}

// The backend's faults.

#[test]
fn connect_failed() {
    let (origin, proxy) = start(&[], "", "");
    origin.kill();
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::ConnectFailed, Kept);
}

#[test]
fn connect_failed_at_a_socket_file_that_is_not_there() {
    let sections = "backends: {default: [{host: \"unix:/nonexistent/speedmimi.sock\"}]}\nrouting:";
    let proxy = Proxy::start(&[], &on_host(sections));
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::ConnectFailed, Kept);
}

#[test]
fn backend_closed() {
    for path in ["/close", "/reset"] {
        let (_origin, proxy) = start(&[], "", "");
        assert_row(&proxy, &mut send_get(&proxy, path), Reason::BackendClosed, Kept);
    }
}

#[test]
fn backend_closed_within_the_head() {
    let origin = Origin::start(|exchange| {
        exchange.finish(b"HTTP/1.1 200 OK\r\nContent-Le")?;
        Ok(Next::Close)
    });
    let proxy = start_before(&origin, &[], "", "");
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendClosed, Kept);
    assert_eq!(origin.requests().len(), 1, "an answer that had begun is not asked for again");
}

#[test]
fn backend_protocol() {
    for bad in [
        &b"\x16\x03\x01 this is no HTTP\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ] {
        let origin = Origin::start(|exchange| exchange.finish(bad));
        let proxy = start_before(&origin, &[], "", "");
        assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendProtocol, Kept);
        assert_eq!(origin.requests().len(), 1, "it would say the same again");
    }
}

#[test]
fn backend_upgrade() {
    let origin = Origin::start(|exchange| exchange.finish(websocket::ACCEPTED));
    let proxy = start_before(&origin, &[], "", "");
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendUpgrade, Kept);
}

#[test]
fn backend_unresolved() {
    // RFC 6761, section 6.4: no resolver knows a name in `invalid`.
    let sections = "backends: {default: [{host: nobody.invalid, port: 80}]}\nrouting:";
    let proxy = Proxy::start(&[], &on_host(sections));
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendUnresolved, Kept);
}

#[test]
fn backend_tls() {
    let port = pki::who_speaks_no_tls();
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: https}}]}}\n\
         upstreams: {{default: {{retries: 0, tls: {{verify: false}}}}}}\nrouting:"
    );
    let proxy = Proxy::start(&[], &on_host(&sections));
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendTls, Kept);
}

#[test]
fn backend_certificate() {
    let (pki, stranger) = (Pki::new("backend-certificate"), Pki::new("backend-certificate-stranger"));
    let origin = Origin::start_tls(pki.server(&pki.issue(&["127.0.0.1"]), false), origin::by_path);
    let upstream = format!("retries: 0, tls: {{ca_file: {}}}", stranger.ca_file().display());
    let proxy = start_before(&origin, &[], "scheme: https", &upstream);
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendCertificate, Kept);
}

#[test]
fn backend_truncated() {
    let (_origin, proxy) = start(&[], "", "");
    let mut client = send_get(&proxy, "/half");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.read_to_end(), b"hello", "what came is passed on, and the end shows that it is not all");
    assert_counted(&proxy, Reason::BackendTruncated);
}

#[test]
fn backend_truncated_in_chunks() {
    let origin = Origin::start(|exchange| {
        exchange.finish(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        Ok(Next::Close)
    });
    let proxy = start_before(&origin, &[], "", "");
    let mut client = send_get(&proxy, "/");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.read_to_end(), b"5\r\nhello\r\n", "no last chunk");
    assert_counted(&proxy, Reason::BackendTruncated);
}

#[test]
fn connect_timeout() {
    let full = FullListener::new();
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\nupstreams: {{default: {{connect_timeout: 200ms}}}}\nrouting:",
        full.port
    );
    let proxy = Proxy::start(&[], &on_host(&sections));
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::ConnectTimeout, Kept);
}

#[test]
fn response_timeout() {
    let (_origin, proxy) = start(&[], "", "response_timeout: 200ms");
    assert_row(&proxy, &mut send_get(&proxy, "/never"), Reason::ResponseTimeout, Kept);
}

#[test]
fn response_timeout_of_a_head_that_trickles() {
    let origin = Origin::start(|exchange| {
        // Faster than the timeout, and never done.
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: ".iter().chain(std::iter::repeat_n(&b'x', 1000)) {
            exchange.send(&[*byte])?;
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        exchange.finish(b"")
    });
    let proxy = start_before(&origin, &[], "", "response_timeout: 400ms");
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::ResponseTimeout, Kept);
}

#[test]
fn response_timeout_of_the_route() {
    let origin = Origin::start(origin::by_path);
    let sections = on_host(&sections(&origin, "", "response_timeout: 30s"));
    let sections = sections.replacen("upstream: default}", "upstream: default, response_timeout: 200ms}", 1);
    let proxy = Proxy::start(&[], &sections);
    assert_row(&proxy, &mut send_get(&proxy, "/never"), Reason::ResponseTimeout, Kept);
}

#[test]
fn backend_stalled_within_its_answer() {
    let origin = Origin::start(|exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        exchange.hold()
    });
    let proxy = start_before(&origin, &[], "", "read_timeout: 200ms");
    let mut client = send_get(&proxy, "/");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.read_to_end(), b"hello");
    assert_counted(&proxy, Reason::BackendStalled);
}

#[test]
fn backend_stalled_within_the_upload() {
    let origin = Origin::start(|exchange| {
        exchange.gate("never").pass()?;
        Ok(Next::Close)
    });
    let proxy = start_before(&origin, &[("write_timeout", "200ms")], "", "");
    let mut client = send(&proxy, b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 90000000\r\n\r\n");
    origin.wait_for_in_flight(1);
    let mut sender = client.wire.sock.again().expect("a second handle");
    let feeding = thread::spawn(move || while io::Write::write_all(&mut sender, &[b'x'; 65_536]).is_ok() {});
    let answer = client.response();
    assert_answer(&answer, Reason::BackendStalled, Closed);
    assert_counted(&proxy, Reason::BackendStalled);
    feeding.join().expect("the feeding thread");
}

// The operator's.

#[test]
fn no_backend() {
    let (_origin, proxy) = start(&[], "active: false", "");
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::NoBackend, Kept);
}

#[test]
fn backends_full() {
    let (origin, proxy) = start(&[], "max_conn: 1", "");
    let mut first = send_get(&proxy, "/gate/go");
    origin.wait_for_in_flight(1);
    let answer = assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::BackendsFull, Kept);
    assert!(answer.text().starts_with("Service Unavailable (All backends at connection limit)\n"), "{answer:?}");
    origin.gate("go").open();
    assert_eq!(first.response().text(), "ok");
}

#[test]
fn queue_full_and_queue_timeout() {
    let (origin, proxy) = start(&[], "max_conn: 1", "queue: {size: 1, timeout: 300ms}");
    let mut first = send_get(&proxy, "/gate/go");
    origin.wait_for_in_flight(1);
    let mut second = send_get(&proxy, "/");
    wait::until("a request in the queue", || proxy.stats().queue_waits == 1);
    assert_row(&proxy, &mut send_get(&proxy, "/"), Reason::QueueFull, Kept);
    assert_answer(&second.response(), Reason::QueueTimeout, Kept);
    wait::until("the count", || proxy.stats().reasons.of(Reason::QueueTimeout) == 1);
    origin.gate("go").open();
    assert_eq!(first.response().text(), "ok");
    assert_eq!(counted(&proxy.stats()), [(Reason::QueueFull, 1), (Reason::QueueTimeout, 1)]);
}

#[test]
fn every_reason_is_in_the_access_log() {
    let dir = Dir::new("faults");
    let path = dir.path("access.log");
    let origin = Origin::start(origin::by_path);
    let log = format!("log: {{access: {}, access_format: json}}\n", path.display());
    let sections = on_host(&sections(&origin, "active: false", "")) + &log;
    let proxy = Proxy::start(&[("read_timeout", "200ms")], &sections);
    let line = |reason: Reason| {
        let mut found = String::new();
        wait::until(&format!("a line for {reason}"), || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let key = format!("\"reason\":\"{reason}\"");
            found = text.lines().find(|line| line.contains(&key)).unwrap_or_default().to_owned();
            !found.is_empty()
        });
        found
    };
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], Reason::NoBackend),
        (b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", Reason::NoRoute),
        // Of these no request could be read: they are told all the same.
        (b"GET / HTTP/1.1\r\n\r\n", Reason::BadRequest),
        (b"CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n", Reason::MethodNotServed),
        (b"GET / HTTP/1.1\r\nHo", Reason::HeadTimeout),
    ] {
        let answer = send(&proxy, bytes).response();
        let line = line(reason);
        let id = answer.fields.one("x-request-id").expect("an id");
        for part in [format!("\"request_id\":\"{id}\""), format!("\"status\":{}", answer.status)] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
        assert!(line.contains("\"client\":\"127.0.0.1\"") && !line.contains("\"bytes_out\":0,"), "{line}");
    }
}

// Who asks, and how.

#[test]
fn head_gets_the_same_fields_and_no_body() {
    let fleet = Fleet::of(&["a"]);
    let proxy = Proxy::start(&[], &on_host(&fleet.sections(|_| "active: false", "", "")));
    let mut client = proxy.client();
    let answer = client.request("HEAD", "/", &[], b"");
    assert_eq!((answer.status, answer.body.len()), (503, 0));
    let length: usize = answer.fields.one("content-length").and_then(|n| n.parse().ok()).expect("a length");
    let whole = client.get("/");
    assert_answer(&whole, Reason::NoBackend, Kept);
    assert_eq!(whole.body.len(), length);
    wait::until("both counts", || proxy.stats().reasons.of(Reason::NoBackend) == 2);
}

#[test]
fn http_1_0_is_closed_on_unless_it_asks() {
    let (_origin, proxy) = start(&[], "active: false", "");
    let mut client = send(&proxy, b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_answer(&client.response(), Reason::NoBackend, Closed);
    client.expect_end();
    let mut client = send(&proxy, b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert_answer(&answer, Reason::NoBackend, Kept);
    assert!(answer.fields.lists("connection", "keep-alive"), "{answer:?}");
    assert_eq!(client.get("/nowhere").status, 404);
}

#[test]
fn a_client_that_asks_for_it_is_closed_on() {
    let (_origin, proxy) = start(&[], "active: false", "");
    let mut client = send(&proxy, b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_row(&proxy, &mut client, Reason::NoBackend, Closed);
}

#[test]
fn a_body_that_came_whole_is_got_past() {
    let (_origin, proxy) = start(&[], "active: false", "");
    let mut client = proxy.client();
    for (fields, body) in [
        ("Content-Length: 24", "GET /smuggled HTTP/1.1\r\n"),
        ("Transfer-Encoding: chunked", "18\r\nGET /smuggled HTTP/1.1\r\n\r\n0\r\n\r\n"),
    ] {
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n{body}"));
        assert_answer(&client.response(), Reason::NoBackend, Kept);
        assert_eq!(client.get("/nowhere").text(), "nowhere");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_around_a_fault() {
    let (_origin, proxy) = start(&[], "", "");
    let ask = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let all = [ask("a.test", "/echo"), ask("b.test", "/"), ask("a.test", "/close"), ask("a.test", "/size/9")];
    let mut client = send(&proxy, all.concat());
    let statuses: Vec<u16> = (0..4).map(|_| client.response().status).collect();
    assert_eq!(statuses, [200, 404, 502, 200]);
}

#[test]
fn a_body_that_is_still_to_come_closes() {
    let (_origin, proxy) = start(&[], "active: false", "");
    let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    assert_row(&proxy, &mut send(&proxy, head), Reason::NoBackend, Closed);
}

/// A listener that takes no further connection: its queue is full, so handshakes get no answer.
pub struct FullListener {
    /// Its port on 127.0.0.1.
    pub port: u16,
    _held: Vec<Socket>,
}

impl FullListener {
    /// Listens and fills its queue.
    pub fn new() -> FullListener {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = new();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
        listener.listen(1).expect("listening");
        let addr = listener.local_addr().expect("an address");
        let mut held = vec![listener];
        for _ in 0..8 {
            let socket = new();
            socket.set_nonblocking(true).expect("a non-blocking socket");
            // In progress, or lost: what matters is that the queue is full.
            let _ = socket.connect(&addr);
            held.push(socket);
        }
        FullListener { port: addr.as_socket().expect("an IP address").port(), _held: held }
    }
}
