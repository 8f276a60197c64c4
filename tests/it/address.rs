//! Who the client is, by which doors it may come, and from where backends are reached.
//!
//! Never repeats the table of header walks; those are pure and tested where they are.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use crate::client::Client;
use crate::dir::Dir;
use crate::origin::{self, Origin};
use crate::proxy::{Proxy, sections};
use crate::wait;
use crate::wire::Sock;

const PROXY_PROTOCOL: [(&str, &str); 2] = [("proxy_protocol", "accept"), ("trusted_proxies", "[127.0.0.1/32]")];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Address fields of the last request that the origin got.
fn told(origin: &Origin) -> (String, String) {
    let fields = origin.requests().pop().expect("a request").request.fields;
    let field = |name| fields.one(name).unwrap_or_default();
    (field("x-real-ip"), field("x-forwarded-for"))
}

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
fn a_trusted_header_is_the_only_one_that_is_believed() {
    let server = [("trusted_proxies", "[127.0.0.1/32]"), ("client_ip_header", "CF-Connecting-IP")];
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[("CF-Connecting-IP", "203.0.113.7"), ("X-Forwarded-For", "198.51.100.1")], "203.0.113.7"),
        (&[("CF-Connecting-IP", "2001:db8::7")], "2001:db8::7"),
        (&[("X-Forwarded-For", "198.51.100.1")], "127.0.0.1"),
        (&[("CF-Connecting-IP", "not an address")], "127.0.0.1"),
        (&[("CF-Connecting-IP", "203.0.113.7"), ("CF-Connecting-IP", "203.0.113.8")], "127.0.0.1"),
    ];
    for (said, expected) in cases {
        assert_eq!(proxy.client().request("GET", "/", said, b"").status, 200);
        assert_eq!(told(&origin).0, expected, "{said:?}");
    }
    let mut stranger = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), proxy.addr());
    stranger.request("GET", "/", &[("CF-Connecting-IP", "203.0.113.7")], b"");
    assert_eq!(told(&origin), ("127.0.0.9".into(), "127.0.0.9".into()));
    let fields = origin.requests().pop().expect("a request").request.fields;
    assert!(fields.all("cf-connecting-ip").iter().all(|value| value == "127.0.0.9"), "{fields:?}");
}

/// A PROXY header of version 2: command and family as on the wire, then addresses and TLVs.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("a short header").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, addresses].concat()
}

#[test]
fn proxy_headers_of_both_versions_name_the_client_however_they_are_cut() {
    let v4: Vec<u8> = [203, 0, 113, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0, 80].into();
    let with_tlv = [&v4[..], &[4, 0, 2, 9, 9]].concat();
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = 7;
    let cases = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN whatever it is\r\n".to_vec(), "127.0.0.1"),
        (version_2(1, 0x11, &v4), "203.0.113.7"),
        (version_2(1, 0x11, &with_tlv), "203.0.113.7"),
        (version_2(1, 0x21, &v6), "2001:db8::7"),
        (version_2(0, 0, &[]), "127.0.0.1"),
    ];
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&PROXY_PROTOCOL, &sections(&origin, "", ""));
    for (header, expected) in cases {
        let sent = [&header[..], REQUEST].concat();
        for piece in [sent.len(), header.len(), 1] {
            let mut client = proxy.client();
            client.send_in_pieces(&sent, piece);
            assert_eq!(client.response().status, 200, "{header:?} in pieces of {piece}");
            assert_eq!(told(&origin), (expected.into(), expected.into()), "{header:?} in pieces of {piece}");
            // It stands in front of the connection, not of each request.
            assert_eq!(client.get("/").status, 200);
            assert_eq!(told(&origin).0, expected);
        }
    }
}

#[test]
fn a_request_in_front_of_which_the_proxy_header_is_missing_or_broken_reaches_nobody() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&PROXY_PROTOCOL, &sections(&origin, "", ""));
    for header in
        [&b""[..], b"PROXY TCP4 203.0.113.7\r\n", b"PROXY TCP9 1.2.3.4 1.2.3.4 1 1\r\n", b"\r\n\r\n\0\r\nQUIX\n"]
    {
        let mut client = proxy.client();
        client.send([header, REQUEST].concat());
        // A reset is as good an end as any: nothing was served.
        assert!(client.wire.take_to_end().unwrap_or_default().is_empty(), "{header:?} was answered");
    }
    assert!(origin.requests().is_empty());
    proxy.wait_for_open(0);
}

#[test]
fn a_proxy_header_from_a_stranger_is_no_request() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&PROXY_PROTOCOL, &sections(&origin, "", ""));
    let stranger = || Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), proxy.addr());
    let mut lying = stranger();
    lying.send([b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\n", REQUEST].concat());
    assert_eq!(lying.response().status, 400);
    assert!(origin.requests().is_empty());
    assert_eq!(stranger().get("/").status, 200);
    assert_eq!(told(&origin).0, "127.0.0.9");
}

#[test]
fn the_peer_in_a_proxy_header_is_trusted_by_its_own_address() {
    let server = [("proxy_protocol", "accept"), ("trusted_proxies", "[127.0.0.1/32, 10.0.0.0/8]")];
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&server, &sections(&origin, "", ""));
    for (source, expected) in [("10.1.1.1", "198.51.100.1"), ("203.0.113.7", "203.0.113.7")] {
        let mut client = proxy.client();
        client.send(format!("PROXY TCP4 {source} 192.0.2.1 4000 80\r\n"));
        assert_eq!(client.request("GET", "/", &[("X-Forwarded-For", "198.51.100.1")], b"").status, 200);
        assert_eq!(told(&origin).0, expected);
    }
}

#[test]
fn backends_are_reached_from_every_local_address_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, peers) = std::sync::mpsc::channel::<SocketAddr>();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let mut request = [0; 4096];
            // One read: the request is one small segment.
            let answered = stream
                .read(&mut request)
                .and_then(|_| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
            if answered.is_err() || sender.send(peer).is_err() {
                return;
            }
        }
    });
    let sections = format!(
        "backends: {{default: [{{host: 127.0.0.1, port: {port}}}]}}\n\
         upstreams: {{default: {{local_addresses: [127.0.0.21, 127.0.0.22, 127.0.0.23]}}}}\n\
         routing: {{default: {{upstream: default}}}}\n"
    );
    let proxy = Proxy::start(&[], &sections);
    (0..6).for_each(|_| assert_eq!(proxy.client().get("/").status, 200));
    let from: Vec<IpAddr> = peers.iter().take(6).map(|peer| peer.ip()).collect();
    assert_eq!(from[..3], from[3..], "in rotation");
    let expected = [21, 22, 23].map(|n| IpAddr::from([127, 0, 0, n]));
    assert_eq!(from.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[test]
fn both_sides_may_be_unix_sockets() {
    let dir = Dir::new("doors");
    let (front, back) = (dir.path("front.sock"), dir.path("back.sock"));
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

#[test]
fn the_end_of_one_proxy_leaves_the_socket_of_its_successor() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("turn-{}.sock", std::process::id()));
    let listen = format!("[\"unix:{}\"]", path.display());
    let origin = Origin::start(origin::by_path);
    let start = || Proxy::start(&[("listen", &listen), ("shutdown_timeout", "30s")], &sections(&origin, "", ""));
    let old = start();
    let mut running = old.client();
    running.send_get("/gate/go");
    origin.wait_for_in_flight(1);
    let addr = old.addr();
    old.drain();
    wait::until("the end of listening", || Sock::tcp(addr).is_err() && Sock::unix(&path).is_err());
    let new = start();
    origin.gate("go").open();
    assert_eq!(running.response().text(), "ok");
    drop(running);
    old.shutdown();
    assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    drop(new);
    assert!(!path.exists(), "its own end removes it");
}

#[test]
fn a_start_that_fails_leaves_no_socket() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{}.sock", std::process::id()));
    let listen = format!("[\"unix:{}\"]", path.display());
    let text = "log: {access: /no/such/directory/access.log}\nrouting: {all: {respond: {status: 204}}}\n";
    assert!(Proxy::try_start(&[("listen", &listen)], text).is_err());
    assert!(!path.exists());
}
