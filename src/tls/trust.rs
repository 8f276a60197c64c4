//! Who is believed: authorities, and how a backend's certificate is held against them.
//!
//! Owns the verification of backends. Never decides which authorities count.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{Standing, is_authority, validity_of};
use super::files::{FileFault, Named};

/// Authorities; equal when they are the same ones.
#[derive(Debug)]
pub(super) struct Authorities {
    /// Those who may issue certificates; of a file it may be none.
    pub roots: Arc<RootCertStore>,
    /// All that are in the file.
    certificates: Vec<CertificateDer<'static>>,
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Authorities {
    /// Those in a file.
    pub fn read(file: Named<'_>) -> Result<Authorities, FileFault> {
        let certificates = file.certificates()?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.iter().enumerate() {
            let unfit = |error| file.fault(format!("its certificate {} can't be an authority: {error}", at + 1), "");
            // Whoever has the key of a server's own certificate is not to issue others by it.
            if is_authority(certificate).map_err(|problem| file.fault(problem, ""))? {
                roots.add(certificate.clone()).map_err(unfit)?;
            }
        }
        Ok(Authorities { roots: Arc::new(roots), certificates })
    }

    /// Those that the system believes.
    pub fn of_system() -> Result<Authorities, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let error = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("the system has no authorities to verify backends against{error}"));
        }
        Ok(Authorities { roots: Arc::new(roots), certificates: Vec::new() })
    }
}

/// Looks at a backend's certificate. That the backend has its key is checked whoever is believed: without that the
/// handshake would mean nothing at all.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    believed: Believed,
}

/// Whose certificates hold.
#[derive(Debug)]
enum Believed {
    /// Anybody's (`verify: false`).
    Anybody,
    /// Those that these issued, and these themselves. Without a chain, none of these may issue any.
    Known { authorities: Arc<Authorities>, chain: Option<Arc<WebPkiServerVerifier>> },
}

impl Verifier {
    /// Against these authorities; `None`: against nothing.
    pub fn new(authorities: Option<Arc<Authorities>>, provider: Arc<CryptoProvider>) -> Result<Verifier, String> {
        let Some(authorities) = authorities else { return Ok(Verifier { provider, believed: Believed::Anybody }) };
        let chain = (!authorities.roots.is_empty())
            .then(|| WebPkiServerVerifier::builder_with_provider(authorities.roots.clone(), provider.clone()).build())
            .transpose()
            .map_err(|error| error.to_string())?;
        Ok(Verifier { provider, believed: Believed::Known { authorities, chain } })
    }
}

/// A backend's own certificate as authority: what `openssl req -x509` makes calls itself one, and no authority may stand at
/// the end of a chain.
fn verify_named(own: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
    let validity = validity_of(own).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match validity.standing(now) {
        Standing::NotYetValid => Err(Error::InvalidCertificate(CertificateError::NotValidYet)),
        Standing::Expired => Err(Error::InvalidCertificate(CertificateError::Expired)),
        Standing::Valid | Standing::ExpiresSoon => Ok(()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.believed {
            Believed::Anybody => Ok(ServerCertVerified::assertion()),
            Believed::Known { authorities, .. } if authorities.certificates.iter().any(|known| known == own) => {
                verify_named(own, name, now).map(|()| ServerCertVerified::assertion())
            }
            Believed::Known { chain: Some(chain), .. } => chain.verify_server_cert(own, intermediates, name, ocsp, now),
            Believed::Known { chain: None, .. } => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
