//! Certificates while the proxy runs: their files looked at, what is in use replaced, and what people are told of it.
//!
//! Owns when files are read again. Never decides which certificate a client gets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::mpsc::{WeakUnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::board::{ChangeRecord, Shown};
use super::change::ChangeError;
use super::thread::{Control, Done, Order};
use super::verb::{Refusal, RefusalKind, Verb};
use crate::config::plan::{Plan, Upstream};
use crate::shared::command::{Command, Published};
use crate::stamp::Stamp;
use crate::tls::{Certificate, FileFault, Loaded, Reading, Standing};

/// From one look at the files to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From one attempt to read a file that could not be read for a passing reason to the next.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Files that the log, or the log of changes, tells of at once.
const TOLD_COUNT_MAX: usize = 20;
/// Files that one look is for. Of 10,000 certificates it costs a hundredth of a second; all would cost a tenth.
const LOOKED_COUNT_MAX: usize = 2000;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// One certificate in use, for `GET /api/v1/certificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFigures {
    /// Its file.
    pub cert_file: PathBuf,
    /// Its key's.
    pub key_file: PathBuf,
    /// `clients`, or the upstreams whose backends it is shown to as `upstreams.NAME`.
    pub used_for: Vec<String>,
    /// Whether clients get it whose name no certificate has.
    pub default: bool,
    /// What it is for.
    pub names: Vec<String>,
    /// Whether it is valid.
    pub state: Standing,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Whole days that are left; below zero when they are over.
    pub days_left: i64,
    /// Why its files, as they are now, are of no use; what they were is in use.
    pub trouble: Option<String>,
}

/// Every certificate in use, as of `now` in seconds since 1970.
pub fn figures(loaded: &Loaded, now: i64) -> Vec<CertificateFigures> {
    let for_clients = loaded.acceptor.as_ref().map_or(&[][..], |acceptor| acceptor.certificates());
    let mut uses: BTreeMap<*const Certificate, Vec<String>> = BTreeMap::new();
    for certificate in for_clients {
        uses.entry(Arc::as_ptr(certificate)).or_default().push("clients".to_owned());
    }
    for (name, connector) in &loaded.connectors {
        let own = connector.certificate().map(Arc::as_ptr);
        own.into_iter().for_each(|own| uses.entry(own).or_default().push(format!("upstreams.{name}")));
    }
    let troubles: BTreeMap<&Path, &FileFault> = loaded.troubles.iter().map(|fault| (&*fault.file, fault)).collect();
    let one = |certificate: &Arc<Certificate>| {
        let files = &certificate.files;
        let trouble = troubles.get(&*files.cert_file).or_else(|| troubles.get(&*files.key_file));
        let mut used_for = uses.get(&Arc::as_ptr(certificate)).cloned().unwrap_or_default();
        used_for.dedup();
        CertificateFigures {
            cert_file: files.cert_file.clone(),
            key_file: files.key_file.clone(),
            used_for,
            default: for_clients.first().is_some_and(|first| Arc::ptr_eq(first, certificate)),
            names: certificate.names.iter().map(ToString::to_string).collect(),
            state: certificate.validity.standing(now),
            not_before: certificate.validity.not_before,
            not_after: certificate.validity.not_after,
            days_left: certificate.validity.days_left(now),
            trouble: trouble.map(|fault| fault.to_string()),
        }
    };
    loaded.certificates().into_iter().map(one).collect()
}

/// What is valid as a configuration and yet probably not meant, in sentences.
pub fn notices(loaded: &Loaded, now: i64) -> Vec<String> {
    let of_validity = |certificate: &Certificate| {
        let days = certificate.validity.days_left(now);
        match certificate.validity.standing(now) {
            Standing::Valid => None,
            Standing::Expired => Some(format!("the certificate has expired {} days ago", -days)),
            Standing::ExpiresSoon => Some(format!("the certificate expires in {days} days")),
            Standing::NotYetValid => Some("the certificate is not valid yet".to_owned()),
        }
    };
    let of_names = |certificate: &Certificate| match certificate.is_old_style {
        true => Some("it has no subject alternative names, and clients of today believe no others".to_owned()),
        false => None,
    };
    let all = loaded.certificates().into_iter();
    let told = all.flat_map(|certificate| {
        let file = certificate.files.cert_file.display();
        let both = [of_validity(certificate), of_names(certificate)];
        both.into_iter().flatten().map(move |text| format!("{file}: {text}")).collect::<Vec<_>>()
    });
    told.collect()
}

/// Reads what `plan` names, where `before` is in use. Disks may take their time, so on a thread that may wait.
///
/// # Errors
/// Files that are of no use.
pub(super) async fn read(plan: Plan, before: Arc<Loaded>, reading: Reading) -> Result<Loaded, ChangeError> {
    let read = tokio::task::spawn_blocking(move || Loaded::load(&plan, &before, reading)).await;
    let unread = |error: tokio::task::JoinError| {
        let (key, file) = ("ssl".to_owned(), PathBuf::new());
        vec![FileFault { key, file, problem: error.to_string(), cure: String::new(), may_pass: true }]
    };
    read.map_err(unread).and_then(|loaded| loaded).map_err(ChangeError::Tls)
}

/// Looks at files for as long as it lives, and orders once one of them has changed and is left alone since.
#[derive(Debug)]
pub(super) struct Looking(JoinHandle<()>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Looking {
    /// From how they looked when they were read; after `retry`, where there is one, they are to be read in any case.
    pub fn at(
        files: BTreeMap<PathBuf, Option<Stamp>>,
        retry: Option<Duration>,
        orders: WeakUnboundedSender<Order>,
    ) -> Option<Looking> {
        (!files.is_empty()).then(|| Looking(tokio::spawn(look(files, retry, orders))))
    }
}

async fn look(files: BTreeMap<PathBuf, Option<Stamp>>, retry: Option<Duration>, orders: WeakUnboundedSender<Order>) {
    let mut files = Files::new(files);
    let began = Instant::now();
    let mut clock = tokio::time::interval(LOOK_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let looked = tokio::task::spawn_blocking(move || {
            let has_changed = files.have_changed();
            (files, has_changed)
        });
        let Ok((after, has_changed)) = looked.await else { return };
        files = after;
        if has_changed || retry.is_some_and(|retry| began.elapsed() >= retry) {
            // It begins anew with what is read then.
            orders.upgrade().map(|orders| orders.send(Order::Certificates));
            return;
        }
    }
}

/// Files in the order of their names.
struct Files {
    all: Vec<Looked>,
    /// Where the next look goes on.
    next: usize,
    /// Those that looked other than when they were read, at the last look.
    unsettled: Vec<usize>,
}

/// A file with how it looked when it was read, and at the last look.
struct Looked {
    file: PathBuf,
    read: Option<Stamp>,
    last: Option<Stamp>,
}

impl Files {
    fn new(files: BTreeMap<PathBuf, Option<Stamp>>) -> Files {
        let all = files.into_iter().map(|(file, stamp)| Looked { file, read: stamp, last: stamp }).collect();
        Files { all, next: 0, unsettled: Vec::new() }
    }

    /// Whether one looks other than when it was read, and as it did at the last look: whoever writes it has finished. Of
    /// very many files the next ones are looked at, and those again that looked different.
    fn have_changed(&mut self) -> bool {
        let looked = self.all.len().min(LOOKED_COUNT_MAX);
        let next = (0..looked).map(|at| (self.next + at) % self.all.len());
        let places: BTreeSet<usize> = self.unsettled.drain(..).chain(next).collect();
        self.next = (self.next + looked) % self.all.len().max(1);
        let mut changed = false;
        for place in places {
            let Some(Looked { file, read, last }) = self.all.get_mut(place) else { continue };
            let now = Stamp::of(file);
            changed |= now != *read && now == *last;
            if now != *read {
                self.unsettled.push(place);
            }
            *last = now;
        }
        changed
    }
}

/// Whether the configuration of TLS is the same in both.
pub(super) fn say_the_same(one: &Plan, other: &Plan) -> bool {
    let secure = |plan: &Plan| -> Vec<Arc<Upstream>> {
        plan.upstreams.iter().filter(|upstream| upstream.has_secure_backend()).cloned().collect()
    };
    let (ours, theirs) = (secure(one), secure(other));
    let same = |(one, other): (&Arc<Upstream>, &Arc<Upstream>)| one.name == other.name && one.tls == other.tls;
    one.tls == other.tls
        && one.server.http2 == other.server.http2
        && ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(same)
}

impl Control {
    /// Reads the files again for somebody who asks: all of them, and takes over all or nothing.
    pub(super) async fn reload_certificates(&mut self) -> Result<Done, Refusal> {
        if !self.tls.is_used() {
            let error = "ssl: TLS is spoken neither to clients nor to backends; there is nothing to reload";
            return Err(Refusal::new(RefusalKind::Conflict, error));
        }
        let read = read((*self.published.plan).clone(), self.tls.clone(), Reading::All).await;
        let loaded = read.map_err(Refusal::from)?;
        if !loaded.troubles.is_empty() {
            return Err(Refusal::from(ChangeError::Tls(loaded.troubles)));
        }
        let changed = replaced(&self.tls, &loaded);
        self.take_certificates(loaded).await;
        let etag = self.board.shown().etag.clone();
        Ok(Done { etag, persisted: false, restart_required: Vec::new(), changed, warnings: Vec::new() })
    }

    /// Reads the files that have changed; each that is of use is taken, the others stay as they were.
    pub(super) async fn certificates_have_changed(&mut self) {
        let read = read((*self.published.plan).clone(), self.tls.clone(), Reading::Changed).await;
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%error, "certificates are not reloaded: those in use stay");
                self.look_at_certificates();
                return;
            }
        };
        let paths = replaced(&self.tls, &loaded);
        let troubles = first_of(loaded.troubles.iter().map(ToString::to_string));
        if paths.is_empty() && loaded.troubles == self.tls.troubles {
            // Touched, or read already for another reason.
            self.use_tls(loaded);
            return;
        }
        self.take_certificates(loaded).await;
        self.board.note(ChangeRecord {
            at: SystemTime::now(),
            who: "watch".to_owned(),
            from: String::new(),
            what: Verb::ReloadCertificates.to_string(),
            paths,
            refused: Some(troubles.join("; ")).filter(|troubles| !troubles.is_empty()),
        });
    }

    /// New handshakes go by `loaded`, once every worker has it.
    async fn take_certificates(&mut self, loaded: Loaded) {
        let mut published = Published { tls: loaded.acceptor.clone(), ..(*self.published).clone() };
        for upstream in &mut published.upstreams {
            upstream.connector = loaded.connector(&upstream.conf.name).cloned();
        }
        self.published = Arc::new(published);
        self.use_tls(loaded);
        let (done, mut acks) = unbounded_channel();
        self.tell(&Command::Publish(self.published.clone(), done));
        self.update_tasks();
        self.board.watch.publish(self.published.clone());
        self.board.show(Shown { published: self.published.clone(), ..(*self.board.shown()).clone() });
        while acks.recv().await.is_some() {}
    }

    /// What is told and looked at from now on.
    pub(super) fn use_tls(&mut self, loaded: Loaded) {
        let now = unix_seconds();
        let told: HashSet<&FileFault> = self.tls.troubles.iter().collect();
        let troubles = loaded.troubles.iter().filter(|trouble| !told.contains(trouble)).map(ToString::to_string);
        for trouble in first_of(troubles) {
            tracing::error!("{trouble}: what was read of it before stays in use");
        }
        let new = replaced(&self.tls, &loaded);
        if !new.is_empty() {
            tracing::info!(files = new.join(", "), "in use for TLS");
        }
        let told: HashSet<String> = notices(&self.tls, now).into_iter().collect();
        for notice in first_of(notices(&loaded, now).into_iter().filter(|notice| !told.contains(notice))) {
            tracing::warn!("{notice}");
        }
        self.expiry_told = now.div_euclid(DAY_SECONDS);
        self.tls = Arc::new(loaded);
        self.board.show_tls(self.tls.clone());
        self.look_at_certificates();
    }

    fn look_at_certificates(&mut self) {
        let retry = self.tls.may_be_mended().then_some(RETRY_INTERVAL);
        self.looking = Looking::at(self.tls.stamps().clone(), retry, self.orders.clone());
    }

    /// Once a day: what runs for a year is not to end by surprise.
    pub(super) fn tell_of_expiry(&mut self) {
        let now = unix_seconds();
        let today = now.div_euclid(DAY_SECONDS);
        if std::mem::replace(&mut self.expiry_told, today) != today {
            first_of(notices(&self.tls, now).into_iter()).iter().for_each(|notice| tracing::warn!("{notice}"));
        }
    }
}

/// Files of which something else is in use than before; of many, the first.
fn replaced(before: &Loaded, after: &Loaded) -> Vec<String> {
    first_of(after.replaced(before).into_iter().map(|file| file.display().to_string()))
}

/// The first of many, and how many more there are.
fn first_of(mut all: impl Iterator<Item = String>) -> Vec<String> {
    let mut told: Vec<String> = all.by_ref().take(TOLD_COUNT_MAX).collect();
    match all.count() {
        0 => {}
        more => told.push(format!("… and {more} more")),
    }
    told
}

/// Seconds since 1970.
pub fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Refusal {
        match error {
            ChangeError::Tls(faults) => Refusal { kind: RefusalKind::Conflict, ..Refusal::faults(&faults) },
            error => Refusal::new(RefusalKind::Conflict, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_changed_once_it_is_left_alone_and_of_many_each_has_its_turn() {
        let dir = std::env::temp_dir().join(format!("speedmimi-look-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |at: usize| dir.join(format!("{at:05}"));
        let last = LOOKED_COUNT_MAX;
        std::fs::write(path(last), "1").unwrap();
        let mut files = Files::new((0..=last).map(|at| (path(at), Stamp::of(&path(at)))).collect());
        assert!(!files.have_changed() && !files.have_changed());
        std::fs::write(path(last), "12").unwrap();
        // The first round ends before it; after that it is looked at each time.
        let mut looks = 0;
        while files.unsettled.is_empty() {
            assert!(!files.have_changed());
            looks += 1;
        }
        assert!(looks <= 2);
        std::fs::write(path(last), "123").unwrap();
        assert!(!files.have_changed(), "it is still written");
        assert!(files.have_changed());
        std::fs::remove_file(path(last)).unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed(), "gone is a change too");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn what_could_not_be_read_for_now_is_read_again_and_what_is_bad_is_not() {
        let files = BTreeMap::from([(PathBuf::from("/proc/self/none"), None)]);
        let (orders, mut ordered) = unbounded_channel();
        let bad = Looking::at(files.clone(), None, orders.downgrade());
        tokio::task::yield_now().await;
        let passing = Looking::at(files, Some(Duration::ZERO), orders.downgrade());
        assert!(matches!(ordered.recv().await, Some(Order::Certificates)));
        assert!(passing.is_some() && ordered.try_recv().is_err());
        drop(bad);
    }

    #[test]
    fn of_many_the_first_are_told_and_how_many_more_there_are() {
        let of = |count: usize| first_of((0..count).map(|n| n.to_string()));
        assert_eq!(of(TOLD_COUNT_MAX).len(), TOLD_COUNT_MAX);
        let told = of(10_000);
        assert_eq!((told.len(), told.last().map(String::as_str)), (TOLD_COUNT_MAX + 1, Some("… and 9980 more")));
    }
}
