//! TLS with clients and with backends, over real sockets against rustls as its users have it.
//!
//! Owns what passes over a session and what becomes of a bad one. Which certificate is shown is `certificates`'.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::{ClientHello, ResolvesServerCert};

use crate::api::Api;
use crate::client::Client;
use crate::frames;
use crate::h2_origin::H2Origin;
use crate::origin::{self, Next, Origin, WATCHDOG};
use crate::peer2::{Peer, of};
use crate::pki::{Issued, Pki};
use crate::proxy::{Proxy, sections};
use crate::websocket;
use crate::wire::{Sock, Trouble, Wire, lock};

/// The `ssl` section for one certificate, with further keys.
fn ssl(own: &Issued, keys: &str) -> String {
    format!(
        "ssl: {{enabled: true, cert_file: {}, key_file: {}, {keys}}}\n",
        own.cert_file.display(),
        own.key_file.display()
    )
}

fn start(pki: &Pki, origin: &Origin, server: &[(&str, &str)], keys: &str) -> Proxy {
    let own = pki.issue(&["a.test", "127.0.0.1"]);
    Proxy::start(server, &(ssl(&own, keys) + &sections(origin, "", "")))
}

fn open(addr: SocketAddr, config: &Arc<rustls::ClientConfig>) -> std::io::Result<Client> {
    let bare = TcpStream::connect(addr)?;
    bare.set_nodelay(true)?;
    bare.set_read_timeout(Some(WATCHDOG))?;
    Ok(Client { wire: Wire::new(Sock::tls(bare, Arc::clone(config), "a.test")?, WATCHDOG)? })
}

fn connect(proxy: &Proxy, config: &Arc<rustls::ClientConfig>) -> Client {
    open(proxy.addr(), config).unwrap_or_else(|e| panic!("a session: {e}"))
}

#[test]
fn requests_and_answers_of_any_size_pass() {
    let (pki, origin) = (Pki::new("tls-pass"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[], "");
    let mut client = connect(&proxy, &pki.client(&["http/1.1"]));
    for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 1_000_000] {
        let body = origin::pattern(size);
        assert!(client.request("POST", "/echo", &[], &body).body == body, "{size} bytes up and down");
    }
    assert_eq!(client.get("/chunked/3").text(), "chunkchunkchunk");
    assert_eq!(client.get("/trailers").trailers.one("x-sum").as_deref(), Some("42"));
    let seen = origin.requests().pop().expect("a request");
    assert_eq!(seen.request.fields.one("x-forwarded-proto").as_deref(), Some("https"));
    let stats = proxy.stats();
    assert_eq!((stats.connections_accepted, stats.handshakes_full, stats.handshakes_failed), (1, 1, 0));
}

#[test]
fn an_idle_session_is_parked_and_served_again() {
    let (pki, origin) = (Pki::new("tls-park"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[("park_after", "100ms")], "");
    // One that says nothing at all is parked before its handshake.
    let silent = TcpStream::connect(proxy.addr()).unwrap();
    proxy.wait_until("a silent one parked", |totals| totals.connections_parked == 1);
    let mut client = connect(&proxy, &pki.client(&[]));
    for n in 0..3 {
        // Also before its first request.
        proxy.wait_until("both parked", |totals| totals.connections_parked == 2);
        assert_eq!(client.request("POST", "/echo", &[], format!("{n}").as_bytes()).text(), format!("{n}"));
    }
    drop(client);
    drop(silent);
    proxy.wait_for_open(0);
    proxy.wait_until("no session", |totals| totals.tls_sessions == 0);
    assert_eq!(proxy.stats().handshakes_full, 1);
}

#[test]
fn a_session_is_taken_up_again() {
    let (pki, origin) = (Pki::new("tls-resume"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[("workers", "2")], "");
    let config = pki.client(&[]);
    for _ in 0..8 {
        let mut client = connect(&proxy, &config);
        assert_eq!(client.get("/").status, 200);
    }
    proxy.wait_for_open(0);
    let stats = proxy.stats();
    // Whichever worker a connection comes to.
    assert_eq!((stats.handshakes_full, stats.handshakes_resumed), (1, 7));
}

#[test]
fn a_handshake_has_a_deadline() {
    let (pki, origin) = (Pki::new("tls-slow"), Origin::start(origin::by_path));
    for sent in [b"" as &[u8], b"\x16\x03\x01\x02\x00\x01"] {
        for park_after in ["100ms", "10s"] {
            let proxy = start(&pki, &origin, &[("read_timeout", "700ms"), ("park_after", park_after)], "");
            let mut slow = TcpStream::connect(proxy.addr()).unwrap();
            slow.set_read_timeout(Some(WATCHDOG)).unwrap();
            slow.write_all(sent).unwrap();
            assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0, "ended without a word");
            proxy.wait_for_open(0);
            assert_eq!(proxy.stats().handshakes_failed, u64::from(!sent.is_empty()));
        }
    }
}

#[test]
fn who_speaks_no_tls_is_told_so_and_others_are_served() {
    let (pki, origin) = (Pki::new("tls-plain"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[], "");
    let mut plain = TcpStream::connect(proxy.addr()).unwrap();
    plain.set_read_timeout(Some(WATCHDOG)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The alert may be followed by a reset, as the request was not read.
    let _ = plain.read_to_end(&mut answer);
    assert_eq!((answer.first(), answer.len()), (Some(&21), 7), "one alert and nothing else");
    assert_eq!(connect(&proxy, &pki.client(&[])).get("/").status, 200);
    let refused = open(proxy.addr(), &pki.client(&["spdy/3"])).err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|why| why.contains("NoApplicationProtocol")), "alert 120: {refused:?}");
    proxy.wait_until("two failures", |totals| totals.handshakes_failed == 2);
    assert!(origin.requests().len() == 1);
}

#[test]
fn beside_a_tls_port_plain_requests_are_served_or_sent_there() {
    let (pki, origin) = (Pki::new("tls-port"), Origin::start(origin::by_path));
    let own = pki.issue(&["a.test"]);
    // A port that is free now; nobody else of this test takes it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for redirect in [false, true] {
        let keys = format!("port: {port}, redirect: {redirect}");
        let proxy = Proxy::start(&[], &(ssl(&own, &keys) + &sections(&origin, "", "")));
        let over_tls = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(open(over_tls, &pki.client(&[])).unwrap().get("/").status, 200);
        let mut plain = proxy.client();
        plain.send("GET /a%20b/..//c?d=e HTTP/1.1\r\nHost: A.test:80\r\n\r\n");
        let answer = plain.response();
        if redirect {
            let location = format!("https://A.test:{port}/a%20b/..//c?d=e");
            assert_eq!((answer.status, answer.fields.one("location")), (308, Some(location)));
        } else {
            assert_eq!(answer.status, 200);
        }
    }
}

#[test]
fn a_clients_certificate_is_demanded_and_told_to_the_backend() {
    let (pki, origin) = (Pki::new("tls-client"), Origin::start(origin::by_path));
    let (own, stranger) = (pki.issue(&["client.test"]), Pki::new("tls-stranger"));
    let theirs = stranger.issue(&["client.test"]);
    let shown = |client: &mut Client| {
        client.request("GET", "/", &[("Client-Cert", ":Zm9yZ2Vk:"), ("Client-Cert-Chain", ":eA==:")], b"");
        origin.requests().pop().expect("a request").request.fields.one("client-cert")
    };
    for (policy, without) in [("require", false), ("request", true)] {
        let ca = pki.ca_file();
        let proxy = start(&pki, &origin, &[], &format!("client_auth: {policy}, client_ca_file: {}", ca.display()));
        let told = shown(&mut connect(&proxy, &pki.client_with(&own))).expect("the certificate");
        assert_eq!(told, as_field(&own));
        // In TLS 1.3 the client learns of the refusal when it reads.
        let mut bare = open(proxy.addr(), &pki.client(&[])).unwrap();
        bare.send_get("/");
        assert_eq!(bare.wire.response("GET").is_ok_and(|answer| answer.status == 200), without, "{policy}");
        let mut forged = open(proxy.addr(), &stranger_to(&pki, &theirs)).unwrap();
        forged.send_get("/");
        assert!(forged.wire.response("GET").is_err(), "{policy}: of another authority");
        if without {
            assert_eq!(shown(&mut connect(&proxy, &pki.client(&[]))), None);
        }
    }
}

#[test]
fn a_certificate_that_has_expired_lets_nobody_in_by_an_earlier_session() {
    let (pki, origin) = (Pki::new("tls-expires"), Origin::start(origin::by_path));
    let keys = format!("client_auth: require, client_ca_file: {}", pki.ca_file().display());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let proxy = start(&pki, &origin, &[], &keys);
        let late = pki.client_of(&[version], &pki.issue_for(&["late.test"], Duration::ZERO));
        let own = pki.issue_for(&["client.test"], Duration::from_secs(3));
        let config = pki.client_of(&[version], &own);
        for _ in 0..2 {
            assert_eq!(try_status(&proxy, &config), Some(200));
            // A session that is taken up again tells the certificate of then.
            let seen = origin.requests().pop().expect("a request");
            assert_eq!(seen.request.fields.one("client-cert"), Some(as_field(&own)), "{version:?}");
        }
        assert_eq!((proxy.stats().handshakes_full, proxy.stats().handshakes_resumed), (1, 1), "{version:?}");
        crate::wait::until("the end of the certificate", || try_status(&proxy, &config).is_none());
        assert_eq!((proxy.stats().handshakes_full, proxy.stats().handshakes_failed), (1, 1), "{version:?}");
        // Nor does it in a new one.
        assert_eq!(try_status(&proxy, &late), None, "{version:?}");
    }
}

/// A certificate as `Client-Cert` has it.
fn as_field(own: &Issued) -> String {
    use base64::Engine;
    format!(":{}:", base64::prelude::BASE64_STANDARD.encode(own.chain[0].as_ref()))
}

/// The status of an answer over a new connection; `None` where it comes to none.
fn try_status(proxy: &Proxy, config: &Arc<rustls::ClientConfig>) -> Option<u16> {
    let mut client = open(proxy.addr(), config).ok()?;
    client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").ok()?;
    client.wire.response("GET").ok().map(|answer| answer.status)
}

#[test]
fn what_is_offered_is_what_the_configuration_says() {
    let (pki, origin) = (Pki::new("tls-offer"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[("http2", "false")], "min_version: \"1.3\"");
    // Had HTTP/2 been chosen, this would be no answer.
    assert_eq!(try_status(&proxy, &pki.client(&["h2", "http/1.1"])), Some(200));
    let refused = open(proxy.addr(), &pki.client(&["h2"])).err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|why| why.contains("NoApplicationProtocol")), "alert 120: {refused:?}");
    let own = pki.issue(&["client.test"]);
    assert_eq!(try_status(&proxy, &pki.client_of(&[&rustls::version::TLS13], &own)), Some(200));
    let refused = open(proxy.addr(), &pki.client_of(&[&rustls::version::TLS12], &own)).err();
    assert!(refused.as_ref().is_some_and(|why| why.to_string().contains("ProtocolVersion")), "{refused:?}");
}

#[test]
fn a_clients_certificate_is_told_over_http2_and_never_another() {
    let (pki, origin) = (Pki::new("tls-client-http2"), Origin::start(origin::by_path));
    let ours = pki.issue(&["proxy.test"]);
    let far = start(
        &pki,
        &origin,
        &[("trusted_proxies", "[127.0.0.1]")],
        &format!("client_auth: require, client_ca_file: {}", pki.ca_file().display()),
    );
    let near = Proxy::start(
        &[("trusted_proxies", "[127.0.0.1]")],
        &format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {}, scheme: h2}}]}}\n\
             upstreams: {{default: {{tls: {{ca_file: {}, server_name: a.test, cert_file: {}, key_file: {}}}}}}}\n\
             routing: {{default: {{upstream: default, request_headers: {{set: {{Client-Cert-Chain: forged}}}}}}}}\n",
            far.addr().port(),
            pki.ca_file().display(),
            ours.cert_file.display(),
            ours.key_file.display()
        ),
    );
    assert_eq!(near.client().request("GET", "/", &[("Client-Cert", ":Zm9yZ2Vk:")], b"").status, 200);
    let seen = origin.only_request();
    assert_eq!(seen.request.fields.all("client-cert"), [as_field(&ours)]);
    assert_eq!(seen.request.fields.one("client-cert-chain"), None);
}

#[test]
fn what_runs_goes_on_through_a_swap_and_what_is_new_goes_by_the_new_files() {
    let (pki, next) = (Pki::new("tls-swap"), Pki::new("tls-swap-next"));
    let origin = Origin::start(origin::by_path);
    let (own, renewed) = (pki.issue(&["a.test"]), next.issue(&["a.test"]));
    let clients = pki.dir.path("clients.pem");
    copy(&pki.ca_file(), &clients);
    let keys = format!("client_auth: require, client_ca_file: {}", clients.display());
    let proxy = Proxy::start(&[], &(ssl(&own, &keys) + "grpc: {port: 0}\n" + &sections(&origin, "", "")));
    let (old, new) = (pki.client_with(&pki.issue(&["client.test"])), next.client_with(&next.issue(&["client.test"])));
    let mut runs = connect(&proxy, &old);
    assert_eq!((runs.get("/").status, try_status(&proxy, &new)), (200, None));
    for (from, to) in
        [(&next.ca_file(), &clients), (&renewed.cert_file, &own.cert_file), (&renewed.key_file, &own.key_file)]
    {
        copy(from, to);
    }
    let (status, done) = Api::of(&proxy).ask("POST", "/api/v1/config/reload-ssl");
    assert_eq!(status, 200, "{done}");
    // Not by its earlier session either.
    assert_eq!((runs.get("/").status, try_status(&proxy, &old), try_status(&proxy, &new)), (200, None, Some(200)));
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("a copy");
}

#[test]
fn an_answer_of_ours_that_is_not_taken_in_time_ends_the_connection() {
    let pki = Pki::new("tls-untaken");
    let own = pki.issue(&["a.test"]);
    let body = "x".repeat(60_000);
    let sections = ssl(&own, "") + &format!("routing: {{r: {{respond: {{body: {body}}}}}}}\n");
    let proxy = Proxy::start(&[("write_timeout", "500ms")], &sections);
    let mut client = connect(&proxy, &pki.client(&["http/1.1"]));
    let mut asked = 0;
    // None of them is read.
    while proxy.stats().connections_active > 0 {
        asked += 1;
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        proxy.wait_until("an answer", |totals| totals.requests >= asked || totals.connections_active == 0);
    }
    let totals = proxy.stats();
    assert!(totals.requests > 1, "{}", totals.requests);
    // Of none nothing was taken: the first that did not get out was the last.
    assert_eq!(totals.client_bytes_out % totals.requests, 0, "{totals:?}");
    assert!(totals.client_bytes_out / totals.requests > 60_000, "{totals:?}");
}

/// Trusts `pki`, and shows what another authority issued.
fn stranger_to(pki: &Pki, theirs: &Issued) -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder().with_root_certificates(pki.roots());
    Arc::new(config.with_client_auth_cert(theirs.chain.clone(), theirs.key()).unwrap())
}

#[test]
fn tunnels_and_event_streams_pass_at_once() {
    let (pki, origin) = (Pki::new("tls-tunnel"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[], "");
    let mut client = connect(&proxy, &pki.client(&[]));
    client.upgrade("/ws");
    for length in [0, 1, 65_536, 300_000] {
        let payload = origin::pattern(length);
        client.send_frame(websocket::BINARY, &payload);
        assert!(client.read_frame() == websocket::Frame { opcode: websocket::BINARY, payload });
    }
    client.send_frame(websocket::CLOSE, &1000u16.to_be_bytes());
    assert_eq!(client.read_frame().opcode, websocket::CLOSE);
    client.expect_end();
}

#[test]
fn the_end_of_a_session_is_said() {
    let (pki, origin) = (Pki::new("tls-end"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[("idle_timeout", "1s"), ("park_after", "10s")], "");
    let mut client = connect(&proxy, &pki.client(&[]));
    client.request("GET", "/", &[("Connection", "close")], b"");
    client.expect_end();
    let mut idle = connect(&proxy, &pki.client(&[]));
    idle.get("/");
    idle.expect_end();
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let (pki, origin) = (Pki::new("tls-announced"), Origin::start(origin::by_path));
    let server = [("proxy_protocol", "accept"), ("trusted_proxies", "[127.0.0.1]")];
    let proxy = start(&pki, &origin, &server, "");
    let mut bare = TcpStream::connect(proxy.addr()).unwrap();
    bare.set_read_timeout(Some(WATCHDOG)).unwrap();
    bare.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n").unwrap();
    let session = Sock::tls(bare, pki.client(&[]), "a.test").unwrap();
    let mut client = Client { wire: Wire::new(session, WATCHDOG).unwrap() };
    assert_eq!(client.get("/").status, 200);
    let seen = origin.only_request();
    assert_eq!(seen.request.fields.one("x-real-ip").as_deref(), Some("192.0.2.7"));
}

// To backends.

/// A proxy before an origin that speaks TLS; `backend` and `tls` are further keys.
fn before(origin: &Origin, backend: &str, tls: &str) -> Proxy {
    Proxy::start(&[], &sections(origin, &format!("scheme: https, {backend}"), &format!("tls: {{{tls}}}")))
}

#[test]
fn a_backends_certificate_is_verified() {
    let (pki, stranger) = (Pki::new("tls-backend"), Pki::new("tls-backend-stranger"));
    let own = pki.issue(&["b.test", "127.0.0.1"]);
    let origin = Origin::start_tls(pki.server(&own, false), origin::by_path);
    let ca = format!("ca_file: {}", pki.ca_file().display());
    let proxy = before(&origin, "", &ca);
    let mut client = proxy.client();
    for size in [0, 100, 100_000, 1_000_000] {
        let body = origin::pattern(size);
        assert!(client.request("POST", "/echo", &[], &body).body == body);
    }
    assert_eq!(origin.connections().len(), 1, "kept alive");
    for (keys, wanted) in [
        (format!("{ca}, server_name: b.test"), None),
        (format!("{ca}, server_name: other.test"), Some("tls_certificate_error")),
        (format!("ca_file: {}", stranger.ca_file().display()), Some("tls_certificate_error")),
        (format!("ca_file: {}, verify: false", stranger.ca_file().display()), None),
    ] {
        let answer = before(&origin, "", &keys).client().get("/");
        let error = answer.fields.one("proxy-status");
        assert_eq!(answer.status, if wanted.is_some() { 502 } else { 200 }, "{keys}: {error:?}");
        assert!(wanted.is_none_or(|wanted| error.is_some_and(|error| error.contains(wanted))), "{keys}");
    }
}

/// Shows one certificate, and notes the names that are asked for.
#[derive(Debug)]
struct Asked {
    own: Arc<rustls::sign::CertifiedKey>,
    names: Mutex<Vec<Option<String>>>,
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        lock(&self.names).push(hello.server_name().map(str::to_owned));
        Some(self.own.clone())
    }
}

#[test]
fn a_backend_is_asked_for_the_name_that_it_has_to_prove() {
    let pki = Pki::new("tls-sni");
    let own = pki.issue(&["b.test", "localhost", "127.0.0.1"]);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = rustls::sign::CertifiedKey::from_der(own.chain.clone(), own.key(), &provider).expect("a pair");
    let asked = Arc::new(Asked { own: Arc::new(key), names: Mutex::default() });
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(asked.clone());
    let origin = Origin::start_tls(Arc::new(config), origin::by_path);
    let ca = format!("ca_file: {}", pki.ca_file().display());
    // An address is none (RFC 6066, section 3).
    for (keys, name) in [(ca.clone(), None), (format!("{ca}, server_name: b.test"), Some("b.test"))] {
        assert_eq!(before(&origin, "", &keys).client().get("/").status, 200, "{keys}");
        assert_eq!(lock(&asked.names).pop(), Some(name.map(str::to_owned)));
    }
}

#[test]
fn the_files_of_an_upstream_are_swapped_in_a_running_proxy() {
    let (pki, stranger) = (Pki::new("tls-swap-backend"), Pki::new("tls-swap-stranger"));
    let own = pki.issue(&["127.0.0.1"]);
    let origin = Origin::start_tls(pki.server(&own, true), origin::by_path);
    let (theirs, ours) = (stranger.issue(&["proxy.test"]), pki.issue(&["proxy.test"]));
    let keys = format!(
        "tls: {{ca_file: {}, cert_file: {}, key_file: {}}}",
        stranger.ca_file().display(),
        theirs.cert_file.display(),
        theirs.key_file.display()
    );
    let proxy = Proxy::start(&[], &("grpc: {port: 0}\n".to_owned() + &sections(&origin, "scheme: https", &keys)));
    let (api, mut client) = (Api::of(&proxy), proxy.client());
    let reloaded = || api.ask("POST", "/api/v1/config/reload-ssl").0;
    assert_eq!(client.get("/").status, 502);
    copy(&pki.ca_file(), &stranger.ca_file());
    assert_eq!((reloaded(), client.get("/").status), (200, 502), "the backend does not know us");
    copy(&ours.cert_file, &theirs.cert_file);
    copy(&ours.key_file, &theirs.key_file);
    assert_eq!((reloaded(), client.get("/").status), (200, 200));
}

#[test]
fn other_rules_for_tls_mean_other_connections() {
    let pki = Pki::new("tls-rules");
    let own = pki.issue(&["b.test", "127.0.0.1"]);
    let ca = format!("ca_file: {}", pki.ca_file().display());
    let with = |origin: &Origin, keys: &str| sections(origin, "scheme: https", &format!("tls: {{{ca}{keys}}}"));
    let origin = Origin::start_tls(pki.server(&own, false), origin::by_path);
    let mut proxy = Proxy::start(&[], &with(&origin, ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    proxy.reload(&[("read_timeout", "29s")], &with(&origin, ""));
    assert_eq!((client.get("/").status, origin.connections().len()), (200, 1), "nothing changed");
    proxy.reload(&[], &with(&origin, ", server_name: other.test"));
    assert_eq!(client.get("/").status, 502);
    proxy.reload(&[], &with(&origin, ", server_name: b.test"));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn other_rules_for_tls_mean_other_http2_connections_and_what_runs_goes_on() {
    let (pki, origin) = (Pki::new("tls-rules-http2"), H2Origin::start());
    let own = pki.issue(&["a.test", "127.0.0.1"]);
    let far = Proxy::start(&[("idle_timeout", "60s")], &format!("{}\n{}", ssl(&own, ""), origin.sections("", "")));
    let with = |name: &str| {
        format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {}, scheme: h2}}]}}\n\
             upstreams: {{default: {{tls: {{ca_file: {}, server_name: {name}}}}}}}\n\
             routing: {{default: {{upstream: default}}}}\n",
            far.addr().port(),
            pki.ca_file().display()
        )
    };
    let mut near = Proxy::start(&[], &with("a.test"));
    let mut runs = near.client();
    runs.send_get("/gate");
    crate::wait::until("the request", || origin.in_flight() == 1);
    near.reload(&[], &with("other.test"));
    assert_eq!(near.client().get("/").status, 502);
    origin.open_gate();
    assert_eq!(runs.response().status, 200);
    assert_eq!(runs.get("/").status, 502);
}

#[test]
fn a_backend_that_never_shakes_hands_is_waited_for_no_longer_than_for_a_connection() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let status = |answer: crate::wire::Response| (answer.status, answer.fields.one("proxy-status").unwrap_or_default());
    let port = silent.local_addr().unwrap().port();
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: https}}]}}\n\
         upstreams: {{default: {{connect_timeout: 300ms, retries: 0, tls: {{verify: false}}}}}}\n\
         routing: {{default: {{upstream: default}}}}\n"
    );
    let (code, error) = status(Proxy::start(&[], &sections).client().get("/"));
    assert!(code == 504 && error.contains("connection_timeout"), "{code} {error}");
}

#[test]
fn a_backend_may_demand_a_certificate() {
    let pki = Pki::new("tls-mutual");
    let (own, ours) = (pki.issue(&["127.0.0.1"]), pki.issue(&["proxy.test"]));
    let origin = Origin::start_tls(pki.server(&own, true), origin::by_path);
    let ca = format!("ca_file: {}", pki.ca_file().display());
    assert_eq!(before(&origin, "", &ca).client().get("/").status, 502);
    let keys = format!("{ca}, cert_file: {}, key_file: {}", ours.cert_file.display(), ours.key_file.display());
    assert_eq!(before(&origin, "", &keys).client().get("/").status, 200);
}

#[test]
fn an_answer_that_a_cut_connection_ends_is_no_whole_answer() {
    let pki = Pki::new("tls-cut");
    let own = pki.issue(&["127.0.0.1"]);
    let origin = Origin::start_tls(pki.server(&own, false), |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")?;
        if exchange.path() == "/whole" {
            exchange.finish_sending()?;
        }
        Ok(Next::Close)
    });
    let proxy = before(&origin, "", "verify: false");
    assert_eq!(proxy.client().get("/whole").text(), "half");
    // Without close_notify anybody on the way could have ended it.
    let cut = proxy.client().try_get("/cut");
    assert!(matches!(cut, Err(Trouble::Ended { .. } | Trouble::Socket(_))), "{cut:?}");
}

#[test]
fn handshakes_do_not_hold_others_up() {
    let (pki, origin) = (Pki::new("tls-flood"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[], "");
    let mut client = connect(&proxy, &pki.client(&[]));
    // All at once: each is served in its turn, and so is who was there before.
    let addr = proxy.addr();
    let config = pki.client(&[]);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let config = Arc::clone(&config);
            std::thread::spawn(move || (0..8).all(|_| open(addr, &config).is_ok_and(|mut c| c.get("/").status == 200)))
        })
        .collect();
    for _ in 0..100 {
        client.bound(Duration::from_secs(5));
        assert_eq!(client.get("/").status, 200);
    }
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn http2_passes_over_tls_on_both_sides() {
    let (pki, origin) = (Pki::new("tls-http2"), Origin::start(origin::by_path));
    let far = start(&pki, &origin, &[], "");
    let near = Proxy::start(
        &[],
        &format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {}, scheme: h2, health_check: {{type: http, path: /health}}}}]}}\n\
             upstreams: {{default: {{tls: {{ca_file: {}, server_name: a.test}}}}}}\n\
             routing: {{default: {{upstream: default}}}}\n",
            far.addr().port(),
            pki.ca_file().display()
        ),
    );
    let mut client = near.client();
    for size in [0, 1, 16_384, 300_000] {
        let body = origin::pattern(size);
        assert!(client.request("POST", "/echo", &[], &body).body == body, "{size} bytes up and down");
    }
    assert_eq!(client.get("/trailers").trailers.one("x-sum").as_deref(), Some("42"));
    // The check asks like everybody else, and its host is the one that the certificate is for as well.
    crate::wait::until("a health check", || origin.requests().iter().any(|seen| seen.request.target == "/health"));
    let seen = origin.requests().into_iter().find(|seen| seen.request.target == "/trailers").expect("the request");
    assert_eq!(seen.request.fields.all("via"), ["1.1 speedmimi", "2.0 speedmimi"]);
    // A host that the certificate is not for is none of this connection's (RFC 9110, section 15.5.20).
    client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(client.response().status, 421);
}

#[test]
fn calls_and_websockets_pass_over_http2_with_tls() {
    let pki = Pki::new("tls-calls");
    let origin = H2Origin::with(|builder| {
        builder.enable_connect_protocol();
    });
    let far = Proxy::start(&[], &(ssl(&pki.issue(&["a.test"]), "") + &origin.sections("", "")));
    let near = Proxy::start(
        &[],
        &format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {}, scheme: h2}}]}}\n\
             upstreams: {{default: {{tls: {{ca_file: {}, server_name: a.test}}}}}}\n\
             routing: {{default: {{upstream: default}}}}\n",
            far.addr().port(),
            pki.ca_file().display()
        ),
    );
    let mut peer = Peer::connect(near.addr());
    let answer = peer.request(of("POST", "/echo", &[("content-type", "application/grpc")]), &[0; 5]);
    assert_eq!((answer.status(), answer.body), (200, vec![0; 5]));
    let answer = peer.request(of("POST", "/details/9000", &[("content-type", "application/grpc")]), &[0; 5]);
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "9");
    let mut request = of("CONNECT", "/ws", &[("sec-websocket-version", "13")]);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut stream) = peer.open(request, false);
    let mut body = peer.head(answer).unwrap().into_body();
    stream.send_data("frame".into(), false).unwrap();
    assert_eq!(peer.wait("a frame", body.data()).unwrap().unwrap(), "frame");
    assert_eq!(origin.seen().pop().unwrap().headers["x-forwarded-proto"], "https");
}

#[test]
fn a_backend_that_agrees_on_no_http2_is_none_of_it() {
    let pki = Pki::new("tls-no-h2");
    let origin = Origin::start_tls(pki.server(&pki.issue(&["127.0.0.1"]), false), origin::by_path);
    let proxy = Proxy::start(&[], &sections(&origin, "scheme: h2", "tls: {verify: false}, retries: 0"));
    let answer = proxy.client().get("/");
    assert_eq!(answer.status, 502);
    assert!(answer.fields.one("proxy-status").is_some_and(|told| told.contains("ALPN")));
    assert!(origin.requests().is_empty());
}

#[test]
fn http2_begins_however_slowly_its_first_bytes_come() {
    let (pki, origin) = (Pki::new("tls-preface"), Origin::start(origin::by_path));
    let proxy = start(&pki, &origin, &[], "");
    let mut client = connect(&proxy, &pki.client(&["h2"]));
    // Each in a record of its own.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().for_each(|byte| client.send([*byte]));
    // SETTINGS, and a GET by HPACK's static table.
    client.send(b"\0\0\0\x04\0\0\0\0\0");
    client.send(b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x87\x84\x41\x06a.test");
    loop {
        let head = client.read(9);
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.read(len);
        if head[3] == 1 {
            assert_eq!(payload[0], 0x88, ":status 200");
            return;
        }
    }
}

#[test]
fn what_a_request_calls_its_scheme_is_not_believed() {
    let (pki, origin) = (Pki::new("tls-scheme"), Origin::start(origin::by_path));
    let own = pki.issue(&["a.test"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let keys = |redirect| format!("port: {port}, redirect: {redirect}");
    let secure = |host: &str, scheme: &str| {
        let over_tls = SocketAddr::from(([127, 0, 0, 1], port));
        let mut client = open(over_tls, &pki.client(&["h2"])).unwrap();
        client.send(frames::PREFACE);
        client.send(frames::frame(frames::SETTINGS, 0, 0, b""));
        client.send(of_scheme(scheme, host));
        loop {
            let head = client.read(9);
            let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = client.read(len);
            if head[3] == frames::HEADERS {
                return frames::status(&payload);
            }
        }
    };
    let plain = |proxy: &Proxy, scheme: &str| {
        let mut raw = frames::Raw::connect(proxy.addr());
        raw.send(of_scheme(scheme, "a.test"));
        raw.verdict()
    };
    let proxy = Proxy::start(&[], &(ssl(&own, &keys(false)) + &sections(&origin, "", "")));
    for scheme in ["http", "https"] {
        assert_eq!((secure("a.test", scheme), secure("b.test", scheme)), (200, 421), "{scheme}");
        assert_eq!(plain(&proxy, scheme), frames::Verdict::Answered(1, 200), "{scheme}");
    }
    let told = origin.requests().into_iter().map(|seen| seen.request.fields.one("x-forwarded-proto").expect("a field"));
    assert_eq!(told.collect::<Vec<String>>(), ["https", "http", "https", "http"], "by the connection");
    drop(proxy);
    let proxy = Proxy::start(&[], &(ssl(&own, &keys(true)) + &sections(&origin, "", "")));
    for scheme in ["http", "https"] {
        assert_eq!(plain(&proxy, scheme), frames::Verdict::Answered(1, 308), "{scheme}");
        assert_eq!(secure("a.test", scheme), 200, "{scheme}");
    }
}

fn of_scheme(scheme: &str, host: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", scheme), (":authority", host), (":path", "/")];
    frames::frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &frames::block(&fields))
}
