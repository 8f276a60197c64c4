//! A scripted HTTP/2 origin, on the h2 crate and without TLS: the server behind the proxy in tests of `h2c` backends.
//!
//! Owns a listener on a port of its own, one thread with a runtime for all its connections, and a record of what came.
//! What it answers goes by the path. Never judges what it got: tests do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::origin::{WATCHDOG, pattern};
use crate::wire::lock;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index of its connection, in the order of accepting.
    pub connection: usize,
    pub method: String,
    pub uri: String,
    pub protocol: Option<String>,
    pub headers: HeaderMap,
}

/// A request that was given up.
#[derive(Clone, Debug)]
pub struct Reset {
    pub uri: String,
    /// `None` when its connection broke.
    pub code: Option<Reason>,
    pub at: Instant,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Bodies that came whole, with their trailers.
    bodies: Mutex<Vec<(Vec<u8>, Option<HeaderMap>)>>,
    /// Resets that requests got which are never answered to the end.
    resets: Mutex<Vec<Reset>>,
    connections: AtomicUsize,
    connections_open: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    goes_away: Notify,
    gate: Notify,
    /// What `/health` answers, and the number that calls of gRPC's health protocol get: 1 is `SERVING`.
    health: AtomicUsize,
    /// The service that the last such call named.
    service: Mutex<String>,
}

/// The server; dropping it ends it.
pub struct H2Origin {
    shared: Arc<Shared>,
    addr: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl H2Origin {
    /// With the codec's own settings.
    pub fn start() -> H2Origin {
        H2Origin::with(|_| {})
    }

    /// With settings of the test's.
    pub fn with(configure: impl Fn(&mut Builder) + Send + 'static) -> H2Origin {
        let shared = Arc::new(Shared::default());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let addr = listener.local_addr().expect("the listener's address");
        let (end, ended) = oneshot::channel();
        let mut builder = Builder::new();
        configure(&mut builder);
        let accepting = accept(listener, builder, shared.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    () = accepting => {}
                    _ = ended => {}
                }
            });
        });
        H2Origin { shared, addr, end: Some(end), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The one request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().expect("one request")
    }

    /// The bodies that came whole, with their trailers.
    pub fn bodies(&self) -> Vec<(Vec<u8>, Option<HeaderMap>)> {
        lock(&self.shared.bodies).clone()
    }

    /// The resets that requests for `/hang`, `/hang-after-head` and `/endless` got.
    pub fn resets(&self) -> Vec<Reset> {
        lock(&self.shared.resets).clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn connections_open(&self) -> usize {
        self.shared.connections_open.load(Ordering::Relaxed)
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// The most at once.
    pub fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max.load(Ordering::Relaxed)
    }

    /// Sends a GOAWAY on every connection, which ends with its last stream.
    pub fn go_away(&self) {
        self.shared.goes_away.notify_waiters();
    }

    /// Answers the requests for `/gate` that are there.
    pub fn open_gate(&self) {
        self.shared.gate.notify_waiters();
    }

    /// What checks of its health are answered from now on: a status, or the number of a `ServingStatus`.
    pub fn set_health(&self, health: usize) {
        self.shared.health.store(health, Ordering::Relaxed);
    }

    /// The service that the last call of gRPC's health protocol named.
    pub fn service(&self) -> String {
        lock(&self.shared.service).clone()
    }

    /// Sections for this one backend; `backend` and `upstream` are further keys of each.
    pub fn sections(&self, backend: &str, upstream: &str) -> String {
        let port = self.port();
        format!(
            "backends: {{default: [{{host: 127.0.0.1, port: {port}, scheme: h2c, {backend}}}]}}\n\
             upstreams: {{default: {{{upstream}}}}}\n\
             routing: {{default: {{upstream: default}}}}\n"
        )
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

async fn accept(listener: std::net::TcpListener, builder: Builder, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener on the runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let index = shared.connections.fetch_add(1, Ordering::Relaxed);
        let (builder, shared) = (builder.clone(), shared.clone());
        tokio::spawn(async move {
            shared.connections_open.fetch_add(1, Ordering::Relaxed);
            serve(stream, builder, index, &shared).await;
            shared.connections_open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(stream: TcpStream, builder: Builder, index: usize, shared: &Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut is_going = false;
    loop {
        let asked = tokio::select! {
            asked = connection.accept() => asked,
            () = shared.goes_away.notified(), if !is_going => {
                is_going = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = asked else { return };
        let shared = shared.clone();
        lock(&shared.seen).push(seen(index, &request));
        tokio::spawn(async move {
            let now = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            shared.in_flight_max.fetch_max(now, Ordering::Relaxed);
            // A peer that went away is no fault of the script's.
            let _ = answer(request, respond, &shared).await;
            shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn seen(connection: usize, request: &Request<RecvStream>) -> Seen {
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    Seen {
        connection,
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        protocol: protocol.map(|protocol| protocol.as_str().to_owned()),
        headers: request.headers().clone(),
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut answer = Response::builder().status(status);
    for (name, value) in fields {
        answer = answer.header(*name, *value);
    }
    answer.body(()).expect("an answer that can be said")
}

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

/// Sends as the proxy's windows allow.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, is_end: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Reason::CANCEL)??;
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, is_end && data.is_empty())?;
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<usize>().ok());
    if let Some(size) = number("/size/") {
        let length = size.to_string();
        let is_end = size == 0 || request.method() == http::Method::HEAD;
        let mut stream = respond.send_response(head(200, &[("content-length", &length)]), is_end)?;
        if is_end {
            return Ok(());
        }
        return send(&mut stream, Bytes::from(pattern(size)), true).await;
    }
    if let Some(count) = number("/pieces/") {
        let mut stream = respond.send_response(head(200, &[]), false)?;
        for _ in 0..count {
            send(&mut stream, Bytes::from_static(b"chunk"), false).await?;
        }
        return stream.send_data(Bytes::new(), true);
    }
    if let Some(size) = number("/details/") {
        let mut stream = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
        stream.send_data(Bytes::from_static(b"hello"), false)?;
        let mut trailers = trailers(&[("grpc-status", "9")]);
        trailers.insert("grpc-status-details-bin", "d".repeat(size).parse().expect("a value"));
        return stream.send_trailers(trailers);
    }
    if let Some(status) = number("/status/") {
        return respond.send_response(head(status as u16, &[]), true).map(|_| ());
    }
    match path.as_str() {
        "/echo" => echo(request, respond, shared).await,
        "/continue" => {
            respond.send_informational(head(100, &[]))?;
            echo(request, respond, shared).await
        }
        "/collect" => {
            let mut stream = respond.send_response(head(200, &[]), false)?;
            let mut body = request.into_body();
            let mut len = 0;
            while let Some(data) = body.data().await {
                let data = data?;
                len += data.len();
                body.flow_control().release_capacity(data.len())?;
            }
            stream.send_data(Bytes::from(len.to_string()), true)
        }
        "/silent-call" => {
            let mut stream = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
            let _ = tokio::time::timeout(WATCHDOG, shared.gate.notified()).await;
            stream.send_trailers(trailers(&[("grpc-status", "0")]))
        }
        "/trailers" => {
            let mut stream = respond.send_response(head(200, &[]), false)?;
            stream.send_data(Bytes::from_static(b"hello"), false)?;
            stream.send_trailers(trailers(&[("x-sum", "42"), ("grpc-status", "0")]))
        }
        "/trailers-only" => {
            let fields = [("content-type", "application/grpc"), ("grpc-status", "5")];
            respond.send_response(head(200, &fields), true).map(|_| ())
        }
        "/late-end" => {
            let mut stream = respond.send_response(head(200, &[("content-length", "5")]), false)?;
            stream.send_data(Bytes::from_static(b"hello"), false)?;
            tokio::task::yield_now().await;
            stream.send_data(Bytes::new(), true)
        }
        "/short" => {
            let mut stream = respond.send_response(head(200, &[("content-length", "10")]), false)?;
            // Dropped, the stream is reset behind what was sent; a reset of ours would throw that away.
            send(&mut stream, Bytes::from_static(b"hello"), false).await
        }
        "/short-end" => {
            let mut stream = respond.send_response(head(200, &[("content-length", "10")]), false)?;
            send(&mut stream, Bytes::from_static(b"hello"), true).await
        }
        "/too-long" => {
            let mut stream = respond.send_response(head(200, &[("content-length", "3")]), false)?;
            send(&mut stream, Bytes::from_static(b"hello"), true).await
        }
        "/big-head" => {
            let value = "x".repeat(20_000);
            let fields = ["x-a", "x-b", "x-c", "x-d"].map(|name| (name, value.as_str()));
            respond.send_response(head(200, &fields), true).map(|_| ())
        }
        "/interim" => {
            respond.send_informational(head(103, &[("link", "</a>")]))?;
            respond.send_response(head(200, &[]), true).map(|_| ())
        }
        "/early" => {
            let mut stream = respond.send_response(head(413, &[("content-length", "5")]), false)?;
            // Dropped with a request that is not whole, the stream is reset with NO_ERROR behind the answer.
            send(&mut stream, Bytes::from_static(b"early"), true).await
        }
        "/refuse" => {
            respond.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
        "/refuse-first"
            if lock(&shared.seen).iter().filter(|seen| seen.uri.ends_with("/refuse-first")).count() == 1 =>
        {
            respond.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
        "/reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/hang" | "/hang-after-head" | "/endless" => {
            let uri = request.uri().to_string();
            let reset = hang(&path, respond).await?;
            lock(&shared.resets).push(Reset { uri, code: reset.ok(), at: Instant::now() });
            Ok(())
        }
        "/gate" => {
            let _ = tokio::time::timeout(WATCHDOG, shared.gate.notified()).await;
            respond.send_response(head(200, &[]), true).map(|_| ())
        }
        "/health" => {
            let status = shared.health.load(Ordering::Relaxed) as u16;
            respond.send_response(head(status, &[]), true).map(|_| ())
        }
        "/grpc.health.v1.Health/Check" => grpc_health(request, respond, shared).await,
        "/ws" => websocket(request, respond, shared).await,
        _ => respond
            .send_response(head(200, &[("x-a", "1"), ("content-type", "text/plain")]), false)?
            .send_data(Bytes::from(path), true),
    }
}

/// Answers nothing, the head, or more and more as the proxy's windows allow; never to the end.
async fn hang(path: &str, mut respond: SendResponse<Bytes>) -> Result<Result<Reason, h2::Error>, h2::Error> {
    if path == "/hang" {
        return Ok(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
    }
    let mut stream = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
    if path == "/endless" {
        let piece = Bytes::from(pattern(4096));
        while send(&mut stream, piece.clone(), false).await.is_ok() {}
    }
    Ok(std::future::poll_fn(|cx| stream.poll_reset(cx)).await)
}

/// Sends the body back as it comes, as content of the same type, and then its trailers.
async fn echo(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mut answer = head(200, &[]);
    if let Some(kind) = request.headers().get("content-type") {
        answer.headers_mut().insert("content-type", kind.clone());
    }
    let mut body = request.into_body();
    let mut stream = respond.send_response(answer, false)?;
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
        send(&mut stream, data, false).await?;
    }
    let trailers = body.trailers().await?;
    lock(&shared.bodies).push((all, trailers.clone()));
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// Accepts a tunnel and sends back what comes, up to its end.
async fn websocket(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    echo(request, respond, shared).await
}

/// A call of gRPC's health protocol. Its one field is a text in the call, and a number in the answer.
async fn grpc_health(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut asked = Vec::new();
    while let Some(data) = body.data().await {
        asked.extend_from_slice(&data?);
    }
    *lock(&shared.service) = asked.get(7..).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let grpc = ("content-type", "application/grpc");
    match shared.health.load(Ordering::Relaxed) {
        0 => respond.send_response(head(200, &[grpc, ("grpc-status", "5")]), true).map(|_| ()),
        health => {
            let mut stream = respond.send_response(head(200, &[grpc]), false)?;
            stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, health as u8]), false)?;
            stream.send_trailers(trailers(&[("grpc-status", "0")]))
        }
    }
}
