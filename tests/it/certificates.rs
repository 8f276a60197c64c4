//! Certificates renewed while the proxy runs: by a call, by a change of their files, and what is said of bad ones.
//!
//! Owns which certificate new handshakes would get. The handshakes themselves are for others.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value as Json, json};
use speedmimi::server::StartError;
use speedmimi::tls::Certificate;

use crate::api::Api;
use crate::client::Client;
use crate::dir::Dir;
use crate::proxy::Proxy;
use crate::wait;

/// Writes a self-signed certificate for `name` that ends with `year`, as NAME.crt and NAME.key.
fn make(dir: &Dir, name: &str, year: i32) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![format!("{name}.test")]).expect("names");
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    dir.write(&format!("{name}.crt"), params.self_signed(&key).expect("a certificate").pem());
    dir.write(&format!("{name}.key"), key.serialize_pem());
}

fn ssl(dir: &Dir, name: &str, more: &str) -> String {
    let path = |end: &str| dir.path(&format!("{name}.{end}")).display().to_string();
    format!("{{enabled: on, cert_file: {}, key_file: {}{more}}}", path("crt"), path("key"))
}

fn start(dir: &Dir, ssl: &str) -> (Proxy, Api) {
    let sections = format!("ssl: {ssl}\ngrpc: {{port: 0}}\nrouting: {{r: {{respond: {{}}}}}}\n");
    let proxy = Proxy::start(&[], &sections);
    let api = Api::of(&proxy);
    assert!(dir.path("").exists());
    (proxy, api)
}

/// What a handshake for `name` would get now.
fn served(proxy: &Proxy, name: &str) -> Arc<Certificate> {
    let published = proxy.board().shown().published.clone();
    let hello = published.tls.as_ref().expect("TLS").hello(Some(name)).expect("a certificate");
    hello.certificate
}

fn end(proxy: &Proxy) -> i64 {
    served(proxy, "a.test").validity.not_after
}

fn troubles(api: &Api) -> Vec<String> {
    let all = api.get("/api/v1/certificates")["troubles"].clone();
    serde_json::from_value(all).expect("texts")
}

/// The last change of that kind by whoever looks at the files.
fn watched(api: &Api, is_meant: impl Fn(&Json) -> bool) -> Option<Json> {
    let all = api.get("/api/v1/changes")["changes"].clone();
    all.as_array().and_then(|all| all.iter().find(|change| change["who"] == "watch" && is_meant(change))).cloned()
}

const DAY: i64 = 24 * 60 * 60;

fn first_of(year: i64) -> i64 {
    // Days before the year, with every fourth one a leap year between 1970 and 2100.
    ((year - 1970) * 365 + (year - 1969) / 4) * DAY
}

#[test]
fn certificates_are_swapped_by_a_call_or_stay_as_they_are() {
    let dir = Dir::new("certs-call");
    make(&dir, "a", 2040);
    make(&dir, "b", 2050);
    let (proxy, api) = start(&dir, &ssl(&dir, "a", ""));
    assert_eq!(end(&proxy), first_of(2040));
    let all = api.get("/api/v1/certificates");
    let one = &all["certificates"][0];
    assert_eq!((&one["names"], &one["state"], &one["default"]), (&json!(["a.test"]), &json!("valid"), &json!(true)));
    assert_eq!((&one["used_for"], &one["not_after"]), (&json!(["clients"]), &json!(first_of(2040))));
    let before = served(&proxy, "a.test");
    make(&dir, "a", 2041);
    let (status, done) = api.ask("POST", "/api/v1/config/reload-ssl");
    assert_eq!(status, 200, "{done}");
    // Nothing, where whoever looks at the files was sooner.
    let new = json!([dir.path("a.crt")]);
    assert!(done["changed"] == new || watched(&api, |change| change["changed"] == new).is_some(), "{done}");
    assert!(end(&proxy) == first_of(2041) && before.validity.not_after == first_of(2040));
    let first = api.get("/api/v1/stats/server")["proxy"]["tls"]["expires_first"].clone();
    let shown = (&first["cert_file"], &first["state"], &first["not_after"]);
    assert_eq!(shown, (&json!(dir.path("a.crt")), &json!("valid"), &json!(first_of(2041))));
    assert!(first["days_left"].as_i64().is_some_and(|days| days > 1000), "{first}");

    // The key of another one.
    fs::copy(dir.path("b.key"), dir.path("a.key")).expect("a copy");
    let (status, refused) = api.ask("POST", "/api/v1/config/reload-ssl");
    let error = refused["error"].as_str().expect("words");
    assert!(status == 409 && error.starts_with("ssl.key_file: ") && error.contains("is not the key of"), "{refused}");
    assert_eq!(end(&proxy), first_of(2041));
    wait::until("the look at the files", || troubles(&api).len() == 1);
    let metrics = api.send("GET", "/metrics", b"").text();
    assert!(metrics.contains("\nspeedmimi_certificate_file_troubles 1\n"), "{metrics}");
    let line = format!("{{file=\"{}\"}} {}\n", dir.path("a.crt").display(), first_of(2041));
    assert!(metrics.contains(&format!("speedmimi_certificate_expiry_timestamp_seconds{line}")), "{metrics}");
    // Noted once every worker has what was read: after it shows.
    let is_refused = |change: &Json| !change["refused"].is_null();
    wait::until("the record of it", || watched(&api, is_refused).is_some());
    let change = watched(&api, is_refused).expect("a record");
    assert_eq!(change["what"], "reload certificates");
    assert!(change["refused"].as_str().is_some_and(|refused| refused.starts_with("ssl.key_file")), "{change}");
    // Both together again, and nobody has to say so.
    make(&dir, "a", 2042);
    wait::until("the look at the files", || end(&proxy) == first_of(2042));
    assert_eq!(troubles(&api), Vec::<String>::new());
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change_of_the_file() {
    let dir = Dir::new("certs-link");
    for (version, year) in [("1", 2040), ("2", 2041)] {
        make(&dir, "a", year);
        fs::create_dir_all(dir.path(version)).expect("a directory");
        for end in ["crt", "key"] {
            fs::rename(dir.path(&format!("a.{end}")), dir.path(version).join(format!("a.{end}"))).expect("a rename");
        }
    }
    symlink("1", dir.path("data")).expect("a link");
    for end in ["crt", "key"] {
        symlink(format!("data/a.{end}"), dir.path(&format!("a.{end}"))).expect("a link");
    }
    let (proxy, _api) = start(&dir, &ssl(&dir, "a", ""));
    assert_eq!(end(&proxy), first_of(2040));
    symlink("2", dir.path("new")).expect("a link");
    fs::rename(dir.path("new"), dir.path("data")).expect("a rename");
    wait::until("the look at the files", || end(&proxy) == first_of(2041));
}

#[test]
fn a_bad_file_among_good_ones_holds_up_nobody_else() {
    let dir = Dir::new("certs-many");
    make(&dir, "a", 2040);
    make(&dir, "b", 2040);
    let path = |name: &str| dir.path(name).display().to_string();
    let more = format!(", certificates: [{{cert_file: {}, key_file: {}}}]", path("b.crt"), path("b.key"));
    let (proxy, api) = start(&dir, &ssl(&dir, "a", &more));
    make(&dir, "a", 2041);
    fs::remove_file(dir.path("b.crt")).expect("a file");
    wait::until("the look at the files", || end(&proxy) == first_of(2041) && troubles(&api).len() == 1);
    assert_eq!(served(&proxy, "b.test").validity.not_after, first_of(2040));
    assert!(troubles(&api)[0].starts_with("ssl.certificates[0].cert_file: "), "{:?}", troubles(&api));
    // Another change of the configuration takes nothing away, and a new file has to be of use.
    assert_eq!(api.tell("PATCH", "/api/v1/config", &json!({"log": {"level": "warn"}})).0, 200);
    assert_eq!(served(&proxy, "b.test").validity.not_after, first_of(2040));
    for (name, text, words) in [
        ("none", None, "cannot be read"),
        ("empty", Some(String::new()), "there is no certificate in it"),
        ("broken", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()), "no X.509"),
        ("cut", Some("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned()), "no sound PEM"),
    ] {
        if let Some(text) = text {
            dir.write(&format!("{name}.crt"), text);
        }
        let patch = json!({"ssl": {"cert_file": path(&format!("{name}.crt"))}});
        let (status, refused) = api.tell("PATCH", "/api/v1/config", &patch);
        let error = refused["error"].as_str().unwrap_or_default();
        assert!(status == 409 && error.contains("ssl.cert_file") && error.contains(words), "{name}: {refused}");
        assert_eq!(end(&proxy), first_of(2041));
    }
    assert_eq!(api.get("/api/v1/config")["config"]["ssl"]["cert_file"], json!(path("a.crt")));
}

#[test]
fn tls_comes_and_goes_with_the_configuration() {
    let dir = Dir::new("certs-switch");
    make(&dir, "a", 2040);
    let (proxy, api) = start(&dir, "{}");
    assert_eq!(api.ask("POST", "/api/v1/config/reload-ssl").0, 409);
    assert!(proxy.board().shown().published.tls.is_none());
    let files = json!({"cert_file": dir.path("a.crt"), "key_file": dir.path("a.key"), "enabled": true});
    let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({ "ssl": files }));
    assert_eq!(status, 200, "{done}");
    assert_eq!(end(&proxy), first_of(2040));
    let socket = dir.path("s.sock");
    let listen = json!({"server": {"listen": [format!("unix:{}", socket.display())]}});
    assert_eq!(api.tell("PATCH", "/api/v1/config", &listen).0, 200);
    let inode = || fs::symlink_metadata(&socket).map(|meta| meta.ino()).expect("a socket");
    let before = inode();
    let (status, done) = api.tell("PATCH", "/api/v1/config", &json!({"ssl": {"enabled": false}}));
    assert_eq!(status, 200, "{done}");
    assert!(proxy.board().shown().published.tls.is_none());
    assert_eq!(api.get("/api/v1/certificates")["certificates"], json!([]));
    // The socket in the old one's place is another, and stays when that one goes.
    assert_ne!(inode(), before);
    assert_eq!(Client::connect_unix(&socket).get("/").status, 200);
    drop(proxy);
    assert!(!socket.exists());
}

#[test]
fn an_expired_certificate_is_served_and_told_and_a_bad_one_is_a_fault_at_the_start() {
    let dir = Dir::new("certs-expired");
    make(&dir, "a", 2001);
    let (proxy, api) = start(&dir, &ssl(&dir, "a", ""));
    assert_eq!(end(&proxy), first_of(2001));
    let one = api.get("/api/v1/certificates")["certificates"][0].clone();
    assert!(one["state"] == "expired" && one["days_left"].as_i64().is_some_and(|days| days < -9000), "{one}");
    dir.write("a.key", "nothing");
    let sections = format!("ssl: {}\nrouting: {{r: {{respond: {{}}}}}}\n", ssl(&dir, "a", ""));
    match Proxy::try_start(&[], &sections) {
        Err(StartError::Change(error)) => assert!(error.to_string().contains("ssl.key_file"), "{error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it started"),
    }
}

/// A backend over TLS that answers 200 to whatever comes; counts handshakes that came to nothing.
fn secure_origin(dir: &Dir, name: &str) -> (u16, Arc<AtomicUsize>) {
    let chain = CertificateDer::pem_file_iter(dir.path(&format!("{name}.crt"))).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(dir.path(&format!("{name}.key"))).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("a pair"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = failed.clone();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = StreamOwned::new(connection, socket);
            let mut head = [0; 1024];
            match stream.read(&mut head) {
                Ok(n) if n > 0 => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
                _ => drop(counted.fetch_add(1, Ordering::SeqCst)),
            }
        }
    });
    (port, failed)
}

#[test]
fn a_backend_over_tls_is_checked_over_tls_and_has_to_prove_its_name() {
    let dir = Dir::new("certs-probe");
    make(&dir, "a", 2040);
    let (port, failed) = secure_origin(&dir, "a");
    let ca = dir.path("a.crt").display().to_string();
    let sections = |name: &str| {
        format!(
            "grpc: {{port: 0}}\nrouting: {{r: {{upstream: u}}}}\n\
             backends: {{u: [{{host: 127.0.0.1, port: {port}, scheme: https, \
             health_check: {{interval: 50ms, failures: 1, successes: 1}}}}]}}\n\
             upstreams: {{u: {{tls: {{ca_file: {ca}, server_name: {name}}}}}}}\n"
        )
    };
    let mut proxy = Proxy::start(&[], &sections("b.test"));
    let state = |api: &Api| -> Json { api.get("/api/v1/backends")["backends"][0]["state"].clone() };
    wait::until("its fall", || state(&Api::of(&proxy)) == "down" && failed.load(Ordering::SeqCst) > 0);
    proxy.reload(&[], &sections("a.test"));
    wait::until("its rise", || state(&Api::of(&proxy)) == "active");
}
