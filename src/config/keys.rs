//! What there is to say of a configuration key: path, type, range, default and meaning. The reader, the
//! check and the manual go by it; the rows are in `table`.
//!
//! Owns what a single key is; rules between keys are for `check`. Never holds a value of a running proxy.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

pub use super::table::KEYS;
use super::values::{show_duration, show_sizes};
use crate::limits;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Known keys below; all have their defaults when it is absent.
    Section,
    /// Known keys below; does something only when it is written.
    OptionalSection,
    /// Names of the user's choice, each with known keys below.
    Named,
    /// Names of the user's choice, each with a list of entries.
    NamedLists,
    /// A list of entries with known keys.
    Sections,
    Bool,
    /// Both ends included.
    Duration(Duration, Duration),
    /// In bytes, both ends included.
    Size(u64, u64),
    /// Both ends included.
    Integer(i64, i64),
    /// One of these words.
    Choice(&'static [&'static str]),
    Text(Form),
    List(Form),
    /// Header fields: name to value.
    Fields,
    /// `auto` or a number of threads.
    Workers,
    /// `off`, `auto` or a list of CPUs.
    CpuAffinity,
}

/// The grammar of a text; see [`super::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line.
    Line,
    /// Any text.
    Block,
    /// One line that is never repeated in a message. At least this many bytes.
    Secret(usize),
    Name,
    Ip,
    Net,
    Listen,
    BackendHost,
    HostPattern,
    /// A host, maybe with a port.
    Authority,
    /// A host that a certificate is for: without a port.
    ServerName,
    RoutePath,
    RequestPath,
    FieldName,
    CookieName,
    HashOn,
    AccessLog,
    File,
    StatusRange,
    CongestionControl,
    /// One line in which `${host}`, `${path}` and `${query}` stand for the request's.
    Location,
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value, as it would be written.
    Is(&'static str),
    /// Something that is not a value; said in words.
    Unset(&'static str),
    /// It has to be written; why or when.
    Required,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `NAME` stands for a name of the user's choice, `[]` for an entry of a list.
    pub path: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// What to do about a wrong value; may be empty.
    pub cure: &'static str,
    /// One paragraph of Markdown.
    pub doc: &'static str,
}

impl Key {
    /// The last step of the path.
    pub fn name(&self) -> &'static str {
        split(self.path).1
    }

    /// The path without its last step; empty at the top.
    pub fn parent(&self) -> &'static str {
        split(self.path).0
    }
}

fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

impl Kind {
    /// What may be written, in words.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Section | Kind::OptionalSection => "a map of keys".to_owned(),
            Kind::Named => "a map of names".to_owned(),
            Kind::NamedLists => "a map of names, each with a list of entries that begin with `-`".to_owned(),
            Kind::Sections => "a list of entries, each a map of keys".to_owned(),
            Kind::Bool => "true or false (also on, off, yes, no)".to_owned(),
            Kind::Duration(min, max) => format!("a duration, {}..={}", show_duration(*min), show_duration(*max)),
            Kind::Size(min, max) => format!("a size, {}", show_sizes(*min, *max)),
            Kind::Integer(min, max) => format!("a whole number, {min}..={max}"),
            Kind::Choice(words) => one_of(words),
            Kind::Text(form) => form.describe().to_owned(),
            Kind::List(form) => format!("a list, each {}", form.describe()),
            Kind::Fields => "a map of field names to values".to_owned(),
            Kind::Workers => format!("auto or a whole number, 1..={}", limits::WORKERS_COUNT_MAX),
            Kind::CpuAffinity => "off, auto or a list of CPU numbers".to_owned(),
        }
    }
}

/// `a, b or c`.
pub fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [front @ .., last] => format!("{} or {last}", front.join(", ")),
    }
}

impl Form {
    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Form::Line => "a line of text",
            Form::Block => "a text",
            Form::Secret(_) => "a secret",
            Form::Name => "a name of 1 to 128 bytes without spaces",
            Form::Ip => "an IP address",
            Form::Net => "an address or a CIDR",
            Form::Listen => "ADDRESS:PORT or unix:/path",
            Form::BackendHost => "an address, a name, or unix:/path",
            Form::HostPattern => "a host name, a wildcard such as *.example.com, or an address",
            Form::Authority => "a host, maybe with a port",
            Form::ServerName => "a host without a port",
            Form::RoutePath => "a path that begins with /",
            Form::RequestPath => "a path that begins with /, maybe with a query",
            Form::FieldName => "a field name",
            Form::CookieName => "a cookie name",
            Form::HashOn => "client_ip, header:NAME, cookie:NAME or uri",
            Form::AccessLog => "off, stdout or a file",
            Form::File => "a file",
            Form::StatusRange => "a status or a range such as 200-399",
            Form::CongestionControl => "the name of an algorithm",
            Form::Location => "a URL or a path",
        }
    }
}

/// The row of a path as the table spells it.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The keys directly below a path, in the order of the table. `""` is the top.
pub fn below(path: &str) -> &'static [&'static Key] {
    static BY_PARENT: LazyLock<HashMap<&str, Vec<&Key>>> = LazyLock::new(|| {
        let mut by_parent: HashMap<&str, Vec<&Key>> = HashMap::new();
        for key in KEYS {
            by_parent.entry(key.parent()).or_default().push(key);
        }
        by_parent
    });
    BY_PARENT.get(path).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::balance::Algorithm;
    use crate::http::class::Protocol;

    #[test]
    fn paths_are_unique_and_hang_together() {
        let mut seen = HashSet::new();
        for key in KEYS {
            assert!(seen.insert(key.path), "{} twice", key.path);
            let parent = key.parent().trim_end_matches("[]").trim_end_matches(".NAME");
            assert!(parent.is_empty() || find(parent).is_some(), "{} has no parent", key.path);
        }
    }

    #[test]
    fn every_algorithm_and_protocol_has_its_word() {
        let kind = find("routing.NAME.load_balancer").map(|key| key.kind);
        let Some(Kind::Choice(words)) = kind else { panic!("{kind:?}") };
        assert_eq!(words, Algorithm::ALL.map(Algorithm::name));
        let protocols: HashSet<_> = below("routing.NAME.protocols").iter().map(|key| key.name()).collect();
        assert_eq!(protocols, Protocol::ALL.map(Protocol::name).into_iter().collect());
    }
}
