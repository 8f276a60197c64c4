//! `speedmimi init`: writes a commented configuration to start from.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::ExitStatus;

/// Written when no file is named.
pub const FILE: &str = "speedmimi.yaml";

/// What is written: the file that also stands in the repository.
pub const STARTER: &str = include_str!("../../configs/config.yaml");

/// Writes [`STARTER`] to the named file, or to [`FILE`]. A file that is there already stays as it is.
///
/// Ends with [`ExitStatus::Failed`] when the file is there or cannot be written.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(path: Option<&Path>, out: &mut impl Write) -> io::Result<ExitStatus> {
    let path = path.unwrap_or(Path::new(FILE));
    let shown = path.display();
    match write_new(path) {
        Ok(()) => {
            writeln!(out, "{shown} is written. Change the backends in it, then:")?;
            writeln!(out, "  speedmimi check --config {shown}")?;
            writeln!(out, "  speedmimi run --config {shown}")?;
            Ok(ExitStatus::Fine)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            writeln!(out, "{shown}: is there already and stays as it is; name another file: speedmimi init FILE")?;
            Ok(ExitStatus::Failed)
        }
        Err(error) => {
            writeln!(out, "{shown}: cannot be written: {error}")?;
            Ok(ExitStatus::Failed)
        }
    }
}

/// Makes the file in one step, so that two at once never write into each other; a half-written one is removed again.
fn write_new(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(STARTER.as_bytes()).inspect_err(|_| {
        // The error of writing is the one to tell.
        let _ = std::fs::remove_file(path);
    })
}
