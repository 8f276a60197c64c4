//! Limits of backends, clients and requests, and the queue in front of full backends.
//!
//! Never counts inside the proxy what can be counted outside: an origin knows how many requests it has at once.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use speedmimi::error::Reason;

use crate::client::Client;
use crate::dir::Dir;
use crate::fleet::{Fleet, wait_for_a_slot};
use crate::origin::{self, Next, Origin};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::wire::{self, lock};

/// A proxy in front of one origin with one slot, taken by a request that waits at the gate `go`.
fn taken(upstream: &str) -> (Origin, Proxy, Client) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("workers", "2")], &sections(&origin, "max_conn: 1", upstream));
    let mut holder = proxy.client();
    holder.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    (origin, proxy, holder)
}

/// Sends a request that has to wait, and waits until it does.
fn join_queue(proxy: &Proxy, request: &str) -> Client {
    let before = proxy.stats().queue_waits;
    let mut client = proxy.client();
    client.send(request);
    wait::until("the request to be in the queue", || proxy.stats().queue_waits > before);
    client
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

#[test]
fn max_conn_is_used_in_full_and_never_exceeded_under_a_thousand_at_once() {
    const LIMIT: usize = 7;
    let origin = Origin::start(origin::by_path);
    let queue = "queue: {size: 2000, timeout: 30s}";
    let proxy = Proxy::start(&[("workers", "4")], &sections(&origin, &format!("max_conn: {LIMIT}"), queue));
    let mut clients: Vec<Client> = (0..1000).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send_get("/gate/go"));
    origin.wait_for_in_flight(LIMIT);
    proxy.wait_until("the others in the queue", |totals| totals.queue_waits as usize == 1000 - LIMIT);
    assert_eq!(origin.in_flight(), LIMIT);
    origin.gate("go").open();
    for round in 0..2 {
        for client in &mut clients {
            let answer = client.response();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        if round == 0 {
            clients.iter_mut().for_each(|client| client.send_get("/"));
        }
    }
    assert_eq!((origin.in_flight_max(), origin.requests().len()), (LIMIT, 2000));
}

#[test]
fn tunnels_count_against_max_conn() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "max_conn: 1", ""));
    let mut tunnel = proxy.client();
    tunnel.upgrade("/ws");
    assert_eq!(proxy.client().get("/").status, 503);
    drop(tunnel);
    wait_for_a_slot(&proxy);
}

#[test]
fn first_come_first_served_over_all_workers() {
    let (origin, proxy, mut holder) = taken("queue: {size: 100, timeout: 30s}");
    let mut waiting: Vec<Client> = (0..20).map(|n| join_queue(&proxy, &get(&format!("/nth/{n}")))).collect();
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    let order: Vec<String> = origin.requests().into_iter().skip(1).map(|seen| seen.request.target).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("/nth/{n}")).collect();
    assert_eq!(order, expected);
    assert_eq!(origin.in_flight_max(), 1);
}

#[test]
fn nobody_overtakes_the_queue() {
    let (origin, proxy, mut holder) = taken("queue: {size: 100, timeout: 30s}");
    let mut waiting = join_queue(&proxy, &get("/gate/second"));
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    origin.wait_for_requests(2);
    // The one slot went to who waited: a newcomer waits behind.
    let mut newcomer = join_queue(&proxy, &get("/third"));
    origin.gate("second").open();
    assert_eq!(waiting.response().text(), "ok");
    assert_eq!(newcomer.response().text(), "ok");
}

#[test]
fn who_waited_too_long_is_told_so_and_later_ones_are_served() {
    let (origin, proxy, mut holder) = taken("queue: {size: 100, timeout: 300ms}");
    let mut late = join_queue(&proxy, &get("/late"));
    let answer = late.response();
    assert_eq!(answer.status, 503);
    let retry_after = answer.fields.one("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    assert_eq!(late.get("/again").text(), "ok", "on the same connection");
    assert!(origin.requests().iter().all(|seen| seen.request.target != "/late"));
}

#[test]
fn a_place_in_the_queue_is_free_when_its_client_leaves() {
    // Of a body that is still to come nothing was read yet: the leaving has to be seen all the same.
    let upload = "POST /left HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhel";
    for (request, resets) in [(get("/left").as_str(), false), (&get("/left"), true), (upload, false)] {
        let (origin, proxy, mut holder) = taken("queue: {size: 1, timeout: 30s}");
        let leaver = join_queue(&proxy, request);
        assert_eq!(proxy.client().get("/full").status, 503);
        if resets {
            leaver.reset()
        } else {
            drop(leaver)
        }
        wait::until("the leaving to be noticed", || proxy.stats().reasons.of(Reason::ClientClosed) == 1);
        let mut next = join_queue(&proxy, &get("/next"));
        origin.gate("go").open();
        assert_eq!(holder.response().text(), "ok");
        assert_eq!(next.response().text(), "ok");
        assert!(origin.requests().iter().all(|seen| seen.request.target != "/left"));
    }
}

#[test]
fn a_body_sent_while_waiting_arrives_whole() {
    let (origin, proxy, mut holder) = taken("queue: {size: 1, timeout: 30s}");
    let body = origin::pattern(100_000);
    let mut client = join_queue(&proxy, "POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
    let mut sender = client.wire.sock.again().expect("a second handle");
    let sent = body.clone();
    let sending = thread::spawn(move || std::io::Write::write_all(&mut sender, &sent));
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    assert!(client.response().body == body);
    sending.join().expect("the sending thread").expect("all sent");
}

#[test]
fn a_slot_that_frees_at_any_backend_is_given_to_who_waits() {
    let fleet = Fleet::of(&["a", "b"]);
    let proxy = Proxy::start(&[], &fleet.sections(|_| "max_conn: 1", "queue: {size: 9, timeout: 30s}", ""));
    let mut holders: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    holders.iter_mut().for_each(|client| client.send_get("/gate/go"));
    fleet.origin("a").wait_for_in_flight(1);
    fleet.origin("b").wait_for_in_flight(1);
    let mut waiting = join_queue(&proxy, &get("/who"));
    fleet.origin("b").gate("go").open();
    assert_eq!(waiting.response().text(), "b");
    fleet.origin("a").gate("go").open();
    holders.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
}

#[test]
fn the_queue_lets_go_when_no_backend_is_left() {
    let (origin, mut proxy, mut holder) = taken("queue: {size: 9, timeout: 30s}");
    let mut waiting = join_queue(&proxy, &get("/"));
    proxy.reload(
        &[("workers", "2")],
        &sections(&origin, "max_conn: 1, active: false", "queue: {size: 9, timeout: 30s}"),
    );
    let answer = waiting.response();
    assert_eq!(answer.status, 503);
    assert!(answer.fields.one("proxy-status").is_some_and(|v| v.contains("destination_unavailable")), "{answer:?}");
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok", "what is in flight is not cut");
}

#[test]
fn a_raised_limit_serves_who_waits() {
    let (origin, mut proxy, mut holder) = taken("queue: {size: 9, timeout: 30s}");
    let mut waiting = join_queue(&proxy, &get("/"));
    proxy.reload(&[("workers", "2")], &sections(&origin, "max_conn: 2", "queue: {size: 9, timeout: 30s}"));
    assert_eq!(waiting.response().text(), "ok");
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
}

// Clients.

/// Whether the peer has closed; does not wait.
fn is_closed(client: &Client) -> bool {
    let crate::wire::Sock::Tcp(stream) = &client.wire.sock else { return false };
    stream.set_nonblocking(true).expect("a non-blocking look");
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("blocking again");
    match seen {
        Ok(n) => n == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Connections that have had an answer each and are parked, in the order of parking.
fn park(proxy: &Proxy, n: u64) -> Vec<Client> {
    let parked = proxy.stats().connections_parked;
    (1..=n)
        .map(|i| {
            let mut client = proxy.client();
            assert_eq!(client.get("/").status, 200);
            wait::until("the connection to be parked", || proxy.stats().connections_parked == parked + i);
            client
        })
        .collect()
}

#[test]
fn idle_connections_within_the_limit_stay() {
    let origin = Origin::start(origin::by_path);
    let server = [("max_conn", "4"), ("park_after", "100ms")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    let mut clients = park(&proxy, 4);
    // As many as allowed, and nobody knocks: each is served again.
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    assert_eq!(proxy.stats().connections_accepted, 4);
}

#[test]
fn at_the_limit_the_longest_parked_goes_first() {
    let origin = Origin::start(origin::by_path);
    let server = [("max_conn", "4"), ("park_after", "100ms")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    let mut clients = park(&proxy, 4);
    assert_eq!(proxy.client().get("/").status, 200, "a newcomer is served");
    clients[0].expect_end();
    assert!(clients[1..].iter().all(|client| !is_closed(client)), "one came, so one goes");
    clients[1..].iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
}

#[test]
fn at_the_limit_whoever_knocks_is_let_in_whichever_worker_it_is() {
    let origin = Origin::start(origin::by_path);
    let server = [("max_conn", "3"), ("park_after", "100ms"), ("workers", "2")];
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    // The kernel chooses the worker: sooner or later all the parked ones are the other's.
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut client = proxy.client();
        assert_eq!(client.get("/").status, 200);
        idle.push(client);
    }
}

#[test]
fn at_the_limit_with_all_busy_accepting_pauses() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("max_conn", "3")], &sections(&origin, "", ""));
    let mut busy: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    busy[1..].iter_mut().for_each(|client| client.send_get("/gate/go"));
    origin.wait_for_in_flight(2);
    assert_eq!(busy[0].get("/").status, 200);
    let mut waiting: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    waiting.iter_mut().for_each(|client| client.send_get("/"));
    // The worker turns, for those who are in, and takes nobody in.
    (0..50).for_each(|_| assert_eq!(busy[0].get("/busy").status, 200));
    assert_eq!((proxy.stats().connections_accepted, origin.requests().len()), (3, 53));
    origin.gate("go").open();
    drop(busy);
    // Each comes in when another has left.
    waiting.into_iter().for_each(|mut client| assert_eq!(client.response().text(), "ok"));
    assert_eq!(proxy.stats().connections_accepted, 8);
}

#[test]
fn a_reload_raises_the_limit_of_clients_and_lowers_it_again() {
    let origin = Origin::start(origin::by_path);
    let mut proxy = Proxy::start(&[("max_conn", "2")], &sections(&origin, "", ""));
    proxy.reload(&[("max_conn", "6")], &sections(&origin, "", ""));
    let mut busy: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    busy.iter_mut().for_each(|client| client.send_get("/gate/go"));
    origin.wait_for_in_flight(6);
    proxy.reload(&[("max_conn", "1")], &sections(&origin, "", ""));
    origin.gate("go").open();
    busy.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    let mut late = proxy.client();
    late.send_get("/late");
    busy.truncate(1);
    assert_eq!(busy[0].get("/busy").status, 200);
    assert_eq!(proxy.stats().connections_accepted, 6);
    drop(busy);
    assert_eq!(late.response().status, 200);
}

#[test]
fn the_limit_of_clients_holds_under_a_storm() {
    let origin = Origin::start(origin::by_path);
    let open = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let proxy = Proxy::start(&[("max_conn", "20"), ("workers", "2")], &sections(&origin, "", ""));
    let addr = proxy.addr();
    let storm: Vec<_> = (0..40)
        .map(|_| {
            let open = open.clone();
            thread::spawn(move || {
                for _ in 0..5 {
                    let mut client = Client::connect(addr);
                    assert_eq!(client.get("/").status, 200);
                    // Between its first answer and its end a connection is certainly open.
                    let now = open.0.fetch_add(1, Ordering::SeqCst) + 1;
                    open.1.fetch_max(now, Ordering::SeqCst);
                    assert_eq!(client.get("/").status, 200);
                    open.0.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    storm.into_iter().for_each(|thread| thread.join().expect("a client"));
    let max = open.1.load(Ordering::SeqCst);
    assert!(max <= 22, "{max} at once, more than twenty and one a worker");
    assert_eq!(proxy.stats().connections_accepted, 200);
}

// Requests.

#[test]
fn max_body_bytes_is_exact() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("max_body_bytes", "1000")], &sections(&origin, "", ""));
    for (n, status) in [(1000, 200), (1001, 413)] {
        let body = origin::pattern(n);
        let answer = proxy.client().request("POST", "/echo", &[], &body);
        assert_eq!((answer.status, answer.body == body), (status, status == 200), "{n} bytes with a length");
        let mut client = proxy.client();
        client.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(300) {
            // It may have been answered before the last one.
            let _ = client.try_send(wire::chunk(piece));
        }
        let _ = client.try_send(b"0\r\n\r\n");
        let answer = client.response();
        assert_eq!((answer.status, answer.body == body), (status, status == 200), "{n} bytes in chunks");
    }
}

#[test]
fn the_routes_max_body_bytes_comes_before_the_servers() {
    let origin = Origin::start(origin::by_path);
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{small: {{upstream: default}}, large: {{path: /echo/large, upstream: default, max_body_bytes: 100}}}}\n",
        origin.port()
    );
    let proxy = Proxy::start(&[("max_body_bytes", "10")], &sections);
    assert_eq!(proxy.client().request("POST", "/echo", &[], &[b'x'; 11]).status, 413);
    assert_eq!(proxy.client().request("POST", "/echo/large", &[], &[b'x'; 100]).status, 200);
    assert_eq!(proxy.client().request("POST", "/echo/large", &[], &[b'x'; 101]).status, 413);
}

#[test]
fn max_headers_and_max_header_bytes_are_exact() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("max_headers", "10"), ("max_header_bytes", "2KiB")], &sections(&origin, "", ""));
    // `Host` is one of them.
    for (n, status) in [(9, 200), (10, 431)] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(n));
        let mut client = proxy.client();
        client.send(&request);
        assert_eq!(client.response().status, status, "{n} fields and Host");
    }
    for (size, status) in [(2048, 200), (2049, 431)] {
        let start = "GET / HTTP/1.1\r\nHost: a.test\r\nX: ";
        let request = format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4));
        let mut client = proxy.client();
        client.send(&request);
        assert_eq!(client.response().status, status, "{size} bytes");
    }
}

#[test]
fn the_longest_match_of_allow_and_deny_decides() {
    let origin = Origin::start(origin::by_path);
    let (port, lists) = (origin.port(), "allow: [127.0.0.0/8, 127.1.1.1/32], deny: [127.1.0.0/16]");
    let proxy = Proxy::start(
        &[("host", "127.0.0.1")],
        &format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {port}}}]}}\n\
             routing: {{default: {{upstream: default, {lists}}}, open: {{path: /open, upstream: default}}}}\n"
        ),
    );
    for (source, status) in [([127, 0, 0, 1], 200), ([127, 1, 0, 1], 403), ([127, 1, 1, 1], 200)] {
        let mut client = Client::connect_from(Ipv4Addr::from(source), proxy.addr());
        assert_eq!(client.get("/").status, status, "{source:?}");
        assert_eq!(client.get("/open").status, 200, "{source:?} by the rule that has no list");
    }
}

#[test]
fn the_address_that_is_allowed_is_the_clients() {
    let origin = Origin::start(origin::by_path);
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default, allow: [192.0.2.0/24], deny: [0.0.0.0/0]}}}}\n",
        origin.port()
    );
    let proxy = Proxy::start(&[("trusted_proxies", "[127.0.0.9/32]")], &sections);
    let status = |source: u8, forwarded: &str| {
        let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, source), proxy.addr());
        client.request("GET", "/", &[("X-Forwarded-For", forwarded)], b"").status
    };
    assert_eq!(status(9, "192.0.2.7"), 200);
    assert_eq!(status(9, "198.51.100.7"), 403);
    assert_eq!(status(9, "192.0.2.7, 198.51.100.7"), 403, "the right-most that is not trusted");
    assert_eq!(status(8, "192.0.2.7"), 403, "nobody trusts this one");
}

/// What a client does until its exchange is over, or until it leaves.
type End = fn(&mut Client);

#[test]
fn what_ends_an_exchange_gives_its_slot_back() {
    // One slot and no queue: whoever gets an answer afterwards shows that it is free again.
    let origin = Origin::start(origin::by_path);
    let server = [("read_timeout", "300ms"), ("write_timeout", "300ms"), ("tunnel_timeout", "300ms")];
    let upstream = "response_timeout: 300ms, read_timeout: 300ms";
    let proxy = Proxy::start(&server, &sections(&origin, "max_conn: 1", upstream));
    let ends: [(&str, End); 14] = [
        ("success", |c| drop(c.get("/"))),
        ("an answer in chunks", |c| drop(c.get("/chunked/3"))),
        ("an answer that ends with its connection", |c| drop(c.get("/until-close"))),
        ("the client's abort", |c| c.send_get("/never")),
        ("the client's abort of an upload", |c| {
            c.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx");
        }),
        ("the client's abort of an answer", |c| c.send_get("/size/30000000")),
        ("the client's stalling", |c| {
            c.send_get("/size/30000000");
            c.head();
        }),
        ("a body that stalls", |c| {
            c.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx");
            assert_eq!(c.response().status, 408);
        }),
        ("the backend's close", |c| assert_eq!(c.get("/close").status, 502)),
        ("the backend's reset", |c| assert_eq!(c.get("/reset").status, 502)),
        ("half an answer", |c| {
            c.send_get("/half");
            c.read_to_end();
        }),
        ("no HTTP", |c| assert_eq!(c.get("/garbage").status, 502)),
        ("a timeout", |c| assert_eq!(c.get("/never").status, 504)),
        ("a tunnel's silence", |c| {
            c.upgrade("/ws");
            c.expect_end();
        }),
    ];
    for (what, end) in ends {
        let before = origin.requests().len();
        let mut client = proxy.client();
        end(&mut client);
        origin.wait_for_requests(before + 1);
        drop(client);
        wait::until(&format!("the slot after {what}"), || proxy.client().get("/").status == 200);
    }
}

#[test]
fn a_slot_granted_to_a_client_that_left_is_passed_on() {
    // Twenty wait for one slot; every other one leaves while the others are being served.
    let (origin, proxy, mut holder) = taken("queue: {size: 100, timeout: 30s}");
    let mut stays = Vec::new();
    let mut leaves = Vec::new();
    for n in 0..20 {
        let client = join_queue(&proxy, &get("/who"));
        if n % 2 == 0 { leaves.push(client) } else { stays.push(client) }
    }
    let leaving = Arc::new(Mutex::new(leaves));
    let theirs = leaving.clone();
    let thread = thread::spawn(move || while lock(&theirs).pop().is_some() {});
    origin.gate("go").open();
    assert_eq!(holder.response().text(), "ok");
    stays.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    thread.join().expect("the leaving thread");
    wait_for_a_slot(&proxy);
}

#[test]
fn a_unix_backend_has_its_limit_too() {
    let dir = Dir::new("limits");
    let path = dir.path("backend.sock");
    let origin = Origin::start_unix(&path, |exchange| match exchange.path() {
        "/gate" => {
            exchange.gate("go").pass()?;
            exchange.answer(200, b"ok")
        }
        _ => Ok(exchange.answer(200, b"ok").unwrap_or(Next::Close)),
    });
    let backend = format!("backends: {{default: [{{host: \"unix:{}\", max_conn: 1}}]}}\n", path.display());
    let proxy = Proxy::start(&[], &format!("{backend}routing: {{default: {{upstream: default}}}}\n"));
    let mut first = proxy.client();
    first.send_get("/gate");
    origin.wait_for_in_flight(1);
    assert_eq!(proxy.client().get("/").status, 503);
    origin.gate("go").open();
    assert_eq!(first.response().text(), "ok");
    wait_for_a_slot(&proxy);
    assert!(TcpStream::connect(proxy.addr()).is_ok());
}

#[test]
fn a_storm_of_aborts_leaves_no_slot_taken() {
    let origin = Origin::start(origin::by_path);
    let upstream = "queue: {size: 20, timeout: 100ms}, response_timeout: 100ms";
    let proxy = Proxy::start(&[("workers", "2")], &sections(&origin, "max_conn: 3", upstream));
    let addr = proxy.addr();
    let storm: Vec<_> =
        (0..24).map(|seed| thread::spawn(move || (0..12).for_each(|n| abort(addr, seed + n)))).collect();
    storm.into_iter().for_each(|thread| thread.join().expect("a client"));
    // All three can be had at once again, and no more than three.
    let mut held = Vec::new();
    wait::until("three free slots", || {
        let mut client = proxy.client();
        client.send(crate::websocket::request("/ws"));
        if client.head().status == 101 {
            held.push(client);
        }
        held.len() == 3
    });
    assert_eq!(proxy.client().get("/").status, 503);
}

/// One of many ways to begin and not to end well.
fn abort(addr: SocketAddr, seed: usize) {
    let mut client = Client::connect(addr);
    match seed % 8 {
        0 => client.send_get("/never"),
        1 => client.send(b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx"),
        2 => client.send_get("/size/3000000"),
        3 => client.send(crate::websocket::request("/ws")),
        4 => drop(client.try_get("/reset")),
        5 => drop(client.try_get("/")),
        6 => drop(client.try_get("/half")),
        _ => drop(client.try_get("/never")),
    }
    if seed.is_multiple_of(3) {
        client.reset();
    }
}
