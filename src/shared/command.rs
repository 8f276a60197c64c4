//! What control tells workers.
//!
//! Owns the messages. Never says how they are carried out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::mpsc::UnboundedSender;

use super::backend::BackendState;
use super::budget::SharedBudget;
use super::queue::UpstreamState;
use super::stats::BackendStats;
use crate::config::plan::{self, AccessFormat, Plan};
use crate::route::RouteTable;
use crate::tls::{Acceptor, Connector};

/// A plan with the live state of its upstreams, the same for every worker.
#[derive(Clone, Debug)]
pub struct Published {
    /// The plan itself.
    pub plan: Arc<Plan>,
    /// Its routes, ready to be searched.
    pub table: Arc<RouteTable>,
    /// By [`plan::UpstreamId`].
    pub upstreams: Vec<PublishedUpstream>,
    /// How TLS is spoken to clients; `None` when no listener is one of TLS.
    pub tls: Option<Arc<Acceptor>>,
}

/// One upstream of a [`Published`] plan.
#[derive(Clone, Debug)]
pub struct PublishedUpstream {
    /// Its part of the plan.
    pub conf: Arc<plan::Upstream>,
    /// How TLS is spoken to its backends; `None` when it is to none.
    pub connector: Option<Arc<Connector>>,
    /// Its queue; the same through reloads.
    pub state: Arc<UpstreamState>,
    /// Its retry budget; the same through reloads.
    pub budget: Arc<SharedBudget>,
    /// In the order of `conf.backends`; those of unchanged identity are the same through reloads.
    pub backends: Vec<Arc<BackendState>>,
    /// What each worker counts of each backend; in the order of `backends`, the same through reloads as they are.
    pub stats: Vec<WorkersStats>,
}

/// What the workers count of one backend, by index of the worker.
pub type WorkersStats = Arc<[Arc<BackendStats>]>;

/// Lines of the access log on their way to its writer.
#[derive(Debug)]
pub struct LogBatch {
    /// Whole lines.
    pub bytes: Vec<u8>,
    /// How many.
    pub lines: u64,
}

/// Where and how a worker logs its exchanges.
#[derive(Clone, Debug)]
pub struct AccessSink {
    /// Of a line.
    pub format: AccessFormat,
    /// Takes batches; a full one is not waited for.
    pub writer: SyncSender<LogBatch>,
}

/// How a worker comes by a listening socket while it runs.
#[derive(Clone, Debug)]
pub enum Opening {
    /// Each worker makes its own, in its own descriptor table; the address was tried by control before.
    Tcp(SocketAddr, Arc<plan::Server>),
    /// All workers share the queue of this one; only while they share a descriptor table.
    Shared(Arc<OwnedFd>),
    /// What each worker has of the sockets that a service manager gave for this address.
    Given(plan::ListenAddr),
}

/// One message to a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Route by this from now on, and let go of the sender once that is so.
    Publish(Arc<Published>, UnboundedSender<()>),
    /// Accept from one more listener, and say whether that works.
    Listen {
        /// Names it for its end.
        slot: u16,
        /// How to get the socket.
        opening: Opening,
        /// Told the outcome.
        done: UnboundedSender<io::Result<()>>,
    },
    /// Take in who waits at the listener of this slot, then end listening there.
    EndListening(u16),
    /// A backend was marked [`super::backend::Mark::Cut`]: end what runs with it.
    Cut,
    /// Log exchanges so from now on, or not at all.
    Access(Option<AccessSink>),
    /// Stop accepting, let what runs finish, close what is idle after half of `server.shutdown_timeout` and end after
    /// all of it.
    Drain,
    /// End now.
    Stop,
}
