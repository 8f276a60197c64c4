//! The sum: from a demand and constants to CPUs, bytes, bits a second, and from those to machines.
//!
//! Owns arithmetic only. Every term is kept with its factors, so that all of it can be shown and nothing is added unseen.

use serde::Serialize;

use super::constants::{Constants, Spread};

const KIB: f64 = 1024.0;
const GIB: f64 = KIB * KIB * KIB;
/// Heads of a request on its way to the backend and of its answer on its way to the client, in bytes.
const HEADS_BYTES: f64 = 1250.0;
/// Ethernet, IP and TCP around a packet, in bytes, and what a full one carries.
const PACKET_HEADERS_BYTES: f64 = 78.0;
const PACKET_BYTES: f64 = 1448.0;
/// Packets of a small request each way, acknowledgements included.
const PACKETS_EACH: f64 = 4.0;
/// A frame of a WebSocket with its packet's headers, in bytes.
const FRAME_BYTES: f64 = 200.0;
/// What a new connection sends, in bytes: in the clear, and with a certificate.
const OPENING_BYTES: f64 = 4.0 * PACKET_HEADERS_BYTES;
const HANDSHAKE_BYTES: f64 = 3.5 * KIB;
/// The most of a body that lies in buffers on its way, in bytes, and what a request has beside it.
const BODY_BUFFERED_BYTES_MAX: f64 = 64.0 * KIB;
const EXCHANGE_BYTES: f64 = 16.0 * KIB;
/// The system and the program with nobody connected, in bytes a machine.
const MACHINE_BYTES: f64 = 1.5 * GIB;

/// What is asked of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Client connections at once.
    pub connections: f64,
    /// Requests a second.
    pub rps: f64,
    /// Parts of the connections, 0..=1. Those of HTTP/2 are taken from those over TLS first.
    pub tls: f64,
    pub http2: f64,
    pub websocket: f64,
    /// Frames a second over all WebSockets, both ways together.
    pub frames: f64,
    /// Bytes of an answer's and of a request's body.
    pub body: f64,
    pub request_body: f64,
    /// How long a connection lasts, in seconds.
    pub lifetime: f64,
    /// How long a backend takes to answer, in seconds.
    pub latency: f64,
}

/// What a term counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    PlainRequests,
    TlsRequests,
    Http2Requests,
    PlainKib,
    TlsKib,
    Http2Kib,
    Frames,
    SealedFrames,
    NewConnections,
    Handshakes,
    ClientSockets,
    BackendSockets,
    PlainIdle,
    TlsIdle,
    Http2Idle,
    WebSockets,
    UnderWay,
    Bodies,
    Heads,
    PacketHeaders,
}

impl Term {
    /// Whether it is CPU time of requests.
    fn is_of_requests(self) -> bool {
        use Term::{Http2Kib, Http2Requests, PlainKib, PlainRequests, TlsKib, TlsRequests};
        matches!(self, PlainRequests | TlsRequests | Http2Requests | PlainKib | TlsKib | Http2Kib)
    }
}

/// One term: so many, what each costs, and all together in the sum's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    pub term: Term,
    /// A second for CPU time and network, at once for memory.
    pub count: f64,
    /// µs, or bytes.
    pub each: Spread,
    /// CPUs, bytes, or bits a second.
    pub total: Spread,
}

/// Terms and what they come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sum {
    pub lines: Vec<Line>,
    pub total: Spread,
}

impl Sum {
    /// Of those that count anything; each total is `count × each × unit`.
    fn of(unit: f64, terms: &[(Term, f64, Spread)]) -> Sum {
        let counted = terms.iter().filter(|(_, count, each)| *count > 0.0 && each.high > 0.0);
        let line =
            |&(term, count, each): &(Term, f64, Spread)| Line { term, count, each, total: each.times(count * unit) };
        let lines: Vec<Line> = counted.map(line).collect();
        let total = lines.iter().fold(Spread::default(), |sum, line| sum.plus(line.total));
        Sum { lines, total }
    }
}

/// All that is needed, over all machines, without room to spare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// Busy CPUs.
    pub cpus: Sum,
    /// Bytes.
    pub memory: Sum,
    /// Bits a second each way.
    pub network: Sum,
    /// Connections to backends at once.
    pub backend_connections: f64,
}

/// Adds up.
pub fn need(demand: &Demand, constants: &Constants) -> Need {
    let mix = Mix::of(demand);
    let c = constants;
    let kib = (demand.body + demand.request_body) / KIB;
    let sealed = c.tls_request_us.half_over(c.http_request_us);
    let cpus = Sum::of(
        1e-6,
        &[
            (Term::PlainRequests, mix.plain_rps, c.http_request_us),
            (Term::TlsRequests, mix.tls_rps, c.tls_request_us),
            (Term::Http2Requests, mix.http2_rps, c.http2_request_us),
            (Term::PlainKib, mix.plain_rps * kib, c.http_kib_us),
            (Term::TlsKib, mix.tls_rps * kib, c.tls_kib_us),
            (Term::Http2Kib, mix.http2_rps * kib, c.http2_kib_us),
            (Term::Frames, mix.frames, c.websocket_frame_us),
            (Term::SealedFrames, mix.frames * mix.rest_tls, sealed),
            (Term::NewConnections, mix.opened_plain, c.connection_us),
            (Term::Handshakes, mix.opened_tls, c.handshake_us),
        ],
    );
    let exchange = 2.0 * (demand.body + demand.request_body).min(BODY_BUFFERED_BYTES_MAX) + EXCHANGE_BYTES;
    let memory = Sum::of(
        1.0,
        &[
            (Term::ClientSockets, demand.connections, c.socket_bytes),
            (Term::BackendSockets, mix.to_backends, c.socket_bytes),
            (Term::PlainIdle, mix.plain, c.idle_bytes),
            (Term::TlsIdle, mix.tls, c.tls_idle_bytes),
            (Term::Http2Idle, mix.http2, c.http2_idle_bytes),
            (Term::WebSockets, mix.websockets, c.websocket_idle_bytes),
            (Term::UnderWay, mix.under_way, Spread::exactly(exchange)),
        ],
    );
    let bodies = demand.body + demand.request_body;
    let headers = PACKET_HEADERS_BYTES * (PACKETS_EACH + bodies / PACKET_BYTES);
    let network = Sum::of(
        8.0,
        &[
            (Term::Bodies, demand.rps, Spread::exactly(bodies)),
            (Term::Heads, demand.rps, Spread::exactly(HEADS_BYTES)),
            (Term::PacketHeaders, demand.rps, Spread::exactly(headers)),
            (Term::Frames, mix.frames, Spread::exactly(FRAME_BYTES)),
            (Term::NewConnections, mix.opened_plain, Spread::exactly(OPENING_BYTES)),
            (Term::Handshakes, mix.opened_tls, Spread::exactly(HANDSHAKE_BYTES)),
        ],
    );
    Need { cpus, memory, network, backend_connections: mix.to_backends }
}

/// Connections and requests by kind.
struct Mix {
    plain: f64,
    /// HTTP/1.1 and WebSockets over TLS.
    tls: f64,
    http2: f64,
    websockets: f64,
    /// Of what is not HTTP/2, the part over TLS.
    rest_tls: f64,
    plain_rps: f64,
    tls_rps: f64,
    http2_rps: f64,
    frames: f64,
    opened_plain: f64,
    opened_tls: f64,
    under_way: f64,
    to_backends: f64,
}

impl Mix {
    fn of(demand: &Demand) -> Mix {
        let n = demand.connections;
        let rest = 1.0 - demand.http2;
        let rest_tls = if rest > 0.0 { (demand.tls - demand.http2).max(0.0) / rest } else { 0.0 };
        let (http2, websockets) = (n * demand.http2, n * demand.websocket);
        let http1 = (n - http2 - websockets).max(0.0);
        // Requests come over what is no WebSocket.
        let asking = 1.0 - demand.websocket;
        let http2_rps = if asking > 0.0 { demand.rps * (demand.http2 / asking).min(1.0) } else { 0.0 };
        let http1_rps = demand.rps - http2_rps;
        let under_way = demand.rps * demand.latency;
        let opened_tls = n * demand.tls / demand.lifetime;
        Mix {
            plain: http1 * (1.0 - rest_tls),
            tls: (http1 + websockets) * rest_tls,
            http2,
            websockets,
            rest_tls,
            plain_rps: http1_rps * (1.0 - rest_tls),
            tls_rps: http1_rps * rest_tls,
            http2_rps,
            frames: demand.frames,
            opened_plain: n / demand.lifetime - opened_tls,
            opened_tls,
            under_way,
            to_backends: websockets + under_way,
        }
    }
}

/// How full machines may be, and how large they are at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Parts of what there is, 0..=1.
    pub cpu: f64,
    pub memory: f64,
    pub network: f64,
    /// Whether the upper quartiles count, not the medians.
    pub is_careful: bool,
    /// CPUs and GiB of the largest machine.
    pub cpus_max: u64,
    pub memory_gib_max: u64,
}

impl Rule {
    /// What is just enough.
    pub const LEAST: Rule =
        Rule { cpu: 0.8, memory: 0.8, network: 0.7, is_careful: false, cpus_max: 32, memory_gib_max: 128 };
    /// What bears bursts, and a bad day.
    pub const RECOMMENDED: Rule =
        Rule { cpu: 0.6, memory: 0.6, network: 0.5, is_careful: true, cpus_max: 64, memory_gib_max: 256 };
}

/// Sizes that are sold.
const CPUS: &[u64] = &[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const MEMORY_GIB: &[u64] = &[2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];
const NETWORK_GBIT: &[u64] = &[1, 10, 25, 50, 100];

/// Machines to buy, and what is to be expected of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// Machines that bear the load; one more stands in for any of them.
    pub machines: u64,
    /// Of each.
    pub cpus: u64,
    pub memory_gib: u64,
    pub network_gbit: u64,
    pub expected: Expected,
}

/// Figures of the machines that bear the load, together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Requests a second at the most that the rule lets the CPUs be busy, other demands grown with them.
    pub rps: Spread,
    /// What the proxy adds to a request's time at the demand, in µs, on average.
    pub added_us: Spread,
    /// Parts of what there is, at the demand.
    pub cpu: Spread,
    pub memory_bytes: Spread,
    /// Each way.
    pub network_bits: f64,
}

/// Machines by a rule.
pub fn fleet(demand: &Demand, need: &Need, rule: &Rule) -> Fleet {
    let judged = |spread: Spread| if rule.is_careful { spread.high } else { spread.median };
    let cpus = judged(need.cpus.total) / rule.cpu;
    let memory = judged(need.memory.total) / rule.memory;
    let network = need.network.total.median / rule.network;
    let room = rule.memory_gib_max as f64 * GIB - MACHINE_BYTES / rule.memory;
    let machines =
        [cpus / rule.cpus_max as f64, memory / room.max(GIB), network / gbit(NETWORK_GBIT[NETWORK_GBIT.len() - 1])];
    let machines = machines.into_iter().fold(1.0, |most: f64, each| most.max(each.ceil()));
    let size = |sizes: &[u64], most: u64, each: f64| {
        let fits = sizes.iter().copied().find(|&size| size as f64 >= each);
        fits.unwrap_or(most).min(most).max(1)
    };
    let each_bytes = memory / machines + MACHINE_BYTES / rule.memory;
    let fleet_cpus = size(CPUS, rule.cpus_max, cpus / machines);
    let all_cpus = machines * fleet_cpus as f64;
    let busy = need.cpus.total;
    let part = busy.times(1.0 / all_cpus);
    let capacity = |busy: f64| if busy > 0.0 { demand.rps * all_cpus * rule.cpu / busy } else { 0.0 };
    // What opens connections and passes frames on is in the way of requests, and no part of them.
    let of_requests = need.cpus.lines.iter().filter(|line| line.term.is_of_requests());
    let own = of_requests.fold(Spread::default(), |sum, line| sum.plus(line.total));
    let added = |own: f64, part: f64| {
        if demand.rps > 0.0 { own / demand.rps * 1e6 / (1.0 - part.min(0.99)) } else { 0.0 }
    };
    Fleet {
        machines: machines as u64,
        cpus: fleet_cpus,
        memory_gib: size(MEMORY_GIB, rule.memory_gib_max, each_bytes / GIB),
        network_gbit: size(NETWORK_GBIT, NETWORK_GBIT[NETWORK_GBIT.len() - 1], network / machines / gbit(1)),
        expected: Expected {
            rps: Spread::new(capacity(busy.high), capacity(busy.median), capacity(busy.low)),
            // A worker is one server with a queue before it: the wait grows as 1 / (1 - utilisation).
            added_us: Spread::new(added(own.low, part.low), added(own.median, part.median), added(own.high, part.high)),
            cpu: part,
            memory_bytes: need.memory.total.plus(Spread::exactly(MACHINE_BYTES * machines)),
            network_bits: need.network.total.median,
        },
    }
}

fn gbit(count: u64) -> f64 {
    count as f64 * 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        connections: 10e6,
        rps: 500e3,
        tls: 0.5,
        http2: 0.3,
        websocket: 0.2,
        frames: 66e3,
        body: 4096.0,
        request_body: 200.0,
        lifetime: 600.0,
        latency: 0.02,
    };

    fn need_of(demand: Demand) -> Need {
        need(&demand, &Constants::BUILT_IN)
    }

    fn totals(demand: Demand) -> [f64; 3] {
        let need = need_of(demand);
        [need.cpus.total.median, need.memory.total.median, need.network.total.median]
    }

    #[test]
    fn the_terms_that_are_shown_are_the_total() {
        let need = need_of(DEMAND);
        for (sum, unit) in [(&need.cpus, 1e-6), (&need.memory, 1.0), (&need.network, 8.0)] {
            for (of, total) in [(|s: Spread| s.low) as fn(Spread) -> f64, |s: Spread| s.median, |s: Spread| s.high]
                .map(|of| (of, of(sum.total)))
            {
                let shown: f64 = sum.lines.iter().map(|line| line.count * of(line.each) * unit).sum();
                assert!((shown - total).abs() <= total * 1e-12, "{shown} {total}");
            }
            assert!(sum.lines.iter().all(|line| line.count > 0.0));
            assert!(sum.total.low <= sum.total.median && sum.total.median <= sum.total.high);
        }
        assert_eq!((need.cpus.lines.len(), need.memory.lines.len(), need.network.lines.len()), (10, 7, 6));
    }

    #[test]
    fn units_are_what_they_say() {
        let only = |rps: f64, connections: f64| {
            need_of(Demand {
                rps,
                connections,
                tls: 0.0,
                http2: 0.0,
                websocket: 0.0,
                frames: 0.0,
                body: 0.0,
                request_body: 0.0,
                lifetime: 1e12,
                ..DEMAND
            })
        };
        // A million requests of 15.7 µs are 15.7 CPUs, those of 1,250 + 4 × 78 bytes 12.5 Gbit/s.
        let need = only(1e6, 1.0);
        assert!((need.cpus.total.median - 15.7).abs() < 1e-9, "{:?}", need.cpus);
        assert!((need.network.total.median / 1e9 - 12.496).abs() < 1e-6, "{:?}", need.network);
        // A million idle ones, 3,750 + 58 bytes each.
        assert!((only(0.0, 1e6).memory.total.median - 3.808e9).abs() < 1.0);
    }

    #[test]
    fn a_few_requests_beside_many_connections_are_as_quick() {
        let demand = Demand {
            rps: 10.0,
            tls: 0.0,
            http2: 0.0,
            websocket: 0.0,
            frames: 0.0,
            body: 0.0,
            request_body: 0.0,
            ..DEMAND
        };
        let fleet = fleet(&demand, &need_of(demand), &Rule::LEAST);
        let alone = Constants::BUILT_IN.http_request_us.median;
        assert!((alone..alone * 5.0).contains(&fleet.expected.added_us.median), "{fleet:?}");
    }

    #[test]
    fn more_of_anything_never_needs_less() {
        type Raise = fn(&mut Demand, f64);
        let raises: [Raise; 8] = [
            |d, by| d.connections *= 1.0 + by,
            |d, by| d.rps *= 1.0 + by,
            |d, by| d.tls = (d.tls + by / 4.0).min(1.0),
            |d, by| d.frames *= 1.0 + by,
            |d, by| d.body *= 1.0 + by,
            |d, by| d.request_body *= 1.0 + by,
            |d, by| d.latency *= 1.0 + by,
            |d, by| d.lifetime /= 1.0 + by,
        ];
        for (at, raise) in raises.iter().enumerate() {
            let mut last = totals(DEMAND);
            for step in 1..20 {
                let mut demand = DEMAND;
                raise(&mut demand, f64::from(step) / 10.0);
                let now = totals(demand);
                assert!(
                    now.iter().zip(last).all(|(now, last)| *now >= last - last * 1e-12),
                    "argument {at}: {now:?} {last:?}"
                );
                last = now;
            }
        }
        // More of these in place of others costs memory.
        for raise in [(|d: &mut Demand, by| d.http2 += by) as Raise, |d, by| d.websocket += by] {
            let mut demand = DEMAND;
            raise(&mut demand, 0.2);
            assert!(totals(demand)[1] > totals(DEMAND)[1]);
        }
    }

    #[test]
    fn nothing_is_lost_between_kinds() {
        for (tls, http2, websocket) in
            [(0.0, 0.0, 0.0), (1.0, 0.0, 0.5), (0.2, 0.6, 0.4), (1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.3, 0.2)]
        {
            let rps = if websocket < 1.0 { DEMAND.rps } else { 0.0 };
            let mix = Mix::of(&Demand { tls, http2, websocket, rps, ..DEMAND });
            let near = |a: f64, b: f64| (a - b).abs() < 1e-3;
            assert!(near(mix.plain_rps + mix.tls_rps + mix.http2_rps, rps), "{tls} {http2} {websocket}");
            assert!(near(mix.opened_plain + mix.opened_tls, DEMAND.connections / DEMAND.lifetime));
            assert!(near(mix.tls + mix.http2, DEMAND.connections * f64::max(tls, http2)), "{tls} {http2} {websocket}");
            assert!([mix.plain, mix.tls, mix.plain_rps, mix.opened_plain].iter().all(|count| *count >= 0.0));
        }
    }

    #[test]
    fn machines_bear_the_load_within_their_rule() {
        for rule in [Rule::LEAST, Rule::RECOMMENDED] {
            for scale in [0.0001, 0.01, 0.3, 1.0, 7.0] {
                let demand = Demand { connections: 10e6 * scale, rps: 500e3 * scale, frames: 66e3 * scale, ..DEMAND };
                let need = need_of(demand);
                let fleet = fleet(&demand, &need, &rule);
                let (expected, all) = (fleet.expected, fleet.machines as f64);
                let judged = |spread: Spread| if rule.is_careful { spread.high } else { spread.median };
                let case = format!("{scale} {fleet:?}");
                assert!(judged(expected.cpu) <= rule.cpu + 1e-9, "{case}");
                assert!(
                    judged(expected.memory_bytes) <= all * fleet.memory_gib as f64 * GIB * rule.memory + 1.0,
                    "{case}"
                );
                assert!(expected.network_bits <= all * gbit(fleet.network_gbit) * rule.network + 1.0, "{case}");
                assert!(fleet.cpus <= rule.cpus_max && fleet.memory_gib <= rule.memory_gib_max);
                let capacity = if rule.is_careful { expected.rps.low } else { expected.rps.median };
                assert!(capacity >= demand.rps * (1.0 - 1e-9), "{case}");
                assert!(expected.rps.low <= expected.rps.high && expected.added_us.low <= expected.added_us.high);
            }
        }
    }
}
