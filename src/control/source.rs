//! The configuration file while the proxy runs: what was last read of it or written to it, and whether it changed since.
//!
//! Owns that memory. Never decides what a change means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::verb::{self, Refusal, RefusalKind, Verb};
use crate::config::document::Document;
use crate::config::store::{self, Replaced, StoreError};
use crate::config::{edit, load};
use crate::stamp::Stamp;

/// A configuration file.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// Its text as last read or written.
    text: String,
    /// What that text means.
    document: Arc<Document>,
    /// How the file looked when it was found to have this text; `None`: it has to be looked into once, as somebody may
    /// have changed it between its reading or writing and now.
    seen: Option<Stamp>,
    /// Looked different a moment ago: whoever writes it may not have finished.
    unsettled: Option<Stamp>,
}

impl Source {
    /// The file of this text.
    pub fn new(path: PathBuf, text: String, document: Arc<Document>) -> Self {
        Source { path, text, document, seen: None, unsettled: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text as last read or written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What that text means.
    pub fn document(&self) -> &Arc<Document> {
        &self.document
    }

    /// It has this text now.
    pub fn is_now(&mut self, text: String, document: Arc<Document>) {
        *self = Source::new(std::mem::take(&mut self.path), text, document);
    }

    /// Writes a change to it, with only the lines of what changed rewritten. What is in use and was never written stays
    /// unwritten: the verb is carried out on what the file says.
    ///
    /// # Errors
    /// Where that can't be done exactly, somebody else has changed the file, or it can't be written; the file is as it
    /// was then.
    pub async fn write(&mut self, verb: &Verb) -> Result<(), Refusal> {
        let conflict = |error: String| Refusal::new(RefusalKind::Conflict, error);
        let unwritten = |refusal: Refusal| {
            conflict(format!(
                "{refusal}: the file knows nothing of it (persist=false applies a change without writing)"
            ))
        };
        let wanted = verb::wanted(verb, self.document.shown()).map_err(unwritten)?;
        let document = Document::from_value(&wanted, &self.document, load::variable)
            .map_err(|faults| unwritten(Refusal::faults(&faults)))?;
        let path = self.path.display();
        let text = edit::rewrite(&self.text, &document, load::variable)
            .map_err(|error| conflict(format!("{path}: {error} (persist=false applies a change without writing)")))?;
        if text == self.text {
            return Ok(());
        }
        let (file, before, after) = (self.path.clone(), self.text.clone(), text.clone());
        // Disks may take their time.
        let replaced = tokio::task::spawn_blocking(move || store::replace(&file, &before, &after)).await;
        let replaced = replaced.map_err(|error| Refusal::new(RefusalKind::Failed, format!("{path}: {error}")))?;
        match replaced {
            Ok(Replaced { unconfirmed: None }) => {}
            Ok(Replaced { unconfirmed: Some(error) }) => {
                tracing::warn!(file = %path, %error, "written, but the disk did not confirm the file's name");
            }
            Err(error @ StoreError::Changed { .. }) => return Err(conflict(format!("{path}: {error}"))),
            Err(error) => return Err(conflict(error.to_string())),
        }
        self.is_now(text, Arc::new(document));
        Ok(())
    }

    /// Reads it again.
    ///
    /// # Errors
    /// That it can't be read, or every fault in it. The memory stays as it was.
    pub fn read(&self) -> Result<(String, Document), Refusal> {
        self.is_readable()?;
        let text = load::text(&self.path).map_err(|faults| Refusal::faults(&faults))?;
        match load::document(&text, &self.path) {
            Ok(document) => Ok((text, document)),
            Err(faults) => Err(Refusal::faults(&faults)),
        }
    }

    /// A pipe can be read once, at the start; after that it would be waited for, by control and all that control does.
    fn is_readable(&self) -> Result<(), Refusal> {
        match std::fs::metadata(&self.path) {
            Ok(meta) if !meta.is_file() => {
                let error = format!("{}: it is no regular file and can't be read again", self.path.display());
                Err(Refusal::new(RefusalKind::Failed, error))
            }
            _ => Ok(()),
        }
    }

    /// Whether it has another text than it had. To be asked about once a second: a change counts when the file looks the
    /// same at two calls, so that nobody's half-written file is read. A file that is gone has not changed; it may be on
    /// its way back.
    ///
    /// # Errors
    /// That it can't be read; told once for each state of the file.
    pub fn has_changed(&mut self) -> Result<bool, Refusal> {
        let Some(now) = Stamp::of(&self.path) else { return Ok(false) };
        if self.seen == Some(now) {
            self.unsettled = None;
            return Ok(false);
        }
        if self.unsettled != Some(now) {
            self.unsettled = Some(now);
            return Ok(false);
        }
        self.seen = self.unsettled.take();
        self.is_readable()?;
        let text = load::text(&self.path);
        let text = text.map_err(|faults| Refusal { kind: RefusalKind::Failed, ..Refusal::faults(&faults) })?;
        // What we wrote ourselves, or what was only touched.
        Ok(text != self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a test, removed after it.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            Temporary(std::env::temp_dir().join(format!("speedmimi-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    const ONE: &str = "routing: {r: {respond: {status: 200}}}\n";
    const TWO: &str = "routing: {r: {respond: {status: 204}}}\n";

    fn source(path: &Path) -> Source {
        let document = Document::from_text(ONE, "", |_| None).unwrap();
        Source::new(path.to_owned(), ONE.to_owned(), Arc::new(document))
    }

    #[test]
    fn a_change_right_after_the_reading_is_seen_and_no_change_is_none() {
        let file = Temporary::new("source");
        // It was read, it was taken over, and meanwhile somebody wrote.
        std::fs::write(&file.0, TWO).unwrap();
        let mut late = source(&file.0);
        assert_eq!([late.has_changed(), late.has_changed(), late.has_changed()], [Ok(false), Ok(true), Ok(false)]);
        std::fs::write(&file.0, ONE).unwrap();
        let mut same = source(&file.0);
        assert_eq!([same.has_changed(), same.has_changed(), same.has_changed()], [Ok(false), Ok(false), Ok(false)]);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let pipe = Temporary::new("source-pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe.0,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let mut source = source(&pipe.0);
        assert!(source.read().is_err_and(|refusal| refusal.error.contains("no regular file")));
        assert_eq!(source.has_changed(), Ok(false));
        assert!(source.has_changed().is_err());
    }
}
