//! Management: REST, gRPC and the dashboard on one port, thin skins over the verbs of control.
//!
//! Owns the server of that port, its connections and their bounds, and the beat of the figures, on a thread of its own:
//! however large a page of figures is, no health check and no change waits for it. Never changes the proxy itself:
//! changes are orders to control.

pub mod answer;
pub mod auth;
pub mod dashboard;
pub mod description;
pub mod feed;
pub mod figures;
pub mod grpc;
pub mod rate;
pub mod rest;
pub mod seats;
mod sent;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tower::ServiceExt;

use crate::clock;
use crate::control::board::Board;
use crate::control::entrance::{Entrance, Opening};
use crate::control::thread::{Asked, Done, Order};
use crate::control::verb::{Refusal, RefusalKind};
use auth::Peer;
use feed::Feeds;
use rate::Rates;
use seats::{Seat, Seats, Watched};

/// Streams at once on an HTTP/2 connection.
const STREAMS_COUNT_MAX: u32 = 64;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head at most, and fields.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long what is under way may go on where its port or its token is no more.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at figures, and at a connection's deadlines.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
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
    /// Figures for who listens.
    pub feeds: Arc<Feeds>,
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
    let hall = Hall { board, orders, feeds: Arc::default() };
    let mut serving: Option<Serving> = None;
    let mut clock = tokio::time::interval(LOOK_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            opening = openings.recv() => match opening {
                Some(opening) => hall.open(opening, &mut serving),
                None => return,
            },
            _ = clock.tick() => {
                hall.board.watch.look();
                hall.feeds.tell(&hall.board);
            }
        }
    }
}

/// What every port of management has in common.
struct Hall {
    board: Arc<Board>,
    orders: UnboundedSender<Order>,
    feeds: Arc<Feeds>,
}

impl Hall {
    fn open(&self, opening: Opening, serving: &mut Option<Serving>) {
        match opening {
            Opening::Closed => *serving = None,
            Opening::Same(entrance) => {
                if let Some(serving) = serving {
                    serving.go_on(entrance);
                }
            }
            Opening::At(entrance, listener) => match Serving::start(self, entrance, listener) {
                Ok(started) => *serving = Some(started),
                Err(error) => tracing::error!(%error, "management can't be served"),
            },
        }
    }
}

/// A port that is served until this is dropped; what is under way then may finish, for [`GRACE`] at most.
struct Serving {
    desk: Arc<Desk>,
    accepting: JoinHandle<()>,
    /// Told when those who are connected have to come again.
    parting: watch::Sender<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Serving {
    fn start(hall: &Hall, entrance: Entrance, listener: StdListener) -> io::Result<Serving> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let desk = Arc::new(Desk {
            board: hall.board.clone(),
            entrance: ArcSwap::from_pointee(entrance),
            rates: Rates::default(),
            feeds: hall.feeds.clone(),
            orders: hall.orders.clone(),
        });
        let router = router(desk.clone());
        let (parting, parted) = watch::channel(());
        Ok(Serving { desk, accepting: tokio::spawn(accept(listener, router, parted)), parting })
    }

    /// By these tokens from now on. Who came in by another one leaves; what streams to them would never be asked again.
    fn go_on(&self, entrance: Entrance) {
        let before = self.desk.entrance.swap(Arc::new(entrance));
        if !before.has_tokens_of(&self.desk.entrance.load()) {
            self.parting.send_replace(());
        }
    }
}

fn router(desk: Arc<Desk>) -> Router {
    rest::routes(desk)
}

async fn accept(listener: TcpListener, router: Router, parted: watch::Receiver<()>) {
    let seats = Seats::default();
    loop {
        // Somebody has to be there before anybody else has to leave.
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(seat) = seats.take().await else { return };
                let mut parted = parted.clone();
                // What was said before it came is not meant for it.
                parted.mark_unchanged();
                tokio::spawn(converse(stream, peer, router.clone(), seat, parted));
            }
            Err(error) => {
                // Not listening is no error: another address of the port is about to take this one's place.
                if error.kind() != io::ErrorKind::InvalidInput {
                    tracing::warn!(%error, "management: accepting pauses");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, seat: Seat, mut parted: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
    let sitter = seat.sitter.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let sitter = sitter.clone();
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(peer));
        let (router, asking) = (router.clone(), sitter.asks());
        async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            drop(asking);
            Ok::<_, Infallible>(response.map(|body| sitter.is_given(body)))
        }
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
    let io = TokioIo::new(Watched::new(stream, seat.sitter.clone()));
    let mut serving = std::pin::pin!(server.serve_connection(io, service));
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut end = None;
    loop {
        tokio::select! {
            // A peer that breaks off is no news.
            _ = serving.as_mut() => return,
            // The port is no more, or the token.
            _ = parted.changed(), if end.is_none() => {
                serving.as_mut().graceful_shutdown();
                end = Some(Instant::now() + GRACE);
            }
            () = seat.sitter.is_asked_to_leave() => return,
            now = looks.tick() => {
                if end.is_some_and(|end| now >= end) || seat.sitter.is_overdue(clock::now_ms()) {
                    return;
                }
            }
        }
    }
}
