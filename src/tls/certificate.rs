//! A certificate with its key, ready to be used: what it is for, and until when.
//!
//! Owns the check that a pair of files belongs together. Never decides which certificate a client gets.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::files::{FileFault, Named};
use super::names;
use crate::config::plan::KeyPair;

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first one.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

/// Whoever renews certificates by himself does so long before.
const EXPIRES_SOON_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Whether a certificate is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is.
    Valid,
    /// In less than 14 days it is not any more.
    ExpiresSoon,
    /// Not any more.
    Expired,
    /// Not yet.
    NotYetValid,
}

impl Standing {
    /// The name used in the management API.
    pub const fn name(self) -> &'static str {
        match self {
            Standing::Valid => "valid",
            Standing::ExpiresSoon => "expires_soon",
            Standing::Expired => "expired",
            Standing::NotYetValid => "not_yet_valid",
        }
    }
}

impl Validity {
    /// What of it is within the validity of all of `chain`. A certificate that is its own issuer doesn't count, as clients
    /// go by those that they have; nor one that can't be read, as rustls doesn't read it either.
    fn within(self, chain: &[CertificateDer<'_>]) -> Validity {
        let others = chain.iter().filter_map(|der| parse(der).ok());
        let others = others.filter(|other| other.issuer() != other.subject());
        others.map(|other| Validity::of(&other)).fold(self, |all, other| Validity {
            not_before: all.not_before.max(other.not_before),
            not_after: all.not_after.min(other.not_after),
        })
    }

    fn of(certificate: &X509Certificate<'_>) -> Validity {
        let validity = certificate.validity();
        Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }

    /// How it stands at `now`, in seconds since 1970.
    pub fn standing(self, now: i64) -> Standing {
        match () {
            () if now > self.not_after => Standing::Expired,
            () if now < self.not_before => Standing::NotYetValid,
            () if now > self.not_after - EXPIRES_SOON_DAYS * DAY_SECONDS => Standing::ExpiresSoon,
            () => Standing::Valid,
        }
    }

    /// Whole days that are left at `now`, in seconds since 1970; below zero when they are over.
    pub fn days_left(self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(DAY_SECONDS)
    }
}

/// A certificate and its key, as read from their files.
#[derive(Debug)]
pub struct Certificate {
    /// The files.
    pub files: KeyPair,
    /// What it is for: names in lower case (`*.` stands for one label) and addresses.
    pub names: Vec<Box<str>>,
    /// Whether the names are from its subject, because it has no subject alternative names. No client of today believes
    /// those.
    pub is_old_style: bool,
    /// When it is valid, and with it the chain that is in its file: a client that has to go by an intermediate which has
    /// expired refuses the certificate, too.
    pub validity: Validity,
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a pair of files; `key` is the part of the configuration that names them, such as `ssl`.
    ///
    /// # Errors
    /// What is wrong with the first file that is of no use, or that the two don't belong together.
    pub(super) fn read(files: &KeyPair, key: &str, provider: &CryptoProvider) -> Result<Certificate, FileFault> {
        let (cert_key, key_key) = (format!("{key}.cert_file"), format!("{key}.key_file"));
        let cert_file = Named { key: &cert_key, file: &files.cert_file };
        let key_file = Named { key: &key_key, file: &files.key_file };
        let chain = cert_file.certificates()?;
        let private_key = key_file.private_key()?;
        let facts = Facts::of(&chain[0]).map_err(|problem| cert_file.fault(problem, ""))?;
        let validity = facts.validity.within(&chain[1..]);
        let key = CertifiedKey::from_der(chain, private_key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key_file.fault(
                format!("it is not the key of the certificate in {}", files.cert_file.display()),
                "both have to be replaced together; the server's own certificate is the first in its file",
            ),
            error => key_file.fault(format!("of no use as a private key: {error}"), "RSA, ECDSA and Ed25519 are"),
        })?;
        let Facts { names, is_old_style, .. } = facts;
        Ok(Certificate { files: files.clone(), names, is_old_style, validity, key: Arc::new(key) })
    }

    /// Whether it is for a host, given as in a `Host` field.
    pub fn is_for(&self, authority: &str) -> bool {
        let host = names::host_of(authority);
        self.names.iter().any(|name| names::is_for(name, &host))
    }
}

/// When a certificate is valid.
pub(super) fn validity_of(der: &CertificateDer<'_>) -> Result<Validity, String> {
    Facts::of(der).map(|facts| facts.validity)
}

/// Whether it may issue others: it says so, or it is from before certificates could say so (version 1) and its own issuer.
/// One of version 3 that says nothing may not (RFC 5280, section 4.2.1.9).
pub(super) fn is_authority(der: &CertificateDer<'_>) -> Result<bool, String> {
    let certificate = parse(der)?;
    let says = certificate.basic_constraints().map_err(|error| format!("its basic constraints: {error}"))?;
    Ok(match says {
        Some(constraints) => constraints.value.ca,
        None => certificate.version() == X509Version::V1 && certificate.issuer() == certificate.subject(),
    })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("it is no X.509 certificate: {error}"))?;
    Ok(certificate)
}

/// What a certificate says of itself.
struct Facts {
    names: Vec<Box<str>>,
    is_old_style: bool,
    validity: Validity,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Result<Facts, String> {
        let certificate = parse(der)?;
        let alternative = certificate.subject_alternative_name();
        let alternative = alternative.map_err(|error| format!("its subject alternative names: {error}"))?;
        let names: Vec<Box<str>> = match &alternative {
            Some(extension) => extension.value.general_names.iter().filter_map(name_of).collect(),
            None => certificate
                .subject()
                .iter_common_name()
                .filter_map(|name| name.as_str().ok())
                .map(names::canonical)
                .collect(),
        };
        let validity = Validity::of(&certificate);
        Ok(Facts { names, is_old_style: alternative.is_none(), validity })
    }
}

fn name_of(name: &GeneralName<'_>) -> Option<Box<str>> {
    match name {
        GeneralName::DNSName(name) => Some(names::canonical(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(ip.to_string().into())
        }
        _ => None,
    }
}
