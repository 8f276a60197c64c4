//! Values of the configuration as JSON, the way management shows and takes them.
//!
//! Owns the one JSON spelling of each type of value and the mask in place of secrets. Never decides what is right: what
//! comes as JSON goes through the same table as a file.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Map, Value as Json};

use super::expand::escape;
use super::keys::{self, Default, Form, Key, Kind};
use super::plan::{AccessLog, CpuAffinity, HashOn, ListenAddr, Workers};
use super::typed::{Entry, Section, Value};
use super::values::{BackendHost, show_duration, show_size};

/// What stands in the place of a secret that is set. Sent back it means "unchanged".
pub const MASK: &str = "********";

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// All that is in use, with [`MASK`] for secrets.
    Masked,
    /// All that is in use.
    Whole,
    /// What is written, as a file would spell it.
    Written,
}

/// A section whose keys the table has below `pattern`.
pub(super) fn section(pattern: &str, section: &Section, view: View) -> Json {
    let mut map = Map::new();
    for key in keys::below(pattern) {
        if let Some(value) = entry(key, section.entry(key.name()), view) {
            map.insert(key.name().to_owned(), value);
        }
    }
    Json::Object(map)
}

/// The value of a key; `None` when there is nothing to tell.
pub(super) fn entry(key: &Key, entry: &Entry, view: View) -> Option<Json> {
    if view == View::Written && !entry.written {
        return None;
    }
    match (&key.kind, &entry.value) {
        (_, Value::Absent) => (entry.written || key.default == Default::Is("")).then(|| text("")),
        (_, Value::Section(below)) => Some(section(key.path, below, view)),
        (_, Value::Named(named)) => Some(names(key, named.iter().map(|(name, entry)| (&*name.text, entry)), view)),
        (Kind::Sections, Value::List(items)) => Some(sections(&format!("{}[]", key.path), items, view)),
        (_, Value::List(items)) => Some(items.iter().map(|item| leaf(key, &item.value, view)).collect()),
        (_, value) => Some(leaf(key, value, view)),
    }
}

/// The value that a name of the user's choice stands for.
pub(super) fn named(key: &Key, entry: &Entry, view: View) -> Json {
    match &entry.value {
        Value::Section(below) => section(&format!("{}.NAME", key.path), below, view),
        Value::List(items) => sections(&format!("{}.NAME[]", key.path), items, view),
        value => leaf(key, value, view),
    }
}

fn names<'e>(key: &Key, all: impl Iterator<Item = (&'e str, &'e Entry)>, view: View) -> Json {
    let told = all.filter(|(_, entry)| view != View::Written || entry.written);
    let value = |name: &str, entry| match view {
        View::Masked if key.is_secret_below(name) => text(MASK),
        _ => named(key, entry, view),
    };
    told.map(|(name, entry)| (name.to_owned(), value(name, entry))).collect()
}

fn sections(pattern: &str, items: &[Entry], view: View) -> Json {
    let below = |item: &Entry| match &item.value {
        Value::Section(below) => section(pattern, below, view),
        _ => Json::Null,
    };
    items.iter().map(below).collect()
}

/// A value without others below it, or an item of a list.
pub(super) fn leaf(key: &Key, value: &Value, view: View) -> Json {
    let value = plain_leaf(key, value, view);
    match value {
        Json::String(text) if view == View::Written && text.contains("${") => {
            Json::String(escape(&text, key.kind == Kind::Text(Form::Location)))
        }
        value => value,
    }
}

fn plain_leaf(key: &Key, value: &Value, view: View) -> Json {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::Integer(value) => (*value).into(),
        Value::Duration(value) => Json::String(show_duration(*value)),
        Value::Size(value) => size(*value, view),
        Value::Choice(word) => word.parse::<u16>().map_or_else(|_| text(word), Json::from),
        Value::Text(_) if key.is_secret() && view == View::Masked => text(MASK),
        Value::Text(value) => text(value),
        Value::File(value) => path(value),
        Value::Ip(value) => Json::String(value.to_string()),
        Value::Net(value) => Json::String(net(value)),
        Value::Listen(ListenAddr::Tcp(addr)) => Json::String(addr.to_string()),
        Value::Host(BackendHost::Ip(value)) => Json::String(value.to_string()),
        Value::Host(BackendHost::Name(value)) => text(value),
        Value::Listen(ListenAddr::Unix(path)) | Value::Host(BackendHost::Unix(path)) => {
            Json::String(format!("unix:{}", path.display()))
        }
        Value::HashOn(value) => Json::String(hash_on(value)),
        Value::Access(AccessLog::Off) | Value::Affinity(CpuAffinity::Off) => text("off"),
        Value::Access(AccessLog::Stdout) => text("stdout"),
        Value::Access(AccessLog::File(value)) => path(value),
        Value::Statuses((low, high)) if low == high => Json::String(low.to_string()),
        Value::Statuses((low, high)) => Json::String(format!("{low}-{high}")),
        Value::Workers(Workers::Count(count)) => (*count).into(),
        Value::Workers(Workers::Auto) | Value::Affinity(CpuAffinity::Auto) => text("auto"),
        Value::Affinity(CpuAffinity::List(cpus)) => cpus.iter().copied().collect(),
        Value::Absent => text(""),
        Value::List(_) | Value::Section(_) | Value::Named(_) => Json::Null,
    }
}

fn text(text: &str) -> Json {
    Json::String(text.to_owned())
}

fn path(path: &Path) -> Json {
    Json::String(path.display().to_string())
}

/// Text for programs, so that the type does not depend on the value; a person writes plain bytes as a number.
fn size(value: u64, view: View) -> Json {
    let shown = show_size(value);
    if view == View::Written && shown.parse::<u64>().is_ok() { value.into() } else { Json::String(shown) }
}

/// A network of one address is told as that address, the way most people write it.
fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn hash_on(value: &HashOn) -> String {
    match value {
        HashOn::ClientIp => "client_ip".to_owned(),
        HashOn::Header(name) => format!("header:{name}"),
        HashOn::Cookie(name) => format!("cookie:{name}"),
        HashOn::Uri => "uri".to_owned(),
    }
}

impl Key {
    /// Whether its value is never told.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Text(Form::Secret(_)))
    }

    /// Whether the value that it has under this name is never told.
    pub(super) fn is_secret_below(&self, name: &str) -> bool {
        self.kind == Kind::Fields && is_credential(name)
    }
}

/// Words in the names of header fields whose values let somebody in.
const CREDENTIALS: [&str; 18] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passwd",
    "password",
    "pat",
    "secret",
    "session",
    "signature",
    "token",
    "tokens",
    "xsrf",
];

/// Whether a header field of this name probably holds a secret: `Authorization`, `Set-Cookie`, `X-Api-Key` and the like.
/// One too many is masked rather than one too few.
pub(super) fn is_credential(field: &str) -> bool {
    let words = field.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().any(|word| CREDENTIALS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}
