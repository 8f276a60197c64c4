//! Finds and reads the configuration file.
//!
//! The one place of the configuration that touches the file system and the environment. Never decides what is right:
//! that is [`super::file`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigFault;
use super::fault::{Faults, Position, Wrong};
use super::file::{self, Checked, SEARCHED};
use super::tree::CONFIG_BYTES_MAX;

/// The file to use: the one that was named, else the first of [`SEARCHED`] that is there.
///
/// # Errors
/// One fault, when none was named and none is there.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Vec<ConfigFault>> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let found = SEARCHED.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        let wrong = Wrong::new("there is no configuration file here and none in /etc/speedmimi");
        one(SEARCHED[0], wrong.cure("name one with --config FILE, or write a first one with: speedmimi init"))
    })
}

/// Reads and checks a file, with variables from the environment of this process.
///
/// # Errors
/// Every fault in the file; or the one that it cannot be read, is too large or is no text.
pub fn load(path: &Path) -> Result<Checked, Vec<ConfigFault>> {
    let name = path.display().to_string();
    let text = read_text(path).map_err(|wrong| one(&name, wrong))?;
    file::examine(&text, &name, |variable| std::env::var(variable).ok())
}

/// The text of the file; one byte more than allowed is read at most, and the check then says that it is too large.
fn read_text(path: &Path) -> Result<String, Wrong> {
    let unreadable = |error: std::io::Error| Wrong::new(format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let (sound, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let line = 1 + sound.iter().filter(|byte| **byte == b'\n').count();
        Wrong::new(format!("line {line} is not UTF-8")).cure("save the file as UTF-8")
    })
}

fn one(file: &str, wrong: Wrong) -> Vec<ConfigFault> {
    let mut faults = Faults::new(file);
    faults.push(Position::FILE, "", wrong);
    faults.finish().err().unwrap_or_default()
}
