//! Two connections as one: bytes pass both ways untouched (after a 101).
//!
//! Owns both sockets, a slot at the backend, and the deadline of silence. Never looks at a byte.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::client::Client;
use super::exchange::Exchange;
use super::local::Local;
use super::log::Record;
use super::outflow::Outflow;
use crate::error::Reason;
use crate::limits::TUNNEL_HALF_CLOSED_SECONDS_MAX;
use crate::shared::backend::{Mark, Slot};
use crate::stream::Stream;
use crate::upstream::view::BackendView;
use crate::wheel::ticks;
use std::rc::Rc;
use std::time::Duration;

/// Reads of one direction in one go; then other tasks get their turn.
const READS_IN_A_GO_MAX: u32 = 16;

/// What becomes a tunnel beside the client's connection.
#[derive(Debug)]
pub struct Tunnel {
    backend: Stream,
    to_client: Outflow,
    slot: Slot<Rc<BackendView>>,
    record: Record,
    route: Option<Rc<crate::upstream::view::RouteView>>,
    protocol: Option<crate::http::class::Protocol>,
}

impl Tunnel {
    /// A tunnel to `backend`; `to_client` is what of the 101 and behind it was not taken yet.
    pub fn new((backend, to_client): (Stream, Outflow), slot: Slot<Rc<BackendView>>, exchange: &mut Exchange) -> Self {
        Tunnel {
            backend,
            to_client,
            slot,
            record: std::mem::take(&mut exchange.record),
            route: exchange.route.clone(),
            protocol: exchange.protocol,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    out: Outflow,
    has_ended: bool,
    is_shut: bool,
    moved: u64,
}

/// What the deadlines count from, in ticks.
#[derive(Debug)]
struct Clock {
    /// A byte was moved either way.
    last_moved: u32,
    /// The first of the two sides ended.
    half_closed: Option<u32>,
}

impl Clock {
    /// Silence ends a whole tunnel. Half of one has a fixed time, however much it moves.
    fn deadline(&self, local: &Local) -> u32 {
        let (from, patience) = match self.half_closed {
            Some(since) => (since, Duration::from_secs(TUNNEL_HALF_CLOSED_SECONDS_MAX)),
            None => (self.last_moved, local.view().server.tunnel_timeout),
        };
        from.saturating_add(ticks(patience)).saturating_add(1)
    }
}

/// Goes on as a task of its own, which is smaller than that of an exchange.
pub fn spawn(client: Client, tunnel: Tunnel) {
    client.local.stats.tunnels.inc();
    client.local.stats.tunnels_active.inc();
    let local = client.local.clone();
    let tunnelling = run(Box::new(client), tunnel);
    local.sizes.tunnel.set(size_of::<Client>() + size_of_val(&tunnelling));
    tokio::task::spawn_local(tunnelling);
}

async fn run(mut client: Box<Client>, tunnel: Tunnel) {
    let local = client.local.clone();
    let Tunnel { backend, to_client, slot, mut record, route, protocol } = tunnel;
    let mut up = Way::default();
    up.out.append_input(&local, &mut client.input);
    let mut down = Way { out: to_client, ..Way::default() };
    let mut clock = Clock { last_moved: local.wheel.now(), half_closed: None };
    let state = slot.state();
    let reason = poll_fn(|cx| {
        if local.is_cutting.get() && state.is(Mark::Cut) {
            return Poll::Ready(Some(Reason::BackendCut));
        }
        poll(cx, &client, &backend, &mut up, &mut down, &local, &mut clock)
    })
    .await;
    record.reason = reason;
    record.bytes_in += up.moved;
    record.bytes_out += down.moved;
    let stats = &slot.backend().stats;
    stats.bytes_out.add(up.moved);
    stats.bytes_in.add(down.moved);
    up.out.clear(&local);
    down.out.clear(&local);
    local.stats.tunnels_active.dec();
    record.finish(&client, route.as_deref(), protocol);
    drop(slot);
}

fn poll(
    cx: &mut Context<'_>,
    client: &Client,
    backend: &Stream,
    up: &mut Way,
    down: &mut Way,
    local: &Local,
    clock: &mut Clock,
) -> Poll<Option<Reason>> {
    if local.ending.get() {
        return Poll::Ready(Some(Reason::Shutdown));
    }
    if client.stream.poll_cut(cx).is_ready() {
        return Poll::Ready(Some(Reason::ClientClosed));
    }
    let mut moved = false;
    let up_broke = matches!(poll_way(cx, &client.stream, backend, up, local, &mut moved), Poll::Ready(Err(())));
    let down_broke = matches!(poll_way(cx, backend, &client.stream, down, local, &mut moved), Poll::Ready(Err(())));
    if up_broke || down_broke {
        return Poll::Ready(Some(if up_broke { Reason::ClientClosed } else { Reason::BackendClosed }));
    }
    if up.is_shut && down.is_shut {
        return Poll::Ready(None);
    }
    if moved {
        clock.last_moved = local.wheel.now();
    }
    if (up.has_ended || down.has_ended) && clock.half_closed.is_none() {
        clock.half_closed = Some(local.wheel.now());
    }
    client.deadline.set(clock.deadline(local));
    ready!(client.deadline.poll_expired(cx));
    Poll::Ready(clock.half_closed.is_none().then_some(Reason::TunnelIdle))
}

/// Moves what can be moved. Ready once the end was passed on, or with an error when a side broke.
fn poll_way(
    cx: &mut Context<'_>,
    from: &Stream,
    to: &Stream,
    way: &mut Way,
    local: &Local,
    moved: &mut bool,
) -> Poll<Result<(), ()>> {
    if way.is_shut {
        return Poll::Ready(Ok(()));
    }
    for _ in 0..READS_IN_A_GO_MAX {
        let mut sent = 0;
        let flushed = way.out.poll_flush(cx, to, local, &mut sent);
        *moved |= sent > 0;
        ready!(flushed).map_err(|_| ())?;
        if way.has_ended {
            to.shutdown_write();
            way.is_shut = true;
            return Poll::Ready(Ok(()));
        }
        let mut scratch = local.scratch.borrow_mut();
        let room = to.room().min(scratch.len());
        let n = ready!(from.poll_recv(cx, &mut scratch[..room])).map_err(|_| ())?;
        *moved = true;
        way.moved += n as u64;
        way.has_ended = n == 0;
        way.out.send(to, local, &[&scratch[..n]]).map_err(|_| ())?;
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
