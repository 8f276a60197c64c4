//! Style as a test: what `ARCHITECTURE.md` says about the order of modules and the shape of files is held here.
//!
//! Owns rules over the text of the sources. Never parses Rust: the rules are simple enough for lines, and each failure
//! names file, line and cure.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the lowest floor to the highest; each may name those before it and itself, none after it. A longer
/// path stands for itself and takes precedence over the module it is in.
const FLOORS: &[&str] = &[
    "limits",
    "error",
    "buf",
    "http",
    "balance",
    "health",
    "config",
    "route",
    "sys",
    "clock",
    "stamp",
    "logging",
    "wheel",
    "tls",
    "shared",
    "listen",
    "service",
    "stream",
    "handover",
    "park",
    "upstream",
    "proxy",
    "config::load",
    "config::store",
    "health::probe",
    "control",
    "admin",
    "worker",
    "server",
    "cli",
];

/// Modules that only gather others, and roots that may name everything.
const UNORDERED: &[&str] = &["src/lib.rs", "src/main.rs", "src/health/mod.rs"];

/// Pairs (from, to) that may look upward, each with its reason. Empty is the aim.
const UPWARD: &[(&str, &str, &str)] = &[];

/// Where unsafe code may stand.
const UNSAFE_IN: &[&str] = &["src/sys/", "src/sys.rs", "bench/src/sys.rs"];

/// Modules that must stay pure: no runtime, no clock, no files, no sockets.
const PURE: &[&str] = &[
    "src/limits.rs",
    "src/error.rs",
    "src/buf.rs",
    "src/http/",
    "src/balance/",
    "src/route",
    "src/health/verdict",
    "src/health/budget",
    "src/health/eject",
    "src/health/schedule",
    "src/config/file",
    "src/config/plan.rs",
    "src/config/check",
    "src/config/change",
    "src/config/difference",
    "src/config/document",
    "src/config/edit",
    "src/config/json",
    "src/config/place",
    "src/config/spell",
    "src/service/life",
];

/// What a pure module does not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::net::TcpStream",
    "std::thread",
    "std::env::",
    "fastrand::u",
    "fastrand::f",
    "fastrand::usize",
];

/// Files that may be longer than [`FILE_LINES_MAX`], with their bound in lines.
const LONG_FILES: &[(&str, usize)] = &[];

/// Lines of a file without the tests at its end.
const FILE_LINES_MAX: usize = 900;
/// rustfmt breaks code at 120 and leaves comments as they are: a word's end may stand out.
const LINE_CHARS_MAX: usize = 130;
/// A line that holds a literal can't always be broken.
const LITERAL_LINE_CHARS_MAX: usize = 160;

/// A source file: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, without what stands behind `//`. Good enough: no string in the sources that matters
    /// to a rule has a `//` in front of it.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    /// As [`Source::code`], up to the file's own tests.
    fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
    }

    /// The module of a file of the library: `src/http/parse.rs` is `http::parse`.
    fn module(&self) -> Option<String> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(path.strip_suffix("/mod").unwrap_or(path).replace('/', "::"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "bench", "tests", "fuzz", "benches", "examples"] {
        collect(&root.join(dir), &mut files);
    }
    files.sort();
    let read = |file: PathBuf| {
        let path = file.strip_prefix(root).expect("collected below the root").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
        Source { path, text }
    };
    let sources: Vec<Source> = files.into_iter().map(read).collect();
    assert!(sources.len() > 5, "the sources were not found");
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|e| e.expect("a readable directory").path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Fails with every fault at once.
fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn floor(module: &str) -> Option<usize> {
    let of = |floor: &str| module == floor || module.strip_prefix(floor).is_some_and(|rest| rest.starts_with("::"));
    let fits = FLOORS.iter().enumerate().filter(|(_, name)| of(name));
    fits.max_by_key(|(_, name)| name.len()).map(|(at, _)| at)
}

/// Modules named in a line: `crate::a::b` gives `a::b`, `use crate::{a::b, c}` gives both.
fn named_modules(statement: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in statement.match_indices("crate::") {
        let before = statement[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let rest = &statement[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(members(group)),
            None => named.push(path_at(rest)),
        }
    }
    named
}

/// The paths of a brace group at its own level.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                found.push(path_at(group[start..at].trim()));
                found.retain(|path| !path.is_empty());
                return found;
            }
            ',' if depth == 0 => {
                found.push(path_at(group[start..at].trim()));
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The lower-case segments at the start of a path: the modules, not the items.
fn path_at(text: &str) -> String {
    let path = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap_or_default();
    let is_module = |s: &&str| s.starts_with(|c: char| c.is_lowercase());
    path.split("::").take_while(is_module).collect::<Vec<_>>().join("::")
}

/// Statements of a file with the line they begin on; only `use` statements are joined over lines.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in source.shipped_code() {
        match found.last_mut().filter(|_| open) {
            Some((_, statement)) => statement.push_str(line.trim()),
            None => found.push((at, line.trim().to_owned())),
        }
        let first = found.last().map_or("", |(_, s)| s.as_str());
        let is_use = first.starts_with("use ") || first.starts_with("pub use ") || first.starts_with("pub(crate) use ");
        open = is_use && !first.ends_with(';');
    }
    found
}

#[test]
fn modules_only_look_down() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !UNORDERED.contains(&s.path.as_str())) {
        let Some(module) = source.module() else { continue };
        let Some(own) = floor(&module) else {
            faults.push(format!("{}: no floor for `{module}`; give it its place in FLOORS", source.path));
            continue;
        };
        for (line, statement) in statements(source) {
            for named in named_modules(&statement) {
                let above = floor(&named).is_some_and(|theirs| theirs > own);
                let excused = UPWARD.iter().any(|(from, to, _)| module.starts_with(from) && named.starts_with(to));
                if above && !excused {
                    let path = &source.path;
                    faults.push(format!("{path}:{line}: `{module}` looks up to `{named}`; see FLOORS"));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn pure_modules_have_no_runtime_clock_or_files() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| PURE.iter().any(|p| s.path.starts_with(p))) {
        for (line, code) in source.shipped_code() {
            for impure in IMPURE.iter().filter(|i| code.contains(**i)) {
                faults.push(format!("{}:{line}: `{impure}` in a pure module; hand it in", source.path));
            }
        }
    }
    report(faults);
}

#[test]
fn unsafe_stands_in_sys_alone() {
    let mut faults = Vec::new();
    let keyword = concat!("un", "safe");
    for source in sources().iter().filter(|s| !UNSAFE_IN.iter().any(|p| s.path.starts_with(p))) {
        for (line, code) in source.code() {
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let quoted = code.contains('"');
            if words.any(|w| w == keyword) && !quoted {
                faults.push(format!("{}:{line}: {keyword} code outside `sys`", source.path));
            }
        }
    }
    report(faults);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |s: &&Source| !s.text.starts_with("//! ");
    let fault = |s: &Source| format!("{}:1: opens without `//!`; say what it owns and what it never does", s.path);
    report(sources().iter().filter(silent).map(fault).collect());
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!("), concat!("FIX", "ME")];
    let mut faults = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            for mark in marks.iter().filter(|m| line.contains(**m)) {
                faults.push(format!("{}:{}: `{mark}`", source.path, at + 1));
            }
        }
    }
    report(faults);
}

#[test]
fn lines_and_files_are_of_readable_length() {
    let mut faults = Vec::new();
    for source in sources() {
        let path = &source.path;
        let lines_max = LONG_FILES.iter().find(|(p, _)| p == path).map_or(FILE_LINES_MAX, |(_, lines)| *lines);
        for (at, line) in source.text.lines().enumerate() {
            let chars = line.chars().count();
            let chars_max = if line.contains('"') { LITERAL_LINE_CHARS_MAX } else { LINE_CHARS_MAX };
            if chars > chars_max {
                faults.push(format!("{path}:{}: {chars} characters, at most {chars_max}", at + 1));
            }
        }
        let lines = source.shipped_code().count();
        if lines > lines_max {
            faults.push(format!("{path}: {lines} lines, at most {lines_max}; split it"));
        }
    }
    report(faults);
}

#[test]
fn no_path_of_one_machine_stands_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<PathBuf> = Vec::new();
    for dir in [
        ".",
        ".ci",
        "docs",
        "docs/zh-CN",
        "configs",
        "tests/conformance",
        "tests/packaging",
        "bench",
        "fuzz",
        "dist",
        "dist/monitoring",
    ] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        let is_text = |p: &PathBuf| {
            let named = |e: &std::ffi::OsStr| ["md", "toml", "yaml", "yml", "py", "txt", "sh"].iter().any(|x| e == *x);
            p.extension().map_or_else(|| p.ends_with(".ci/run"), named)
        };
        texts.extend(entries.filter_map(|e| e.ok().map(|e| e.path())).filter(is_text));
    }
    let texts = texts.into_iter().filter_map(|p| {
        let path = p.strip_prefix(root).unwrap_or(&p).to_string_lossy().into_owned();
        fs::read_to_string(&p).ok().map(|text| Source { path, text })
    });
    let marks = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let mut faults = Vec::new();
    for source in texts.chain(sources()) {
        for (at, line) in source.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|m| line.contains(**m)) {
                faults.push(format!("{}:{}: `{mark}` is a path of one machine", source.path, at + 1));
            }
        }
    }
    report(faults);
}

/// Documents that other work brings; a link to them may come first. Empty is the aim.
const COMING: &[&str] = &["docs/configuration.md", "docs/performance.md", "configs/config.yaml"];

#[test]
fn links_in_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = Vec::new();
    for dir in ["", "docs", "docs/zh-CN", "tests/conformance", "bench"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        let paths = entries.map(|e| e.expect("a readable directory").path());
        documents.extend(paths.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    assert!(documents.len() >= 3, "the documents were not found");
    let mut faults = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap_or_else(|e| panic!("{}: {e}", document.display()));
        for (at, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                let elsewhere = file.is_empty() || target.contains("://") || COMING.contains(&file);
                if !elsewhere && !document.with_file_name(file).exists() {
                    faults.push(format!("{}:{}: no such file: {file}", document.display(), at + 1));
                }
            }
        }
    }
    report(faults);
}

/// The rules' own ground: a rule that sees nothing holds nothing.
mod rules {
    use super::*;

    #[test]
    fn names_are_found_in_every_form() {
        assert_eq!(named_modules("use crate::http::parse::Parser;"), ["http::parse"]);
        assert_eq!(
            named_modules("use crate::{error::Fault, http::{head, chunked}, limits};"),
            ["error", "http", "limits"]
        );
        assert_eq!(named_modules("let x = crate::server::start(plan);"), ["server::start"]);
        assert!(named_modules("let x = my_crate::server::start();").is_empty());
    }

    #[test]
    fn the_longest_path_decides_the_floor() {
        let floor_of = |m: &str| floor(m).map(|at| FLOORS[at]);
        assert_eq!(floor_of("config::load"), Some("config::load"));
        assert_eq!(floor_of("config::plan"), Some("config"));
        assert_eq!(floor_of("health::probe"), Some("health::probe"));
        assert_eq!(floor_of("httpx"), None);
    }

    #[test]
    fn uses_over_several_lines_are_one_statement() {
        let text = "//! x\nuse crate::{\n    error::Fault,\n};\n#[cfg(test)]\nuse crate::cli;\n";
        let source = Source { path: "src/http/x.rs".into(), text: text.into() };
        let found: Vec<_> = statements(&source).into_iter().flat_map(|(_, s)| named_modules(&s)).collect();
        assert_eq!(found, ["error"]);
    }
}
