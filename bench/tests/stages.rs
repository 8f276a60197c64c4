//! The staged test as a user runs it: reports, grades, where it stops, what it refuses, and what Ctrl-C leaves.

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use speedmimi_bench::origin::{Options, Origin};
use speedmimi_bench::report::{End, Grade, Report};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_speedmimi-bench");

/// A directory for a test's files, removed when it is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn origin(fail_every: u64) -> Origin {
    Origin::start(&Options { fail_every, ..Options::default() }).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn read(path: &str) -> Report {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs it to its end against an origin, and reads its report.
fn report(origin: &Origin, dir: &Dir, arguments: &[&str]) -> Report {
    let (target, file) = (format!("--target={}", origin.url()), dir.file("r.json"));
    let report = format!("--report={file}");
    let output = run(&[&[target.as_str(), &report, "--warmup=20ms"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    read(&file)
}

#[test]
fn stages_are_measured_in_order_and_reported_in_every_form() {
    let (origin, dir) = (origin(0), Dir::new("forms"));
    let files = ["r.md", "r.html"].map(|name| format!("--report={}", dir.file(name)));
    let arguments = ["--stages=1,20,300", "--duration=500ms", "--lang=zh", files[0].as_str(), &files[1]];
    let report = report(&origin, &dir, &arguments);
    assert_eq!(report.stages.iter().map(|stage| stage.concurrency).collect::<Vec<_>>(), [1, 20, 300]);
    assert_eq!((report.end, report.format), (End::Whole, 1));
    for stage in &report.stages {
        let counted: u64 = stage.histogram_us.iter().map(|(_, count)| count).sum();
        assert_eq!((stage.success_percent, stage.total.failed), (100.0, 0));
        assert_eq!(stage.answered_connections, stage.concurrency);
        assert_eq!(stage.slices.len(), 2);
        assert!(stage.rps > 0.0 && counted > 0 && stage.latency_us.p99_9 <= stage.latency_us.max);
        assert!(stage.percentiles_us.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{:?}", stage.percentiles_us);
    }
    // The test itself listens: found by its port, and measured.
    let process = report.process.unwrap();
    assert_eq!(process.pid, std::process::id());
    assert!(report.stages.iter().all(|stage| stage.cpu.unwrap() > 0.0 && stage.memory_bytes.unwrap() > 0));
    let (markdown, html) =
        (fs::read_to_string(dir.file("r.md")).unwrap(), fs::read_to_string(dir.file("r.html")).unwrap());
    assert!(markdown.contains("| 并发数 | 成功率 | RPS | 平均延迟 | 性能等级 | 结论 |"), "{markdown}");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<td>300并发</td><td>100.00%</td>"), "{html}");
}

#[test]
fn it_stops_where_too_much_fails_and_that_is_no_failure_of_its_own() {
    let (origin, dir) = (origin(2), Dir::new("stops"));
    let report = report(&origin, &dir, &["--stages=4,8,16", "--duration=200ms"]);
    assert_eq!((report.stages.len(), report.end), (1, End::TooManyFailed));
    let stage = &report.stages[0];
    assert!((49.0..51.0).contains(&stage.success_percent) && stage.total.failed == stage.total.status);
    assert_eq!((stage.grade, stage.total.failed), (Grade::Poor, origin.stats().spoilt));
}

#[test]
fn an_open_loop_reports_how_its_schedule_was_kept() {
    let (origin, dir) = (origin(0), Dir::new("open"));
    let arguments = ["--concurrency=10", "--duration=500ms", "--rate=200", "--arrivals=poisson", "--seed=3"];
    let report = report(&origin, &dir, &arguments);
    let open = report.stages[0].open_loop.as_ref().unwrap();
    assert!(open.due >= 60 && open.unsent == 0, "{open:?}");
    assert!(report.load.starts_with("open loop, 200 a second, poisson arrivals"), "{}", report.load);
}

#[test]
fn an_interrupt_leaves_the_report_of_what_was_measured() {
    let (origin, dir) = (origin(0), Dir::new("interrupt"));
    let file = dir.file("r.json");
    let mut child = Command::new(PROGRAM)
        .args([&format!("--target={}", origin.url()), "--stages=4,8", "--duration=10m", &format!("--report={file}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = said.map(Result::unwrap).skip_while(|line| line != "4 connections: measuring");
    assert!(said.next().is_some());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = said.collect();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?} {rest:?}");
    let report = read(&file);
    assert_eq!((report.end, report.stages.len()), (End::Interrupted, 1));
    assert!(report.stages[0].partial && report.stages[0].total.ok > 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 (in part) |"), "{output:?}");
}

#[test]
fn a_stage_that_cannot_be_measured_leaves_the_report_of_those_before() {
    let (origin, dir) = (origin(0), Dir::new("fails"));
    let file = dir.file("r.json");
    let mut measured = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = format!("--pid={}", measured.id());
    let mut child = Command::new(PROGRAM)
        .args([&format!("--target={}", origin.url()), "--stages=4,8", "--duration=300ms", &pid])
        .arg(format!("--report={file}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = said.map(Result::unwrap).skip_while(|line| line != "4 connections: measuring");
    assert!(said.next().is_some());
    measured.kill().unwrap();
    measured.wait().unwrap();
    let rest: Vec<String> = said.collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?} {rest:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("| 4 | 100.00% |"), "{output:?}");
    let report = read(&file);
    assert_eq!((report.end, report.stages.len()), (End::Failed, 1));
    assert!(report.notes.iter().any(|note| note.starts_with("8 connections could not be measured: ")), "{report:?}");
}

#[test]
fn what_may_not_be_loaded_is_refused_with_the_word_that_allows_it() {
    for target in ["http://192.0.2.1/", "http://example.com/", "https://10.0.0.1:8443/x"] {
        let output = run(&["--target", target, "--concurrency=1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--i-own-this-target"), "{said}");
    }
}

#[test]
fn an_address_of_a_private_namespace_is_taken() {
    // In a namespace of its own an address is added and loaded; nothing can leave it.
    let script = r#"
        ip link set lo up && ip addr add 10.99.0.1/32 dev lo || exit 99
        "$0" origin --listen 10.99.0.1:8081 2>/dev/null &
        origin=$!
        "$0" load --target http://10.99.0.1:8081 -c 2 -n 10 --timeout 5s; status=$?
        "$0" load --target http://10.99.0.2:8081 -c 2 -n 10 && status=98
        kill $origin
        exit $status"#;
    let output = Command::new("unshare").args(["-n", "sh", "-c", script, PROGRAM]).output();
    match output {
        Ok(output) if output.status.code() == Some(0) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("\"connections\": 2"), "{said}");
        }
        Ok(output) if output.status.code() == Some(98) => panic!("an address of nobody was loaded: {output:?}"),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("only loopback") => {
            panic!("the namespace's own address was refused: {output:?}")
        }
        other => {
            // Written past the harness, which keeps what a test that passes prints.
            let why = "no network namespace can be made here (root and iproute2 are needed)";
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: {why}: {other:?}\n");
        }
    }
}

#[test]
fn two_reports_are_compared_and_strange_files_named() {
    let dir = Dir::new("compare");
    let (fast, slow) = (origin(0), origin(0));
    let mut files = Vec::new();
    for (name, origin, path) in [("a", &fast, "/100"), ("b", &slow, "/100?delay=20ms")] {
        let file = dir.file(&format!("{name}.json"));
        let target = format!("--target={}{path}", origin.url());
        assert!(run(&[&target, "-c4", "-d500ms", "--warmup=20ms", &format!("--report={file}")]).status.success());
        files.push(file);
    }
    let html = dir.file("c.html");
    let output = run(&["--compare", &files[0], &files[1], &format!("--report={html}")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |name: &str| said.lines().find(|line| line.starts_with(&format!("| 4 | {name} |"))).unwrap().to_owned();
    assert!(row("RPS").ends_with("| worse |") && row("p50").ends_with("| worse |"), "{said}");
    assert!(row("Success rate").ends_with("| no difference |"), "{said}");
    assert!(fs::read_to_string(html).unwrap().contains("<td>worse</td>"));
    fs::write(dir.file("x.json"), "{\"format\": 7}").unwrap();
    let output = run(&["--compare", &files[0], &dir.file("x.json")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a report of format 7"), "{output:?}");
}

#[test]
fn wrong_usage_is_told_before_anything_is_loaded() {
    let origin = origin(0);
    let target = format!("--target={}", origin.url());
    for arguments in [
        &[][..],
        &[&target, "--report=r.txt"],
        &[&target, "--stages=1,2", "--concurrency=3"],
        &[&target, "--stages=0"],
        &["--all-in-one", "--stages=2m"],
        &[&target, "--stages=2m"],
        &[&target, "--arrivals=poisson"],
        &[&target, "--all-in-one"],
        &[&target, "--websocket", "--body=1MiB"],
        &[&target, "--header=Content-Length: 3"],
        &[&target, "load"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    // Bound, so that nobody else is there either; not listened on.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody_there = format!("--target=http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    let output = run(&[&nobody_there]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("connecting to 127.0.0.1:"), "{output:?}");
    let output = run(&["--all-in-one", "--speedmimi=/nowhere/speedmimi"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/speedmimi is missing: build it"), "{output:?}");
    let output = run(&[&target, "--report=/nowhere/r.md"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(origin.stats().connections, 0);
}
