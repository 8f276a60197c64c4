//! What has to change in a file so that it means another configuration.
//!
//! Owns the comparison of two configurations by the table of keys. Never looks at text: where a change goes and whether
//! it can go there is for `edit`.

use std::collections::{HashMap, VecDeque};

use serde_json::Value as Json;

use super::document::Document;
use super::json::{self, View};
use super::keys::{self, Default, Form, Key, Kind};
use super::plan::CpuAffinity;
use super::tree::Name;
use super::typed::{Entry, Section, Value};

/// A change of one value.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// Another value, or one where none was written. `placeholders`: `${host}` and the like are no variables in it.
    Set { value: Json, placeholders: bool },
    /// It is not written any more; nothing to do where it never was.
    Remove,
    /// Changes of some keys of a map.
    Map(Vec<(String, Change)>),
    /// The list as it is to be, those that stay in the order they have.
    List(Vec<Item>),
}

/// An item of a list as it is to be.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// The item that stands at this index.
    Kept(usize, Option<Change>),
    New(Json),
}

/// What makes the file of `old` mean `new`; `None` when it does already.
pub(super) fn between(old: &Document, new: &Document) -> Option<Change> {
    section("", old.root(), new.root())
}

fn section(pattern: &str, old: &Section, new: &Section) -> Option<Change> {
    let changes: Vec<_> = keys::below(pattern)
        .iter()
        .filter_map(|key| {
            let change = entry(key, old.entry(key.name()), new.entry(key.name()))?;
            Some((key.name().to_owned(), change))
        })
        .collect();
    (!changes.is_empty()).then_some(Change::Map(changes))
}

fn entry(key: &Key, old: &Entry, new: &Entry) -> Option<Change> {
    // What follows from other values when it is not written has to be, where they may change.
    let fixed_now = matches!(key.default, Default::Unset(_)) && new.written && !old.written;
    if json::entry(key, old, View::Whole) == json::entry(key, new, View::Whole) && !fixed_now {
        return None;
    }
    match (old.written, new.written) {
        (false, false) => return None,
        (true, false) => return Some(Change::Remove),
        (false, true) => return set(key, new),
        (true, true) => {}
    }
    match (&old.value, &new.value) {
        (Value::Section(old), Value::Section(new)) => section(key.path, old, new),
        (Value::Named(old), Value::Named(new)) => names(key, old, new),
        (Value::List(old), Value::List(new)) => match key.kind {
            Kind::Sections => sections(&format!("{}[]", key.path), old, new),
            _ => values(key, old, new),
        },
        (Value::Affinity(CpuAffinity::List(old)), Value::Affinity(CpuAffinity::List(new))) => cpus(old, new),
        _ => set(key, new),
    }
}

fn set(key: &Key, new: &Entry) -> Option<Change> {
    let placeholders = key.kind == Kind::Text(Form::Location);
    json::entry(key, new, View::Written).map(|value| Change::Set { value, placeholders })
}

fn names(key: &Key, old: &[(Name, Entry)], new: &[(Name, Entry)]) -> Option<Change> {
    let before: HashMap<&str, &Entry> = old.iter().map(|(name, entry)| (name.text.as_str(), entry)).collect();
    let after: HashMap<&str, &Entry> = new.iter().map(|(name, entry)| (name.text.as_str(), entry)).collect();
    let gone = |(name, entry): &&(Name, Entry)| {
        entry.written && after.get(name.text.as_str()).is_none_or(|after| !after.written && differ(key, entry, after))
    };
    let mut changes: Vec<_> = old.iter().filter(gone).map(|(name, _)| (name.text.clone(), Change::Remove)).collect();
    for (name, entry) in new.iter().filter(|(_, entry)| entry.written) {
        let change = match before.get(name.text.as_str()) {
            Some(before) if before.written => named(key, before, entry),
            Some(before) if !differ(key, before, entry) => None,
            _ => Some(Change::Set { value: json::named(key, entry, View::Written), placeholders: false }),
        };
        changes.extend(change.map(|change| (name.text.clone(), change)));
    }
    (!changes.is_empty()).then_some(Change::Map(changes))
}

fn differ(key: &Key, old: &Entry, new: &Entry) -> bool {
    json::named(key, old, View::Whole) != json::named(key, new, View::Whole)
}

fn named(key: &Key, old: &Entry, new: &Entry) -> Option<Change> {
    if !differ(key, old, new) {
        return None;
    }
    let pattern = format!("{}.NAME", key.path);
    match (&old.value, &new.value) {
        (Value::Section(old), Value::Section(new)) => section(&pattern, old, new),
        (Value::List(old), Value::List(new)) => sections(&format!("{pattern}[]"), old, new),
        _ => Some(Change::Set { value: json::named(key, new, View::Written), placeholders: false }),
    }
}

/// Entries with an id are the same when they have the same; others when they are equal.
fn sections(pattern: &str, old: &[Entry], new: &[Entry]) -> Option<Change> {
    let whole = |entry: &Entry, view| match &entry.value {
        Value::Section(section) => json::section(pattern, section, view),
        _ => Json::Null,
    };
    let identity = |entry: &Entry| {
        let whole = whole(entry, View::Whole);
        whole.get("id").cloned().unwrap_or(whole).to_string()
    };
    let below = |old: &Entry, new: &Entry| match (&old.value, &new.value) {
        (Value::Section(old), Value::Section(new)) => section(pattern, old, new),
        _ => None,
    };
    let (before, after): (Vec<_>, Vec<_>) = (old.iter().map(identity).collect(), new.iter().map(identity).collect());
    let written = |entry: &Entry| whole(entry, View::Written);
    list(&before, &after, |from, to| below(&old[from], &new[to]), |to| written(&new[to]))
}

fn values(key: &Key, old: &[Entry], new: &[Entry]) -> Option<Change> {
    let spelled = |entries: &[Entry]| -> Vec<String> {
        entries.iter().map(|entry| json::leaf(key, &entry.value, View::Whole).to_string()).collect()
    };
    list(&spelled(old), &spelled(new), |_, _| None, |to| json::leaf(key, &new[to].value, View::Written))
}

fn cpus(old: &[usize], new: &[usize]) -> Option<Change> {
    let spelled = |cpus: &[usize]| -> Vec<String> { cpus.iter().map(ToString::to_string).collect() };
    list(&spelled(old), &spelled(new), |_, _| None, |to| new[to].into())
}

/// The change of a list whose items are told apart by texts. One that only puts items in another order writes all anew.
fn list(
    old: &[String],
    new: &[String],
    below: impl Fn(usize, usize) -> Option<Change>,
    written: impl Fn(usize) -> Json,
) -> Option<Change> {
    let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (at, text) in old.iter().enumerate() {
        places.entry(text).or_default().push_back(at);
    }
    let mut items = Vec::with_capacity(new.len());
    let (mut same, mut last) = (old.len() == new.len(), None);
    for (to, text) in new.iter().enumerate() {
        let Some(from) = places.get_mut(text.as_str()).and_then(VecDeque::pop_front) else {
            items.push(Item::New(written(to)));
            same = false;
            continue;
        };
        if last.is_some_and(|last| from < last) {
            let value = (0..new.len()).map(written).collect();
            return Some(Change::Set { value, placeholders: false });
        }
        last = Some(from);
        let change = below(from, to);
        same &= change.is_none();
        items.push(Item::Kept(from, change));
    }
    (!same).then_some(Change::List(items))
}
