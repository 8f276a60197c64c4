//! Reports in files: which form a name asks for, and reading one back.
//!
//! Owns the extensions. Never renders.

use super::{FORMAT, Lang, Report, html, markdown};
use crate::error::{Error, Result, Trying};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The form of a report in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.md`
    Markdown,
    /// `.html`
    Html,
    /// `.json`
    Json,
}

/// A file to write a report to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// As its extension says.
    pub form: Form,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Place, String> {
        let path = PathBuf::from(text);
        let form = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => Form::Markdown,
            Some("html" | "htm") => Form::Html,
            Some("json") => Form::Json,
            _ => return Err(format!("`{text}` ends in neither .md, .html nor .json")),
        };
        Ok(Place { path, form })
    }
}

impl Place {
    /// Makes sure that it can be written before anything is measured.
    ///
    /// # Errors
    /// When it can't.
    pub fn try_out(&self) -> Result<()> {
        let file = fs::OpenOptions::new().append(true).create(true).open(&self.path);
        file.map(drop).trying(|| format!("writing {}", self.path.display()))
    }

    /// Writes a text there.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, text: &str) -> Result<()> {
        fs::write(&self.path, text).trying(|| format!("writing {}", self.path.display()))
    }

    /// Writes a report there.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn put(&self, report: &Report, lang: Lang) -> Result<()> {
        self.write(&match self.form {
            Form::Markdown => markdown::render(report, lang),
            Form::Html => html::render(report, lang),
            Form::Json => json(report)?,
        })
    }
}

/// Anything as JSON, with an end of line.
///
/// # Errors
/// When it has no form in JSON.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from).trying(|| "writing JSON".into())?;
    Ok(text + "\n")
}

/// Reads a report in JSON.
///
/// # Errors
/// When it can't be read, is no report, or of another form.
pub fn read(path: &Path) -> Result<Report> {
    let what = || format!("reading {}", path.display());
    let text = fs::read_to_string(path).trying(what)?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(std::io::Error::from).trying(what)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            let why = format!("{}: a report of format {format}; this program reads {FORMAT}", path.display());
            return Err(Error::Failed(why));
        }
        None => return Err(Error::Failed(format!("{}: no report of speedmimi-bench", path.display()))),
    }
    serde_json::from_value(value).map_err(std::io::Error::from).trying(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides() {
        let form = |name: &str| name.parse::<Place>().map(|place| place.form);
        assert_eq!(
            (form("a/r.md"), form("r.html"), form("r.json")),
            (Ok(Form::Markdown), Ok(Form::Html), Ok(Form::Json))
        );
        assert!(form("r.txt").is_err() && form("json").is_err());
    }
}
