//! The control thread: takes orders, keeps probes and resolvers running, publishes plans to the workers.
//!
//! Owns the registry and every task beside the data path. Never serves a request.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::access_log::Writer;
use super::board::{Board, ChangeRecord, Shown};
use super::certificates::Looking;
use super::change::{self, ChangeError};
use super::entrance::{self, Standing};
use super::machine::Tables;
use super::registry::{Identity, Registry};
use super::source::Source;
use super::verb::{self, Refusal, RefusalKind, Verb};
use super::watch::Watch;
use super::{probe, resolve};
use crate::clock;
use crate::config::document::Document;
use crate::config::load;
use crate::config::plan::{self, BackendAddr, HealthCheck, Listen, ListenAddr};
use crate::listen::SocketFile;
use crate::listen::given::Given;
use crate::shared::backend::{BackendState, Mark};
use crate::shared::command::{AccessSink, Command, Published};
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::tls::{Connector, Loaded};

/// Paths that the log of changes tells of one change at most.
const CHANGED_PATHS_COUNT_MAX: usize = 20;
/// Between two signs that control's thread goes on.
const PULSE: Duration = Duration::from_millis(500);

/// A change that somebody asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What.
    pub verb: Verb,
    /// Only if the configuration is still one of these, parted by commas (`If-Match`, RFC 9110, section 13.1.1).
    pub if_match: Option<String>,
    /// Whether the file is written as well, where management may.
    pub persist: bool,
    /// Who: the name of the token, `signal`, `watch`.
    pub who: String,
    /// From where; may be empty.
    pub from: String,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Names the configuration in use now.
    pub etag: String,
    /// Whether the file says so too.
    pub persisted: bool,
    /// Keys that keep their old values until a restart.
    pub restart_required: Vec<&'static str>,
    /// Paths of what changed.
    pub changed: Vec<String>,
    /// What else is wrong and held up nothing.
    pub warnings: Vec<String>,
}

impl Asked {
    /// Asked by the program itself or by whoever may send it signals.
    fn from_inside(verb: Verb, who: &str) -> Self {
        Asked { verb, if_match: None, persist: false, who: who.to_owned(), from: String::new() }
    }
}

/// An order to control.
#[derive(Debug)]
pub enum Order {
    /// Run by this configuration; the answer comes when every worker does.
    Run(Box<Document>, SyncSender<Result<Done, Refusal>>),
    /// Make a change; the answer comes when every worker runs by it.
    Change(Box<Asked>, oneshot::Sender<Result<Done, Refusal>>),
    /// Read the file again. It is told in the log.
    Reload,
    /// Files of certificates have changed: read them again. It is told in the log.
    Certificates,
    /// Open the access log again.
    ReopenLogs,
    /// Tell whoever asks that new requests are not welcome any more.
    Retire,
    /// Stop accepting and finish.
    Drain,
    /// End now.
    Stop,
    /// The patience with what runs at a backend is over; the number is that of its `Force`.
    Cut(u64),
}

/// A listener of all workers.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Names it to the workers.
    pub slot: u16,
    /// As the plan has it.
    pub asked: Listen,
    /// With its real port.
    pub actual: ListenAddr,
    /// Removed with the last holder, where it is a Unix socket.
    pub file: Option<Arc<SocketFile>>,
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
    /// What the descriptor tables allow.
    pub limits: Limits,
    /// What everybody may look at.
    pub board: Arc<Board>,
    /// Where is listened.
    pub listening: Vec<Listening>,
    /// The sockets that a service manager gave.
    pub given: Given,
    /// What was made of the files of TLS.
    pub tls: Arc<Loaded>,
    pub(super) looking: Option<Looking>,
    /// The day since 1970 on which certificates were last looked at for their end.
    pub(super) expiry_told: i64,
    /// To the server of management.
    pub entrances: UnboundedSender<entrance::Opening>,
    /// How management is served now.
    pub entrance: Option<Standing>,
    /// The configuration's file.
    pub source: Option<Source>,
    /// To itself, for what is due later; weak, so that it ends when nobody else can order.
    pub orders: WeakUnboundedSender<Order>,
    /// At most one for each backend: the last word of whoever took it out.
    forces: Vec<Force>,
    forced_so_far: u64,
    pub(super) access: Option<Writer>,
    pub(super) tasks: HashMap<Identity, Tasks>,
    /// Drawn at the start: with `version` it names a configuration.
    boot: u32,
    version: u64,
}

/// What still runs at a backend that was taken out is to be cut when the timer ends. Dropped, it is not.
#[derive(Debug)]
struct Force {
    backend: Arc<BackendState>,
    number: u64,
    timer: JoinHandle<()>,
}

impl Drop for Force {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// What a check goes by; another one is begun for another of either.
#[derive(Debug)]
struct Checked {
    check: HealthCheck,
    connector: Option<Arc<Connector>>,
}

impl Checked {
    fn is(&self, check: Option<&HealthCheck>, connector: Option<&Arc<Connector>>) -> bool {
        let same = match (&self.connector, connector) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        check == Some(&self.check) && same
    }
}

/// What runs for one backend.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    check: Option<(Checked, JoinHandle<()>)>,
    resolve: Option<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.check.iter().for_each(|(_, task)| task.abort());
        self.resolve.iter().for_each(JoinHandle::abort);
    }
}

/// What control begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The configuration.
    pub document: Arc<Document>,
    /// Its file, with its text.
    pub file: Option<(PathBuf, String)>,
    /// What the workers run by.
    pub published: Arc<Published>,
    /// Its states.
    pub registry: Registry,
    /// Where is listened.
    pub listening: Vec<Listening>,
    /// The sockets that a service manager gave.
    pub given: Given,
}

/// What the descriptor tables allow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections in all, whatever `max_conn` says.
    pub clients_of_tables: u64,
    /// Whether each worker has a table of its own.
    pub tables_are_private: bool,
}

impl Control {
    /// Control over `workers`. `channels`: to itself, and to the server of management.
    pub fn new(
        beginning: Beginning,
        limits: Limits,
        workers: Vec<UnboundedSender<Command>>,
        open: Arc<OpenCount>,
        stats: Vec<Arc<WorkerStats>>,
        (orders, entrances): (WeakUnboundedSender<Order>, UnboundedSender<entrance::Opening>),
    ) -> Self {
        let Beginning { document, file, published, registry, listening, given } = beginning;
        let source = file.map(|(path, text)| Source::new(path, text, document.clone()));
        let boot = fastrand::u32(..);
        let shown = Shown {
            document,
            published: published.clone(),
            etag: etag(boot, 0),
            restart_required: Vec::new(),
            file: source.as_ref().map(|source| source.path().to_owned()),
        };
        let tables = if limits.tables_are_private { Tables::PerWorker } else { Tables::Shared };
        let watch = Watch::new(published.clone(), stats.clone(), open.clone(), tables);
        let board = Arc::new(Board::new(shown, watch, stats, open.clone()));
        Control {
            registry,
            published,
            workers,
            open,
            limits,
            board,
            listening,
            given,
            tls: Arc::default(),
            looking: None,
            expiry_told: 0,
            entrances,
            entrance: None,
            source,
            orders,
            forces: Vec::new(),
            forced_so_far: 0,
            access: None,
            tasks: HashMap::new(),
            boot,
            version: 0,
        }
    }

    /// Runs until told to end or until nobody can tell it any more. The body of control's thread.
    pub fn run(
        mut self,
        runtime: &Runtime,
        tls: Loaded,
        mut orders: UnboundedReceiver<Order>,
        started: &SyncSender<Result<(), ChangeError>>,
    ) {
        runtime.block_on(async {
            let begun = self.begin(tls).await;
            let is_sound = begun.is_ok();
            let _ = started.send(begun);
            if is_sound {
                self.obey_until_stopped(&mut orders).await;
            }
            self.tell(&Command::Stop);
            self.workers.clear();
            self.tasks.clear();
        });
        if let Some(writer) = self.access.take() {
            writer.finish();
        }
    }

    /// What the first configuration needs of control.
    async fn begin(&mut self, tls: Loaded) -> Result<(), ChangeError> {
        let log = &self.published.plan.log;
        self.access = Writer::start(&log.access, &self.board.watch.log_lines_lost).map_err(ChangeError::AccessLog)?;
        let sink = self.access.as_ref().map(|w| AccessSink { format: log.access_format, writer: w.sender.clone() });
        self.tell(&Command::Access(sink));
        self.use_tls(tls);
        self.resolve_first().await;
        self.update_tasks();
        self.board.show_listening(self.listening.iter().map(|l| l.actual.clone()).collect());
        self.board.set_ready(true);
        Ok(())
    }

    async fn obey_until_stopped(&mut self, orders: &mut UnboundedReceiver<Order>) {
        // A task of its own: a change may take its time, a thread that stands still is another matter.
        tokio::spawn(beat(self.board.clone()));
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Stop) | None => return,
                    Some(order) => self.obey(order).await,
                },
                _ = clock.tick() => self.tick().await,
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Run(document, done) => {
                let asked = Asked::from_inside(Verb::Reload, "program");
                let result = self.take_over(*document, &asked, None).await;
                let _ = done.send(result);
            }
            // Who asked was told that it took too long, or has gone: nobody would know that it was done after all.
            Order::Change(_, done) if done.is_closed() => {}
            Order::Change(asked, done) => {
                let result = self.change(&asked).await;
                let _ = done.send(result);
            }
            Order::Reload => {
                self.board.begin_reload();
                self.reload("signal").await;
                self.board.end_reload();
            }
            Order::Certificates => self.certificates_have_changed().await,
            Order::ReopenLogs => self.access.iter().for_each(Writer::reopen),
            Order::Retire => self.board.set_ready(false),
            Order::Drain => {
                self.board.set_ready(false);
                self.tell(&Command::Drain);
            }
            Order::Cut(number) => {
                // One that was made void meanwhile may have been under way already.
                let due = self.forces.iter().position(|force| force.number == number);
                if due.is_some_and(|at| change::cut(&self.forces.swap_remove(at).backend)) {
                    self.tell(&Command::Cut);
                }
            }
            Order::Stop => {}
        }
    }

    async fn tick(&mut self) {
        self.tell_of_expiry();
        self.registry.retire(clock::now_ms());
        self.offer();
        if !(self.registry.leaving().is_empty() && self.board.leaving().is_empty()) {
            self.board.show_leaving(self.registry.leaving().to_vec());
        }
        // A worker that was too busy to see it gets another chance.
        let leaving = self.registry.leaving().iter().map(|l| &l.state);
        let mut known = self.published.upstreams.iter().flat_map(|u| &u.backends).chain(leaving);
        if known.any(|b| b.is(Mark::Cut) && b.in_flight() > 0) {
            self.tell(&Command::Cut);
        }
        if !self.published.plan.server.watch {
            return;
        }
        match self.source.as_mut().map(Source::has_changed) {
            Some(Ok(true)) => self.reload("watch").await,
            Some(Err(refusal)) => tracing::error!("not reloaded: {refusal}"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Reads the file again, for somebody who gets no answer.
    async fn reload(&mut self, who: &str) {
        let _ = self.change(&Asked::from_inside(Verb::Reload, who)).await;
    }

    /// Makes a change, and notes and logs it or its refusal.
    async fn change(&mut self, asked: &Asked) -> Result<Done, Refusal> {
        let result = self.try_change(asked).await;
        let file = self.source.as_ref().map(|s| s.path().display().to_string()).unwrap_or_default();
        let (who, from, what) = (&asked.who, &asked.from, asked.verb.to_string());
        match (&asked.verb, &result) {
            (Verb::Reload, Ok(done)) if done.restart_required.is_empty() => tracing::info!(who, from, file, "reloaded"),
            (Verb::Reload, Ok(done)) => {
                let restart_required = done.restart_required.join(", ");
                tracing::warn!(restart_required, who, from, file, "reloaded, but for keys that need a restart");
            }
            (Verb::Reload, Err(refusal)) => {
                refusal.faults.iter().for_each(|fault| tracing::error!("{fault}"));
                let error = if refusal.faults.is_empty() { refusal.error.as_str() } else { "" };
                let faults = refusal.faults.len();
                tracing::error!(faults, error, who, from, "not reloaded: the running configuration stays");
            }
            (_, Ok(done)) => {
                let changed = done.changed.join(", ");
                tracing::info!(who, from, what, changed, persisted = done.persisted, etag = done.etag, "changed");
            }
            (_, Err(refusal)) => tracing::warn!(who, from, what, error = refusal.summary(), "change refused"),
        }
        if matches!(asked.verb, Verb::Reload) && self.source.is_some() {
            self.board.show_trouble(result.as_ref().err().map(|refusal| refusal.error.clone()));
        }
        self.board.note(ChangeRecord {
            at: std::time::SystemTime::now(),
            who: asked.who.clone(),
            from: asked.from.clone(),
            what,
            paths: result.as_ref().map(|done| done.changed.clone()).unwrap_or_default(),
            refused: result.as_ref().err().map(|refusal| refusal.summary()),
        });
        result
    }

    async fn try_change(&mut self, asked: &Asked) -> Result<Done, Refusal> {
        let shown = self.board.shown();
        if asked.if_match.as_ref().is_some_and(|tags| tags.split(',').all(|tag| tag.trim() != shown.etag)) {
            let error = "If-Match: the configuration was changed since (read it again, and repeat the change)";
            return Err(Refusal::new(RefusalKind::Stale, error));
        }
        if asked.verb == Verb::Reload {
            let source = self.source.as_ref().ok_or_else(|| {
                Refusal::new(RefusalKind::Conflict, "the proxy was started without a configuration file")
            })?;
            let (text, document) = source.read()?;
            return self.take_over(document, asked, Some(text)).await;
        }
        if asked.verb == Verb::ReloadCertificates {
            return self.reload_certificates().await;
        }
        let wanted = verb::wanted(&asked.verb, shown.document.shown())?;
        let document = Document::from_value(&wanted, &shown.document, load::variable);
        let document = document.map_err(|faults| Refusal::faults(&faults))?;
        self.take_over(document, asked, None).await
    }

    /// Runs by `document`. `text` is that of the file, where it came from there.
    async fn take_over(&mut self, document: Document, asked: &Asked, text: Option<String>) -> Result<Done, Refusal> {
        let shown = self.board.shown();
        let is_from_inside = asked.verb == Verb::Reload;
        for notice in document.notices().iter().filter(|_| is_from_inside) {
            tracing::warn!("{notice}");
        }
        let changed = verb::changed_paths(&shown.document.revealed(), &document.revealed(), CHANGED_PATHS_COUNT_MAX);
        let (plan, kept) =
            change::keep_fixed(document.plan().clone(), &self.published.plan, self.limits.tables_are_private);
        if !is_from_inside {
            // What the file has brought and waits for the restart already is nobody's fault now.
            let waiting = shown.document.plan();
            let (_, moved) = change::keep_fixed(document.plan().clone(), waiting, self.limits.tables_are_private);
            let refused: Vec<&str> = kept.iter().copied().filter(|key| moved.contains(key)).collect();
            if !refused.is_empty() {
                let error = format!(
                    "{}: can't be changed without a restart (change the file, and restart)",
                    refused.join(", ")
                );
                return Err(Refusal::new(RefusalKind::Conflict, error));
            }
        }
        let prepared = self.prepare(plan, asked.verb == Verb::Reload).await.map_err(Refusal::from)?;
        let persisted = match self.persist(asked).await {
            Ok(persisted) => persisted,
            Err(refusal) => {
                self.give_up(prepared);
                return Err(refusal);
            }
        };
        let warnings = prepared.warnings();
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let before = self.backend_of(&asked.verb);
        self.commit(prepared).await;
        let document = Arc::new(document);
        if let (Some(source), Some(text)) = (&mut self.source, text) {
            source.is_now(text, document.clone());
        }
        self.version += u64::from(!shown.document.means_the_same(&document));
        self.show(document, kept.clone());
        // Back in service, a backend owes nothing to an earlier force.
        self.forces.retain(|force| change::is_out(&force.backend));
        self.force_later(&asked.verb, before);
        Ok(Done { etag: self.board.shown().etag.clone(), persisted, restart_required: kept, changed, warnings })
    }

    /// Writes the change to the file. Whether it did: somebody may want it unwritten, or there is no file.
    async fn persist(&mut self, asked: &Asked) -> Result<bool, Refusal> {
        let may = self.published.plan.management.as_ref().is_some_and(|management| management.persist);
        match &mut self.source {
            Some(source) if asked.persist && may && asked.verb != Verb::Reload => {
                source.write(&asked.verb).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn show(&mut self, document: Arc<Document>, restart_required: Vec<&'static str>) {
        let shown = Shown {
            document,
            published: self.published.clone(),
            etag: etag(self.boot, self.version),
            restart_required,
            file: self.source.as_ref().map(|source| source.path().to_owned()),
        };
        self.board.show(shown);
        self.board.show_leaving(self.registry.leaving().to_vec());
    }

    /// The state of the backend that is to be forced out, as long as it is known by name.
    fn backend_of(&self, verb: &Verb) -> Option<Arc<BackendState>> {
        let (Verb::RemoveBackend { backend, .. } | Verb::Disconnect { backend, .. }) = verb else { return None };
        let upstream = self.published.upstreams.iter().find(|u| u.conf.name == backend.upstream)?;
        let at = upstream.conf.backends.iter().position(|b| b.id == backend.id)?;
        upstream.backends.get(at).cloned()
    }

    /// Cuts what still runs there once its time is up. The last one who says so decides when.
    fn force_later(&mut self, verb: &Verb, backend: Option<Arc<BackendState>>) {
        let (Verb::RemoveBackend { force, .. } | Verb::Disconnect { force, .. }) = verb else { return };
        let (Some(patience), Some(backend)) = (*force, backend) else { return };
        self.forced_so_far += 1;
        let (orders, number) = (self.orders.clone(), self.forced_so_far);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(orders) = orders.upgrade() {
                let _ = orders.send(Order::Cut(number));
            }
        });
        self.forces.retain(|force| !Arc::ptr_eq(&force.backend, &backend));
        self.forces.push(Force { backend, number, timer });
    }

    /// New names have their addresses before the first request asks for them, if the resolver is quick. Those that are
    /// looked up again and again already hold up nothing: each change would wait for one that has no answer.
    pub(super) async fn resolve_first(&self) {
        let is_known = |upstream: &plan::Upstream, conf: &plan::Backend| {
            self.tasks.get(&Identity::new(&upstream.name, conf)).is_some_and(|tasks| tasks.resolve.is_some())
        };
        let look_ups = self.backends().filter_map(|(upstream, conf, state)| match &conf.addr {
            BackendAddr::Name(name, port) if state.addresses().is_empty() && !is_known(upstream, conf) => {
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
    pub(super) fn update_tasks(&mut self) {
        let mut old = std::mem::take(&mut self.tasks);
        let mut new = HashMap::new();
        for (upstream, conf, state) in self.backends() {
            let identity = Identity::new(&upstream.name, conf);
            let mut tasks = old.remove(&identity).unwrap_or_default();
            let connector = self.tls.connector(&upstream.name).filter(|_| conf.scheme.is_secure());
            let is_as_wanted = match &tasks.check {
                Some((checked, _)) => checked.is(conf.health_check.as_ref(), connector),
                None => conf.health_check.is_none(),
            };
            if !is_as_wanted {
                if let Some((_, task)) = tasks.check.take() {
                    task.abort();
                }
                // Not before its check has ended for good: it would be marked again, and nobody would ever lift it.
                if conf.health_check.is_none() {
                    state.set_mark(Mark::CheckDown, false, clock::now_ms());
                }
                tasks.check = conf.health_check.clone().map(|check| {
                    let of = (upstream.name.clone(), conf.clone(), connector.cloned());
                    let probing = probe::keep_probing(of, check.clone(), state.clone());
                    (Checked { check, connector: connector.cloned() }, tokio::spawn(probing))
                });
            }
            if tasks.resolve.is_none() && matches!(conf.addr, BackendAddr::Name(..)) {
                tasks.resolve = Some(tokio::spawn(resolve::keep_resolving(conf.addr.clone(), state.clone())));
            }
            new.insert(identity, tasks);
        }
        self.tasks = new;
    }

    pub(super) fn tell(&self, command: &Command) {
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

/// Shows for good that control's thread goes on.
async fn beat(board: Arc<Board>) {
    let mut clock = tokio::time::interval(PULSE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        board.beat();
    }
}

/// A strong entity tag (RFC 9110, section 8.8.3).
fn etag(boot: u32, version: u64) -> String {
    format!("\"{boot:08x}-{version}\"")
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn document(backend: &str) -> Document {
        let text = format!(
            "backends: {{a: [{{host: 127.0.0.1, port: 1, {backend}}}]}}\nrouting: {{r: {{upstream: a}}}}\n\
                     grpc: {{enabled: false}}\n"
        );
        Document::from_text(&text, "test.yaml", |_| None).unwrap()
    }

    /// Over no worker; `backend` is keys of the one there is.
    fn control(backend: &str) -> Control {
        let document = Arc::new(document(backend));
        let mut registry = Registry::new(1);
        let published = Arc::new(registry.apply(&Arc::new(document.plan().clone()), &Loaded::default(), 0));
        let beginning =
            Beginning { document, file: None, published, registry, listening: Vec::new(), given: Given::default() };
        let limits = Limits { clients_of_tables: 1, tables_are_private: false };
        let channels = (unbounded_channel().0.downgrade(), unbounded_channel().0);
        let open = Arc::new(OpenCount::new(1, 1));
        Control::new(beginning, limits, Vec::new(), open, Vec::new(), channels)
    }

    #[test]
    fn a_change_whose_asker_has_gone_is_not_made() {
        let runtime = runtime();
        runtime.block_on(async {
            let mut control = control("");
            let asked = || Box::new(Asked::from_inside(Verb::LogLevel("error".into()), "token"));
            let (late, gone) = oneshot::channel();
            drop(gone);
            control.obey(Order::Change(asked(), late)).await;
            assert_eq!(control.board.changes(), []);
            let (done, answer) = oneshot::channel();
            control.obey(Order::Change(asked(), done)).await;
            assert!(answer.await.is_ok_and(|result| result.is_ok()));
        });
    }

    #[test]
    fn a_check_that_is_gone_leaves_no_verdict_however_late_it_came() {
        let runtime = runtime();
        let _inside = runtime.enter();
        let mut control = control("health_check: {interval: 1h}");
        let backend = control.published.upstreams[0].backends[0].clone();
        control.update_tasks();
        control.published =
            Arc::new(control.registry.apply(&Arc::new(document("").plan().clone()), &Loaded::default(), 0));
        // What the last check said, which ended while names of the new plan were looked up.
        backend.set_mark(Mark::CheckDown, true, 1);
        control.update_tasks();
        assert!(!backend.is(Mark::CheckDown));
    }
}
