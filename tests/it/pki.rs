//! Certificates of a test: an authority, and what it issues.
//!
//! Owns keys that nobody else has. Never leaves a file outside the test's directory.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::dir::Dir;

/// The port of a server that answers anything with something that is no TLS, for as long as the process lives.
pub fn who_speaks_no_tls() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let read = stream.read(&mut [0; 1024]);
            // Whether it is taken is the other side's affair.
            let _ = read.and_then(|_| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    port
}

/// An authority with a directory for what it issues.
pub struct Pki {
    pub dir: Dir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// What an authority issued, in files and at hand.
pub struct Issued {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Issued {
    /// The key, as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("a key")
    }
}

impl Pki {
    /// A new authority; its own certificate is in `ca.pem`.
    pub fn new(test: &str) -> Pki {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("Authority of {test}"));
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let dir = Dir::new(test);
        dir.write("ca.pem", authority.pem());
        Pki { dir, authority }
    }

    /// Where the authority's certificate is.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path("ca.pem")
    }

    /// A certificate for these names, in files called after the first.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, Duration::from_secs(10 * 365 * 24 * 60 * 60))
    }

    /// As [`Pki::issue`], valid for so long from now on; in whole seconds.
    pub fn issue_for(&self, names: &[&str], lifetime: Duration) -> Issued {
        let mut params =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
        params.not_after =
            rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().expect("a date") + lifetime;
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.authority).expect("a certificate");
        let file = names[0].replace('*', "_");
        self.dir.write(&format!("{file}.crt"), cert.pem());
        self.dir.write(&format!("{file}.key"), key.serialize_pem());
        Issued {
            cert_file: self.dir.path(&format!("{file}.crt")),
            key_file: self.dir.path(&format!("{file}.key")),
            chain: vec![cert.der().clone()],
            key: key.serialize_der(),
        }
    }

    /// Who trusts this authority alone.
    pub fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a root");
        Arc::new(roots)
    }

    /// A client that trusts this authority, with these protocols by ALPN.
    pub fn client(&self, protocols: &[&str]) -> Arc<rustls::ClientConfig> {
        let config = rustls::ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client that shows a certificate.
    pub fn client_with(&self, own: &Issued) -> Arc<rustls::ClientConfig> {
        self.client_of(rustls::DEFAULT_VERSIONS, own)
    }

    /// A client of these versions that shows a certificate.
    pub fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: &Issued,
    ) -> Arc<rustls::ClientConfig> {
        let config =
            rustls::ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(self.roots());
        Arc::new(config.with_client_auth_cert(own.chain.clone(), own.key()).expect("a certificate of its own"))
    }

    /// A server that shows a certificate; `asks` for one of the client, too.
    pub fn server(&self, own: &Issued, asks: bool) -> Arc<rustls::ServerConfig> {
        let config = rustls::ServerConfig::builder();
        let config = match asks {
            false => config.with_no_client_auth(),
            true => {
                let verifier = rustls::server::WebPkiClientVerifier::builder(self.roots()).build();
                config.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        Arc::new(config.with_single_cert(own.chain.clone(), own.key()).expect("a certificate"))
    }
}
