//! How backends are spoken to over TLS.
//!
//! Owns the client's configurations of rustls. Never connects.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::acceptor::provider;
use super::certificate::Certificate;
use super::trust::{Authorities, Verifier};
use crate::config::plan::{BackendAddr, Scheme, UpstreamTls};

/// How TLS is spoken to the backends of one upstream, for all workers.
#[derive(Debug)]
pub struct Connector {
    http1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    made_of: Parts,
}

/// What a connector is made of.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub plan: UpstreamTls,
    /// `None` when anybody is believed.
    pub authorities: Option<Arc<Authorities>>,
    /// The proxy's own.
    pub certificate: Option<Arc<Certificate>>,
}

impl Parts {
    /// Whether a connector of these would be no other than one of `other`.
    pub fn are_the_same(&self, other: &Parts) -> bool {
        let same = match (&self.certificate, &other.certificate) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let believe_the_same = match (&self.authorities, &other.authorities) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same && believe_the_same && self.plan == other.plan
    }
}

impl Connector {
    /// One of these parts.
    ///
    /// # Errors
    /// What rustls says against them.
    pub(super) fn new(parts: Parts) -> Result<Connector, String> {
        let verifier = Arc::new(Verifier::new(parts.authorities.clone(), provider())?);
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &parts.certificate {
            Some(own) => {
                config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own.key.clone())))
            }
            None => config.with_no_client_auth(),
        };
        // Sessions are taken up again within each of the two: a session is of one protocol.
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = rustls::client::Resumption::default();
            Arc::new(config)
        };
        let server_name = parts.plan.server_name.as_deref().map(server_name).transpose()?;
        Ok(Connector { http1: speaking(b"http/1.1"), h2: speaking(b"h2"), server_name, made_of: parts })
    }

    /// For rustls; the protocol it offers is the one of `scheme`.
    pub fn config(&self, scheme: Scheme) -> &Arc<ClientConfig> {
        match scheme {
            Scheme::H2 | Scheme::H2c => &self.h2,
            Scheme::Http | Scheme::Https => &self.http1,
        }
    }

    /// The name or address that a backend has to prove to be: `server_name`, else its host. Of a Unix socket it is
    /// `localhost`, as in `Host`. `None` when it can't be one of a certificate.
    pub fn server_name(&self, addr: &BackendAddr) -> Option<ServerName<'static>> {
        if let Some(name) = &self.server_name {
            return Some(name.clone());
        }
        match addr {
            BackendAddr::Ip(addr) => Some(ServerName::from(addr.ip())),
            BackendAddr::Name(name, _) => server_name(name).ok(),
            BackendAddr::Unix(_) => server_name("localhost").ok(),
        }
    }

    /// The proxy's own certificate, which it shows to backends that ask for one.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.made_of.certificate.as_ref()
    }

    pub(super) fn made_of(&self) -> &Parts {
        &self.made_of
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_owned();
    ServerName::try_from(text).map_err(|error| format!("server_name: {error}"))
}
