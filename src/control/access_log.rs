//! The writer of the access log: one thread that blocks so that no worker does.
//!
//! Owns the file. Never formats a line and never holds more than the channel does: what does not fit is dropped, and
//! counted, by the worker.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::plan::AccessLog;
use crate::shared::command::LogBatch;

/// Batches that may wait for the writer; with 32 KiB a batch, 8 MiB.
const BATCHES_MAX: usize = 256;

/// How long the end waits for the writer. Whoever reads standard output may never do so again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    /// Takes lines.
    pub sender: SyncSender<LogBatch>,
    /// What it writes to.
    pub target: AccessLog,
    reopen: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

enum Output {
    Stdout(io::Stdout),
    File { path: PathBuf, file: Option<File> },
}

impl Writer {
    /// Opens the target and starts the thread. `None` when there is nothing to write to.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn start(target: &AccessLog) -> io::Result<Option<Writer>> {
        let output = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => Output::Stdout(io::stdout()),
            AccessLog::File(path) => Output::File { path: path.clone(), file: Some(open(path)?) },
        };
        let (sender, batches) = sync_channel(BATCHES_MAX);
        let reopen = Arc::new(AtomicBool::new(false));
        let again = reopen.clone();
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write(output, &batches, &again))?;
        Ok(Some(Writer { sender, target: target.clone(), reopen, thread }))
    }

    /// Opens the file again before the next batch, after it was moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until everything is written, for two seconds at most. All workers must have dropped their senders.
    pub fn finish(self) {
        drop(self.sender);
        let began = Instant::now();
        while !self.thread.is_finished() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    opened.map_err(|e| io::Error::new(e.kind(), format!("log.access: {}: {e}", path.display())))
}

fn write(mut output: Output, batches: &Receiver<LogBatch>, reopen: &AtomicBool) {
    let mut is_failing = false;
    while let Ok(batch) = batches.recv() {
        if reopen.swap(false, Ordering::Relaxed) {
            output.reopen();
        }
        match output.write(&batch.bytes) {
            Ok(()) => is_failing = false,
            // Said once, not for each batch: a full disk would fill the other log too.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(%error, lines = batch.lines, "the access log cannot be written; lines are lost");
            }
            Err(_) => {}
        }
    }
}

impl Output {
    fn reopen(&mut self) {
        if let Output::File { path, file } = self {
            match open(path) {
                Ok(new) => *file = Some(new),
                Err(error) => tracing::error!(%error, "the access log cannot be opened again; the old file is kept"),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => {
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Output::File { file: Some(file), .. } => file.write_all(bytes),
            Output::File { path, file } => {
                let mut opened = open(path)?;
                opened.write_all(bytes)?;
                *file = Some(opened);
                Ok(())
            }
        }
    }
}
