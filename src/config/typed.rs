//! The tree of a file with each value read as the table of keys says, and the defaults in the places of what is not
//! written or not right.
//!
//! Owns the walk over tree and table, `${NAME}` in values, and the faults of single values. Never looks at two values
//! together.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ipnet::IpNet;

use super::expand::expand;
use super::fault::{Faults, Position, Wrong, shown};
use super::json::is_credential;
use super::keys::{self, Default, Form, Key, Kind};
use super::plan::{AccessLog, CpuAffinity, HashOn, ListenAddr, Workers};
use super::suggest::{did_you_mean, nearest};
use super::tree::{Name, Node, NodeKind, push_name};
use super::values::{self, BackendHost};
use crate::limits;

/// A value of the type that its key has.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Not written, and there is no default; or written and wrong; or an empty text where that means "none".
    Absent,
    Bool(bool),
    Duration(Duration),
    Size(u64),
    Integer(i64),
    Choice(&'static str),
    Text(String),
    File(PathBuf),
    Ip(IpAddr),
    Net(IpNet),
    Listen(ListenAddr),
    Host(BackendHost),
    HashOn(HashOn),
    Access(AccessLog),
    Statuses((u16, u16)),
    Workers(Workers),
    Affinity(CpuAffinity),
    List(Vec<Entry>),
    Section(Section),
    /// In the order of the file.
    Named(Vec<(Name, Entry)>),
}

/// A value with where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub at: Position,
    /// Whether the file has it, right or wrong.
    pub written: bool,
    /// Whether nothing is wrong with it or below it.
    pub sound: bool,
    pub value: Value,
}

/// A map of known keys, complete: what the file does not have is there by default.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    /// As shown in messages.
    pub path: String,
    pub at: Position,
    /// By the names of the table.
    entries: Vec<(&'static str, Entry)>,
}

impl Section {
    /// The entry of a key. The table and `check` agree on names, or a test fails.
    pub fn entry(&self, name: &str) -> &Entry {
        self.find(name).unwrap_or_else(|| panic!("the table of keys has no {name} in {}", self.path))
    }

    /// The path of a key below, as shown in messages.
    pub fn path_of(&self, name: &str) -> String {
        let mut path = self.path.clone();
        push_name(&mut path, name);
        path
    }

    /// The entry of a key that not every section has.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|(known, _)| *known == name).map(|(_, entry)| entry)
    }

    /// Gives a key without a value the one that follows from others; it stays unwritten.
    pub fn put_default(&mut self, name: &str, value: Value) {
        if let Some((_, entry)) = self.entries.iter_mut().find(|(known, _)| *known == name)
            && entry.value == Value::Absent
        {
            entry.value = value;
        }
    }

    pub fn named_mut(&mut self, name: &str) -> &mut Vec<(Name, Entry)> {
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Entry { value: Value::Named(named), .. })) => named,
            _ => panic!("the table of keys has no names in {name}"),
        }
    }

    /// All keys with their entries, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (*name, entry))
    }
}

/// One accessor a type: with a value that has to be there, and with one that may be absent.
macro_rules! accessors {
    ($($name:ident, $optional:ident: $variant:ident -> $type:ty;)*) => {
        #[allow(dead_code, reason = "not every type is needed in both forms")]
        impl Section {
            $(
                pub fn $name(&self, name: &str) -> &$type {
                    let value = self.$optional(name);
                    value.unwrap_or_else(|| panic!("the table of keys has no default for {name} in {}", self.path))
                }

                pub fn $optional(&self, name: &str) -> Option<&$type> {
                    match &self.entry(name).value {
                        Value::$variant(value) => Some(value),
                        Value::Absent => None,
                        other => panic!("{name} in {} is {other:?} by the table of keys", self.path),
                    }
                }
            )*
        }
    };
}

accessors! {
    boolean, boolean_if: Bool -> bool;
    duration, duration_if: Duration -> Duration;
    size, size_if: Size -> u64;
    integer, integer_if: Integer -> i64;
    choice, choice_if: Choice -> &'static str;
    text, text_if: Text -> String;
    file, file_if: File -> PathBuf;
    ip, ip_if: Ip -> IpAddr;
    host, host_if: Host -> BackendHost;
    hash_on, hash_on_if: HashOn -> HashOn;
    access, access_if: Access -> AccessLog;
    statuses, statuses_if: Statuses -> (u16, u16);
    workers, workers_if: Workers -> Workers;
    affinity, affinity_if: Affinity -> CpuAffinity;
    list, list_if: List -> Vec<Entry>;
    section, section_if: Section -> Section;
    named, named_if: Named -> Vec<(Name, Entry)>;
}

/// Reads a tree by the table.
pub(super) struct Reader<'a> {
    /// Gives the value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub faults: &'a mut Faults,
}

impl Reader<'_> {
    /// The whole file. Each name in `backends` has its section in `upstreams`, written or not.
    pub fn root(&mut self, node: &Node) -> Section {
        let mut root = self.section("", String::new(), node.at, Some(node));
        let said: HashSet<&str> = root.named("upstreams").iter().map(|(name, _)| name.text.as_str()).collect();
        let unsaid = root.named("backends").iter().filter(|(name, _)| !said.contains(name.text.as_str()));
        let unsaid: Vec<_> = unsaid.map(|(name, _)| (name.clone(), self.default_upstream(name))).collect();
        root.named_mut("upstreams").extend(unsaid);
        root
    }

    fn default_upstream(&mut self, name: &Name) -> Entry {
        let mut path = "upstreams".to_owned();
        push_name(&mut path, &name.text);
        let section = self.section("upstreams.NAME", path, name.at, None);
        Entry { at: name.at, written: false, sound: true, value: Value::Section(section) }
    }

    /// `pattern` is the path in the table, `path` the one to show.
    fn section(&mut self, pattern: &str, path: String, at: Position, node: Option<&Node>) -> Section {
        let written = match node.map(|node| &node.kind) {
            Some(NodeKind::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let known = keys::below(pattern);
        for (name, _) in written.iter().filter(|(name, _)| known.iter().all(|key| key.name() != name.text)) {
            self.unknown(known, &path, name);
        }
        let mut section = Section { path, at, entries: Vec::with_capacity(known.len()) };
        for key in known {
            let found = written.iter().find(|(name, _)| name.text == key.name()).map(|(_, node)| node);
            let path = section.path_of(key.name());
            let entry = match found {
                Some(node) => self.written(key, path, node),
                None => self.unwritten(key, path, at, node.is_some()),
            };
            section.entries.push((key.name(), entry));
        }
        section
    }

    fn unknown(&mut self, known: &[&Key], parent: &str, name: &Name) {
        let mut path = parent.to_owned();
        push_name(&mut path, &name.text);
        let names: Vec<&str> = known.iter().map(|key| key.name()).collect();
        let mut wrong = Wrong::new("unknown key");
        if let Some(near) = nearest(&name.text, names.iter().copied()) {
            wrong = wrong.cure(format!("did you mean {near}?"));
        } else {
            let elsewhere: Vec<&str> =
                keys::KEYS.iter().filter(|key| key.name() == name.text).map(|key| key.path).take(3).collect();
            wrong = if elsewhere.is_empty() {
                wrong.allowed(keys::one_of(&names)).cure("remove it")
            } else {
                wrong.cure(format!("there is {}", keys::one_of(&elsewhere)))
            };
        }
        self.faults.push(name.at, &path, wrong);
    }

    /// The entry of a key that the file does not have.
    fn unwritten(&mut self, key: &Key, path: String, at: Position, parent_written: bool) -> Entry {
        if key.default == Default::Required && parent_written {
            let wrong = Wrong::new("missing").allowed(key.kind.allowed()).cure(format!("add {}:", key.name()));
            self.faults.push(at, &path, wrong);
        }
        Entry { at, written: false, sound: true, value: self.default(key, path, at) }
    }

    fn default(&mut self, key: &Key, path: String, at: Position) -> Value {
        match (&key.kind, key.default) {
            (Kind::Section, _) => Value::Section(self.section(key.path, path, at, None)),
            (Kind::Named | Kind::NamedLists | Kind::Fields, _) => Value::Named(Vec::new()),
            (Kind::Sections | Kind::List(_), _) => Value::List(Vec::new()),
            (_, Default::Is(text)) => {
                let value = scalar_or_empty(key, text);
                value.unwrap_or_else(|wrong| panic!("the default of {}: {}", key.path, wrong.problem))
            }
            (_, Default::Unset(_) | Default::Required) => Value::Absent,
        }
    }

    fn written(&mut self, key: &Key, path: String, node: &Node) -> Entry {
        self.entry(node.at, |reader| {
            let value = reader.value(key, &path, node);
            value.unwrap_or_else(|| reader.default(key, path, node.at))
        })
    }

    /// What is written at `at`; sound when reading it notes no fault.
    fn entry(&mut self, at: Position, read: impl FnOnce(&mut Self) -> Value) -> Entry {
        let before = self.faults.len();
        let value = read(self);
        Entry { at, written: true, sound: self.faults.len() == before, value }
    }

    /// What is written, or `None` when it is wrong, which has been noted.
    fn value(&mut self, key: &Key, path: &str, node: &Node) -> Option<Value> {
        match (&key.kind, &node.kind) {
            (Kind::Section, NodeKind::Map(_)) | (Kind::OptionalSection, NodeKind::Map(_)) => {
                Some(Value::Section(self.section(key.path, path.to_owned(), node.at, Some(node))))
            }
            (Kind::OptionalSection, _) if node.is_null() => {
                let wrong = Wrong::new("has no value").allowed(key.kind.allowed());
                self.faults.push(node.at, path, wrong.cure("write {} for the defaults, or remove the line"));
                None
            }
            (Kind::Section, _) if node.is_null() => None,
            (Kind::Named | Kind::NamedLists | Kind::Sections | Kind::List(_) | Kind::Fields, _) if node.is_null() => {
                None
            }
            (Kind::Named, NodeKind::Map(entries)) => Some(self.named(key, path, entries)),
            (Kind::NamedLists, NodeKind::Map(entries)) => Some(self.named_lists(key, path, entries)),
            (Kind::Sections, NodeKind::List(items)) => Some(Value::List(self.sections(key.path, path, items))),
            (Kind::List(form), NodeKind::List(items)) => Some(Value::List(self.list(*form, path, items))),
            (Kind::Fields, NodeKind::Map(entries)) => Some(self.fields(path, entries)),
            (Kind::CpuAffinity, NodeKind::List(items)) => self.cpu_list(path, items, node.at),
            (kind, NodeKind::Scalar { .. }) if is_scalar(kind) => self.scalar(key, path, node),
            _ => {
                self.wrong_shape(key, path, node);
                None
            }
        }
    }

    fn wrong_shape(&mut self, key: &Key, path: &str, node: &Node) {
        let names: Vec<&str> = keys::below(key.path).iter().map(|key| key.name()).collect();
        let allowed = match names.len() {
            1..=LISTED_KEYS_COUNT_MAX => format!("a map of the keys {}", keys::one_of(&names)),
            _ => key.kind.allowed(),
        };
        let wrong = Wrong::new(format!("{} stands here", node.shape())).allowed(allowed);
        let wrong = match (&key.kind, &node.kind) {
            (Kind::List(_), NodeKind::Scalar { text, .. }) => wrong.cure(format!("write [{}]", shown(text))),
            _ => wrong,
        };
        self.faults.push(node.at, path, wrong);
    }

    fn scalar(&mut self, key: &Key, path: &str, node: &Node) -> Option<Value> {
        if node.is_null() {
            let default = match key.default {
                Default::Is(text) => format!("remove the line for the default, {}", shown(text)),
                Default::Unset(_) | Default::Required => String::new(),
            };
            self.faults.push(node.at, path, Wrong::new("has no value").allowed(key.kind.allowed()).cure(default));
            return None;
        }
        let placeholders = matches!(key.kind, Kind::Text(Form::Location));
        let text = self.expanded(path, node, placeholders)?;
        match scalar_or_empty(key, &text) {
            Ok(value) => Some(value),
            Err(mut wrong) => {
                if wrong.cure.is_empty() {
                    key.cure.clone_into(&mut wrong.cure);
                }
                self.faults.push(node.at, path, wrong);
                None
            }
        }
    }

    /// The text of a scalar with the environment put in.
    fn expanded(&mut self, path: &str, node: &Node, placeholders: bool) -> Option<String> {
        let NodeKind::Scalar { text, .. } = &node.kind else { return None };
        match expand(text, self.env, placeholders) {
            Ok(text) => Some(text),
            Err(wrong) => {
                self.faults.push(node.at, path, wrong);
                None
            }
        }
    }

    fn named(&mut self, key: &Key, path: &str, entries: &[(Name, Rc<Node>)]) -> Value {
        let pattern = format!("{}.NAME", key.path);
        let read = |reader: &mut Self, name: &Name, path: String, node: &Node| {
            if matches!(node.kind, NodeKind::Map(_)) || node.is_null() {
                return Value::Section(reader.section(&pattern, path, name.at, Some(node)));
            }
            reader.misshapen(&path, node, "a map of keys");
            Value::Absent
        };
        self.names(path, entries, read)
    }

    fn named_lists(&mut self, key: &Key, path: &str, entries: &[(Name, Rc<Node>)]) -> Value {
        let pattern = format!("{}.NAME", key.path);
        let read = |reader: &mut Self, _: &Name, path: String, node: &Node| match &node.kind {
            NodeKind::List(items) => Value::List(reader.sections(&pattern, &path, items)),
            _ if node.is_null() => Value::List(Vec::new()),
            _ => {
                reader.misshapen(&path, node, "a list of entries that begin with `-`");
                Value::Absent
            }
        };
        self.names(path, entries, read)
    }

    /// Every name with what it stands for; [`Value::Absent`] where that is wrong: the name is known all the same.
    fn names(
        &mut self,
        parent: &str,
        entries: &[(Name, Rc<Node>)],
        read: impl Fn(&mut Self, &Name, String, &Node) -> Value,
    ) -> Value {
        let mut named = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            let mut path = parent.to_owned();
            push_name(&mut path, &name.text);
            let entry = self.entry(name.at, |reader| {
                if let Err(wrong) = values::name(&name.text) {
                    reader.faults.push(name.at, &path, wrong);
                }
                read(reader, name, path, node)
            });
            named.push((name.clone(), entry));
        }
        Value::Named(named)
    }

    /// As many entries as items; [`Value::Absent`] for those that are wrong.
    fn sections(&mut self, pattern: &str, path: &str, items: &[Rc<Node>]) -> Vec<Entry> {
        let pattern = format!("{pattern}[]");
        let item = |(i, node): (usize, &Rc<Node>)| {
            let path = format!("{path}[{i}]");
            self.entry(node.at, |reader| {
                if let NodeKind::Map(_) = node.kind {
                    return Value::Section(reader.section(&pattern, path, node.at, Some(node)));
                }
                reader.misshapen(&path, node, "a map of keys");
                Value::Absent
            })
        };
        items.iter().enumerate().map(item).collect()
    }

    /// As many entries as items; [`Value::Absent`] for those that are wrong.
    fn list(&mut self, form: Form, path: &str, items: &[Rc<Node>]) -> Vec<Entry> {
        let mut seen = HashSet::new();
        let item = |(i, node): (usize, &Rc<Node>)| {
            let path = format!("{path}[{i}]");
            self.entry(node.at, |reader| reader.list_item(form, &path, node, &mut seen).unwrap_or(Value::Absent))
        };
        items.iter().enumerate().map(item).collect()
    }

    fn list_item(&mut self, form: Form, path: &str, node: &Node, seen: &mut HashSet<String>) -> Option<Value> {
        let text = self.item(path, node, form.describe())?;
        let result = text_value(form, &text).and_then(|value| match seen.insert(spelled(&value)) {
            true => Ok(value),
            false => Err(Wrong::new(format!("{} stands in the list twice", shown(&text))).cure("remove one")),
        });
        result.map_err(|wrong| self.faults.push(node.at, path, wrong)).ok()
    }

    fn fields(&mut self, parent: &str, entries: &[(Name, Rc<Node>)]) -> Value {
        let mut fields = Vec::with_capacity(entries.len());
        let mut seen = HashSet::new();
        for (name, node) in entries {
            let mut path = parent.to_owned();
            push_name(&mut path, &name.text);
            if let Some(value) = self.field(&path, name, node, &mut seen) {
                fields
                    .push((name.clone(), Entry { at: node.at, written: true, sound: true, value: Value::Text(value) }));
            }
        }
        Value::Named(fields)
    }

    fn field(&mut self, path: &str, name: &Name, node: &Node, seen: &mut HashSet<String>) -> Option<String> {
        if let Err(wrong) = values::field_name(&name.text) {
            self.faults.push(name.at, path, wrong);
            return None;
        }
        if !seen.insert(name.text.to_ascii_lowercase()) {
            let wrong = Wrong::new("given twice; field names are the same in upper and lower case");
            self.faults.push(name.at, path, wrong.cure("keep one of the two"));
            return None;
        }
        let text = self.item(path, node, "the value of the field; \"\" for an empty one")?;
        let value = values::field_value(&text).map_err(|wrong| match is_credential(&name.text) {
            true => Wrong::new("the secret has a control character, or a space at one of its ends").cure("remove it"),
            false => wrong,
        });
        value.map_err(|wrong| self.faults.push(node.at, path, wrong)).ok()
    }

    fn cpu_list(&mut self, path: &str, items: &[Rc<Node>], at: Position) -> Option<Value> {
        if items.is_empty() {
            self.faults.push(at, path, Wrong::new("the list has no CPU").cure("write off or auto, or name CPUs"));
            return None;
        }
        let mut cpus = Vec::with_capacity(items.len());
        for (i, node) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let Some(text) = self.item(&path, node, "the number of a CPU") else { continue };
            match values::integer(&text, 0, CPU_NUMBER_MAX) {
                Ok(cpu) => cpus.push(usize::try_from(cpu).unwrap_or_default()),
                Err(wrong) => self.faults.push(node.at, &path, wrong),
            }
        }
        Some(Value::Affinity(CpuAffinity::List(cpus)))
    }

    /// The text of a single value in a list or a map of fields.
    fn item(&mut self, path: &str, node: &Node, allowed: &str) -> Option<String> {
        if matches!(node.kind, NodeKind::Scalar { .. }) && !node.is_null() {
            return self.expanded(path, node, false);
        }
        self.misshapen(path, node, allowed);
        None
    }

    fn misshapen(&mut self, path: &str, node: &Node, allowed: &str) {
        self.faults.push(node.at, path, Wrong::new(format!("{} stands here", node.shape())).allowed(allowed));
    }
}

/// The one spelling of the value of a list, by which doubles are found.
fn spelled(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_ascii_lowercase(),
        Value::Ip(ip) => ip.to_string(),
        Value::Net(net) => net.to_string(),
        other => format!("{other:?}"),
    }
}

/// Known keys that a message about the shape of their section lists at most.
const LISTED_KEYS_COUNT_MAX: usize = 8;

/// The largest number of a CPU that the kernel's sets can name.
const CPU_NUMBER_MAX: i64 = 1023;

fn is_scalar(kind: &Kind) -> bool {
    use Kind::{Bool, Choice, CpuAffinity, Duration, Integer, Size, Text, Workers};
    matches!(kind, Bool | Duration(..) | Size(..) | Integer(..) | Choice(_) | Text(_) | Workers | CpuAffinity)
}

/// A single value of that kind.
fn scalar(kind: &Kind, text: &str) -> Result<Value, Wrong> {
    match kind {
        Kind::Bool => values::boolean(text).map(Value::Bool),
        Kind::Duration(min, max) => values::duration(text, *min, *max).map(Value::Duration),
        Kind::Size(min, max) => values::size(text, *min, *max).map(Value::Size),
        Kind::Integer(min, max) => values::integer(text, *min, *max).map(Value::Integer),
        Kind::Choice(words) => choice(words, text),
        Kind::Text(form) => text_value(*form, text),
        Kind::Workers if text == "auto" => Ok(Value::Workers(Workers::Auto)),
        Kind::Workers => {
            let count = values::integer(text, 1, limits::WORKERS_COUNT_MAX as i64)
                .map_err(|wrong| wrong.cure("or write auto"))?;
            Ok(Value::Workers(usize::try_from(count).map_or(Workers::Auto, Workers::Count)))
        }
        Kind::CpuAffinity => match choice(&["off", "auto"], text)? {
            Value::Choice("auto") => Ok(Value::Affinity(CpuAffinity::Auto)),
            _ => Ok(Value::Affinity(CpuAffinity::Off)),
        },
        other => Err(Wrong::new(format!("{} stands here", shown(text))).allowed(other.allowed())),
    }
}

/// A single value, where an empty text may mean "none": when the default is empty, and for the path of a check.
fn scalar_or_empty(key: &Key, text: &str) -> Result<Value, Wrong> {
    match key.kind {
        Kind::Text(Form::Block) if text.is_empty() => Ok(Value::Text(String::new())),
        Kind::Text(Form::RequestPath) if text.is_empty() => Ok(Value::Absent),
        Kind::Text(_) if text.is_empty() && key.default == Default::Is("") => Ok(Value::Absent),
        kind => scalar(&kind, text),
    }
}

fn choice(words: &'static [&'static str], text: &str) -> Result<Value, Wrong> {
    // Other programs write the word `off` as `false`, which it is in YAML 1.1.
    let text = if text == "false" && words.contains(&"off") { "off" } else { text };
    if let Some(word) = words.iter().find(|word| **word == text) {
        return Ok(Value::Choice(word));
    }
    let wrong = Wrong::new(format!("{} is not known here", shown(text))).allowed(keys::one_of(words));
    Err(wrong.cure(did_you_mean(text, words.iter().copied())))
}

fn text_value(form: Form, text: &str) -> Result<Value, Wrong> {
    match form {
        Form::Line | Form::Location if text.is_empty() => Err(Wrong::new("\"\" is empty").allowed(form.describe())),
        Form::Line | Form::Location => values::plain_text(text).map(Value::Text),
        Form::Block => Ok(Value::Text(text.to_owned())),
        Form::Secret(bytes_min) => secret(text, bytes_min),
        Form::Name => values::name(text).map(Value::Text),
        Form::Ip => values::ip(text).map(Value::Ip),
        Form::Net => values::net(text).map(Value::Net),
        Form::Listen => values::listen(text).map(Value::Listen),
        Form::BackendHost => values::backend_host(text).map(Value::Host),
        Form::HostPattern => values::host_pattern(text).map(Value::Text),
        Form::Authority => values::authority(text).map(Value::Text),
        Form::ServerName => values::server_name(text).map(Value::Text),
        Form::RoutePath => values::route_path(text).map(Value::Text),
        Form::RequestPath => values::request_path(text).map(Value::Text),
        Form::FieldName => values::field_name(text).map(Value::Text),
        Form::CookieName => values::cookie_name(text).map(Value::Text),
        Form::HashOn => values::hash_on(text).map(Value::HashOn),
        Form::AccessLog => values::access_log(text).map(Value::Access),
        Form::File => values::file_path(text).map(Value::File),
        Form::StatusRange => values::status_range(text).map(Value::Statuses),
        Form::CongestionControl => values::congestion_control(text).map(Value::Text),
    }
}

/// Messages about a secret never repeat it.
fn secret(text: &str, bytes_min: usize) -> Result<Value, Wrong> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::new("the secret has a line break or another control character").cure("write it on one line"));
    }
    if text.len() < bytes_min {
        let problem = format!("the secret has {} bytes, fewer than {bytes_min}", text.len());
        return Err(Wrong::new(problem).cure("openssl rand -hex 32 makes a good one"));
    }
    Ok(Value::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_of_the_table_is_a_value_of_its_type() {
        let mut faults = Faults::new("f");
        let mut reader = Reader { env: &|_| None, faults: &mut faults };
        for key in keys::KEYS {
            let value = reader.default(key, key.path.to_owned(), Position::FILE);
            assert_eq!(
                value == Value::Absent,
                !matches!(key.default, Default::Is(text) if !text.is_empty()) && key.kind != Kind::Text(Form::Block),
                "{}",
                key.path
            );
        }
        assert!(faults.is_empty());
    }
}
