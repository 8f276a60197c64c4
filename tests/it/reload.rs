//! Another plan while requests run: what changed takes effect, what did not lives on, what is gone is freed.
//!
//! Never reads a configuration from a file or sends a signal; those are the command line's.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use speedmimi::config::document::Document;
use speedmimi::config::plan::{Plan, Route, Upstream};
use speedmimi::server;

use crate::client::Client;
use crate::fleet::{Fleet, who, who_all};
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, balanced, sections};
use crate::wait;
use crate::websocket;

#[test]
fn routes_weights_and_backends_take_effect() {
    let fleet = Fleet::of(&["a", "b"]);
    let rule = "load_balancer: weight";
    let mut proxy =
        Proxy::start(&[], &fleet.sections(|id| if id == "a" { "weight: 3" } else { "weight: 1" }, "", rule));
    let shares = |proxy: &Proxy| {
        let mut shares = BTreeMap::new();
        who_all(&mut proxy.client(), 40).into_iter().for_each(|id| *shares.entry(id).or_insert(0) += 1);
        shares
    };
    assert_eq!(shares(&proxy), BTreeMap::from([("a".into(), 30), ("b".into(), 10)]));
    let turned = fleet.sections(|id| if id == "a" { "weight: 1" } else { "weight: 3" }, "", rule);
    assert!(proxy.reload(&[], &turned).is_empty());
    assert_eq!(shares(&proxy), BTreeMap::from([("a".into(), 10), ("b".into(), 30)]));
    let backends = fleet.backends(|id| if id == "a" { "active: false" } else { "" });
    let routes = "routing: {all: {upstream: default}, fixed: {path: /fixed, respond: {status: 203, body: fixed}}}\n";
    proxy.reload(&[], &format!("{backends}{routes}"));
    assert_eq!(who(&proxy), "b");
    let answer = proxy.client().get("/fixed/x");
    assert_eq!((answer.status, answer.text().as_str()), (203, "fixed"));
}

#[test]
fn what_runs_on_a_backend_that_is_gone_finishes_there() {
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let mut proxy = Proxy::start(&[], &sections(&old, "", ""));
    let (mut exchange, mut tunnel, mut kept) = (proxy.client(), proxy.client(), proxy.client());
    exchange.send_get("/gate/go");
    tunnel.upgrade("/ws");
    assert_eq!(kept.get("/").status, 200);
    old.wait_for_in_flight(2);
    proxy.reload(&[], &sections(&new, "", ""));
    assert_eq!(kept.get("/new").status, 200);
    assert_eq!(new.only_request().request.target, "/new");
    tunnel.send_frame(websocket::TEXT, b"still there?");
    assert_eq!(tunnel.read_frame().payload, b"still there?");
    old.gate("go").open();
    assert_eq!(exchange.response().text(), "ok");
    assert_eq!(exchange.get("/next").status, 200);
    assert_eq!(new.requests().len(), 2);
    tunnel.send_frame(websocket::CLOSE, b"");
    tunnel.read_frame();
    // Idle connections to it are let go as well.
    old.wait_for_silence();
}

#[test]
fn what_is_in_flight_counts_on() {
    let origin = Origin::start(origin::by_path);
    let plan = |path: &str| {
        let backends = format!("backends: {{default: [{{host: 127.0.0.1, port: {}, max_conn: 1}}]}}\n", origin.port());
        format!(
            "{backends}routing: {{all: {{upstream: default}}, {path}: {{path: /{path}, respond: {{status: 204}}}}}}\n"
        )
    };
    let mut proxy = Proxy::start(&[], &plan("one"));
    let mut running = proxy.client();
    running.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    for path in ["two", "three"] {
        proxy.reload(&[], &plan(path));
        assert_eq!(proxy.client().get("/").status, 503, "the slot is taken, whatever the plan");
        assert_eq!(proxy.client().get(&format!("/{path}")).status, 204);
    }
    origin.gate("go").open();
    assert_eq!(running.response().text(), "ok");
    wait::until("the slot", || proxy.client().get("/").status == 200);
}

#[test]
fn who_waits_in_a_queue_waits_on() {
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let queue = "queue: {size: 10, timeout: 20s}";
    let mut proxy = Proxy::start(&[("workers", "2")], &sections(&old, "max_conn: 1", queue));
    let mut running = proxy.client();
    running.send_get("/gate/go");
    old.wait_for_in_flight(1);
    let waiting = |proxy: &Proxy, n: u64| {
        let mut client = proxy.client();
        client.send_get("/waited");
        proxy.wait_until("a place in the queue", |totals| totals.queue_waits == n);
        client
    };
    let mut first = waiting(&proxy, 1);
    // Nothing that concerns the queue.
    proxy.reload(&[("idle_timeout", "10s")], &sections(&old, "max_conn: 1", queue));
    let mut second = waiting(&proxy, 2);
    old.gate("go").open();
    assert_eq!((running.response().status, first.response().status, second.response().status), (200, 200, 200));

    // The backend itself. Its last slot is given back a moment after the answer went out.
    proxy.wait_until("nothing under way", |totals| totals.exchanges_active == 0);
    let mut running = proxy.client();
    running.send_get("/gate/again");
    old.wait_for_in_flight(1);
    let mut third = waiting(&proxy, 3);
    let mut fourth = waiting(&proxy, 4);
    proxy.reload(&[], &sections(&new, "max_conn: 1", queue));
    assert_eq!((third.response().status, fourth.response().status), (200, 200));
    assert_eq!(new.requests().len(), 2);
    old.gate("again").open();
    assert_eq!(running.response().text(), "ok");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_applied() {
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let mut proxy = Proxy::start(&[], &sections(&old, "", ""));
    let asked = [("workers", "3"), ("cpu_affinity", "[0]"), ("backlog", "77"), ("max_header_bytes", "2KiB")];
    let kept = proxy.reload(&asked, &sections(&new, "", ""));
    let said = kept.join(", ");
    assert_eq!(said, "server.workers, server.cpu_affinity");
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(new.requests().len(), 1);
    let long = "x".repeat(3000);
    assert_eq!(proxy.client().request("GET", "/", &[("X-Long", &long)], b"").status, 431);
}

#[test]
fn a_hundred_reloads_under_load_lose_no_byte() {
    let origins = [Origin::start(origin::by_path), Origin::start(origin::by_path), Origin::start(origin::by_path)];
    let queue = "queue: {size: 100, timeout: 20s}";
    let plan = |n: usize| {
        let keys = "max_conn: 3";
        let used: Vec<(&Origin, &str)> = (0..1 + n % 3).map(|i| (&origins[(n + i) % 3], keys)).collect();
        balanced(&used, queue, if n.is_multiple_of(2) { "load_balancer: round_robin" } else { "" })
    };
    let server = [("workers", "2")];
    let mut proxy = Proxy::start(&server, &plan(0));
    let addr = proxy.addr();
    let done = AtomicBool::new(false);
    let served: usize = thread::scope(|scope| {
        let load = |who: usize| {
            let (mut client, mut n) = (Client::connect(addr), 0);
            // On a busy machine all reloads may be over before much was asked.
            while !done.load(Ordering::Relaxed) || n < 20 {
                let body = origin::pattern((n * 37 + who * 1001) % 20_000);
                let answer = client.request("POST", "/echo", &[], &body);
                assert_eq!(answer.status, 200, "request {n} of {who}: {answer:?}");
                assert!(answer.body == body, "request {n} of {who} got another body");
                n += 1;
            }
            n
        };
        let loads: Vec<_> = (0..6).map(|who| scope.spawn(move || load(who))).collect();
        let kept: Vec<_> = (1..=100).flat_map(|n| proxy.reload(&server, &plan(n))).collect();
        done.store(true, Ordering::Relaxed);
        assert!(kept.is_empty(), "{kept:?}");
        loads.into_iter().map(|load| load.join().expect("a load without a failure")).sum()
    });
    assert_eq!(origins.iter().map(|origin| origin.requests().len()).sum::<usize>(), served);
    assert!(served > 100, "{served} requests in all");
}

/// What of a plan is still in use.
struct Watch {
    route: Weak<Route>,
    upstream: Weak<Upstream>,
}

impl Watch {
    fn over(plan: &Plan) -> Watch {
        Watch { route: Arc::downgrade(&plan.routes[0]), upstream: Arc::downgrade(&plan.upstreams[0]) }
    }

    fn is_freed(&self) -> bool {
        self.route.strong_count() == 0 && self.upstream.strong_count() == 0
    }
}

#[test]
fn old_plans_are_freed_as_soon_as_nothing_uses_them() {
    let origin = Origin::start(origin::by_path);
    let plan = |n: u64| {
        let text = format!(
            "grpc: {{enabled: false}}\n\
             server: {{host: 127.0.0.1, port: 0, workers: 2, fd_tables: shared, max_conn: 1000, shutdown_timeout: 1s}}\n\
             backends: {{default: [{{id: b{n}, host: 127.0.0.1, port: {}}}]}}\n\
             routing: {{default: {{upstream: default}}}}\n",
            origin.port()
        );
        Document::from_text(&text, "test.yaml", |_| None).expect("a plan without a fault")
    };
    let first = plan(0);
    let mut watches = vec![Watch::over(first.plan())];
    let handle = server::start(first).expect("a proxy");
    let addr = handle.addr(0).expect("an address");
    let mut kept = Client::connect(addr);
    let mut running = Client::connect(addr);
    running.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    for n in 1..20 {
        assert_eq!(kept.get("/").status, 200);
        // What went wrong is remembered, the plan by which it did is not.
        assert_eq!(Client::connect(addr).get("/garbage").status, 502);
        let next = plan(n);
        watches.push(Watch::over(next.plan()));
        handle.reload(next).expect("a reload");
    }
    let last = watches.pop().expect("the plan in use");
    let oldest = watches.remove(0);
    wait::until("the end of plans that nothing uses", || watches.iter().all(Watch::is_freed));
    // The exchange under way holds its own.
    assert!(!last.is_freed() && oldest.route.strong_count() > 0);
    origin.gate("go").open();
    assert_eq!(running.response().text(), "ok");
    wait::until("the end of the plan that an exchange used", || oldest.is_freed());
    handle.stop();
}

/// Resident memory in KiB, threads and descriptors of this process.
fn held() -> [usize; 3] {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the kernel");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    [number("RssAnon:"), number("Threads:"), descriptors]
}

/// In a process of its own: threads, descriptors and memory of other tests are not to be counted.
#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    const ALONE: &str = "SPEEDMIMI_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("the path of this program");
        let name = "reload::a_thousand_reloads_leave_nothing_behind";
        let output =
            Command::new(own).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("a process");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let origin = Origin::start(origin::by_path);
    let routes: String =
        (0..300).map(|n| format!("  r{n}: {{path: /r{n}/{}, upstream: default}}\n", "x".repeat(100))).collect();
    let port = origin.port();
    // The weight changes, a backend comes and goes, an address is listened on and is not.
    let plan = |n: usize| {
        let more = if n.is_multiple_of(2) { "" } else { ", {id: more, host: 127.0.0.1, port: 9, active: false}" };
        format!(
            "backends: {{default: [{{id: b, host: 127.0.0.1, port: {port}, weight: {}}}{more}]}}\n\
             routing:\n  default: {{upstream: default}}\n{routes}",
            1 + n % 1000
        )
    };
    let server = |n: usize| {
        let listen = if n % 10 == 5 { "[\"127.0.0.1:0\"]" } else { "[]" };
        [("workers", "2"), ("listen", listen)]
    };
    let mut proxy = Proxy::start(&server(0), &plan(0));
    let (mut tunnel, mut running, mut kept) = (proxy.client(), proxy.client(), proxy.client());
    tunnel.upgrade("/ws");
    running.send_get("/gate/0");
    // A tunnel and an exchange under way outlive hundreds of reloads, but nothing here waits for longer than its bound.
    let mut reload = |n: usize| {
        assert!(proxy.reload(&server(n), &plan(n)).is_empty());
        assert_eq!(kept.get("/").status, 200);
        if n.is_multiple_of(200) {
            tunnel.send_frame(websocket::TEXT, b"still there");
            assert_eq!(tunnel.read_frame().payload, b"still there");
            origin.gate(&(n - 200).to_string()).open();
            assert_eq!(running.response().text(), "ok");
            running.send_get(&format!("/gate/{n}"));
        }
    };
    (1..=200).for_each(&mut reload);
    let before = held();
    (201..=1000).for_each(&mut reload);
    // A socket of the last change may be closing still, and a file that is read each second be open: what stayed of each tenth
    // change would be 80.
    let mut after = held();
    wait::until("descriptors as before", || {
        after = held();
        after[2] <= before[2]
    });
    // A plan of this size is 200 KB and more: eight hundred of them would be seen, and so would be a hundredth part.
    assert!(after[0] < before[0] + 4096, "KiB, threads, descriptors: {before:?}, then {after:?}");
    // Files are read on a thread of its own, which lives on for a while.
    assert!(after[1] <= before[1] + 1, "threads, descriptors: {before:?}, then {after:?}");
    origin.gate("1000").open();
}

#[test]
fn who_waits_in_the_queue_of_an_upstream_that_goes_is_served_there() {
    let (old, new) = (Origin::start(origin::by_path), Origin::start(origin::by_path));
    let queue = "queue: {size: 10, timeout: 20s}";
    let mut proxy = Proxy::start(&[("workers", "2")], &sections(&old, "max_conn: 1", queue));
    let (mut running, mut waiting) = (proxy.client(), proxy.client());
    running.send_get("/gate/go");
    old.wait_for_in_flight(1);
    waiting.send_get("/waited");
    proxy.wait_until("a place in the queue", |totals| totals.queue_waits == 1);
    let port = new.port();
    let elsewhere =
        format!("backends: {{other: [{{host: 127.0.0.1, port: {port}}}]}}\nrouting: {{all: {{upstream: other}}}}\n");
    proxy.reload(&[], &elsewhere);
    assert_eq!(proxy.client().get("/new").status, 200);
    old.gate("go").open();
    assert_eq!((running.response().text().as_str(), waiting.response().status), ("ok", 200));
    assert_eq!((old.requests().len(), new.requests().len()), (2, 1));
}
