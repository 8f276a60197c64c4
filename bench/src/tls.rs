//! Connections with and without TLS, alike to those who use them.
//!
//! Owns the session of a connection: what is sealed and not sent yet, and what its peer has proved. Never waits.

use crate::cert::Pair;
use crate::error::{Error, Result, Trying};
use crate::net::{self, Received};
use rustls::NamedGroup;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection};
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion, version};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of the largest record, its head and tag included, rounded up.
const RECORD_BYTES_MAX: usize = 17 * 1024;
/// Tickets that a client keeps, at most: each resumes one session of TLS 1.3.
const TICKETS_MAX: usize = 4096;

/// How a client speaks TLS.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Trust certificates of this authority (PEM) alone
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Trust every certificate
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// Resume sessions by ticket instead of handshaking in full
    #[arg(long)]
    pub resume: bool,
    /// Speak TLS 1.2 instead of 1.3
    #[arg(long)]
    pub tls12: bool,
}

/// What all connections of a client to one server have in common.
#[derive(Clone)]
pub struct ClientSide {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientSide {
    /// A client of `name` that offers these protocols by ALPN.
    ///
    /// One cipher suite and one group are offered, AES-128 with GCM and X25519, so that all servers do the same work.
    ///
    /// # Errors
    /// When there is nothing to trust, or the name is none.
    pub fn new(options: &Options, name: &str, protocols: &[&str]) -> Result<ClientSide> {
        let wrong = |e: rustls::Error| Error::Failed(format!("TLS: {e}"));
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let versions: &[&SupportedProtocolVersion] = &[if options.tls12 { &version::TLS12 } else { &version::TLS13 }];
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(wrong)?;
        let mut config = if options.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAll)).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots(options)?).with_no_client_auth()
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        config.resumption = match options.resume {
            true => Resumption::store(Arc::new(Sessions::default())),
            false => Resumption::disabled(),
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|e| Error::Usage(format!("{name}: {e}")))?;
        Ok(ClientSide { config: Arc::new(config), name })
    }

    /// Begins a session on a connection that is open. Nothing is sent until [`Wire::flush`].
    ///
    /// # Errors
    /// When the session can't be had.
    pub fn begin(&self, fd: OwnedFd) -> io::Result<Wire> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        Ok(Wire::Secured(Box::new(Session { fd, tls: session.into(), notified: false })))
    }
}

fn roots(options: &Options) -> Result<RootCertStore> {
    let file = options.ca.as_ref().ok_or_else(|| Error::Usage("https needs --ca FILE or --insecure".into()))?;
    let wrong = |why: String| Error::Failed(format!("{}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(file).map_err(|e| wrong(e.to_string()))? {
        roots.add(cert.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(roots)
}

/// What all connections of a server have in common.
#[derive(Clone)]
pub struct ServerSide(Arc<ServerConfig>);

impl ServerSide {
    /// A server with one certificate that takes these protocols by ALPN.
    ///
    /// # Errors
    /// When certificate and key don't fit.
    pub fn new(pair: &Pair, protocols: &[&str]) -> Result<ServerSide> {
        let wrong = |e: rustls::Error| Error::Failed(format!("TLS: {e}"));
        let (chain, key) = pair.parse()?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(wrong)?;
        Ok(ServerSide(Arc::new(config)))
    }

    /// Takes a session on a connection that was accepted.
    ///
    /// # Errors
    /// When the session can't be had.
    pub fn accept(&self, fd: OwnedFd) -> Result<Wire> {
        let session = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other).trying(|| "TLS".into())?;
        Ok(Wire::Secured(Box::new(Session { fd, tls: session.into(), notified: false })))
    }
}

/// A connection.
pub enum Wire {
    /// As it is.
    Plain(OwnedFd),
    /// With TLS.
    Secured(Box<Session>),
}

/// A connection with TLS.
pub struct Session {
    fd: OwnedFd,
    tls: Connection,
    /// The peer has said that nothing follows (`close_notify`).
    notified: bool,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Plain(fd) => fd.as_fd(),
            Wire::Secured(session) => session.fd.as_fd(),
        }
    }
}

impl Wire {
    /// Reads what is there, once. Of the buffer, which has to hold more than two records, a part is scratch.
    ///
    /// # Errors
    /// When the connection is broken, or its session is.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Wire::Plain(fd) => net::receive(fd, buffer),
            Wire::Secured(session) => session.receive(buffer),
        }
    }

    /// Takes what fits now, once; 0 when nothing does. With TLS, what was taken may still have to be flushed.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(fd) => net::send(fd, bytes),
            Wire::Secured(session) => session.send(bytes),
        }
    }

    /// Sends what was taken and is not sent yet, as far as it fits now.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(_) => Ok(()),
            Wire::Secured(session) => session.flush(),
        }
    }

    /// Whether what was taken is not sent yet.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Wire::Secured(session) if session.tls.wants_write())
    }

    /// Whether bytes of the protocol above can't flow yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Wire::Secured(session) if session.tls.is_handshaking())
    }

    /// What was agreed by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Wire::Plain(_) => None,
            Wire::Secured(session) => session.tls.alpn_protocol(),
        }
    }

    /// Whether the handshake was short because the session is an earlier one.
    pub fn is_resumed(&self) -> bool {
        matches!(self, Wire::Secured(session) if session.tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// A digest of the server's certificate, to tell it from others.
    pub fn certificate(&self) -> Option<u64> {
        let Wire::Secured(session) = self else { return None };
        let own = session.tls.peer_certificates()?.first()?;
        let mut hasher = DefaultHasher::new();
        own.as_ref().hash(&mut hasher);
        Some(hasher.finish())
    }

    /// Whether it is TLS 1.3.
    pub fn is_tls13(&self) -> bool {
        matches!(self, Wire::Secured(session) if session.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3))
    }
}

impl Session {
    /// Whether the end of the connection is not the end of what the server had to say: anybody on the way could have made it,
    /// and a body that only the end delimits is not whole then (RFC 9112, section 9.8). Clients may leave so.
    fn is_cut_off(&self) -> bool {
        matches!(self.tls, Connection::Client(_)) && !self.tls.is_handshaking() && !self.notified
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        // What comes out is at most what comes in and one record that was waiting for its end.
        let sealed_len = buffer.len().saturating_sub(RECORD_BYTES_MAX) / 2;
        let (plain, sealed) = buffer.split_at_mut(buffer.len() - sealed_len);
        let mut sealed: &[u8] = match net::receive(&self.fd, sealed)? {
            Received::Bytes(len) => &sealed[..len],
            Received::End if self.is_cut_off() => return Err(io::ErrorKind::UnexpectedEof.into()),
            other => return Ok(other),
        };
        let (mut len, mut closed) = (0, false);
        while !sealed.is_empty() && !closed {
            self.tls.read_tls(&mut sealed)?;
            if let Err(error) = self.tls.process_new_packets() {
                let _ = self.flush(); // The alert; the connection is lost either way.
                return Err(io::Error::other(error));
            }
            loop {
                match self.tls.reader().read(&mut plain[len..]) {
                    Ok(0) => {
                        (closed, self.notified) = (true, true);
                        break;
                    }
                    Ok(more) => len += more,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
        }
        self.flush()?;
        Ok(match len {
            0 if closed => Received::End,
            0 => Received::Later,
            len => Received::Bytes(len),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.tls.wants_write() {
            return Ok(0);
        }
        let len = self.tls.writer().write(bytes)?;
        self.flush()?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Outlet(&self.fd)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A socket that says so when it is full.
struct Outlet<'a>(&'a OwnedFd);

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match net::send(self.0, bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sessions of one server that can be resumed. The store that comes with rustls keeps eight tickets: too few when
/// many connections end, and are opened anew, in the same turn.
#[derive(Debug, Default)]
struct Sessions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    session: Option<Tls12ClientSessionValue>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change is whole: a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.kept().session = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let tickets = &mut self.kept().tickets;
        tickets.push_back(ticket);
        if tickets.len() > TICKETS_MAX {
            tickets.pop_front();
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}

/// Trusts everything, and checks no signature either: the load's CPU is not what is measured.
#[derive(Debug)]
struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme::{ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519, RSA_PSS_SHA256};
        vec![ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519, RSA_PSS_SHA256]
    }
}
