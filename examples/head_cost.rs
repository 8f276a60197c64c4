//! Instructions for one head each way, for `valgrind --tool=callgrind --toggle-collect='*::one_request'`.
//!
//! Owns no figure: it parses and writes one typical request and response so often that a profiler can see them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use speedmimi::http::framing::ResponseFraming;
use speedmimi::http::head::FieldTable;
use speedmimi::http::parse::{Asked, HeadEnd, HeadLimits, parse_request, parse_response};
use speedmimi::http::peer::client_address;
use speedmimi::http::write::{Answer, AnswerFraming, Edits, Forward, Persistence, write_request, write_response};

const ROUNDS: u32 = 1000;

const WRK: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const CURL: &[u8] =
    b"GET /api/v1/items?page=2 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const BROWSER: &[u8] = b"GET /static/app.min.js?v=20240501 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n\
sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
sec-ch-ua-platform: \"Linux\"\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\nReferer: https://www.example.com/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=0123456789abcdef; theme=dark\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\n\
Content-Type: text/html\r\nContent-Length: 100\r\nLast-Modified: Sun, 22 Nov 2026 10:00:00 GMT\r\n\
Connection: keep-alive\r\nETag: \"6560-64\"\r\nAccept-Ranges: bytes\r\n\r\n";

fn main() {
    let which = std::env::args().nth(1).unwrap_or_else(|| "wrk".into());
    let mut table = FieldTable::with_capacity(64);
    let mut out = Vec::with_capacity(4096);
    let mut room = Vec::with_capacity(4096);
    for _ in 0..ROUNDS {
        out.clear();
        match which.as_str() {
            "wrk" => one_request(black_box(WRK), &mut table, &mut room, &mut out),
            "curl" => one_request(black_box(CURL), &mut table, &mut room, &mut out),
            "browser" => one_request(black_box(BROWSER), &mut table, &mut room, &mut out),
            _ => one_response(black_box(RESPONSE), &mut table, &mut out),
        }
        black_box(&out);
    }
    print!("{}", String::from_utf8_lossy(&out));
}

#[inline(never)]
fn one_request(buf: &[u8], table: &mut FieldTable, room: &mut Vec<u8>, out: &mut Vec<u8>) {
    let limits = HeadLimits { head_bytes: 16 * 1024, fields: 100 };
    let Ok(Some((head, _))) = parse_request(buf, &mut HeadEnd::default(), &limits, table) else { return };
    let peer = IpAddr::V4(Ipv4Addr::new(192, 168, 100, 200));
    let client = client_address(peer, head.fields(), &[], None);
    let Ok(path) = head.canonical_path(room) else { return };
    let forward = Forward {
        path,
        backend_host: "127.0.0.1:8081",
        framing: head.framing(),
        peer,
        client: client.address,
        peer_is_trusted: client.peer_is_trusted,
        over_tls: false,
        over_http2: false,
        real_ip_header: "X-Real-IP",
        client_ip_header: None,
        request_id: b"0123456789abcdef0123456789abcdef",
        close: false,
        edits: Edits::default(),
    };
    write_request(out, &head, &forward);
}

#[inline(never)]
fn one_response(buf: &[u8], table: &mut FieldTable, out: &mut Vec<u8>) {
    let asked = Asked { head: false, upgrade: false };
    let end = &mut HeadEnd::default();
    let Ok(Some((head, _))) = parse_response(buf, end, asked, &HeadLimits::RESPONSE, table) else { return };
    let ResponseFraming::Length(len) = head.framing() else { return };
    let answer = Answer {
        framing: AnswerFraming::Length(len),
        persistence: Persistence::Default,
        date: b"Sun, 22 Nov 2026 11:00:00 GMT",
        set_cookie: None,
        edits: Edits::default(),
    };
    write_response(out, &head, &answer);
}
