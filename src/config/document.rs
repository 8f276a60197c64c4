//! A configuration that was read and found right, from a file or from what management sent, and the way back to JSON.
//!
//! Owns what a sent value means beside the one in use: masks stand for secrets, and what only repeats a default counts
//! as not written. Every value goes through the table and the check that files go through. Never touches files.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::check;
use super::fault::{ConfigFault, ConfigNotice, Faults, Position, Wrong};
use super::file::TOKEN_VARIABLE;
use super::json::{self, MASK, View};
use super::keys::{self, Key, Kind};
use super::plan::Plan;
use super::tree::{self, Name, Node, push_name};
use super::typed::{Entry, Reader, Section, Value};

/// A sound configuration: what is written, what it means, and the plan to run by.
#[derive(Clone)]
pub struct Document {
    root: Section,
    plan: Plan,
    notices: Vec<ConfigNotice>,
}

impl Document {
    /// Reads the text of a file. `file_name` is only for messages; `env` gives environment variables.
    ///
    /// # Errors
    /// Every fault in the file, in its order; never an empty list.
    pub fn from_text(
        text: &str,
        file_name: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Faults::new(file_name);
        let root = tree::parse(text, &mut faults);
        Self::read(root, &env, faults)
    }

    /// Reads a whole configuration as [`Document::shown`] tells it. Durations, sizes and the like may be spelled as in a
    /// file; `${` is no variable here but stands for itself, so that nobody reads the environment through management.
    ///
    /// `previous` is the one in use: [`MASK`] means its secret at that place (backends are found by id), and a key that
    /// it does not write and that is sent with the value in use stays unwritten.
    ///
    /// # Errors
    /// Every fault, named by the path of its key, without lines; never an empty list.
    pub fn from_value(
        sent: &Json,
        previous: &Document,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Faults::new("");
        let mut sent = sent.clone();
        if let Json::Object(map) = &mut sent {
            Settle { path: String::new(), faults: &mut faults }.section(map, "", Some(&previous.root));
        }
        let root = tree::from_value(&sent, &mut faults);
        Self::read(root, &env, faults)
    }

    fn read(
        node: Option<Rc<Node>>,
        env: &dyn Fn(&str) -> Option<String>,
        mut faults: Faults,
    ) -> Result<Self, Vec<ConfigFault>> {
        let read = node.map(|node| {
            let root = Reader { env, faults: &mut faults }.root(&node);
            let plan = check::plan(&root, env(TOKEN_VARIABLE), &mut faults);
            (root, plan)
        });
        let notices = faults.finish()?;
        let Some((mut root, plan)) = read else { unreachable!("what has no tree has a fault") };
        name_backends(&mut root, &plan);
        Ok(Document { root, plan, notices })
    }

    /// What to run by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is probably not meant so, in the order of the file.
    pub fn notices(&self) -> &[ConfigNotice] {
        &self.notices
    }

    /// The plan and the notices, without the rest.
    pub fn into_parts(self) -> (Plan, Vec<ConfigNotice>) {
        (self.plan, self.notices)
    }

    /// All that is in use, defaults and ids of backends too, with [`MASK`] in the place of secrets.
    pub fn shown(&self) -> Json {
        json::section("", &self.root, View::Masked)
    }

    /// As [`Document::shown`] with the secrets themselves: to be compared, and never told to anybody.
    pub(crate) fn revealed(&self) -> Json {
        json::section("", &self.root, View::Whole)
    }

    /// Whether both mean the same, whatever of it is written and how.
    pub fn means_the_same(&self, other: &Document) -> bool {
        self.plan == other.plan && self.revealed() == other.revealed()
    }

    pub(super) fn root(&self) -> &Section {
        &self.root
    }
}

impl fmt::Debug for Document {
    /// Without the values: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").finish_non_exhaustive()
    }
}

/// Puts the ids in that follow from host and port.
fn name_backends(root: &mut Section, plan: &Plan) {
    for (name, list) in root.named_mut("backends") {
        let found = plan.upstreams.binary_search_by(|upstream| upstream.name.as_str().cmp(&name.text));
        let (Ok(at), Value::List(items)) = (found, &mut list.value) else { continue };
        for (item, backend) in items.iter_mut().zip(&plan.upstreams[at].backends) {
            if let Value::Section(section) = &mut item.value {
                section.put_default("id", Value::Text(backend.id.clone()));
            }
        }
    }
}

/// Brings what was sent together with what is in use.
struct Settle<'f> {
    /// Key path of what is being looked at.
    path: String,
    faults: &'f mut Faults,
}

impl Settle<'_> {
    /// Keys of the table below `pattern`; `old` is the section in use, if there is one.
    fn section(&mut self, sent: &mut Map<String, Json>, pattern: &str, old: Option<&Section>) {
        let moved = pattern == BACKEND && old.is_some_and(|old| is_moved(sent, old));
        let mut repeated = HashSet::new();
        for key in keys::below(pattern) {
            let Some(value) = sent.get_mut(key.name()) else { continue };
            let entry = old.map(|old| old.entry(key.name()));
            self.below(key.name(), |settle| settle.value(key, value, entry));
            if entry.is_some_and(|entry| repeats(key, value, entry)) && !(moved && key.name() == "id") {
                repeated.insert(key.name());
            }
        }
        sent.retain(|name, _| !repeated.contains(name.as_str()));
    }

    fn value(&mut self, key: &Key, value: &mut Json, old: Option<&Entry>) {
        if key.is_secret() && *value == MASK {
            return self.unmask(value, old);
        }
        match (key.kind, value) {
            (Kind::Section | Kind::OptionalSection, Json::Object(sent)) => {
                self.section(sent, key.path, old.and_then(section_of));
            }
            (Kind::Named | Kind::NamedLists, Json::Object(sent)) => self.names(key, sent, old),
            (Kind::Fields, Json::Object(sent)) => self.fields(key, sent, old),
            (Kind::Sections, Json::Array(sent)) => self.list(sent, &format!("{}[]", key.path), old),
            _ => {}
        }
    }

    fn unmask(&mut self, value: &mut Json, old: Option<&Entry>) {
        if let Some(Entry { value: Value::Text(secret), .. }) = old {
            *value = Json::String(secret.clone());
            return;
        }
        let wrong = Wrong::new("there is no secret yet that the mask could stand for");
        self.faults.push(Position::FILE, &self.path, wrong.cure("send the secret itself, or leave the key out"));
        *value = Json::String(String::new());
    }

    fn names(&mut self, key: &Key, sent: &mut Map<String, Json>, old: Option<&Entry>) {
        let old: HashMap<&str, &Entry> = match old.map(|old| &old.value) {
            Some(Value::Named(named)) => named.iter().map(|(name, entry)| (&*name.text, entry)).collect(),
            _ => HashMap::new(),
        };
        let pattern = format!("{}.NAME", key.path);
        sent.retain(|name, value| {
            let entry = old.get(name.as_str()).copied();
            self.below(name, |settle| match &mut *value {
                Json::Object(sent) => settle.section(sent, &pattern, entry.and_then(section_of)),
                Json::Array(sent) => settle.list(sent, &format!("{pattern}[]"), entry),
                _ => {}
            });
            let unwritten = entry.filter(|entry| !entry.written);
            !unwritten.is_some_and(|entry| is_empty(value) || *value == json::named(key, entry, View::Whole))
        });
    }

    /// Names of header fields are the same in upper and lower case.
    fn fields(&mut self, key: &Key, sent: &mut Map<String, Json>, old: Option<&Entry>) {
        let old: &[(Name, Entry)] = match old.map(|old| &old.value) {
            Some(Value::Named(named)) => named,
            _ => &[],
        };
        for (name, value) in sent.iter_mut().filter(|(name, value)| key.is_secret_below(name) && **value == MASK) {
            let before = old.iter().find(|(known, _)| known.text.eq_ignore_ascii_case(name));
            self.below(name, |settle| settle.unmask(value, before.map(|(_, entry)| entry)));
        }
    }

    fn list(&mut self, sent: &mut [Json], pattern: &str, old: Option<&Entry>) {
        let old: HashMap<&str, &Section> = match old.map(|old| &old.value) {
            Some(Value::List(items)) => items.iter().filter_map(section_of).filter_map(with_id).collect(),
            _ => HashMap::new(),
        };
        for (i, item) in sent.iter_mut().enumerate() {
            let Json::Object(item) = item else { continue };
            let same = item.get("id").and_then(Json::as_str).and_then(|id| old.get(id)).copied();
            let parent = self.path.len();
            self.path.push_str(&format!("[{i}]"));
            self.section(item, pattern, same);
            self.path.truncate(parent);
        }
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let parent = self.path.len();
        push_name(&mut self.path, name);
        look(self);
        self.path.truncate(parent);
    }
}

/// The one kind of entry that has an id.
const BACKEND: &str = "backends.NAME[]";

/// Whether the id would become another one if it were left to follow from host and port.
fn is_moved(sent: &Map<String, Json>, old: &Section) -> bool {
    let same = |key: &&Key| sent.get(key.name()) == json::entry(key, old.entry(key.name()), View::Whole).as_ref();
    !keys::below(BACKEND).iter().filter(|key| ["host", "port"].contains(&key.name())).all(same)
}

/// Whether it says what holds already without being written.
fn repeats(key: &Key, value: &Json, entry: &Entry) -> bool {
    let emptied = key.kind != Kind::OptionalSection && is_empty(value);
    !entry.written && (emptied || json::entry(key, entry, View::Whole).as_ref() == Some(value))
}

/// A map from which everything that repeats has been taken out already.
fn is_empty(value: &Json) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn section_of(entry: &Entry) -> Option<&Section> {
    match &entry.value {
        Value::Section(section) => Some(section),
        _ => None,
    }
}

fn with_id(section: &Section) -> Option<(&str, &Section)> {
    section.find("id").and_then(|entry| match &entry.value {
        Value::Text(id) => Some((id.as_str(), section)),
        _ => None,
    })
}

/// Merges `patch` into `target` (JSON merge patch, RFC 7396): maps are merged, `null` removes, all else replaces.
pub fn merge_patch(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Json::Object(Map::new());
    }
    let Json::Object(target) = target else { return };
    for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        merge_patch(target.entry(name.as_str()).or_insert(Json::Null), value);
    }
    target.retain(|name, _| patch.get(name).is_none_or(|value| !value.is_null()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::keys::KEYS;
    use super::super::tests::FULL;
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8081".to_owned()),
            "TOKEN" => Some("0123456789abcdef".to_owned()),
            _ => None,
        }
    }

    fn written(text: &str) -> Document {
        Document::from_text(text, "f", env).unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    fn sent(value: &Json, previous: &Document) -> Document {
        Document::from_value(value, previous, env).unwrap_or_else(|faults| panic!("{faults:#?}\n{value:#}"))
    }

    fn faults(value: &Json, previous: &Document) -> Vec<String> {
        let faults = Document::from_value(value, previous, env).expect_err("a fault");
        faults.iter().map(ToString::to_string).collect()
    }

    /// As a file would have it.
    fn lines(document: &Document) -> Json {
        json::section("", document.root(), View::Written)
    }

    const SMALL: &str = "backends: {u: [{host: a, port: 1}]}\nrouting: {r: {upstream: u}}";

    #[test]
    fn what_is_shown_can_be_sent_back_and_changes_nothing() {
        for text in [FULL, SMALL, "routing: {r: {respond: {}}, s: {path: /s, redirect: {location: /}}}"] {
            let file = written(text);
            let back = sent(&file.shown(), &file);
            assert!(back.means_the_same(&file));
            assert_eq!(back.notices().len(), file.notices().len(), "{:?}", back.notices());
            assert_eq!(lines(&back), lines(&file));
        }
    }

    #[test]
    fn what_is_shown_is_complete_and_typed() {
        let shown = written(FULL).shown();
        for key in KEYS.iter().filter(|key| key.path.matches('.').count() == 1 && !key.path.contains("NAME")) {
            let section = &shown[key.parent()];
            assert!(section.get(key.name()).is_some(), "{} is missing in {section}", key.path);
        }
        assert_eq!(shown["server"]["read_timeout"], json!("30s"));
        assert_eq!(shown["server"]["max_body_bytes"], json!("10MiB"));
        assert_eq!(shown["server"]["workers"], json!(4));
        assert_eq!(shown["server"]["normalize"], json!(false));
        assert_eq!(shown["server"]["trusted_proxies"], json!(["10.0.0.0/8", "::1"]));
        assert_eq!(shown["backends"]["a"][0]["id"], json!("a-::1-1"));
        assert_eq!(shown["backends"]["b"][0]["port"], json!(8081));
        assert_eq!(shown["backends"]["b"][0]["health_check"]["expect"], json!("204"));
        assert_eq!(shown["upstreams"]["a"]["retry_buffer"], json!("16KiB"));
        assert_eq!(shown["routing"]["r"]["redirect"]["status"], json!(308));
        assert_eq!(shown["routing"]["z"]["request_headers"]["set"], json!({"Host": "h", "X-N": "1"}));
        assert_eq!(shown["routing"]["z"].get("redirect"), None);
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        let shown = written(SMALL).shown();
        let again = sent(&json!({"backends": shown["backends"], "routing": shown["routing"]}), &written(SMALL));
        assert!(again.means_the_same(&written(SMALL)));
    }

    #[test]
    fn every_fault_is_told_at_once_by_its_path() {
        let value = json!({
            "sever": {},
            "server": {"port": 65536, "read_timeout": 30, "listen": "0.0.0.0:80", "workers": null},
            "backends": {"u": [{"id": "x", "host": "a", "port": "1"}, {"id": "x", "host": "b", "port": 1.5}, 7]},
            "routing": {"r": {"upstream": "u"}, "s": {"upstream": "w"}},
        });
        assert_eq!(
            faults(&value, &written(SMALL)),
            [
                "sever: unknown key (did you mean server?)",
                "server.port: 65536 is outside 0..=65535",
                "server.listen: a single value stands here; allowed: a list, each ADDRESS:PORT or unix:/path (write [0.0.0.0:80])",
                "server.read_timeout: 30 is not a duration; allowed: 1ms..=1h, written like 250ms, 30s, 5m or 1h30m \
                 (a unit is missing: 30s or 30ms?)",
                "server.workers: has no value; allowed: auto or a whole number, 1..=1024 (remove the line for the default, auto)",
                "backends.u[1].port: 1.5 is not a whole number; allowed: 1..=65535",
                "backends.u[2]: a single value stands here; allowed: a map of keys",
                "routing.s.upstream: there is no upstream w in backends",
                "routing.s: matches the same requests as routing.r: any host, path / (change hosts or path of one of them)",
            ]
        );
        let twice =
            json!({"backends": {"u": [{"id": "x", "host": "a", "port": 1}, {"id": "x", "host": "b", "port": 1}]}});
        assert_eq!(
            faults(&twice, &written(SMALL))[0],
            "backends.u[1].id: another backend has the id x too (give each its own)"
        );
        assert_eq!(
            faults(&json!([]), &written(SMALL)),
            ["a list stands here; allowed: a map of keys, such as server, backends and routing"]
        );
    }

    #[test]
    fn spellings_are_those_of_a_file() {
        let mut value = written(SMALL).shown();
        merge_patch(
            &mut value,
            &json!({"server": {"read_timeout": "1m30s", "max_body_bytes": "1MiB", "max_header_bytes": 65536,
                               "normalize": "off", "port": "81", "max_conn": "1_000", "workers": 3}}),
        );
        let document = sent(&value, &written(SMALL));
        let server = &document.plan().server;
        assert_eq!((server.read_timeout.as_secs(), server.max_body_bytes), (90, 1 << 20));
        assert_eq!((server.max_header_bytes, server.normalize, server.max_conn), (65536, false, 1000));
    }

    #[test]
    fn variables_are_not_put_into_what_is_sent() {
        let mut value = written(SMALL).shown();
        merge_patch(
            &mut value,
            &json!({"routing": {"s": {"path": "/s", "respond": {"body": "${TOKEN} $${TOKEN} ${", "status": 200}},
                                "t": {"path": "/t", "redirect": {"location": "https://${host}/${TOKEN}"}}}}),
        );
        let document = sent(&value, &written(SMALL));
        assert_eq!(document.shown()["routing"]["s"]["respond"]["body"], json!("${TOKEN} $${TOKEN} ${"));
        assert_eq!(document.shown()["routing"]["t"]["redirect"]["location"], json!("https://${host}/${TOKEN}"));
    }

    #[test]
    fn secrets_are_masked_and_masks_stand_for_them() {
        let file = written(FULL);
        let told = file.shown().to_string();
        assert!(told.contains(MASK) && !told.contains("0123456789abcdef"));
        let mut value = file.shown();
        value["upstreams"]["b"]["retries"] = json!(3);
        let secret =
            |document: &Document| document.plan().upstream("b").and_then(|b| b.sticky.clone()).map(|s| s.secret);
        let changed = sent(&value, &file);
        assert_eq!(secret(&changed), secret(&file));
        assert!(!changed.means_the_same(&file));
        value["upstreams"]["b"]["sticky"]["secret"] = json!("short");
        assert_eq!(
            faults(&value, &file),
            [
                "upstreams.b.sticky.secret: the secret has 5 bytes, fewer than 16 (openssl rand -hex 32 makes a good one)"
            ]
        );
        value["upstreams"]["b"]["sticky"]["secret"] = json!(MASK);
        value["upstreams"]["a"] = value["upstreams"]["b"].clone();
        assert_eq!(
            faults(&value, &file),
            [
                "upstreams.a.sticky.secret: there is no secret yet that the mask could stand for (send the secret itself, or leave the key out)"
            ]
        );
        assert_eq!(format!("{file:?}"), "Document { .. }");
    }

    #[test]
    fn fields_that_let_somebody_in_are_masked_and_masks_stand_for_them() {
        let text = "routing: {r: {respond: {}, request_headers: {set: {Authorization: Bearer hunter22, X-Zone: a, X-Api-Key: \
                    hunter22}}, response_headers: {add: {Set-Cookie: a=hunter22, WWW-Authenticate: Basic}}}}";
        let file = written(text);
        let shown = file.shown();
        let told = shown.to_string();
        assert!(!told.contains("hunter22") && told.contains("\"X-Zone\":\"a\"") && told.contains("Basic"), "{told}");
        assert!(sent(&shown, &file).means_the_same(&file));
        // Another one beside, and the old one in another case.
        let mut value = shown.clone();
        value["routing"]["r"]["request_headers"]["set"] = json!({"authorization": MASK, "X-Zone": "b"});
        let fields = &sent(&value, &file).revealed()["routing"]["r"]["request_headers"]["set"];
        assert_eq!(*fields, json!({"authorization": "Bearer hunter22", "X-Zone": "b"}));
        value["routing"]["r"]["request_headers"]["set"] = json!({"Cookie": MASK, "X-Auth": " hunter22"});
        assert_eq!(
            faults(&value, &file),
            [
                "routing.r.request_headers.set.Cookie: there is no secret yet that the mask could stand for (send the secret \
                 itself, or leave the key out)",
                "routing.r.request_headers.set.X-Auth: the secret has a control character, or a space at one of its ends \
                 (remove it)",
            ]
        );
    }

    #[test]
    fn an_id_that_follows_from_the_address_is_kept_when_the_address_changes() {
        let file = written(SMALL);
        let mut value = file.shown();
        value["backends"]["u"][0]["weight"] = json!(7);
        assert_eq!(lines(&sent(&value, &file))["backends"]["u"], json!([{"host": "a", "port": 1, "weight": 7}]));
        value["backends"]["u"][0]["port"] = json!(2);
        let moved = json!([{"id": "u-a-1", "host": "a", "port": 2, "weight": 7}]);
        assert_eq!(lines(&sent(&value, &file))["backends"]["u"], moved);
        value["backends"]["u"][0].as_object_mut().unwrap().shift_remove("id");
        assert_eq!(sent(&value, &file).shown()["backends"]["u"][0]["id"], json!("u-a-2"));
    }

    #[test]
    fn too_much_is_refused() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert_eq!(faults(&json!({"server": deep}), &written(SMALL)), ["nested deeper than 32 levels"]);
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_merge_as_the_rfc_shows() {
        for (mut target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let before = target.clone();
            merge_patch(&mut target, &patch);
            assert_eq!(target, result, "{before} {patch}");
        }
    }

    /// Values without null, which a patch cannot write.
    fn value() -> impl Strategy<Value = Json> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(Json::from),
            (0..3_i64).prop_map(Json::from),
            "[a-c]{0,2}".prop_map(Json::from)
        ];
        scalar.prop_recursive(3, 24, 4, |below| {
            prop_oneof![
                proptest::collection::vec(below.clone(), 0..3).prop_map(Json::from),
                proptest::collection::btree_map("[a-d]", below, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// The patch that makes `new` of `old`.
    fn patch(old: &Json, new: &Json) -> Json {
        let (Some(from), Some(to)) = (old.as_object(), new.as_object()) else { return new.clone() };
        let gone = from.keys().filter(|name| !to.contains_key(*name)).map(|name| (name.clone(), Json::Null));
        let set = to.iter().filter(|(name, value)| from.get(*name) != Some(value));
        let set =
            set.map(|(name, value)| (name.clone(), from.get(name).map_or(value.clone(), |old| patch(old, value))));
        gone.chain(set).collect()
    }

    proptest! {
        #[test]
        fn a_patch_leads_from_any_value_to_any_other(old in value(), new in value(), other in value()) {
            let patch = patch(&old, &new);
            let mut merged = old.clone();
            merge_patch(&mut merged, &patch);
            prop_assert_eq!(&merged, &new);
            merge_patch(&mut merged, &patch);
            prop_assert_eq!(&merged, &new, "twice is as once");
            let mut foreign = other;
            merge_patch(&mut foreign, &patch);
            let once = foreign.clone();
            merge_patch(&mut foreign, &patch);
            prop_assert_eq!(foreign, once);
        }
    }
}
