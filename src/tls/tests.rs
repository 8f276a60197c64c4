//! Handshakes in memory, with certificates made for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair as Key};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption,
    Tls13ClientSessionValue,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConnection,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::acceptor::provider;
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

#[test]
fn who_came_without_a_certificate_is_asked_again_once_one_is_required() {
    let dir = dir("policy");
    let with = |auth: &str| dir.plan(&format!(", client_auth: {auth}, client_ca_file: DIR/ca.crt"));
    let open = load(&with("request"), &Loaded::default());
    let config = connector(&open);
    assert_eq!(meet(&open, &config, name("a.test")).failed, None);
    let met = meet(&open, &config, name("a.test"));
    assert_eq!(met.client.handshake_kind(), Some(HandshakeKind::Resumed));
    let closed = load(&with("require"), &open);
    let met = meet(&closed, &config, name("a.test"));
    assert!(met.failed.is_some() && met.server.peer_certificates().is_none(), "{:?}", met.failed);
    // Nor does another authority take over whom the first one let in.
    dir.write("ca.crt", &authority("other").pem());
    let other = load(&with("request"), &open);
    let met = meet(&other, &config, name("a.test"));
    assert_eq!((met.failed, met.client.handshake_kind()), (None, Some(HandshakeKind::Full)));
}

/// Offers the sessions of any name under every name.
#[derive(Debug)]
struct Careless(ClientSessionMemoryCache);

const ANY: &str = "any.test";

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name(ANY), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&name(ANY))
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(name(ANY), session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&name(ANY))
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&name(ANY));
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(name(ANY), session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&name(ANY))
    }
}

/// A client of one version that resumes so.
fn client(dir: &Dir, version: &'static SupportedProtocolVersion, resumption: Resumption) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path("ca.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = resumption;
    Arc::new(config)
}

#[test]
fn sessions_are_taken_up_by_tickets_and_ids_but_never_under_another_name() {
    let dir = dir("names");
    let loaded = load(&dir.plan(ALL), &Loaded::default());
    let store = || Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(32))));
    for (version, resumption) in [
        (&rustls::version::TLS13, store()),
        (&rustls::version::TLS12, store().tls12_resumption(Tls12Resumption::SessionIdOrTickets)),
        (&rustls::version::TLS12, store().tls12_resumption(Tls12Resumption::SessionIdOnly)),
    ] {
        let config = client(&dir, version, resumption);
        for (asked, kind) in [
            ("a.test", HandshakeKind::Full),
            ("a.test", HandshakeKind::Resumed),
            ("b.test", HandshakeKind::Full),
            ("b.test", HandshakeKind::Resumed),
        ] {
            let met = meet(&loaded, &config, name(asked));
            assert_eq!((met.failed, met.client.handshake_kind()), (None, Some(kind)), "{version:?} {asked}");
        }
    }
}

#[test]
fn the_proxy_shows_its_own_certificate_to_backends_that_ask() {
    let dir = dir("own");
    let plan = |own: &str| {
        let text = format!(
            "ssl: {{enabled: on, cert_file: DIR/a.crt, key_file: DIR/a.key, client_auth: require, client_ca_file: DIR/ca.crt}}\n\
             routing: {{r: {{upstream: u}}}}\nbackends: {{u: [{{host: a.test, port: 1, scheme: https}}]}}\n\
             upstreams: {{u: {{tls: {{ca_file: DIR/ca.crt{own}}}}}}}\n"
        );
        self::plan(&text.replace("DIR", &dir.0.display().to_string()))
    };
    let own = load(&plan(", cert_file: DIR/b.crt, key_file: DIR/b.key"), &Loaded::default());
    let met = meet(&own, &connector(&own), name("a.test"));
    assert_eq!(met.failed, None);
    assert_eq!(met.server.peer_certificates().map(<[_]>::len), Some(1));
    let none = load(&plan(""), &own);
    assert!(meet(&none, &connector(&none), name("a.test")).failed.is_some());
}

#[test]
fn backends_have_to_prove_who_they_are_unless_anybody_is_believed() {
    let dir = dir("verify");
    let loaded = load(&dir.plan(""), &Loaded::default());
    let wrong_name = meet(&loaded, &connector(&loaded), name("z.test"));
    assert!(matches!(wrong_name.failed, Some(rustls::Error::InvalidCertificate(_))), "{:?}", wrong_name.failed);
    let text = |tls: &str| {
        let text = "ssl: {enabled: on, cert_file: DIR/a.crt, key_file: DIR/a.key}\nrouting: {r: {upstream: u}}\n\
                    backends: {u: [{host: a.test, port: 1, scheme: https}]}\nupstreams: {u: {tls: {TLS}}}\n";
        plan(&text.replace("TLS", tls).replace("DIR", &dir.0.display().to_string()))
    };
    let stranger = load(&text("ca_file: DIR/b.crt"), &loaded);
    assert!(meet(&stranger, &connector(&stranger), name("a.test")).failed.is_some());
    // A backend's own certificate is authority enough for it, for its names.
    let own = load(&text("ca_file: DIR/a.crt"), &loaded);
    assert_eq!(meet(&own, &connector(&own), name("a.test")).failed, None);
    assert!(meet(&own, &connector(&own), name("z.test")).failed.is_some());
    let anybody = load(&text("verify: off"), &loaded);
    assert_eq!(meet(&anybody, &connector(&anybody), name("z.test")).failed, None);
}

#[test]
fn a_certificate_that_is_no_authority_issues_nothing() {
    let dir = dir("leaf");
    // With the key of the certificate that is named as `ca_file`, as whoever took it over would.
    let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let leaf = CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap();
    dir.write("leaf.crt", &leaf.pem());
    dir.certificate("forged", &leaf, &["b.test"]);
    dir.write("both.crt", &(leaf.pem() + &std::fs::read_to_string(dir.path("ca.crt")).unwrap()));
    let text = |cert: &str, ca: &str, ssl: &str| {
        let text = "ssl: {enabled: on, cert_file: DIR/CERT.crt, key_file: DIR/CERT.keySSL}\nrouting: {r: {upstream: u}}\n\
                    backends: {u: [{host: a.test, port: 1, scheme: https}]}\nupstreams: {u: {tls: {ca_file: DIR/CA.crt}}}\n";
        let text = text.replace("CERT", cert).replace("CA", ca).replace("SSL", ssl);
        plan(&text.replace("DIR", &dir.0.display().to_string()))
    };
    for (cert, ca, is_believed) in [("forged", "leaf", false), ("forged", "both", false), ("b", "both", true)] {
        let loaded = load(&text(cert, ca, ""), &Loaded::default());
        let met = meet(&loaded, &connector(&loaded), name("b.test"));
        assert_eq!(met.failed.is_none(), is_believed, "{cert} by {ca}: {:?}", met.failed);
    }
    // Of clients it is not believed either, and a file without any authority is told at once.
    let asks = |file: &str| format!(", client_auth: require, client_ca_file: DIR/{file}.crt");
    let faults = Loaded::load(&text("a", "leaf", &asks("leaf")), &Loaded::default(), Reading::All).unwrap_err();
    assert!(faults.len() == 1 && faults[0].problem == "there is no authority in it", "{faults:?}");
    let own = |pair: &str| {
        let text = format!(
            "ssl: {{enabled: on, cert_file: DIR/a.crt, key_file: DIR/a.key{}}}\nrouting: {{r: {{upstream: u}}}}\n\
             backends: {{u: [{{host: a.test, port: 1, scheme: https}}]}}\n\
             upstreams: {{u: {{tls: {{ca_file: DIR/ca.crt, cert_file: DIR/{pair}.crt, key_file: DIR/{pair}.key}}}}}}\n",
            asks("both")
        );
        plan(&text.replace("DIR", &dir.0.display().to_string()))
    };
    for (pair, is_believed) in [("forged", false), ("b", true)] {
        let loaded = load(&own(pair), &Loaded::default());
        let met = meet(&loaded, &connector(&loaded), name("a.test"));
        assert_eq!(met.failed.is_none(), is_believed, "{pair}: {:?}", met.failed);
    }
}

#[test]
fn a_certificate_is_valid_no_longer_than_its_chain() {
    let dir = dir("chain");
    let made = |issuer: &CertifiedIssuer<'_, Key>, year: i32| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, format!("until {year}"));
        params.signed_by(&Key::generate().unwrap(), issuer).unwrap().pem()
    };
    let end = || {
        let loaded = load(&dir.plan(""), &Loaded::default());
        loaded.certificates().iter().find(|one| is_of(&one.files.cert_file, "a")).unwrap().validity.not_after
    };
    let alone = end();
    let own = std::fs::read_to_string(dir.path("a.crt")).unwrap();
    let ca = authority("root");
    dir.write("a.crt", &format!("{own}{}{}", made(&ca, 2032), made(&ca, 2031)));
    let end_of_2030 = rcgen::date_time_ymd(2031, 1, 1).unix_timestamp();
    assert!(end() == end_of_2030 && end_of_2030 < alone, "{} {alone}", end());
    // Its root is the client's affair.
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    dir.write("a.crt", &format!("{own}{}", params.self_signed(&Key::generate().unwrap()).unwrap().pem()));
    assert_eq!(end(), alone);
}

#[test]
fn a_connection_serves_the_name_it_asked_for_and_those_of_its_certificate() {
    let dir = dir("serves");
    let loaded = load(&dir.plan(ALL), &Loaded::default());
    let acceptor = loaded.acceptor.unwrap();
    for (sni, host, expected) in [
        (Some("a.test"), "A.test:443", true),
        (Some("a.test"), "127.0.0.1", true),
        (Some("a.test"), "b.test", false),
        (Some("b.test"), "Z.b.test.:8443", true),
        (Some("b.test"), "y.z.b.test", false),
        (Some("b.test"), ".b.test", false),
        (Some("unknown.test"), "unknown.test", true),
        (Some("unknown.test"), "a.test", true),
        (Some("unknown.test"), "b.test", false),
        (None, "b.test", true),
        (None, "[::1]:443", true),
    ] {
        assert_eq!(acceptor.serves(sni, host), expected, "{sni:?} {host}");
    }
}

#[test]
fn files_that_are_of_no_use_are_told_all_at_once() {
    let dir = dir("faults");
    dir.write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let plan = dir.plan(
        ", client_auth: require, client_ca_file: DIR/none.crt, certificates: [{cert_file: DIR/b.crt, key_file: \
         DIR/encrypted.key}, {cert_file: DIR/c.crt, key_file: DIR/b.key}, {cert_file: DIR/c.key, key_file: DIR/c.key}]",
    );
    let faults = Loaded::load(&plan, &Loaded::default(), Reading::All).unwrap_err();
    let told: Vec<String> =
        faults.iter().map(|fault| fault.to_string().replace(&format!("{}/", dir.0.display()), "")).collect();
    assert_eq!(
        told,
        [
            "ssl.certificates[0].key_file: encrypted.key: the private key is encrypted, and nobody is there to type its \
             password (openssl pkey -in FILE -out NEW writes it without one)",
            "ssl.certificates[1].key_file: b.key: it is not the key of the certificate in c.crt (both have to be replaced \
             together; the server's own certificate is the first in its file)",
            "ssl.certificates[2].cert_file: c.key: there is no certificate in it (it has to have BEGIN CERTIFICATE, as PEM \
             has)",
            "ssl.client_ca_file: none.crt: cannot be read: No such file or directory (os error 2) (relative paths go from \
             the directory that the proxy was started in)",
        ]
    );
}

/// `cargo test --release --lib ten_thousand -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_certificates() {
    let dir = Dir::new("many");
    let ca = authority("ca");
    dir.write("ca.crt", &ca.pem());
    let mut more = String::new();
    for at in 0..10_000 {
        dir.certificate(&format!("n{at}"), &ca, &[&format!("n{at}.test"), &format!("*.n{at}.test")]);
        more.push_str(&format!("{{cert_file: DIR/n{at}.crt, key_file: DIR/n{at}.key}}, "));
    }
    dir.certificate("a", &ca, &["a.test"]);
    let plan = dir.plan(&format!(", certificates: [{more}]"));
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    };
    let (began, before) = (std::time::Instant::now(), resident());
    let loaded = load(&plan, &Loaded::default());
    println!("loaded in {:?}, {} KiB more", began.elapsed(), resident() - before);
    let began = std::time::Instant::now();
    let again = load(&plan, &loaded);
    println!("looked at again in {:?}", began.elapsed());
    assert!(Arc::ptr_eq(again.acceptor.as_ref().unwrap(), loaded.acceptor.as_ref().unwrap()));
    let began = std::time::Instant::now();
    assert!(loaded.acceptor.as_ref().unwrap().hello(Some("x.n9999.test")).is_some());
    println!("found in {:?}", began.elapsed());
    println!("memory in {} pairs: {:?} bytes each", 10_001, (resident() - before) * 1024 / 10_001);
    let met = meet(&loaded, &connector(&loaded), name("n77.test"));
    assert_eq!(met.failed, None);
}
