//! A hundred thousand connections at once through the built proxy, every one of them asked and answered again and again.

use speedmimi_bench::net::descriptors_max;
use speedmimi_bench::proc::memory_bytes;
use speedmimi_bench::report::Report;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 100_000;
const TIME_MAX: Duration = Duration::from_secs(120);

/// Why this machine can't hold so many; the test does not run then.
fn lacking(speedmimi: &Path) -> Option<String> {
    if !speedmimi.is_file() {
        return Some(format!("{} is not built: `cargo test --workspace` builds it", speedmimi.display()));
    }
    let descriptors = descriptors_max();
    if descriptors < 8_192 {
        return Some(format!("RLIMIT_NOFILE is {descriptors}: a table has to hold 8,192"));
    }
    let mib = memory_bytes("MemAvailable:") >> 20;
    (mib < 4_000).then(|| format!("{mib} MiB of memory are free: 4,000 are needed"))
}

#[test]
fn all_of_them_are_answered() {
    let program = Path::new(env!("CARGO_BIN_EXE_speedmimi-bench"));
    let speedmimi = program.with_file_name("speedmimi");
    if let Some(why) = lacking(&speedmimi) {
        // Written past the harness, which keeps what a test that passes prints.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {CONNECTIONS} connections were not tried: {why}\n");
        return;
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hundred-thousand-{}.json", std::process::id()));
    let begin = Instant::now();
    let output = Command::new(program)
        .args(["--all-in-one", "--stages=1k,100k", "--duration=5s", "--timeout=100s", "--speedmimi"])
        .arg(&speedmimi)
        .arg("--report")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Report = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let _ = fs::remove_file(&file);
    assert_eq!(report.stages.iter().map(|stage| stage.concurrency).collect::<Vec<_>>(), [1_000, CONNECTIONS]);
    for stage in &report.stages {
        assert_eq!(stage.total.failed, 0, "{:?}", stage.total);
        assert_eq!(stage.answered_connections, stage.concurrency);
        assert!(stage.window.ok > 0 && stage.total.ok > stage.concurrency, "{:?}", stage.total);
    }
    assert!(report.stages[1].memory_bytes > report.stages[0].memory_bytes, "the proxy was not what was measured");
    assert!(begin.elapsed() < TIME_MAX, "it took {:?}", begin.elapsed());
}
