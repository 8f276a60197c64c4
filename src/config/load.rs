//! Finds and reads the configuration file.
//!
//! The one place of the configuration that touches the file system and the environment. Never decides what is right:
//! that is [`super::file`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigFault;
use super::document::Document;
use super::fault::{Faults, Position, Wrong};
use super::file::SEARCHED;
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

/// A variable of this process's environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and checks a file: its text, and what it means.
///
/// # Errors
/// Every fault in the file; or the one that it cannot be read, is too large or is no text.
pub fn load(path: &Path) -> Result<(String, Document), Vec<ConfigFault>> {
    let text = text(path)?;
    let document = document(&text, path)?;
    Ok((text, document))
}

/// What `text` means, as that of the file at `path`.
///
/// # Errors
/// Every fault in it.
pub fn document(text: &str, path: &Path) -> Result<Document, Vec<ConfigFault>> {
    Document::from_text(text, &path.display().to_string(), variable)
}

/// The text of the file; one byte more than allowed is read at most, and the check then says that it is too large.
///
/// # Errors
/// One fault: that it cannot be read or is no text.
pub fn text(path: &Path) -> Result<String, Vec<ConfigFault>> {
    read_text(path).map_err(|wrong| one(&path.display().to_string(), wrong))
}

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
