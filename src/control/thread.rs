//! The control thread: takes orders, keeps probes and resolvers running, publishes plans to the workers.
//!
//! Owns the registry and every task beside the data path. Never serves a request.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::access_log::Writer;
use super::registry::{Identity, Registry};
use super::watch::Watch;
use super::{probe, resolve};
use crate::clock;
use crate::config::plan::{self, AccessLog, BackendAddr, HealthCheck, Plan};
use crate::shared::command::{AccessSink, Command, Published};
use crate::shared::open::OpenCount;

/// An order to control.
#[derive(Debug)]
pub enum Order {
    /// Run by this plan; the answer comes when every worker does.
    Reload(Box<Plan>, SyncSender<io::Result<()>>),
    /// Open the access log again.
    ReopenLogs,
    /// Stop accepting and finish.
    Drain,
    /// End now.
    Stop,
}

/// Everything control works with.
#[derive(Debug)]
pub struct Control {
    /// States by identity.
    pub registry: Registry,
    /// What was published last.
    pub published: Arc<Published>,
    /// One per worker.
    pub workers: Vec<UnboundedSender<Command>>,
    /// Client connections of the whole process.
    pub open: Arc<OpenCount>,
    /// What the descriptor tables allow, in client connections.
    pub clients_max: u64,
    /// Looks at everything once a second.
    pub watch: Arc<Watch>,
    access: Option<Writer>,
    tasks: HashMap<Identity, Tasks>,
}

/// What runs for one backend.
#[derive(Debug, Default)]
struct Tasks {
    check: Option<(HealthCheck, JoinHandle<()>)>,
    resolve: Option<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.check.iter().for_each(|(_, task)| task.abort());
        self.resolve.iter().for_each(JoinHandle::abort);
    }
}

impl Control {
    /// Control over workers that run by `published`.
    pub fn new(
        registry: Registry,
        published: Arc<Published>,
        workers: Vec<UnboundedSender<Command>>,
        open: Arc<OpenCount>,
        clients_max: u64,
        watch: Arc<Watch>,
    ) -> Self {
        Control { registry, published, workers, open, clients_max, watch, access: None, tasks: HashMap::new() }
    }

    /// Runs until told to end or until nobody can tell it any more. The body of control's thread.
    pub fn run(
        mut self,
        runtime: &Runtime,
        mut orders: UnboundedReceiver<Order>,
        started: &SyncSender<io::Result<()>>,
    ) {
        runtime.block_on(async {
            let access = self.apply_access(&self.published.plan.log.clone());
            self.resolve_first().await;
            self.update_tasks();
            let _ = started.send(access);
            let mut clock = tokio::time::interval(Duration::from_secs(1));
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(Order::Reload(plan, done)) => {
                            let result = self.reload(*plan).await;
                            let _ = done.send(result);
                        }
                        Some(Order::ReopenLogs) => self.access.iter().for_each(Writer::reopen),
                        Some(Order::Drain) => self.tell(&Command::Drain),
                        Some(Order::Stop) | None => break,
                    },
                    _ = clock.tick() => {
                        self.offer();
                        self.watch.look();
                    }
                }
            }
            self.tell(&Command::Stop);
            self.workers.clear();
            self.tasks.clear();
        });
        if let Some(writer) = self.access.take() {
            writer.finish();
        }
    }

    async fn reload(&mut self, plan: Plan) -> io::Result<()> {
        let log = plan.log.clone();
        self.apply_access(&log)?;
        self.open.set_max(plan.server.max_conn.min(self.clients_max));
        self.published = Arc::new(self.registry.apply(&Arc::new(plan), clock::now_ms()));
        self.resolve_first().await;
        self.registry.enlist(clock::now_ms());
        let (done, mut acks) = tokio::sync::mpsc::unbounded_channel();
        self.tell(&Command::Publish(self.published.clone(), done));
        self.update_tasks();
        self.watch.publish(self.published.clone());
        // Ends when every worker has answered or gone.
        while acks.recv().await.is_some() {}
        self.registry.retire(clock::now_ms());
        Ok(())
    }

    /// New names have their addresses before the first request asks for them, if the resolver is quick.
    async fn resolve_first(&self) {
        let look_ups = self.backends().filter_map(|(_, conf, state)| match &conf.addr {
            BackendAddr::Name(name, port) if state.addresses().is_empty() => {
                let (name, port, state) = (name.clone(), *port, state.clone());
                Some(tokio::spawn(async move {
                    if let Ok(addresses) = resolve::look_up(&name, port).await {
                        state.set_addresses(addresses);
                    }
                }))
            }
            _ => None,
        });
        let look_ups: Vec<_> = look_ups.collect();
        let all = async {
            for look_up in look_ups {
                let _ = look_up.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }

    fn backends(
        &self,
    ) -> impl Iterator<Item = (&Arc<plan::Upstream>, &Arc<plan::Backend>, &Arc<crate::shared::backend::BackendState>)>
    {
        self.published
            .upstreams
            .iter()
            .flat_map(|u| u.conf.backends.iter().zip(&u.backends).map(|(conf, state)| (&u.conf, conf, state)))
    }

    /// Starts, leaves and ends probes and resolvers as the published plan says.
    fn update_tasks(&mut self) {
        let mut old = std::mem::take(&mut self.tasks);
        let mut new = HashMap::new();
        for (upstream, conf, state) in self.backends() {
            let identity = Identity::new(&upstream.name, conf);
            let mut tasks = old.remove(&identity).unwrap_or_default();
            if tasks.check.as_ref().map(|(check, _)| check) != conf.health_check.as_ref() {
                if let Some((_, task)) = tasks.check.take() {
                    task.abort();
                }
                tasks.check = conf.health_check.clone().map(|check| {
                    let probing =
                        probe::keep_probing(upstream.name.clone(), conf.clone(), check.clone(), state.clone());
                    (check, tokio::spawn(probing))
                });
            }
            if tasks.resolve.is_none() && matches!(conf.addr, BackendAddr::Name(..)) {
                tasks.resolve = Some(tokio::spawn(resolve::keep_resolving(conf.addr.clone(), state.clone())));
            }
            new.insert(identity, tasks);
        }
        self.tasks = new;
    }

    /// Starts, leaves or ends the access log's writer.
    fn apply_access(&mut self, log: &plan::Log) -> io::Result<()> {
        let current = self.access.as_ref().map_or(&AccessLog::Off, |writer| &writer.target);
        let before = if *current == log.access {
            None
        } else {
            let writer = Writer::start(&log.access)?;
            std::mem::replace(&mut self.access, writer)
        };
        let sink = self.access.as_ref().map(|w| AccessSink { format: log.access_format, writer: w.sender.clone() });
        self.tell(&Command::Access(sink));
        // The old writer ends by itself once the workers have let go of it; nobody waits for it here.
        drop(before);
        Ok(())
    }

    fn tell(&self, command: &Command) {
        for worker in &self.workers {
            let _ = worker.send(command.clone());
        }
    }

    /// Time alone may free a slot: an ejection ends.
    fn offer(&self) {
        for upstream in &self.published.upstreams {
            if upstream.state.waiting() > 0 {
                upstream.state.offer(clock::now_ms());
            }
        }
    }
}
