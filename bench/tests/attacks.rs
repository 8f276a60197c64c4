//! Every attack against the origin: it happens, it ends when it was told, and what it costs is told.

use socket2::{Domain, Socket, Type};
use speedmimi_bench::attack::{Kind, Outcome};
use speedmimi_bench::origin::{Options, Origin};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn attack(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_speedmimi-bench")).arg("attack").args(arguments).output().unwrap()
}

fn outcomes(output: &Output) -> Vec<Outcome> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn attack_all(tls: bool) -> Vec<Outcome> {
    let attacked = Origin::start(&Options { http2: true, tls, max_streams: 100, ..Options::default() }).unwrap();
    // Its own counts are asked for in the clear; those of the one that is attacked are looked at below.
    let counting = Origin::start(&Options::default()).unwrap();
    let output = attack(&[
        "--kind=all",
        "--json",
        "--insecure",
        &format!("--target={}", attacked.url()),
        &format!("--origin={}", counting.url()),
        &format!("--pid={}", std::process::id()),
        "--duration=200ms",
        "--quiet=100ms",
        "--rest=0s",
    ]);
    let outcomes = outcomes(&output);
    assert!(!outcomes.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = attacked.stats();
    assert!(stats.abandoned > 0 && stats.malformed > 0, "{stats:?}");
    assert!(stats.in_flight_max > 10 && stats.working_max > 10, "{stats:?}");
    outcomes
}

#[test]
fn every_attack_happens_and_is_told() {
    for (tls, kinds) in [(true, Kind::ALL.len()), (false, Kind::ALL.len() - 2)] {
        let outcomes = attack_all(tls);
        assert_eq!(outcomes.len(), kinds, "TLS {tls}");
        for outcome in outcomes {
            assert!(outcome.units > 0 && outcome.connections > 0, "{outcome}");
            assert!(outcome.answered > 0 && outcome.growth_bytes.is_some(), "{outcome}");
        }
    }
}

#[test]
fn a_server_resets_what_it_is_provoked_to_reset() {
    let origin = Origin::start(&Options { http2: true, max_streams: 1, ..Options::default() }).unwrap();
    let target = format!("--target={}", origin.url());
    let output = attack(&["--kind=rapid-reset", "--json", &target, "--duration=1s", "--quiet=100ms"]);
    let [outcome] = &outcomes(&output)[..] else { panic!("{output:?}") };
    // All but the first of each batch are above the limit, and refused.
    assert!(outcome.resets > 0, "{outcome}");
    // One of the attacker, one of the well-behaved client.
    assert!(origin.stats().in_flight_max <= 2, "{:?}", origin.stats());
}

#[test]
fn a_list_and_wrong_usage_end_at_once() {
    let started = Instant::now();
    let list = attack(&["--kind=list"]);
    assert!(list.status.success());
    assert_eq!(String::from_utf8_lossy(&list.stdout).lines().count(), Kind::ALL.len());
    for wrong in [
        ["--kind=nonsense", "--target=http://127.0.0.1:1"],
        ["--kind=ping", "--target=http://192.0.2.1:80"],
        ["--kind=slow-handshake", "--target=http://127.0.0.1:1"],
        ["--kind=ping", "--duration=1s"],
    ] {
        assert_eq!(attack(&wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_target_that_does_not_answer_is_no_success() {
    // Bound, so that nobody else is there either; not listened on.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let target = format!("--target=http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    let output = attack(&["--kind=ping", &target, "--duration=1s", "--quiet=100ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"), "{output:?}");
}
