//! The files that TLS is made of: read with a bound, and known again without reading.
//!
//! Owns what is said of a file that is of no use. Never keeps a private key's text.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::TLS_FILE_BYTES_MAX;

/// Why a file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileFault {
    /// The key that names it, such as `ssl.certificates[2].key_file`.
    pub key: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do about it; may be empty.
    pub cure: String,
    /// Whether it may be over although the file looks as it did: too many open files, a disk that did not answer.
    pub may_pass: bool,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.file.display(), self.problem)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, " ({})", self.cure) }
    }
}

impl std::error::Error for FileFault {}

/// A file and the key that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub key: &'a str,
    pub file: &'a Path,
}

impl Named<'_> {
    /// A fault of it.
    pub fn fault(&self, problem: impl Into<String>, cure: &str) -> FileFault {
        let (key, file) = (self.key.to_owned(), self.file.to_owned());
        FileFault { key, file, problem: problem.into(), cure: cure.to_owned(), may_pass: false }
    }

    /// What is in it.
    pub fn read(&self) -> Result<Vec<u8>, FileFault> {
        // A pipe would be waited for, by control and all that control does; and it can't be read again.
        let metadata = std::fs::metadata(self.file).map_err(|error| self.unreadable(&error))?;
        if !metadata.is_file() {
            return Err(self.fault("it is no regular file", "name a file that can be read again"));
        }
        let mut bytes = Vec::new();
        let limit = TLS_FILE_BYTES_MAX as u64 + 1;
        let read = File::open(self.file).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.map_err(|error| self.unreadable(&error))?;
        if bytes.len() > TLS_FILE_BYTES_MAX {
            return Err(self.fault("it is larger than 4 MiB, which no certificate is", ""));
        }
        Ok(bytes)
    }

    fn unreadable(&self, error: &io::Error) -> FileFault {
        let cure = match error.kind() {
            io::ErrorKind::NotFound => "relative paths go from the directory that the proxy was started in",
            io::ErrorKind::PermissionDenied => "the user that the proxy runs as has to be able to read it",
            _ => "",
        };
        let stays = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        FileFault { may_pass: !stays, ..self.fault(format!("cannot be read: {error}"), cure) }
    }

    /// The certificates in it; at least one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, FileFault> {
        let bytes = self.read()?;
        let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
        let all = all.map_err(|error| self.fault(format!("it is no sound PEM: {error}"), ""))?;
        if all.is_empty() {
            return Err(self.fault("there is no certificate in it", "it has to have BEGIN CERTIFICATE, as PEM has"));
        }
        Ok(all)
    }

    /// The first private key in it.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, FileFault> {
        let bytes = self.read()?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            _ if is_encrypted(&bytes) => self.fault(
                "the private key is encrypted, and nobody is there to type its password",
                "openssl pkey -in FILE -out NEW writes it without one",
            ),
            pem::Error::NoItemsFound => {
                self.fault("there is no private key in it", "it has to have BEGIN PRIVATE KEY, as PEM has")
            }
            error => self.fault(format!("it is no sound PEM: {error}"), ""),
        })
    }
}

/// A key under a password (RFC 7468, section 11; RFC 1421, section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_now_may_be_readable_later() {
        // Its first page is nobody's, so reading it is an error of the device.
        for (file, may_pass) in [("/proc/self/mem", true), ("/proc/self/none", false), ("/proc", false)] {
            let fault = Named { key: "ssl.cert_file", file: Path::new(file) }.read().unwrap_err();
            assert_eq!(fault.may_pass, may_pass, "{fault}");
        }
    }
}
