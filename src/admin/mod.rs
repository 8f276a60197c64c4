//! Management: REST, gRPC and the dashboard on one port, thin skins over the verbs of control.
//!
//! Owns the server of that port: its connections and their bounds. Never changes the proxy itself: changes are orders
//! to control.

pub mod auth;
pub mod dashboard;
pub mod description;
pub mod figures;
pub mod grpc;
pub mod rate;
pub mod rest;
mod sent;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::clock;
use crate::control::board::Board;
use crate::control::entrance::{Entrance, Opening};
use crate::control::thread::{Asked, Done, Order};
use crate::control::verb::{Refusal, RefusalKind};
use auth::Peer;
use rate::Rates;

/// Connections at once.
const CONNECTIONS_COUNT_MAX: usize = 256;
/// Streams at once on an HTTP/2 connection.
const STREAMS_COUNT_MAX: u32 = 64;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head at most, and fields.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// For the first request of a connection, in either version of HTTP.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay without a new request; what runs on it may finish then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Silence after which an HTTP/2 connection is asked whether it lives, and how long it has for the answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What every request of management has at hand.
#[derive(Debug)]
pub struct Desk {
    /// What is to be seen.
    pub board: Arc<Board>,
    /// Who may come in.
    pub entrance: ArcSwap<Entrance>,
    /// How often.
    pub rates: Rates,
    orders: UnboundedSender<Order>,
}

impl Desk {
    /// Has control make a change.
    ///
    /// # Errors
    /// What control refuses.
    pub async fn ask(&self, asked: Asked) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        let ended = || Refusal::new(RefusalKind::Failed, "the proxy is stopping");
        self.orders.send(Order::Change(Box::new(asked), answer)).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// Serves management as it is told, until nobody can tell it any more.
pub async fn serve(board: Arc<Board>, orders: UnboundedSender<Order>, mut openings: UnboundedReceiver<Opening>) {
    let mut serving: Option<Serving> = None;
    while let Some(opening) = openings.recv().await {
        match opening {
            Opening::Closed => serving = None,
            Opening::Same(entrance) => {
                if let Some(serving) = &serving {
                    serving.desk.entrance.store(Arc::new(entrance));
                }
            }
            Opening::At(entrance, listener) => match Serving::start(&board, &orders, entrance, listener) {
                Ok(started) => serving = Some(started),
                Err(error) => tracing::error!(%error, "management can't be served"),
            },
        }
    }
}

/// A port that is served until this is dropped; what is under way then may finish.
struct Serving {
    desk: Arc<Desk>,
    accepting: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Serving {
    fn start(
        board: &Arc<Board>,
        orders: &UnboundedSender<Order>,
        entrance: Entrance,
        listener: StdListener,
    ) -> io::Result<Serving> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let desk = Arc::new(Desk {
            board: board.clone(),
            entrance: ArcSwap::from_pointee(entrance),
            rates: Rates::default(),
            orders: orders.clone(),
        });
        let router = router(desk.clone());
        Ok(Serving { desk, accepting: tokio::spawn(accept(listener, router)) })
    }
}

fn router(desk: Arc<Desk>) -> Router {
    rest::routes(desk)
}

async fn accept(listener: TcpListener, router: Router) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_COUNT_MAX));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    converse(stream, peer, router).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "management: accepting pauses");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router) {
    let _ = stream.set_nodelay(true);
    let last = Arc::new(AtomicU64::new(NEVER_MS));
    let asked = last.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        asked.store(clock::now_ms(), Ordering::Relaxed);
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_COUNT_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A peer that breaks off is no news.
        _ = serving.as_mut() => return,
        () = idle(&last) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// No request so far.
const NEVER_MS: u64 = u64::MAX;

/// Returns when a connection has had no new request for too long. hyper's own time for a head begins with its first
/// byte, and only when these have told the version of HTTP: without this, who says nothing keeps a seat for ever.
async fn idle(last: &AtomicU64) {
    let mut patience = FIRST_TIMEOUT;
    while !patience.is_zero() {
        tokio::time::sleep(patience).await;
        let last_ms = last.load(Ordering::Relaxed);
        if last_ms == NEVER_MS {
            return;
        }
        let since = Duration::from_millis(clock::now_ms().saturating_sub(last_ms));
        patience = IDLE_TIMEOUT.saturating_sub(since);
    }
}
