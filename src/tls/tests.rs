//! Handshakes in memory, with certificates made for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair as Key};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::ServerName;

use super::{Loaded, Reading, take_hello};
use crate::config::file;
use crate::config::plan::{Plan, Scheme};

/// A directory of a test, removed after it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("speedmimi-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a certificate of `authority` for `names` and its key as NAME.crt and NAME.key.
    fn certificate(&self, name: &str, authority: &CertifiedIssuer<'_, Key>, names: &[&str]) {
        let key = Key::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `ssl` is more of that section; the certificate is a.crt.
    fn plan(&self, ssl: &str) -> Plan {
        let [cert, key] = ["a.crt", "a.key"].map(|name| self.path(name).display().to_string());
        let ca = self.path("ca.crt").display().to_string();
        plan(&format!(
            "ssl: {{enabled: on, cert_file: {cert}, key_file: {key}{}}}\nrouting: {{r: {{upstream: u}}}}\n\
             backends: {{u: [{{host: a.test, port: 1, scheme: https}}]}}\nupstreams: {{u: {{tls: {{ca_file: {ca}}}}}}}\n",
            ssl.replace("DIR", &self.0.display().to_string())
        ))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(text: &str) -> Plan {
    file::read(text, "test.yaml", |_| None).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn authority(name: &str) -> CertifiedIssuer<'static, Key> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap()
}

fn load(plan: &Plan, before: &Loaded) -> Loaded {
    Loaded::load(plan, before, Reading::Changed).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// What a handshake came to.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
    failed: Option<rustls::Error>,
}

fn meet(loaded: &Loaded, config: &Arc<ClientConfig>, name: ServerName<'static>) -> Met {
    let acceptor = loaded.acceptor.as_ref().unwrap();
    let mut server = ServerConnection::new(acceptor.config().clone()).unwrap();
    let mut client = ClientConnection::new(config.clone(), name).unwrap();
    let mut failed = None;
    // Tickets come behind the handshake.
    for _ in 0..8 {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        failed = failed.or(server.process_new_packets().err());
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        failed = failed.or(client.process_new_packets().err());
    }
    Met { client, server, failed }
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

fn connector(loaded: &Loaded) -> Arc<ClientConfig> {
    loaded.connector("u").unwrap().config(Scheme::Https).clone()
}

fn dir(name: &str) -> Dir {
    let dir = Dir::new(name);
    let ca = authority("ca");
    dir.write("ca.crt", &ca.pem());
    dir.certificate("a", &ca, &["a.test", "127.0.0.1"]);
    dir.certificate("b", &ca, &["*.B.test", "b.test"]);
    dir.certificate("c", &ca, &["x.b.test"]);
    dir
}

const ALL: &str =
    ", certificates: [{cert_file: DIR/b.crt, key_file: DIR/b.key}, {cert_file: DIR/c.crt, key_file: DIR/c.key}]";

fn is_of(path: &Path, name: &str) -> bool {
    path.ends_with(format!("{name}.crt"))
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let dir = dir("sni");
    let loaded = load(&dir.plan(ALL), &Loaded::default());
    for (asked, expected) in [("a.test", "a"), ("b.test", "b"), ("y.B.test", "b"), ("X.b.test", "c")] {
        let met = meet(&loaded, &connector(&loaded), name(asked));
        assert_eq!(met.failed, None, "{asked}");
        assert_eq!(met.server.alpn_protocol(), Some(&b"http/1.1"[..]));
        let hello = take_hello().unwrap();
        assert!(is_of(&hello.certificate.files.cert_file, expected), "{asked}: {hello:?}");
        assert_eq!(hello.sni.as_deref(), Some(&*asked.to_ascii_lowercase()));
        assert!(take_hello().is_none(), "told once");
    }
    let met = meet(&loaded, &connector(&loaded), name("127.0.0.1"));
    assert_eq!(met.failed, None);
    assert!(take_hello().is_some_and(|hello| hello.sni.is_none() && is_of(&hello.certificate.files.cert_file, "a")));
}

#[test]
fn sessions_go_on_through_a_change_of_certificates_and_tell_their_hello() {
    let dir = dir("resume");
    let plan = dir.plan(ALL);
    let loaded = load(&plan, &Loaded::default());
    let config = connector(&loaded);
    meet(&loaded, &config, name("a.test"));
    assert!(Arc::ptr_eq(load(&plan, &loaded).acceptor.as_ref().unwrap(), loaded.acceptor.as_ref().unwrap()));
    let ca = authority("ca");
    dir.certificate("a", &ca, &["a.test"]);
    let next = load(&plan, &loaded);
    take_hello();
    let met = meet(&next, &config, name("a.test"));
    assert_eq!((met.failed, met.client.handshake_kind()), (None, Some(HandshakeKind::Resumed)));
    assert!(take_hello().is_some_and(|hello| hello.sni.as_deref() == Some("a.test")));
}
