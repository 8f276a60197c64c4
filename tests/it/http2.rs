//! HTTP/2 from clients, with prior knowledge: what comes through, in both directions.
//!
//! The other end is the h2 crate or curl; protocol errors are `http2_faults`'s.

use base64::Engine;
use sha1::{Digest, Sha1};
use speedmimi::error::Reason;

use crate::origin::{self, Origin};
use crate::peer2::{Peer, get, of};
use crate::proxy::Proxy;

fn started() -> (Origin, Proxy) {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::before(&origin);
    (origin, proxy)
}

#[test]
fn a_get_goes_through() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let answer = peer.get("/hello?x=1");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert!(answer.one("date").is_some() && answer.one("via").is_some());
    let seen = origin.only_request().request;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/hello?x=1"));
    assert_eq!(seen.fields.one("host").as_deref(), Some("a.test"));
    assert_eq!(seen.fields.one("x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn many_streams_share_a_connection() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let gated: Vec<_> = (0..20).map(|_| peer.open(get("/gate/go"), true).0).collect();
    assert_eq!(peer.get("/").text(), "ok", "others are not held up");
    origin.wait_for_in_flight(20);
    origin.gate("go").open();
    for answer in gated {
        assert_eq!(peer.read(answer).unwrap().text(), "ok");
    }
    assert_eq!(proxy.stats().connections_accepted, 1);
}

#[test]
fn bodies_go_both_ways() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let answer = peer.request(of("POST", "/echo", &[]), b"without a length");
    assert_eq!(answer.text(), "without a length");
    let answer = peer.request(of("POST", "/echo", &[("content-length", "4")]), b"with");
    assert_eq!(answer.text(), "with");
    let seen = origin.requests();
    assert_eq!(seen[0].request.fields.one("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(seen[1].request.fields.one("content-length").as_deref(), Some("4"));
    assert_eq!(peer.get("/size/3000000").body, origin::pattern(3_000_000));
    assert_eq!(peer.get("/chunked/3").text(), "chunkchunkchunk");
    let answer = peer.get("/trailers");
    assert_eq!((answer.text().as_str(), answer.trailers.unwrap()["x-sum"].to_str().unwrap()), ("hello", "42"));
    assert_eq!(peer.request(of("HEAD", "/size/9", &[]), b"").one("content-length"), Some("9"));
}

#[test]
fn trailers_of_a_request_arrive() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    // Behind a body of known length they have a place where they are announced.
    for fields in [vec![], vec![("content-length", "5"), ("trailer", "x-sum")]] {
        let (answer, mut stream) = peer.open(of("POST", "/echo", &fields), false);
        stream.send_data(bytes::Bytes::from_static(b"hello"), false).unwrap();
        stream.send_trailers([("x-sum".parse().unwrap(), "42".parse().unwrap())].into_iter().collect()).unwrap();
        assert_eq!(peer.read(answer).unwrap().text(), "hello");
    }
    drop((peer, proxy));
    for connection in origin.settle() {
        let text = String::from_utf8_lossy(&connection.bytes).into_owned();
        assert_eq!(text.matches("\r\n0\r\nx-sum: 42\r\n\r\n").count(), text.matches("POST /echo").count(), "{text}");
    }
}

#[test]
fn a_request_arrives_as_http_1_has_it() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let fields = [("cookie", "a=b"), ("te", "trailers"), ("cookie", "c=d"), ("x-own", "1")];
    peer.request(of("GET", "/", &fields), b"");
    let seen = origin.only_request().request;
    assert_eq!(seen.fields.one("cookie").as_deref(), Some("a=b; c=d"));
    assert_eq!(seen.fields.one("via").as_deref(), Some("2.0 speedmimi"));
    assert_eq!(
        (seen.fields.one("te").as_deref(), seen.fields.one("connection").as_deref()),
        (Some("trailers"), Some("TE"))
    );
    assert_eq!(seen.fields.one("x-own").as_deref(), Some("1"));
}

#[test]
fn an_answer_ends_with_its_head_where_it_has_no_body() {
    let (_origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    for path in ["/status/204", "/status/304", "/status/404"] {
        let (answer, _) = peer.open(get(path), true);
        let head = peer.head(answer).unwrap();
        assert!(head.body().is_end_stream(), "{path}");
        for field in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
            assert!(!head.headers().contains_key(field), "{path}: {field}");
        }
    }
    let missing = peer.request(of("GET", "/%zz", &[]), b"");
    assert_eq!(missing.status(), 400);
    assert!(missing.one("proxy-status").unwrap().starts_with("speedmimi; error=http_request_error"));
}

#[test]
fn interim_answers_come_before_the_answer() {
    let (_origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let (mut answer, _) = peer.open(get("/interim"), true);
    let interim = peer.wait("a 103", std::future::poll_fn(|cx| answer.poll_informational(cx))).unwrap().unwrap();
    assert_eq!(interim.status(), 103);
    assert_eq!(interim.headers()["link"], "</a.css>; rel=preload");
    assert_eq!(peer.read(answer).unwrap().text(), "ok");
}

#[test]
fn a_slow_reader_holds_back_its_own_stream_alone() {
    let (_origin, proxy) = started();
    let mut peer = Peer::with(proxy.addr(), h2::client::Builder::new().initial_connection_window_size(1 << 30));
    let (slow, _) = peer.open(get("/size/5000000"), true);
    let head = peer.head(slow).unwrap();
    for _ in 0..3 {
        assert_eq!(peer.get("/size/1000000").body.len(), 1_000_000);
    }
    let (_, mut body) = head.into_parts();
    let rest = peer.wait("the slow one", async {
        let mut all = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            all.extend_from_slice(&piece);
        }
        all
    });
    assert!(rest == origin::pattern(5_000_000), "every byte of it");
}

#[test]
fn an_upload_goes_as_fast_as_the_backend_takes_it() {
    let origin = Origin::start(|exchange| {
        if exchange.path() == "/up" {
            exchange.gate("go").pass()?;
        }
        let body = exchange.body()?;
        exchange.answer(200, body.len().to_string().as_bytes())
    });
    let proxy = Proxy::before(&origin);
    let mut peer = Peer::connect(proxy.addr());
    let (answer, mut stream) = peer.open(of("POST", "/up", &[]), false);
    const PIECE: usize = 64 * 1024;
    let mut sent = 0;
    // As much as goes in before anybody reads it: our window and two sockets.
    while stream_takes(&peer, &mut stream, PIECE) {
        sent += PIECE;
        assert!(sent < 64 << 20, "nothing holds the client back");
    }
    assert_eq!(peer.get("/").status(), 200, "others go on");
    origin.gate("go").open();
    peer.wait("room", room(&mut stream, 1)).expect("the backend reads now");
    stream.send_data(bytes::Bytes::from_static(b"!"), true).unwrap();
    assert_eq!(peer.read(answer).unwrap().text(), (sent + 1).to_string());
}

async fn room(stream: &mut h2::SendStream<bytes::Bytes>, wanted: usize) -> Option<()> {
    stream.reserve_capacity(wanted);
    while stream.capacity() < wanted {
        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
    }
    Some(())
}

/// Sends a piece if there is room for it before another stream's request has come back twice.
fn stream_takes(peer: &Peer, stream: &mut h2::SendStream<bytes::Bytes>, piece: usize) -> bool {
    let has_room = peer.wait("room or none", async {
        tokio::time::timeout(std::time::Duration::from_millis(500), room(stream, piece)).await.is_ok()
    });
    if has_room {
        stream.send_data(vec![b'x'; piece].into(), false).unwrap();
    }
    has_room
}

#[test]
fn a_client_that_gives_up_frees_the_backend_at_once() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let (answer, mut stream) = peer.open(get("/never"), true);
    origin.wait_for_in_flight(1);
    drop(answer);
    stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(peer.get("/").status(), 200);
    origin.wait_for_in_flight(0);
    proxy.wait_until("the client's leaving to be counted", |totals| totals.exchanges_active == 0);
}

#[test]
fn a_cut_answer_is_a_reset() {
    let (_origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let (answer, _) = peer.open(get("/half"), true);
    let error = peer.read(answer).unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(peer.get("/").status(), 200, "the connection goes on");
}

#[test]
fn a_websocket_goes_through_an_extended_connect() {
    let origin = Origin::start(|exchange| {
        let key = exchange.request.fields.one("sec-websocket-key");
        let Some(key) = key.filter(|_| exchange.path() == "/ws") else { return origin::by_path(exchange) };
        let proof = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            base64::engine::general_purpose::STANDARD.encode(proof)
        );
        exchange.send(head.as_bytes())?;
        exchange.echo_frames()
    });
    let proxy = Proxy::before(&origin);
    let mut peer = Peer::connect(proxy.addr());
    let mut request = of("CONNECT", "/ws", &[("sec-websocket-version", "13")]);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    assert_eq!(peer.get("/").status(), 200, "settings have come");
    let (answer, mut stream) = peer.open(request, false);
    let head = peer.head(answer).unwrap();
    assert_eq!(head.status(), 200);
    assert!(!head.headers().contains_key("sec-websocket-accept") && !head.headers().contains_key("upgrade"));
    let mut body = head.into_body();
    // Masked with zeros: "hi".
    stream.send_data(bytes::Bytes::from_static(&[0x82, 0x82, 0, 0, 0, 0, b'h', b'i']), false).unwrap();
    let echoed = peer.wait("a frame", body.data()).unwrap().unwrap();
    assert_eq!(&echoed[..], [0x82, 2, b'h', b'i']);
    proxy.wait_until("a tunnel", |totals| totals.tunnels_active == 1);
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    peer.wait("the other end", async { while body.data().await.is_some_and(|piece| piece.is_ok()) {} });
    proxy.wait_until("no tunnel", |totals| totals.tunnels_active == 0);
    // What the backend refuses is passed on as usual.
    let mut request = of("CONNECT", "/status/403", &[]);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, _stream) = peer.open(request, false);
    assert_eq!(peer.head(answer).unwrap().status(), 403);
    // The 101 of somebody who did not understand the key is none.
    let mut request = of("CONNECT", "/ws/unproven", &[]);
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, _stream) = peer.open(request, false);
    let head = peer.head(answer).unwrap();
    assert_eq!(head.status(), 502);
    let told = head.headers()["proxy-status"].to_str().unwrap();
    assert!(told.starts_with("speedmimi; error=http_upgrade_failed"), "{told}");
    proxy.wait_until("the fault", |totals| totals.reasons.of(Reason::BackendUpgrade) == 1);
}

#[test]
fn draining_ends_a_connection_after_its_streams() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let (answer, _) = peer.open(get("/gate/go"), true);
    origin.wait_for_in_flight(1);
    proxy.drain();
    origin.gate("go").open();
    assert_eq!(peer.read(answer).unwrap().text(), "ok");
    peer.expect_end();
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("idle_timeout", "300ms")], &crate::proxy::sections(&origin, "", ""));
    let mut peer = Peer::connect(proxy.addr());
    assert_eq!(peer.get("/").status(), 200);
    peer.expect_end();
    proxy.wait_for_open(0);
}

#[test]
fn an_idle_connection_makes_room_for_others() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("max_conn", "2")], &crate::proxy::sections(&origin, "", ""));
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::connect(proxy.addr())).collect();
    peers.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status(), 200));
    let mut client = proxy.client();
    client.send_get("/");
    // The one idle longest goes with a GOAWAY, once it is read.
    let mut first = peers.remove(0);
    first.expect_end();
    assert_eq!(client.response().status, 200);
    assert_eq!(peers[0].get("/").status(), 200);
}

#[test]
fn switched_off_the_preface_is_refused() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("http2", "false")], &crate::proxy::sections(&origin, "", ""));
    let mut client = proxy.client();
    client.send(crate::frames::PREFACE);
    assert_eq!(client.response().status, 505);
}

#[test]
fn a_preface_may_come_in_pieces_and_late() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("park_after", "100ms")], &crate::proxy::sections(&origin, "", ""));
    let mut raw = crate::frames::Raw::silent(proxy.addr());
    proxy.wait_until("the lot", |totals| totals.connections_parked == 1);
    for byte in crate::frames::PREFACE {
        raw.send([*byte]);
    }
    raw.send(crate::frames::frame(crate::frames::SETTINGS, 0, 0, b""));
    raw.send(crate::frames::open(1, true, "GET", "/", &[]));
    assert_eq!(raw.verdict(), crate::frames::Verdict::Answered(1, 200));
}

#[test]
fn errors_of_ours_are_grpc_to_those_who_speak_it() {
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[], &crate::proxy::sections(&origin, "", "connect_timeout: 1s"));
    let mut peer = Peer::connect(proxy.addr());
    let grpc = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    origin.kill();
    let answer = peer.request(of("POST", "/a.B/C", &grpc), b"");
    assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some("14")));
    assert_eq!(answer.one("grpc-message"), Some("the backend refused the connection"));
    assert!(answer.body.is_empty() && answer.trailers.is_none(), "trailers only");
    let plain = peer.request(of("POST", "/", &[("content-type", "application/grpc-web")]), b"");
    assert_eq!(plain.status(), 502);
    origin.revive();
    let timed = [grpc[0], grpc[1], ("grpc-timeout", "200m")];
    let answer = peer.request(of("POST", "/never", &timed), b"");
    assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some("4")));
    assert_eq!(origin.only_request().request.fields.one("grpc-timeout").as_deref(), Some("200m"));
    origin.wait_for_in_flight(0);
}

#[test]
fn a_refused_request_is_answered_in_its_form_and_counted() {
    let (origin, proxy) = started();
    let mut peer = Peer::connect(proxy.addr());
    let large = ("x-large", &*"v".repeat(40_000));
    let answer = peer.request(of("GET", "/", &[large]), b"");
    assert_eq!(answer.status(), 431);
    assert!(answer.one("proxy-status").unwrap().contains("larger than max_header_bytes"));
    let (answer, _) = peer.open(of("HEAD", "/", &[large]), true);
    let head = peer.head(answer).unwrap();
    assert_eq!((head.status().as_u16(), head.body().is_end_stream()), (431, true));
    let grpc = ("content-type", "application/grpc");
    let answer = peer.request(of("POST", "/", &[grpc, large]), b"");
    assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some("8")));
    let answer = peer.request(of("POST", "/", &[grpc, ("te", "trailers"), ("content_length", "1")]), b"");
    assert_eq!((answer.status(), answer.one("grpc-status")), (200, Some("13")));
    proxy.wait_until("three refusals for their size", |totals| totals.reasons.of(Reason::HeadTooLarge) == 3);
    assert!(origin.requests().is_empty());
    assert_eq!(peer.get("/").status(), 200, "the connection goes on");
}

#[test]
fn an_answer_may_have_as_many_fields_as_one_of_http_1() {
    let origin = Origin::start(|exchange| {
        let lines: String = (0..255).map(|i| format!("X-{i}: {i}\r\n")).collect();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n").as_bytes())?;
        Ok(origin::Next::KeepAlive)
    });
    let proxy = Proxy::before(&origin);
    let answer = Peer::connect(proxy.addr()).get("/");
    assert_eq!((answer.status(), answer.one("x-254")), (200, Some("254")));
    assert!(answer.one("date").is_some() && answer.head.headers().len() > 256);
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let origin = Origin::start(origin::by_path);
    let server = [("max_body_bytes", "10"), ("read_timeout", "300ms")];
    let proxy = Proxy::start(&server, &crate::proxy::sections(&origin, "", ""));
    let mut peer = Peer::connect(proxy.addr());
    let (answer, _stream) = peer.open(of("POST", "/early", &[]), false);
    assert_eq!(peer.read(answer).unwrap().text(), "early");
    let (answer, mut stream) = peer.open(of("POST", "/never", &[]), false);
    stream.send_data(bytes::Bytes::from_static(&[b'x'; 11]), false).unwrap();
    assert_eq!(peer.read(answer).unwrap().status(), 413);
    let (answer, _stream) = peer.open(of("POST", "/never", &[]), false);
    assert_eq!(peer.read(answer).unwrap().status(), 408, "a body that stalls");
    assert_eq!(peer.get("/").status(), 200, "the connection goes on");
}

#[test]
fn curl_and_we_understand_each_other() {
    let (_origin, proxy) = started();
    let url = |path: &str| format!("http://{}{path}", proxy.addr());
    let curl = |more: &[&str]| {
        let out = std::process::Command::new("curl").args(["-s", "--http2-prior-knowledge"]).args(more).output();
        String::from_utf8_lossy(&out.expect("curl").stdout).into_owned()
    };
    assert_eq!(curl(&["-w", " %{http_code} %{http_version}", &url("/")]), "ok 200 2");
    let body = "x".repeat(100_000);
    assert_eq!(curl(&["-H", "Expect: 100-continue", "--data-binary", &body[..100_000], &url("/echo")]), body);
    assert_eq!(curl(&["-I", &url("/size/7")]).lines().next(), Some("HTTP/2 200 "));
}

#[test]
fn priorities_are_borne() {
    use crate::frames::{END_HEADERS, END_STREAM, HEADERS, PRIORITIZED, Raw, Verdict, frame, request};
    let (origin, proxy) = started();
    let mut raw = Raw::connect(proxy.addr());
    // PRIORITY_UPDATE (RFC 9218, section 7.1), the flag of RFC 9113, section 6.2, and the field.
    raw.send(frame(16, 0, 0, b"\0\0\0\x01u=1"));
    let block = [&[0, 0, 0, 0, 16][..], &request("GET", "/", &[("priority", "u=1, i")])].concat();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, &block));
    assert_eq!(raw.verdict(), Verdict::Answered(1, 200));
    assert_eq!(origin.only_request().request.fields.one("priority").as_deref(), Some("u=1, i"));
}

#[test]
fn fields_that_a_backends_connection_names_end_here() {
    let origin = Origin::start(|exchange| {
        exchange
            .send(b"HTTP/1.1 200 OK\r\nConnection: X-Own\r\nX-Own: 1\r\nX-Other: 2\r\nContent-Length: 0\r\n\r\n")?;
        Ok(origin::Next::KeepAlive)
    });
    let proxy = Proxy::before(&origin);
    let answer = Peer::connect(proxy.addr()).get("/");
    assert_eq!((answer.one("x-own"), answer.one("connection"), answer.one("x-other")), (None, None, Some("2")));
}

#[test]
fn a_silent_client_with_a_stream_is_asked_whether_it_is_there() {
    use crate::frames::{self, ACK, PING, Raw, frame};
    let origin = Origin::start(origin::by_path);
    let proxy = Proxy::start(&[("read_timeout", "300ms")], &crate::proxy::sections(&origin, "", ""));
    let mut raw = Raw::connect(proxy.addr());
    raw.send(frames::open(1, true, "GET", "/never", &[]));
    for _ in 0..2 {
        let ping = raw.wait_for(PING);
        raw.send(frame(PING, ACK, 0, &ping.payload));
    }
    raw.wait_for(PING);
    raw.last_word();
    origin.wait_for_in_flight(0);
    proxy.wait_for_open(0);
}

#[test]
fn a_connection_does_not_hold_on_to_an_old_plan() {
    let first = Origin::start(origin::by_path);
    let second = Origin::start(origin::by_path);
    let mut proxy = Proxy::before(&first);
    let mut peer = Peer::connect(proxy.addr());
    assert_eq!(peer.get("/").status(), 200);
    proxy.reload(&[], &crate::proxy::sections(&second, "", ""));
    assert_eq!(peer.get("/").status(), 200);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
}

#[test]
fn little_is_read_for_streams_that_their_client_leaves_waiting() {
    use crate::frames::{self, HEADERS, Raw};
    let (_origin, proxy) = started();
    let mut raw = Raw::with(proxy.addr(), &[(4, 0)]);
    raw.send((0..100).flat_map(|i| frames::open(2 * i + 1, true, "GET", "/size/1000000", &[])).collect::<Vec<u8>>());
    for _ in 0..100 {
        raw.wait_for(HEADERS);
    }
    // Heads go out with what came behind them, and nobody reads on: 100 times 8 KiB, and what came before it was too much.
    proxy.watch().look();
    let read = proxy.watch().backends(None).pop().expect("a backend").bytes_in;
    assert!(read < 1_400_000, "{read} bytes were read from the backend");
    proxy.wait_until("what waits to be told", |totals| totals.memory_buffers > read);
    assert!(raw.is_alive());
    // What waits still goes out whole, in small pieces and large ones.
    for (stream, rooms) in [(1, [1_000_000, 0]), (199, [700_000, 300_000])] {
        raw.send(frames::window_update(0, 1_000_000));
        rooms.iter().filter(|room| **room > 0).for_each(|room| raw.send(frames::window_update(stream, *room)));
        let mut body = Vec::new();
        raw.find("the end", |frame| {
            if frame.kind == frames::DATA && frame.stream == stream {
                body.extend_from_slice(&frame.payload);
            }
            frame.stream == stream && frame.kind == frames::DATA && frame.flags & frames::END_STREAM != 0
        });
        assert!(body == origin::pattern(1_000_000), "{stream}: every byte of it, {} came", body.len());
    }
    drop(raw);
    proxy.wait_for_open(0);
    proxy.wait_until("nothing to wait any more", |totals| totals.memory_buffers < 500_000);
}

#[test]
fn python_and_we_understand_each_other() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let python = match crate::grpc::python() {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped, as a Python client can't be had: {why}"),
    };
    let (origin, proxy) = started();
    let walk = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h2/walk.py");
    let mut child = Command::new(python)
        .arg(walk)
        .arg(proxy.addr().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an interpreter that was just there");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a word of it");
    if line.trim() == "drain" {
        origin.wait_for_in_flight(1);
        proxy.drain();
        writeln!(child.stdin.take().expect("piped")).expect("a child that listens");
        origin.gate("go").open();
    }
    assert!(child.wait().expect("a child of ours").success(), "it says above where");
}
