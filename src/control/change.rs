//! Taking over another configuration: everything that can fail first, then the step that can't.
//!
//! Owns the order: prepared, (written to the file), committed; or given up, with nothing changed. Never decides who may
//! ask for it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::unbounded_channel;

use super::access_log::Writer;
use super::certificates;
use super::entrance::{self, EntranceError, Standing};
use super::thread::{Control, Listening};
use crate::config::plan::{AccessLog, Listen, ListenAddr, Plan, Server};
use crate::listen::{self, BindError};
use crate::logging;
use crate::shared::command::{AccessSink, Command, Opening};
use crate::tls::{FileFault, Loaded, Reading};
use crate::{clock, shared};

/// Why a sound configuration can't be taken over; nothing was changed.
#[derive(Debug)]
pub enum ChangeError {
    /// An address can't be listened on.
    Listen(BindError),
    /// The access log can't be opened.
    AccessLog(io::Error),
    /// Management can't be served so.
    Management(EntranceError),
    /// Files of TLS can't be used.
    Tls(Vec<FileFault>),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Listen(error) => error.fmt(f),
            ChangeError::AccessLog(error) => error.fmt(f),
            ChangeError::Management(error) => error.fmt(f),
            ChangeError::Tls(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&faults.join("; "))
            }
        }
    }
}

impl std::error::Error for ChangeError {}

/// A configuration that is ready to be taken over.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    /// The writer of the access log, where it becomes another one.
    access: Option<Option<Writer>>,
    /// Listeners that accept already.
    opened: Vec<Listening>,
    management: entrance::Prepared,
    /// Where something of it may be another.
    tls: Option<Loaded>,
}

impl Prepared {
    /// What is wrong and holds up nothing.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.management.warning.iter().cloned().collect()
    }
}

impl Control {
    /// Does all of a change that can fail; `files`: those of TLS may be others than they were. Follow it with
    /// [`Control::commit`] or [`Control::give_up`].
    ///
    /// # Errors
    /// [`ChangeError`]; everything is as it was.
    pub(super) async fn prepare(&mut self, plan: Plan, files: bool) -> Result<Prepared, ChangeError> {
        let current = self.access.as_ref().map_or(&AccessLog::Off, |writer| &writer.target);
        let access = match *current == plan.log.access {
            true => None,
            false => {
                let writer = Writer::start(&plan.log.access, &self.board.watch.log_lines_lost);
                Some(writer.map_err(ChangeError::AccessLog)?)
            }
        };
        let is_same = certificates::say_the_same(&plan, &self.published.plan);
        let tls = match !is_same || files && self.tls.is_used() {
            true => Some(certificates::read(plan.clone(), self.tls.clone(), Reading::Changed).await?),
            false => None,
        };
        let now = self.entrance.as_ref();
        let management = entrance::prepare(plan.management.as_ref(), now).map_err(ChangeError::Management)?;
        let mut prepared = Prepared { plan, access, opened: Vec::new(), management, tls };
        match self.open_listeners(&prepared.plan.server).await {
            Ok(opened) => prepared.opened = opened,
            Err(error) => {
                self.give_up(prepared);
                return Err(ChangeError::Listen(error));
            }
        }
        Ok(prepared)
    }

    /// Takes it over; returns once every worker has.
    pub(super) async fn commit(&mut self, prepared: Prepared) {
        let Prepared { plan, access, opened, management, tls } = prepared;
        let log = plan.log.clone();
        logging::set_level(log.level);
        let before = access.and_then(|writer| std::mem::replace(&mut self.access, writer));
        let sink = self.access.as_ref().map(|w| AccessSink { format: log.access_format, writer: w.sender.clone() });
        self.tell(&Command::Access(sink));
        // The old writer ends by itself once the workers have let go of it; nobody waits for it here.
        drop(before);
        self.open.set_max(plan.server.max_conn.min(self.limits.clients_of_tables));
        if let Some(tls) = tls {
            self.use_tls(tls);
        }
        self.published = Arc::new(self.registry.apply(&Arc::new(plan), &self.tls, clock::now_ms()));
        self.resolve_first().await;
        self.registry.enlist(clock::now_ms());
        let (done, mut acks) = unbounded_channel();
        self.tell(&Command::Publish(self.published.clone(), done));
        self.update_tasks();
        self.board.watch.publish(self.published.clone());
        // Ends when every worker has answered or gone.
        while acks.recv().await.is_some() {}
        self.registry.retire(clock::now_ms());
        self.end_listeners(opened);
        self.set_entrance(management.opening);
    }

    /// Closes again what was opened.
    pub(super) fn give_up(&mut self, prepared: Prepared) {
        for opened in prepared.opened {
            self.end_listener(&opened);
        }
        drop(prepared.management);
        if let Some(Err(error)) = self.entrance.as_ref().map(Standing::listen_again) {
            tracing::error!(%error, "management: nobody can come in any more; move it to another address");
        }
    }

    /// Serves management so; returns where.
    pub fn set_entrance(&mut self, opening: entrance::Opening) -> Option<SocketAddr> {
        let standing = self.entrance.take();
        self.entrance = match &opening {
            entrance::Opening::At(entrance, listener) => {
                Some(Standing { entrance: entrance.clone(), listener: listener.try_clone().ok() })
            }
            entrance::Opening::Same(entrance) => {
                let listener = standing.and_then(|standing| standing.listener);
                Some(Standing { entrance: entrance.clone(), listener })
            }
            entrance::Opening::Closed => None,
        };
        // Nobody serves it where a test has no use for it.
        let _ = self.entrances.send(opening);
        self.entrance.as_ref().map(|standing| standing.entrance.addr)
    }

    /// Listens on what `server` names and nobody listens on yet.
    async fn open_listeners(&mut self, server: &Arc<Server>) -> Result<Vec<Listening>, BindError> {
        let mut known: Vec<&Listen> = self.listening.iter().map(|l| &l.asked).collect();
        let mut wanted = Vec::new();
        for addr in &server.listen {
            match known.iter().position(|known| *known == addr) {
                Some(at) => drop(known.swap_remove(at)),
                None => wanted.push(addr.clone()),
            }
        }
        let mut opened: Vec<Listening> = Vec::new();
        for addr in wanted {
            match self.open_listener(&addr, server, &opened).await {
                Ok(listening) => opened.push(listening),
                Err(error) => {
                    opened.iter().for_each(|opened| self.end_listener(opened));
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    async fn open_listener(
        &self,
        asked: &Listen,
        server: &Arc<Server>,
        opened: &[Listening],
    ) -> Result<Listening, BindError> {
        let slot_at = |index| listen::slot(index, asked.secure);
        let taken = |slot: u16| self.listening.iter().chain(opened).any(|l| l.slot == slot);
        let full = || BindError::new(asked.addr.clone(), io::Error::other("too many listeners"));
        let slot = (0..listen::SECURE).map(slot_at).find(|slot| !taken(*slot)).ok_or_else(full)?;
        // Held until the workers listen: whether the address can be had is known before anybody tries.
        let mut reserved = None;
        let (actual, opening, file) = match &asked.addr {
            addr if self.given.has(addr) => (addr.clone(), Opening::Given(addr.clone()), None),
            ListenAddr::Tcp(addr) => {
                let addr = reserved.insert(listen::reserve(*addr)?).addr;
                (ListenAddr::Tcp(addr), Opening::Tcp(addr, server.clone()), None)
            }
            ListenAddr::Unix(path) => {
                let is_ours = self.listening.iter().any(|known| known.asked.addr == asked.addr);
                let open = if is_ours { listen::open_unix_beside } else { listen::open_unix };
                let (socket, file) = open(path, server)?;
                (asked.addr.clone(), Opening::Shared(Arc::new(socket)), file.map(Arc::new))
            }
        };
        let listening = Listening { slot, asked: asked.clone(), actual, file };
        let (done, mut outcomes) = unbounded_channel();
        self.tell(&Command::Listen { slot, opening, done });
        let mut failed = None;
        while let Some(outcome) = outcomes.recv().await {
            failed = failed.or(outcome.err());
        }
        match failed {
            None => Ok(listening),
            Some(error) => {
                self.end_listener(&listening);
                Err(BindError::new(asked.addr.clone(), error))
            }
        }
    }

    /// Ends listening where the plan doesn't any more; what was `opened` is listened on from now on.
    fn end_listeners(&mut self, opened: Vec<Listening>) {
        for (opened, file) in opened.iter().filter_map(|opened| Some((opened, opened.file.as_ref()?))) {
            if let Err(error) = file.take_place() {
                tracing::error!(listen = %opened.asked, %error, "nobody will find the socket");
            }
        }
        self.listening.extend(opened);
        let plan = self.published.plan.clone();
        let mut before = std::mem::take(&mut self.listening);
        for addr in &plan.server.listen {
            if let Some(at) = before.iter().position(|l| l.asked == *addr) {
                self.listening.push(before.remove(at));
            }
        }
        before.iter().for_each(|gone| self.end_listener(gone));
        for gone in before.iter().filter(|gone| self.given.has(&gone.asked.addr)) {
            if !self.listening.iter().any(|listening| listening.asked.addr == gone.asked.addr) {
                tracing::warn!(listen = %gone.asked, "no longer accepted from, and the service manager goes on listening: \
                     who connects waits for nobody; stop its socket unit");
            }
        }
        self.board.show_listening(self.listening.iter().map(|l| l.actual.clone()).collect());
    }

    fn end_listener(&self, listening: &Listening) {
        self.tell(&Command::EndListening(listening.slot));
    }
}

/// Keeps in `plan` what can't change while running, and names what was asked otherwise. With descriptor tables of their
/// own the workers can't be handed a socket, so Unix sockets stay as they are then.
pub(super) fn keep_fixed(mut plan: Plan, old: &Plan, tables_are_private: bool) -> (Plan, Vec<&'static str>) {
    let mut server = (*plan.server).clone();
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($field:ident = $key:literal),*) => {
            $(if server.$field != old.server.$field {
                server.$field = old.server.$field.clone();
                kept.push($key);
            })*
        };
    }
    keep!(workers = "server.workers", cpu_affinity = "server.cpu_affinity", fd_tables = "server.fd_tables");
    if tables_are_private {
        keep_unix(&mut server, &old.server, &mut kept);
    }
    if plan.log.format != old.log.format {
        plan.log.format = old.log.format;
        kept.push("log.format");
    }
    plan.server = Arc::new(server);
    (plan, kept)
}

/// Unix sockets as they are: none that is new, and none with TLS that had none.
fn keep_unix(server: &mut Server, old: &Server, kept: &mut Vec<&'static str>) {
    let is_unix = |listen: &Listen| matches!(listen.addr, ListenAddr::Unix(_));
    let before = |listen: &Listen| old.listen.iter().find(|old| old.addr == listen.addr);
    let wanted = server.listen.len();
    server.listen.retain(|listen| !is_unix(listen) || before(listen).is_some());
    if server.listen.len() < wanted {
        kept.push("server.listen");
    }
    let mut other = false;
    for listen in server.listen.iter_mut().filter(|listen| is_unix(listen)) {
        let secure = before(listen).is_some_and(|old| old.secure);
        other |= listen.secure != secure;
        listen.secure = secure;
    }
    if other {
        kept.push("ssl.enabled");
    }
}

/// What of a backend's force is left to do when its time has come.
pub(super) fn cut(backend: &shared::backend::BackendState) -> bool {
    if is_out(backend) && backend.in_flight() > 0 {
        backend.set_mark(shared::backend::Mark::Cut, true, clock::now_ms());
        return true;
    }
    false
}

/// Whether somebody took it out of use.
pub(super) fn is_out(backend: &shared::backend::BackendState) -> bool {
    use shared::backend::Mark;
    backend.is(Mark::Inactive) || backend.is(Mark::Draining)
}
