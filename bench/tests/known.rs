//! The load generator against servers of known latency and error rate: what it reports is what they did.

use hdrhistogram::Histogram;
use speedmimi_bench::load::{self, Counts, Measured, Watch};
use speedmimi_bench::origin::{self, Origin, Spoil};
use speedmimi_bench::traffic::{Arrivals, Traffic};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough that two in a hundred are more than what sockets and threads take.
const DELAYS_MS: [u64; 3] = [100, 200, 400];

/// Attempts to find a moment in which nothing else disturbs what is timed.
const ATTEMPTS: usize = 10;

/// One test at a time: each would disturb what another one times.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of `/100`, as the load generator expects it.
fn good_answer() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec();
    answer.extend(speedmimi_bench::body::pattern(100));
    answer
}

/// A server with a thread a connection that sleeps so long as it is told, and remembers how long each answer really took.
struct Scripted {
    address: SocketAddr,
    told: Arc<Told>,
}

struct Told {
    /// In ms, taken in turns over all connections.
    delays: &'static [u64],
    /// Every so many answers one is a 500.
    fail_every: u64,
    /// Once, at this request, everything stands still for so long.
    stall: Option<(u64, Duration)>,
    asked: AtomicU64,
    failed: AtomicU64,
    /// Held by whoever answers; a stall holds it.
    still: Mutex<()>,
    took_ns: Mutex<Vec<u64>>,
}

impl Scripted {
    fn start(delays: &'static [u64], fail_every: u64, stall: Option<(u64, Duration)>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let told = Arc::new(Told {
            delays,
            fail_every,
            stall,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            still: Mutex::new(()),
            took_ns: Mutex::new(Vec::new()),
        });
        let scripted = Scripted { address: listener.local_addr().unwrap(), told: Arc::clone(&told) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let told = Arc::clone(&told);
                thread::spawn(move || told.serve(stream.unwrap()));
            }
        });
        scripted
    }

    fn options(&self) -> load::Options {
        load::Options::new(format!("http://{}/100", self.address).parse().unwrap())
    }
}

impl Told {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut stream, good, mut line) = (stream, good_answer(), String::new());
        loop {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(len) if len > 0 => {}
                _ => return,
            }
            if line != "\r\n" {
                continue;
            }
            let begin = Instant::now();
            let number = self.asked.fetch_add(1, Relaxed) + 1;
            self.stand_still(number);
            let delay = self.delays[number as usize % self.delays.len()];
            thread::sleep(Duration::from_millis(delay));
            let fails = self.fail_every > 0 && number.is_multiple_of(self.fail_every);
            self.failed.fetch_add(u64::from(fails), Relaxed);
            let answer: &[u8] = if fails { b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" } else { &good };
            if !fails {
                self.took_ns.lock().unwrap().push(begin.elapsed().as_nanos() as u64);
            }
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }

    fn stand_still(&self, number: u64) {
        let _held = self.still.lock().unwrap();
        if let Some((at, time)) = self.stall
            && at == number
        {
            thread::sleep(time);
        }
    }

    /// What the answers took.
    fn latency(&self) -> Histogram<u32> {
        let mut latency = Histogram::new_with_bounds(1, 120_000_000_000, 3).unwrap();
        for took in self.took_ns.lock().unwrap().iter() {
            latency.record(*took).unwrap();
        }
        latency
    }
}

fn measure(options: &load::Options) -> Measured {
    let stop = AtomicBool::new(false);
    load::measure(options, &mut Watch { stop: &stop, glimpse: &mut |_| () }).unwrap()
}

/// Compares at quantiles that lie well within one of the three delays. A machine that is busy with something else adds
/// to what a client sees and the server doesn't: one of a few attempts has to be undisturbed.
fn within_two_percent(server: &Scripted, mut attempt: impl FnMut() -> Measured) {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        server.told.took_ns.lock().unwrap().clear();
        let measured = attempt();
        let done = server.told.latency();
        let ratios = [0.17, 0.5, 0.83].map(|quantile| {
            let at = |latency: &Histogram<u32>| latency.value_at_quantile(quantile) as f64;
            at(&measured.latency) / at(&done)
        });
        if ratios.iter().all(|ratio| (ratio - 1.0).abs() < 0.02) {
            return;
        }
        seen.push(ratios);
    }
    panic!("measured to real, at the middle of each delay: {seen:?}");
}

#[test]
fn closed_loop_reports_known_latencies_and_failures() {
    let _alone = alone();
    let server = Scripted::start(&DELAYS_MS, 100, None);
    let mut options = server.options();
    (options.connections, options.requests) = (100, Some(700));
    within_two_percent(&server, || {
        let measured = measure(&options);
        assert_eq!(measured.report.total, Counts { ok: 693, failed: 7, status: 7, ..Counts::default() });
        assert_eq!(measured.latency.len(), 693);
        measured
    });
}

#[test]
fn open_loop_reports_known_latencies_and_failures() {
    let _alone = alone();
    let server = Scripted::start(&DELAYS_MS, 100, None);
    for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
        let mut options = server.options();
        // Twice as many connections as their mean takes at this rate.
        (options.connections, options.duration) = (90, Duration::from_secs(2));
        options.traffic =
            Traffic { rate: Some(150), arrivals, warmup: Duration::from_millis(100), ..Traffic::default() };
        within_two_percent(&server, || {
            let failed_before = server.told.failed.load(Relaxed);
            let measured = measure(&options);
            let open = measured.report.open_loop.as_ref().unwrap();
            assert_eq!(open.unsent, 0);
            assert!(open.due >= 220, "{open:?}");
            assert_eq!(measured.report.total.failed, server.told.failed.load(Relaxed) - failed_before);
            measured
        });
    }
}

#[test]
fn http2_reports_a_known_latency_and_failures() {
    let _alone = alone();
    let delay = Duration::from_millis(200);
    let fails = (100, Spoil::Status);
    let options = origin::Options { http2: true, delay, fail_every: fails.0, fail_with: fails.1, ..Default::default() };
    let origin = Origin::start(&options).unwrap();
    let mut options = load::Options::new(origin.url().parse().unwrap());
    (options.connections, options.requests) = (4, Some(400));
    (options.traffic.speech.http2, options.traffic.streams) = (true, 20);
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let report = measure(&options).report;
        assert_eq!(report.total, Counts { ok: 396, failed: 4, status: 4, ..Counts::default() });
        let ratio = report.latency_us.p50 / delay.as_micros() as f64;
        assert!(ratio > 0.999, "{ratio}");
        if ratio < 1.02 {
            return;
        }
        seen.push(ratio);
    }
    panic!("measured to real: {seen:?}");
}

#[test]
fn all_connections_ask_while_it_is_measured() {
    let _alone = alone();
    let origin = Origin::start(&origin::Options { delay: Duration::from_millis(50), ..Default::default() }).unwrap();
    let mut options = load::Options::new(origin.url().parse().unwrap());
    (options.connections, options.threads, options.duration) = (3_000, 2, Duration::from_secs(1));
    options.traffic.warmup = Duration::ZERO;
    let report = measure(&options).report;
    // Little's law: so many are under way as are answered in the time that one takes.
    let under_way = report.rps * report.latency_us.mean / 1e6;
    assert!((2_500.0..3_500.0).contains(&under_way), "{under_way} of 3,000 were under way");
}

/// One second at a steady pace, in which the server stands still for half of it once.
fn through_a_stall(rate: Option<u64>) -> Measured {
    let server = Scripted::start(&[1], 0, Some((200, Duration::from_millis(500))));
    let mut options = server.options();
    (options.connections, options.duration) = (4, Duration::from_millis(2_500));
    options.traffic = Traffic { rate, warmup: Duration::ZERO, ..Traffic::default() };
    measure(&options)
}

#[test]
fn a_stall_is_seen_by_the_open_loop_and_omitted_by_the_closed_one() {
    let _alone = alone();
    let closed = through_a_stall(None);
    let open = through_a_stall(Some(800));
    let (closed_ms, open_ms) = (closed.report.latency_us.p99 / 1e3, open.report.latency_us.p99 / 1e3);
    // A fifth of all requests became due while it stood still; of a closed loop four were under way.
    assert!(closed_ms < 250.0, "closed loop: {closed_ms} ms");
    assert!(open_ms > 400.0, "open loop: {open_ms} ms");
    assert!(open.report.open_loop.unwrap().late > 100);
    assert!(closed.report.latency_us.max > 450e3);
}

#[test]
fn more_than_can_be_sent_fails_and_is_told() {
    let _alone = alone();
    let server = Scripted::start(&[50], 0, None);
    let mut options = server.options();
    (options.connections, options.duration) = (2, Duration::from_secs(1));
    let timeout = Some(Duration::from_millis(500));
    options.traffic = Traffic { rate: Some(400), timeout, warmup: Duration::ZERO, ..Traffic::default() };
    let report = measure(&options).report;
    let open = report.open_loop.unwrap();
    // Two connections answer 40 a second.
    assert!(open.due >= 350 && open.unsent > 250, "{open:?}");
    assert!(report.rps < 60.0 && report.answered_percent < 30.0, "{} rps", report.rps);
    assert_eq!(report.total.failed, report.total.timeout);
}
