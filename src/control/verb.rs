//! What management can be asked to change, as verbs on the configuration in use.
//!
//! Owns the step from a verb to the configuration that is wanted, and the words of a refusal. Pure: nothing here is
//! applied, written or checked against the table of keys; that follows in `change`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::config::document::merge_patch;
use crate::config::plan::BackendAddr;
use crate::config::values::{self, BackendHost};

/// A change that is asked for. Configurations are told as `GET /api/v1/config` shows them, masks included.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// This is the whole configuration from now on.
    Replace(Json),
    /// Merge this into it (RFC 7396).
    Patch(Json),
    /// Read the file again.
    Reload,
    /// Read the certificates again.
    ReloadCertificates,
    /// A further backend of an upstream.
    AddBackend {
        /// Name of the upstream.
        upstream: String,
        /// The backend as in the file.
        backend: Json,
    },
    /// Drain a backend and forget it.
    RemoveBackend {
        /// Which.
        backend: BackendName,
        /// End what still runs with it after so long.
        force: Option<Duration>,
    },
    /// Change given fields of a backend; null puts a field back to its default.
    UpdateBackend {
        /// Which.
        backend: BackendName,
        /// The fields.
        fields: Map<String, Json>,
    },
    /// No new requests for a backend; what runs ends by itself.
    Disconnect {
        /// Which.
        backend: BackendName,
        /// End what still runs with it after so long.
        force: Option<Duration>,
    },
    /// Take a backend back.
    Connect {
        /// Which.
        backend: BackendName,
    },
    /// How much the proxy tells about itself.
    LogLevel(String),
}

/// A backend as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendName {
    /// Name of its upstream.
    pub upstream: String,
    /// Its id there.
    pub id: String,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.upstream, self.id)
    }
}

impl fmt::Display for Verb {
    /// For the log of changes; never a value, as values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verb::Replace(_) => f.write_str("replace configuration"),
            Verb::Patch(_) => f.write_str("patch configuration"),
            Verb::Reload => f.write_str("reload from file"),
            Verb::ReloadCertificates => f.write_str("reload certificates"),
            Verb::AddBackend { upstream, .. } => write!(f, "add backend to {upstream}"),
            Verb::RemoveBackend { backend, .. } => write!(f, "remove backend {backend}"),
            Verb::UpdateBackend { backend, .. } => write!(f, "update backend {backend}"),
            Verb::Disconnect { backend, .. } => write!(f, "disconnect backend {backend}"),
            Verb::Connect { backend } => write!(f, "connect backend {backend}"),
            Verb::LogLevel(_) => f.write_str("set log level"),
        }
    }
}

/// Why something is not done; nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// What was sent makes no sense, or is outside its range.
    Invalid,
    /// It names nothing.
    Unknown,
    /// There is one of that name already.
    Exists,
    /// It does not fit what is there: a file changed by somebody else, a key that needs a restart.
    Conflict,
    /// The configuration is not the one that `If-Match` names.
    Stale,
    /// The system failed us.
    Failed,
}

/// A refusal with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What sort.
    pub kind: RefusalKind,
    /// What, where, what is allowed, what to do.
    pub error: String,
    /// Each fault of a configuration, where there are several.
    pub faults: Vec<String>,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, error: impl Into<String>) -> Self {
        Refusal { kind, error: error.into(), faults: Vec::new() }
    }

    /// Faults of a configuration.
    pub fn faults(faults: &[impl ToString]) -> Self {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let error = match faults.as_slice() {
            [one] => one.clone(),
            all => format!("{} faults: {}", all.len(), all.join("; ")),
        };
        Refusal { kind: RefusalKind::Invalid, error, faults }
    }

    /// Its beginning, for the logs: a thousand faults are told to whoever sent them, not to everybody who reads a log.
    pub fn summary(&self) -> String {
        let mut summary: String = self.error.chars().take(SUMMARY_CHARS_MAX).collect();
        if summary.len() < self.error.len() {
            summary.push('…');
        }
        summary
    }
}

/// Of a refusal in a log.
const SUMMARY_CHARS_MAX: usize = 2048;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Refusal {}

/// The configuration that `verb` wants, made of the one in use. [`Verb::Reload`] wants the file's, which is not known
/// here; [`Verb::ReloadCertificates`] wants no other.
///
/// # Errors
/// When the verb names nothing, or something that is there already.
pub fn wanted(verb: &Verb, mut shown: Json) -> Result<Json, Refusal> {
    match verb {
        Verb::Replace(whole) => return Ok(whole.clone()),
        Verb::Patch(patch) => merge_patch(&mut shown, patch),
        Verb::Reload | Verb::ReloadCertificates => {}
        Verb::AddBackend { upstream, backend } => add(&mut shown, upstream, backend)?,
        Verb::RemoveBackend { backend, .. } => {
            let (list, at) = find(&mut shown, backend)?;
            if list.len() == 1 {
                return Err(only(backend));
            }
            list.remove(at);
        }
        Verb::UpdateBackend { backend, fields } => update(&mut shown, backend, fields)?,
        Verb::Disconnect { backend, .. } => set(&mut shown, backend, "active", false.into())?,
        Verb::Connect { backend } => set(&mut shown, backend, "active", true.into())?,
        Verb::LogLevel(level) => merge_patch(&mut shown, &serde_json::json!({"log": {"level": level}})),
    }
    Ok(shown)
}

fn only(backend: &BackendName) -> Refusal {
    let error = format!(
        "backend_id: {:?} is the only backend of {}, and an upstream without backends can serve nothing (add another \
         one first, or disconnect this one)",
        backend.id, backend.upstream
    );
    Refusal::new(RefusalKind::Conflict, error)
}

fn add(shown: &mut Json, upstream: &str, backend: &Json) -> Result<(), Refusal> {
    let Json::Object(fields) = backend else {
        return Err(Refusal::new(RefusalKind::Invalid, "backend: allowed: an object of a backend's keys"));
    };
    let list = list(shown, upstream)?;
    let id = fields.get("id").and_then(Json::as_str).map(str::to_owned).or_else(|| id_of_address(upstream, fields));
    if let Some(id) = id
        && list.iter().any(|other| other.get("id").and_then(Json::as_str) == Some(&id))
    {
        let error = format!("backend.id: {upstream} has a backend {id:?} already (update it, or choose another id)");
        return Err(Refusal::new(RefusalKind::Exists, error));
    }
    list.push(backend.clone());
    Ok(())
}

/// The id that follows from host and port; `None` where they are none.
fn id_of_address(upstream: &str, fields: &Map<String, Json>) -> Option<String> {
    let port = || {
        let port = fields.get("port")?;
        let number = port.as_u64().or_else(|| port.as_str()?.parse().ok());
        number.and_then(|port| u16::try_from(port).ok())
    };
    let addr = match values::backend_host(fields.get("host")?.as_str()?).ok()? {
        BackendHost::Ip(ip) => BackendAddr::Ip(SocketAddr::new(ip, port()?)),
        BackendHost::Name(name) => BackendAddr::Name(name, port()?),
        BackendHost::Unix(path) => BackendAddr::Unix(path),
    };
    Some(addr.id(upstream))
}

fn update(shown: &mut Json, backend: &BackendName, fields: &Map<String, Json>) -> Result<(), Refusal> {
    if fields.get("id").is_some_and(|id| id.as_str() != Some(&backend.id)) {
        let error = "backend.id: can't be changed (add a backend with the new id and remove this one)";
        return Err(Refusal::new(RefusalKind::Invalid, error));
    }
    let (list, at) = find(shown, backend)?;
    merge_patch(&mut list[at], &Json::Object(fields.clone()));
    Ok(())
}

fn set(shown: &mut Json, backend: &BackendName, key: &str, value: Json) -> Result<(), Refusal> {
    let (list, at) = find(shown, backend)?;
    if let Some(fields) = list[at].as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
    Ok(())
}

fn list<'s>(shown: &'s mut Json, upstream: &str) -> Result<&'s mut Vec<Json>, Refusal> {
    let lists = shown.get_mut("backends").and_then(Json::as_object_mut);
    let known: Vec<String> = lists.as_ref().map(|lists| lists.keys().cloned().collect()).unwrap_or_default();
    lists.and_then(|lists| lists.get_mut(upstream)).and_then(Json::as_array_mut).ok_or_else(|| {
        let error = format!("upstream: there is no {upstream:?}; there are: {}", listed(&known));
        Refusal::new(RefusalKind::Unknown, error)
    })
}

fn find<'s>(shown: &'s mut Json, backend: &BackendName) -> Result<(&'s mut Vec<Json>, usize), Refusal> {
    let list = list(shown, &backend.upstream)?;
    let ids: Vec<String> = list.iter().filter_map(|b| b.get("id")?.as_str()).map(str::to_owned).collect();
    match list.iter().position(|b| b.get("id").and_then(Json::as_str) == Some(&backend.id)) {
        Some(at) => Ok((list, at)),
        None => {
            let error =
                format!("backend_id: {} has no backend {:?}; it has: {}", backend.upstream, backend.id, listed(&ids));
            Err(Refusal::new(RefusalKind::Unknown, error))
        }
    }
}

/// Names that a message lists at most.
const LISTED_COUNT_MAX: usize = 20;

fn listed(names: &[String]) -> String {
    let more = if names.len() > LISTED_COUNT_MAX { ", …" } else { "" };
    let names: Vec<&str> = names.iter().take(LISTED_COUNT_MAX).map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { format!("{}{more}", names.join(", ")) }
}

/// Paths of what differs, for the log of changes; never a value. At most `count_max`, then "…".
pub fn changed_paths(old: &Json, new: &Json, count_max: usize) -> Vec<String> {
    let mut paths = Vec::new();
    differ("", old, new, &mut paths);
    if paths.len() > count_max {
        paths.truncate(count_max);
        paths.push("…".to_owned());
    }
    paths
}

fn differ(path: &str, old: &Json, new: &Json, paths: &mut Vec<String>) {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            for (name, value) in old {
                match new.get(name) {
                    Some(other) => differ(&below(name), value, other, paths),
                    None => paths.push(below(name)),
                }
            }
            paths.extend(new.keys().filter(|name| !old.contains_key(*name)).map(|name| below(name)));
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() && old.iter().all(Json::is_object) => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                differ(&format!("{path}[{at}]"), old, new, paths);
            }
        }
        _ if old != new => paths.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown() -> Json {
        json!({
            "log": {"level": "info"},
            "backends": {"api": [{"id": "a", "port": 1, "weight": 100}, {"id": "b", "port": 2}], "web": []}
        })
    }

    fn named(upstream: &str, id: &str) -> BackendName {
        BackendName { upstream: upstream.into(), id: id.into() }
    }

    fn refused(verb: &Verb) -> (RefusalKind, String) {
        let refusal = wanted(verb, shown()).expect_err("a refusal");
        (refusal.kind, refusal.error)
    }

    #[test]
    fn a_verb_changes_what_it_names_and_nothing_else() {
        let backend = json!({"id": "c", "port": 3});
        let added = wanted(&Verb::AddBackend { upstream: "web".into(), backend }, shown()).unwrap();
        assert_eq!(changed_paths(&shown(), &added, 9), ["backends.web"]);
        let fields = json!({"weight": null, "max_conn": 7, "id": "a"});
        let update = Verb::UpdateBackend { backend: named("api", "a"), fields: fields.as_object().cloned().unwrap() };
        let updated = wanted(&update, shown()).unwrap();
        assert_eq!(updated["backends"]["api"][0], json!({"id": "a", "port": 1, "max_conn": 7}));
        assert_eq!(changed_paths(&shown(), &updated, 9), ["backends.api[0].weight", "backends.api[0].max_conn"]);
        let off = wanted(&Verb::Disconnect { backend: named("api", "b"), force: None }, shown()).unwrap();
        assert_eq!(off["backends"]["api"][1], json!({"id": "b", "port": 2, "active": false}));
        let gone = wanted(&Verb::RemoveBackend { backend: named("api", "a"), force: None }, shown()).unwrap();
        assert_eq!(gone["backends"]["api"], json!([{"id": "b", "port": 2}]));
        let level = wanted(&Verb::LogLevel("debug".into()), shown()).unwrap();
        assert_eq!(changed_paths(&shown(), &level, 9), ["log.level"]);
    }

    #[test]
    fn a_log_does_not_swell_with_a_refusal() {
        let long = Refusal::faults(&["é".repeat(1000), "ü".repeat(4000)]);
        assert!(long.summary().chars().count() == SUMMARY_CHARS_MAX + 1 && long.summary().ends_with('…'));
        assert_eq!(Refusal::faults(&["short"]).summary(), "short");
    }

    #[test]
    fn a_refusal_says_what_there_is() {
        let backend = json!({"id": "a"});
        let exists = refused(&Verb::AddBackend { upstream: "api".into(), backend });
        assert_eq!(exists.0, RefusalKind::Exists);
        let unnamed = json!({"backends": {"u": [{"id": "u-10.0.0.1-80"}, {"id": "u-a.test-81"}, {"id": "u-unix:/s"}]}});
        for (backend, is_there) in [
            (json!({"host": "10.0.0.1", "port": 80, "weight": 7}), true),
            (json!({"host": "A.test", "port": "81"}), true),
            (json!({"host": "unix:/s"}), true),
            (json!({"host": "10.0.0.1", "port": 81}), false),
            (json!({"host": "10.0.0.1", "port": 80, "id": "other"}), false),
            (json!({"host": "10.0.0.1"}), false),
            (json!({"port": 80}), false),
        ] {
            let verb = Verb::AddBackend { upstream: "u".into(), backend: backend.clone() };
            let kind = wanted(&verb, unnamed.clone()).map(|_| ()).map_err(|refusal| refusal.kind);
            assert_eq!(kind, if is_there { Err(RefusalKind::Exists) } else { Ok(()) }, "{backend}");
        }
        let nowhere = refused(&Verb::Connect { backend: named("pai", "a") });
        assert_eq!(nowhere, (RefusalKind::Unknown, "upstream: there is no \"pai\"; there are: api, web".to_owned()));
        let nobody = refused(&Verb::Connect { backend: named("api", "z") });
        assert_eq!(nobody, (RefusalKind::Unknown, "backend_id: api has no backend \"z\"; it has: a, b".to_owned()));
        let one = json!({"backends": {"api": [{"id": "a"}]}});
        let last = wanted(&Verb::RemoveBackend { backend: named("api", "a"), force: None }, one).unwrap_err();
        assert!(last.kind == RefusalKind::Conflict && last.error.contains("only backend of api"), "{last}");
        let fields = json!({"id": "z"}).as_object().cloned().unwrap();
        let renamed = refused(&Verb::UpdateBackend { backend: named("api", "a"), fields });
        assert_eq!(renamed.0, RefusalKind::Invalid);
        assert_eq!(refused(&Verb::AddBackend { upstream: "api".into(), backend: json!([]) }).0, RefusalKind::Invalid);
    }
}
