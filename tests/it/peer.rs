//! Who the client is, and the other doors: PROXY headers, trusted proxies, Unix sockets.
//!
//! Never repeats the table of header walks; those are pure and tested where they are.

use std::fs;
use std::path::PathBuf;

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("trusted_proxies", "[127.0.0.0/8, 10.0.0.0/8]")], &sections(&origin, "", ""));
    let said = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.1.1.1"), ("X-Request-ID", "from-the-edge")];
    proxy.client().request("GET", "/", &said, b"");
    let fields = origin.only_request().request.fields;
    assert_eq!(fields.one("x-real-ip").as_deref(), Some("203.0.113.9"));
    assert_eq!(fields.all("x-forwarded-for").join(", "), "6.6.6.6, 203.0.113.9, 10.1.1.1, 127.0.0.1");
    assert_eq!(fields.one("x-request-id").as_deref(), Some("from-the-edge"));
}

#[test]
fn a_proxy_header_names_the_client_however_it_is_cut() {
    let server = [("proxy_protocol", "accept"), ("trusted_proxies", "[127.0.0.0/8]")];
    let sent = b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for piece in [sent.len(), 7, 1] {
        let origin = Origin::start(origin::by_path);
        let proxy = Proxy::start(&server, &sections(&origin, "", ""));
        let mut client = proxy.client();
        client.send_in_pieces(sent, piece);
        assert_eq!(client.response().status, 200, "in pieces of {piece}");
        assert_eq!(origin.only_request().request.fields.one("x-real-ip").as_deref(), Some("203.0.113.7"));
    }
}

/// A directory for sockets that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        // Short: a Unix socket's path has at most 107 bytes.
        let path = std::env::temp_dir().join(format!("speedmimi-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn both_sides_may_be_unix_sockets() {
    let dir = Dir::new("doors");
    let (front, back) = (dir.0.join("front.sock"), dir.0.join("back.sock"));
    let origin = Origin::start_unix(&back, origin::by_path);
    let listen = format!("[\"unix:{}\"]", front.display());
    let sections = format!(
        "backends: {{default: [{{host: \"unix:{}\"}}]}}\nrouting: {{default: {{upstream: default}}}}\n",
        back.display()
    );
    let proxy = Proxy::start(&[("listen", &listen)], &sections);
    for mut client in [Client::connect_unix(&front), proxy.client()] {
        assert_eq!(client.request("POST", "/echo", &[], b"body").text(), "body");
    }
    assert_eq!(origin.requests().len(), 2);
}
