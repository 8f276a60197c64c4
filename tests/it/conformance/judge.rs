//! Runs the judge (`tests/conformance/judge.py`) over captures in one process.
//!
//! Owns finding its interpreter and passing captures and verdicts. Never judges.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// What came out for one payload.
#[derive(Debug)]
pub struct Judgement {
    pub id: String,
    pub verdict: Verdict,
    pub why: String,
    /// Complete requests.
    pub requests: u64,
    /// Parsers that refuse it; the strict ones only with [`Verdict::Refused`].
    pub refused_by: Vec<String>,
}

/// See the judge's own documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Clean,
    Ambiguous,
    Refused,
}

/// Judges payloads `(id, bytes of each connection)`; `mark` is the field that the proxy puts into each request.
pub fn judge<'a>(name: &str, mark: &str, captures: impl Iterator<Item = (&'a str, Vec<&'a [u8]>)>) -> Vec<Judgement> {
    let lines = captures.map(|(id, connections)| {
        let connections: Vec<String> = connections.into_iter().map(hex).collect();
        json!({"id": id, "mark": mark, "connections": connections}).to_string() + "\n"
    });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.jsonl", std::process::id()));
    File::create(&file)
        .and_then(|mut f| f.write_all(lines.collect::<String>().as_bytes()))
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let output = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/judge.py"))
        .stdin(File::open(&file).expect("the captures just written"))
        .output()
        .unwrap_or_else(|e| panic!("the judge cannot be run: {e}\n{INSTALL}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the judge failed:\n{errors}\n{INSTALL}");
    // Kept only where something is to be looked into.
    std::fs::remove_file(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    String::from_utf8_lossy(&output.stdout).lines().map(judgement).collect()
}

const INSTALL: &str = "The conformance test needs Python 3.10 or later with its venv module, and the parsers in \
    tests/conformance/requirements.txt. It installs them under target/ by itself; by hand:\n  \
    tests/python.sh target/judge tests/conformance/requirements.txt";

/// The interpreter: `SPEEDMIMI_JUDGE_PYTHON`, else that of the environment under `target`, which is made when missing.
fn python() -> PathBuf {
    if let Some(named) = std::env::var_os("SPEEDMIMI_JUDGE_PYTHON") {
        return named.into();
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../judge");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    run(Command::new(tests.join("python.sh")).arg(&home).arg(tests.join("conformance/requirements.txt")));
    home.join("bin/python")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}\n{INSTALL}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{said}\n{INSTALL}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn judgement(line: &str) -> Judgement {
    let item: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("the judge said {line}: {e}"));
    let verdict = match super::text(&item, "verdict") {
        "clean" => Verdict::Clean,
        "ambiguous" => Verdict::Ambiguous,
        "refused" => Verdict::Refused,
        other => panic!("the judge said {other}"),
    };
    let names = item["refused_by"].as_array().into_iter().flatten();
    Judgement {
        id: super::text(&item, "id").to_owned(),
        verdict,
        why: super::text(&item, "why").to_owned(),
        requests: item["requests"].as_u64().unwrap_or(0),
        refused_by: names.filter_map(|n| n.as_str().map(str::to_owned)).collect(),
    }
}
