//! All of TLS of one configuration, as its files say.
//!
//! Owns what becomes of a file that is of no use: one that was in use stays so as it was last read; a new one is a fault.
//! Blocks while it reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::acceptor::{self, Acceptor, provider};
use super::certificate::Certificate;
use super::connector::{self, Connector};
use super::files::{FileFault, Named};
use super::resumption::Resumption;
use super::trust::Authorities;
use crate::config::plan::{ClientAuth, KeyPair, Plan, Tls, Upstream};
use crate::stamp::Stamp;

/// What files were read, and what was made of them.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// For clients; `None` when no listener is one of TLS.
    pub acceptor: Option<Arc<Acceptor>>,
    /// For the upstreams with backends over TLS, by name.
    pub connectors: BTreeMap<String, Arc<Connector>>,
    /// Files that are of no use as they are now; what they were is in use.
    pub troubles: Vec<FileFault>,
    certificates: HashMap<KeyPair, Arc<Certificate>>,
    authorities: HashMap<PathBuf, Arc<Authorities>>,
    system: Option<Arc<Authorities>>,
    /// How each file looked before it was read: what is changed meanwhile looks different later.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

/// Whether files are read that look as they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Only those that look different.
    Changed,
    /// All.
    All,
}

impl Loaded {
    /// What `plan` names, where `before` was in use. What did not change is the same one.
    ///
    /// # Errors
    /// Every file that is of no use and was not in use before.
    pub fn load(plan: &Plan, before: &Loaded, reading: Reading) -> Result<Loaded, Vec<FileFault>> {
        let useless = before.troubles.iter().map(|trouble| trouble.file.as_path()).collect();
        let mut loader = Loader { before, useless, reading, now: Loaded::default(), faults: Vec::new() };
        loader.now.acceptor = plan.tls.as_ref().and_then(|tls| loader.acceptor(tls, plan.server.http2));
        for upstream in plan.upstreams.iter().filter(|upstream| upstream.has_secure_backend()) {
            if let Some(connector) = loader.connector(upstream) {
                loader.now.connectors.insert(upstream.name.clone(), connector);
            }
        }
        if loader.faults.is_empty() { Ok(loader.now) } else { Err(loader.faults) }
    }

    /// For the backends of an upstream.
    pub fn connector(&self, upstream: &str) -> Option<&Arc<Connector>> {
        self.connectors.get(upstream)
    }

    /// Every certificate in use with a key of ours, for clients and for backends, sorted by file.
    pub fn certificates(&self) -> Vec<&Arc<Certificate>> {
        let mut all: Vec<_> = self.certificates.values().collect();
        all.sort_by(|one, other| one.files.cmp(&other.files));
        all
    }

    /// Every file with how it looked before it was read; `None`: there was none.
    pub fn stamps(&self) -> &BTreeMap<PathBuf, Option<Stamp>> {
        &self.stamps
    }

    /// Files of which something else is in use than `before`, sorted.
    pub fn replaced(&self, before: &Loaded) -> Vec<&Path> {
        let is_new = |files: &KeyPair, now: &Arc<Certificate>| {
            before.certificates.get(files).is_none_or(|before| !Arc::ptr_eq(before, now))
        };
        let is_other =
            |file: &Path, now: &Authorities| before.authorities.get(file).is_none_or(|before| **before != *now);
        let certificates = self.certificates.iter().filter(|(files, now)| is_new(files, now));
        let authorities = self.authorities.iter().filter(|(file, now)| is_other(file, now));
        let certificates = certificates.map(|(files, _)| files.cert_file.as_path());
        let mut all: Vec<&Path> = certificates.chain(authorities.map(|(file, _)| file.as_path())).collect();
        all.sort_unstable();
        all
    }

    /// Whether a file of no use may be of use again without looking different.
    pub fn may_be_mended(&self) -> bool {
        self.troubles.iter().any(|trouble| trouble.may_pass)
    }

    /// Whether TLS is spoken to anybody.
    pub fn is_used(&self) -> bool {
        self.acceptor.is_some() || !self.connectors.is_empty()
    }
}

struct Loader<'a> {
    before: &'a Loaded,
    /// Files that were of no use then.
    useless: HashSet<&'a Path>,
    reading: Reading,
    now: Loaded,
    faults: Vec<FileFault>,
}

impl Loader<'_> {
    fn acceptor(&mut self, tls: &Arc<Tls>, http2: bool) -> Option<Arc<Acceptor>> {
        let key_of = |at: usize| match at.checked_sub(1) {
            None => "ssl".to_owned(),
            Some(at) => format!("ssl.certificates[{at}]"),
        };
        let certificates = tls.certificates.iter().enumerate();
        let certificates: Vec<_> =
            certificates.filter_map(|(at, files)| self.certificate(files, &key_of(at))).collect();
        let authorities = match &tls.client_auth {
            ClientAuth::Off => None,
            ClientAuth::Request(file) | ClientAuth::Require(file) => {
                Some(self.client_authorities(Named { key: "ssl.client_ca_file", file })?)
            }
        };
        if certificates.len() < tls.certificates.len() {
            return None;
        }
        let before = self.before.acceptor.as_ref();
        let resumption = before.map_or_else(Resumption::new, |before| Ok(before.made_of().resumption.clone()));
        let first = Named { key: "ssl.cert_file", file: &tls.certificates.first()?.cert_file };
        let resumption = self.noted(resumption.map_err(|error| first.fault(error.to_string(), "")))?;
        let mut parts = acceptor::Parts { plan: tls.clone(), http2, certificates, authorities, resumption };
        match before {
            Some(before) if before.made_of().are_the_same(&parts) => return Some(before.clone()),
            // Whoever was let in under another policy starts anew.
            Some(before) if !before.made_of().asks_the_same(&parts) => {
                let fresh = Resumption::new().map_err(|error| first.fault(error.to_string(), ""));
                parts.resumption = self.noted(fresh)?;
            }
            _ => {}
        }
        let acceptor = Acceptor::new(parts).map_err(|problem| first.fault(problem, ""));
        self.noted(acceptor).map(Arc::new)
    }

    fn connector(&mut self, upstream: &Upstream) -> Option<Arc<Connector>> {
        let (plan, key) = (&upstream.tls, format!("upstreams.{}.tls", upstream.name));
        let ca_key = format!("{key}.ca_file");
        let authorities = match &plan.ca_file {
            _ if !plan.verify => None,
            Some(file) => Some(self.authorities(Named { key: &ca_key, file })?),
            None => Some(self.system(&ca_key)?),
        };
        let certificate = match &plan.key_pair {
            None => None,
            Some(files) => Some(self.certificate(files, &key)?),
        };
        let parts = connector::Parts { plan: plan.clone(), authorities, certificate };
        match self.before.connectors.get(&upstream.name) {
            Some(before) if before.made_of().are_the_same(&parts) => return Some(before.clone()),
            _ => {}
        }
        let file = plan.ca_file.clone().unwrap_or_default();
        let fault = |problem| FileFault { key, file, problem, cure: String::new(), may_pass: false };
        let connector = Connector::new(parts).map_err(fault);
        self.noted(connector).map(Arc::new)
    }

    fn certificate(&mut self, files: &KeyPair, key: &str) -> Option<Arc<Certificate>> {
        if let Some(read) = self.now.certificates.get(files) {
            return Some(read.clone());
        }
        let before = self.before.certificates.get(files);
        let is_as_read = self.is_as_read(&files.cert_file) & self.is_as_read(&files.key_file);
        let read = match before {
            Some(before) if is_as_read => Ok(before.clone()),
            _ => Certificate::read(files, key, &provider()).map(Arc::new),
        };
        let certificate = self.or_before(read, before)?;
        self.now.certificates.insert(files.clone(), certificate.clone());
        Some(certificate)
    }

    fn authorities(&mut self, file: Named<'_>) -> Option<Arc<Authorities>> {
        self.authorities_for(file, false)
    }

    /// At least one of which may issue certificates: clients are known by nothing else.
    fn client_authorities(&mut self, file: Named<'_>) -> Option<Arc<Authorities>> {
        let authorities = self.authorities_for(file, true)?;
        // The file may be one of backends, too, which was of use there.
        if authorities.roots.is_empty() { self.noted(Err(no_authority(file))) } else { Some(authorities) }
    }

    fn authorities_for(&mut self, file: Named<'_>, has_to_issue: bool) -> Option<Arc<Authorities>> {
        if let Some(read) = self.now.authorities.get(file.file) {
            return Some(read.clone());
        }
        let before = self.before.authorities.get(file.file);
        let is_as_read = self.is_as_read(file.file);
        let read = match before {
            Some(before) if is_as_read => Ok(before.clone()),
            _ => Authorities::read(file).and_then(|read| match read.roots.is_empty() && has_to_issue {
                true => Err(no_authority(file)),
                false => Ok(Arc::new(read)),
            }),
        };
        let authorities = self.or_before(read, before)?;
        self.now.authorities.insert(file.file.to_owned(), authorities.clone());
        Some(authorities)
    }

    /// Whether a file looks as it did when it was read last, and was of use then. How it looks now is noted.
    fn is_as_read(&mut self, file: &Path) -> bool {
        let now = *self.now.stamps.entry(file.to_owned()).or_insert_with(|| Stamp::of(file));
        self.reading == Reading::Changed && self.before.stamps.get(file) == Some(&now) && !self.useless.contains(file)
    }

    /// Those of the system, read once for all upstreams.
    fn system(&mut self, key: &str) -> Option<Arc<Authorities>> {
        if let Some(read) = &self.now.system {
            return Some(read.clone());
        }
        let before = self.before.system.as_ref();
        let read = match before {
            Some(before) if self.reading == Reading::Changed => Ok(before.clone()),
            _ => Authorities::of_system().map(Arc::new).map_err(|problem| FileFault {
                key: key.to_owned(),
                file: PathBuf::new(),
                problem,
                cure: "install ca-certificates, or name the backends' authority here".to_owned(),
                may_pass: false,
            }),
        };
        let system = self.or_before(read, before)?;
        self.now.system = Some(system.clone());
        Some(system)
    }

    /// What was read, else what was in use.
    fn or_before<T>(&mut self, read: Result<Arc<T>, FileFault>, before: Option<&Arc<T>>) -> Option<Arc<T>> {
        match (read, before) {
            (Ok(read), _) => Some(read),
            (Err(fault), Some(before)) => {
                self.now.troubles.push(fault);
                Some(before.clone())
            }
            (Err(fault), None) => self.noted(Err(fault)),
        }
    }

    fn noted<T>(&mut self, result: Result<T, FileFault>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }
}

fn no_authority(file: Named<'_>) -> FileFault {
    let cure = "name the certificate that issued those of the clients; a client's own one lets nobody in";
    file.fault("there is no authority in it", cure)
}
