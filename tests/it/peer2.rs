//! A client that speaks HTTP/2 with prior knowledge, by the h2 crate.
//!
//! Owns one connection and the thread that drives it. Every wait has a bound.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::Runtime;

use crate::origin::WATCHDOG;

/// One connection.
pub struct Peer {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    /// Drives the connection, whether or not the test waits.
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// An answer with its body.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The one value of a field.
    pub fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers().get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        assert!(values.next().is_none(), "{name} comes once");
        Some(value)
    }
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Peer {
        Peer::with(addr, &Builder::new())
    }

    /// With settings of its own.
    pub fn with(addr: SocketAddr, builder: &Builder) -> Peer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (told, opened) = mpsc::channel();
        let builder = builder.clone();
        let driver = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = tokio::net::TcpStream::connect(addr).await.expect("a connection");
                socket.set_nodelay(true).expect("a socket");
                let (send, connection) = builder.handshake(socket).await.expect("a handshake");
                told.send(send).expect("a test that waits");
                connection.await
            })
        });
        Peer { runtime, send: opened.recv_timeout(WATCHDOG).expect("a connection"), driver }
    }

    /// Waits, while the connection is driven.
    pub fn wait<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(WATCHDOG, work).await.unwrap_or_else(|_| panic!("waited {WATCHDOG:?} for {what}"))
        })
    }

    /// Sends a head; the stream ends with it when `is_end`.
    pub fn open(&mut self, request: Request<()>, is_end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send =
            self.wait("room for a stream", self.send.clone().ready()).expect("a connection that takes streams");
        send.send_request(request, is_end).expect("a stream")
    }

    /// The head of an answer, and its body still to come.
    pub fn head(&self, answer: ResponseFuture) -> Result<Response<RecvStream>, h2::Error> {
        self.wait("a head", answer)
    }

    /// All of an answer.
    pub fn read(&self, answer: ResponseFuture) -> Result<Answer, h2::Error> {
        self.wait("an answer", read(answer))
    }

    /// Sends a request with a body, or none, and reads the answer.
    pub fn request(&mut self, request: Request<()>, body: &'static [u8]) -> Answer {
        let (answer, mut stream) = self.open(request, body.is_empty());
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), true).expect("a stream that takes data");
        }
        self.read(answer).unwrap_or_else(|error| panic!("reading an answer: {error}"))
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request(get(path), b"")
    }

    /// Waits for the connection's end.
    pub fn expect_end(&mut self) {
        crate::wait::until("the connection to end", || self.driver.is_finished());
    }
}

/// Reads an answer to its end.
pub async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), body: bytes, trailers })
}

/// A GET of `http://a.test`.
pub fn get(path: &str) -> Request<()> {
    of("GET", path, &[])
}

/// A request to `http://a.test`.
pub fn of(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://a.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}
