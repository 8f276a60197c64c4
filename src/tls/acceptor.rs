//! What clients of TLS are offered.
//!
//! Owns the server's configuration of rustls and the choice of a certificate by the name that is asked for. Never
//! reads a file.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::Certificate;
use super::names::{self, Names};
use super::resumption::Resumption;
use super::trust::Authorities;
use crate::config::plan::{ClientAuth, Tls, TlsVersion};

/// The suites of Mozilla's intermediate profile that rustls has, which are all but those with finite-field
/// Diffie-Hellman. Clients choose among them: each is strong, and they know what their machine is quick with.
const SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
/// The first one that both sides have is taken; the post-quantum one costs clients nothing that don't have it.
const GROUPS: &[&dyn SupportedKxGroup] =
    &[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
const FROM_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const FROM_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The cryptography, to clients and to backends.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let default = aws_lc_rs::default_provider();
    Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), kx_groups: GROUPS.to_vec(), ..default })
}

/// How TLS is spoken to clients, for all workers.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    choice: Arc<Choice>,
    /// `None`: clients are asked for no certificate.
    client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    made_of: Parts,
}

/// What an acceptor is made of.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub plan: Arc<Tls>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// At least one; the first is for names that none of them has.
    pub certificates: Vec<Arc<Certificate>>,
    /// Of clients' certificates, where they are asked for.
    pub authorities: Option<Arc<Authorities>>,
    pub resumption: Resumption,
}

impl Parts {
    /// Whether an acceptor of these would be no other than one of `other`.
    pub fn are_the_same(&self, other: &Parts) -> bool {
        let same = |(one, other): (&Arc<Certificate>, &Arc<Certificate>)| Arc::ptr_eq(one, other);
        self.plan == other.plan
            && self.http2 == other.http2
            && self.certificates.len() == other.certificates.len()
            && self.certificates.iter().zip(&other.certificates).all(same)
            && self.asks_the_same(other)
    }

    /// Whether the same is asked of clients.
    pub fn asks_the_same(&self, other: &Parts) -> bool {
        self.plan.client_auth == other.plan.client_auth && self.authorities == other.authorities
    }

    fn client_verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let Some(authorities) = &self.authorities else { return Ok(None) };
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities.roots.clone(), provider());
        let verifier = match self.plan.client_auth {
            ClientAuth::Require(_) => verifier,
            ClientAuth::Request(_) | ClientAuth::Off => verifier.allow_unauthenticated(),
        };
        verifier.build().map(Some).map_err(|error| error.to_string())
    }
}

impl Acceptor {
    /// One of these parts.
    ///
    /// # Errors
    /// What rustls says against them.
    pub(super) fn new(parts: Parts) -> Result<Acceptor, String> {
        let choice = Arc::new(Choice::new(parts.certificates.clone()));
        let versions = match parts.plan.min_version {
            TlsVersion::V1_2 => FROM_1_2,
            TlsVersion::V1_3 => FROM_1_3,
        };
        let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let config = config.map_err(|error| error.to_string())?;
        let client_verifier = parts.client_verifier()?;
        let config = match &client_verifier {
            Some(verifier) => config.with_client_cert_verifier(verifier.clone()),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(choice.clone());
        let protocols: &[&[u8]] = if parts.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ticketer = parts.resumption.tickets.clone();
        config.session_storage = parts.resumption.sessions.clone();
        // Early data could be sent again by anybody who saw it.
        config.max_early_data_size = 0;
        Ok(Acceptor { config: Arc::new(config), choice, client_verifier, made_of: parts })
    }

    /// For rustls.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether clients are asked for a certificate.
    pub fn asks(&self) -> bool {
        self.client_verifier.is_some()
    }

    /// Whether a client that showed `chain` in an earlier session, its own certificate first, would be let in at `now`.
    /// rustls looks at a chain only in the handshake that it is shown in.
    ///
    /// # Errors
    /// What is wrong with the chain, or that no certificate is asked for any more.
    pub fn admits(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let (Some(verifier), Some((own, others))) = (&self.client_verifier, chain.split_first()) else {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        verifier.verify_client_cert(own, others, now).map(|_| ())
    }

    /// The port that plain requests are to be sent to; `None` when they are served.
    pub fn redirect_port(&self) -> Option<u16> {
        self.made_of.plan.redirect_port
    }

    pub(super) fn made_of(&self) -> &Parts {
        &self.made_of
    }

    /// The certificates in use; the first is for names that none of them has.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.choice.certificates
    }

    /// What a client that asks for `sni` would get.
    pub fn hello(&self, sni: Option<&str>) -> Option<Hello> {
        let certificate = self.choice.find(sni, |_| true)?.clone();
        Some(Hello { sni: sni.map(names::canonical), certificate })
    }

    /// See [`Hello::serves`].
    pub fn serves(&self, sni: Option<&str>, host: &str) -> bool {
        self.hello(sni).is_some_and(|hello| hello.serves(host))
    }
}

/// Certificates by name.
#[derive(Debug)]
struct Choice {
    certificates: Vec<Arc<Certificate>>,
    names: Names,
}

impl Choice {
    fn new(certificates: Vec<Arc<Certificate>>) -> Self {
        let mut names = Names::default();
        for (place, certificate) in certificates.iter().enumerate() {
            certificate.names.iter().for_each(|name| names.insert(name, place as u32));
        }
        Choice { certificates, names }
    }

    /// Of several for a name, such as an ECDSA and an RSA one, the first that the client `can` use.
    fn find(&self, sni: Option<&str>, can: impl Fn(&Certificate) -> bool) -> Option<&Arc<Certificate>> {
        let places = sni.map_or(&[][..], |name| self.names.find(name));
        let mut named = places.iter().filter_map(|place| self.certificates.get(*place as usize));
        let first = named.clone().next().or(self.certificates.first());
        if places.len() < 2 {
            return first;
        }
        named.find(|certificate| can(certificate)).or(first)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let can = |certificate: &Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let certificate = self.find(hello.server_name(), can)?.clone();
        let key = certificate.key.clone();
        let sni = hello.server_name().map(names::canonical);
        SEEN.with_borrow_mut(|seen| *seen = Some(Hello { sni, certificate }));
        Some(key)
    }
}

thread_local! {
    /// rustls' unbuffered connections don't tell the name that was asked for. So the choice, which sees each hello while
    /// it is processed, leaves it here for the caller on the same thread.
    static SEEN: RefCell<Option<Hello>> = const { RefCell::new(None) };
}

/// What a client's hello asked for and got.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The name asked for (SNI, RFC 6066, section 3), in lower case.
    pub sni: Option<Box<str>>,
    /// The certificate that it was answered with.
    pub certificate: Arc<Certificate>,
}

impl Hello {
    /// Whether the connection is good for a request to `host`, as in `:authority` or `Host`; if not, 421 sends the client
    /// to a new one (RFC 9110, section 15.5.20). It is for the name that was asked for, whatever the certificate says:
    /// the client has looked at it and stayed. Without a name there is nothing that it could contradict.
    pub fn serves(&self, host: &str) -> bool {
        match &self.sni {
            None => true,
            Some(sni) => **sni == *names::host_of(host) || self.certificate.is_for(host),
        }
    }
}

/// What the hello that rustls has just processed on this thread asked for; once. rustls asks for a certificate at every
/// hello that it can read, also where it goes on with an earlier session.
pub fn take_hello() -> Option<Hello> {
    SEEN.take()
}
