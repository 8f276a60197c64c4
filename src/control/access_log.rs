//! The writer of the access log: one thread that blocks so that no worker does.
//!
//! Owns the file, and the count of lines that it could not write. Never formats a line and never holds more than the
//! channel does: what does not fit is dropped, and counted, by the worker.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    File { path: PathBuf, file: File },
}

impl Writer {
    /// Opens the target and starts the thread, which counts the lines in `lost` that it can't write. `None` when there is
    /// nothing to write to.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn start(target: &AccessLog, lost: &Arc<AtomicU64>) -> io::Result<Option<Writer>> {
        let output = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => Output::Stdout(io::stdout()),
            AccessLog::File(path) => Output::File { path: path.clone(), file: open(path)? },
        };
        let (sender, batches) = sync_channel(BATCHES_MAX);
        let reopen = Arc::new(AtomicBool::new(false));
        let (again, lost) = (reopen.clone(), lost.clone());
        let thread = std::thread::Builder::new().name("access-log".into());
        let thread = thread.spawn(move || write(output, &batches, &again, &lost))?;
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
    // A named pipe opened for writing alone would wait for its reader right here (fifo(7)), and control with it.
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let opened = OpenOptions::new().read(is_pipe).append(true).create(true).mode(0o640).open(path);
    opened.map_err(|e| io::Error::new(e.kind(), format!("log.access: {}: {e}", path.display())))
}

fn write(mut output: Output, batches: &Receiver<LogBatch>, reopen: &AtomicBool, lost_in_all: &AtomicU64) {
    let (mut is_cut, mut lost) = (false, 0);
    while let Ok(batch) = batches.recv() {
        if reopen.swap(false, Ordering::Relaxed) && output.reopen() {
            is_cut = false;
        }
        match output.write(&batch.bytes, &mut is_cut) {
            Ok(()) if lost == 0 => {}
            Ok(()) => {
                tracing::warn!(lines = lost, "the access log can be written again; lines were lost");
                lost = 0;
            }
            Err(error) => {
                // Said once, not for each batch: a full disk would fill the other log too.
                if lost == 0 {
                    tracing::error!(%error, "the access log cannot be written; lines are lost");
                }
                lost += batch.lines;
                lost_in_all.fetch_add(batch.lines, Ordering::Relaxed);
            }
        }
    }
}

/// Writes whole lines. `is_cut` tells whether the last try broke off within one, which is then ended first, so that
/// nothing is glued to its beginning.
fn write_lines(out: &mut impl Write, mut bytes: &[u8], is_cut: &mut bool) -> io::Result<()> {
    if *is_cut {
        out.write_all(b"\n")?;
        *is_cut = false;
    }
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                *is_cut = bytes[n - 1] != b'\n';
                bytes = &bytes[n..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Output {
    /// Whether what follows goes to another file.
    fn reopen(&mut self) -> bool {
        let Output::File { path, file } = self else { return false };
        match open(path) {
            Ok(new) => *file = new,
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened again; the old file is kept");
                return false;
            }
        }
        true
    }

    fn write(&mut self, bytes: &[u8], is_cut: &mut bool) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => {
                write_lines(stdout, bytes, is_cut)?;
                stdout.flush()
            }
            Output::File { file, .. } => write_lines(file, bytes, is_cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes and then no more.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= n;
            self.written.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cut_spoils_no_other() {
        let (mut disk, mut is_cut) = (Disk { written: Vec::new(), room: 6 }, false);
        assert!(write_lines(&mut disk, b"one\ntwo\n", &mut is_cut).is_err());
        assert!(write_lines(&mut disk, b"lost\n", &mut is_cut).is_err());
        disk.room = 100;
        write_lines(&mut disk, b"three\n", &mut is_cut).unwrap();
        write_lines(&mut disk, b"four\n", &mut is_cut).unwrap();
        assert_eq!(String::from_utf8(disk.written).unwrap(), "one\ntw\nthree\nfour\n");
    }
}
