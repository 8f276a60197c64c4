//! The dashboard in a real browser: `tests/dashboard/walk.py` walks through it, against the program itself.
//!
//! Owns finding a browser and the walk's own Python environment under `target`. Never judges: the walk does. Without a
//! browser, or without Python and its packages, it says so and is over; with `SPEEDMIMI_BROWSER=required` that fails.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of browsers that are driven alike, as they stand in `PATH`.
const BROWSERS: [&str; 5] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"];

#[test]
fn a_walk_through_the_dashboard() {
    let (browser, python) = match browser().and_then(|browser| Ok((browser, python()?))) {
        Ok(found) => found,
        Err(lack) if env::var_os("SPEEDMIMI_BROWSER").is_some_and(|wanted| wanted == "required") => panic!("{lack}"),
        Err(lack) => return eprintln!("skipped: {lack}"),
    };
    let output = Command::new(python)
        .arg(here("walk.py"))
        .args(["--speedmimi", env!("CARGO_BIN_EXE_speedmimi"), "--chromium"])
        .arg(browser)
        .output()
        .expect("an interpreter that was just tried");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "the walk failed:\n{said}\n{errors}");
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard").join(name)
}

/// The browser: `SPEEDMIMI_CHROMIUM`, else the first in `PATH`.
fn browser() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("SPEEDMIMI_CHROMIUM") {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).flat_map(|dir| BROWSERS.map(|name| dir.join(name)));
    let lack = || "no Chromium in PATH (install one, or name it in SPEEDMIMI_CHROMIUM)".to_owned();
    all.into_iter().find(|file| file.is_file()).ok_or_else(lack)
}

/// The interpreter: `SPEEDMIMI_DASHBOARD_PYTHON`, else that of the environment under `target`, which is made when missing.
fn python() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("SPEEDMIMI_DASHBOARD_PYTHON") {
        return Ok(named.into());
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../walk");
    run(Command::new(here("../python.sh")).arg(&home).arg(here("requirements.txt")))?;
    Ok(home.join("bin/python"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?} failed: {said}"))
}
