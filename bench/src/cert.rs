//! A certificate for this machine, made when it is needed: ECDSA on P-256, for `localhost` and the loopback addresses.
//!
//! Owns its making and its files. Never signs for another name.

use crate::error::{Error, Result, Trying};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::{Path, PathBuf};

/// Names that it is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where to write one.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A directory; `cert.pem`, `key.pem` and `both.pem` are written there
    #[arg(value_name = "DIRECTORY")]
    pub dir: PathBuf,
}

/// A certificate and its key, both as PEM. It is its own authority.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key, PKCS #8.
    pub key: String,
}

impl Pair {
    /// A new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate() -> Result<Pair> {
        let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned))
            .map_err(|e| Error::Failed(format!("making a certificate: {e}")))?;
        Ok(Pair { cert: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }

    /// Reads one from its files.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn read(cert: &Path, key: &Path) -> Result<Pair> {
        let text = |file: &Path| fs::read_to_string(file).trying(|| format!("reading {}", file.display()));
        Ok(Pair { cert: text(cert)?, key: text(key)? })
    }

    /// Writes `cert.pem`, `key.pem`, and `both.pem` as HAProxy wants it.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let both = format!("{}{}", self.cert, self.key);
        for (name, text) in [("cert.pem", &self.cert), ("key.pem", &self.key), ("both.pem", &both)] {
            let file = dir.join(name);
            fs::write(&file, text).trying(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }

    /// The chain and the key, for a server.
    ///
    /// # Errors
    /// When they are no PEM.
    pub fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let wrong = |e: rustls::pki_types::pem::Error| Error::Failed(format!("a certificate or key: {e}"));
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes()).collect::<std::result::Result<_, _>>();
        Ok((chain.map_err(wrong)?, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(wrong)?))
    }
}

/// Makes one and writes it.
///
/// # Errors
/// When it can't be made or written.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.dir).trying(|| format!("making {}", options.dir.display()))?;
    Pair::generate()?.write(&options.dir)
}
