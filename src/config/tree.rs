//! YAML text as a tree that knows where each value stands; and JSON as such a tree.
//!
//! Owns the step from text to nodes, its bounds (size, depth, aliases) and what is refused of YAML: several documents,
//! merge keys, tags of one's own, keys that are no plain words, keys given twice. Never knows what a key means.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScanError, Span, StrInput, Tag};
use serde_json::Value as Json;

use super::fault::{Faults, Position, Wrong, shown};

/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deepest nesting, in levels. The deepest key has six.
pub const DEPTH_LEVELS_MAX: usize = 32;
/// Values in a file, keys too.
pub const NODES_COUNT_MAX: usize = 2 * 1024 * 1024;
/// Values that aliases may add to those written.
pub const ALIASED_NODES_COUNT_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub at: Position,
    pub kind: NodeKind,
    /// Nodes from here down, each counted as often as it occurs.
    size: usize,
    /// Levels from here down; 1 for a scalar.
    height: usize,
}

/// The three shapes of YAML.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Text; what it means is for the table of keys to say.
    Scalar {
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    /// In the order of the file; no key twice.
    Map(Vec<(Name, Rc<Node>)>),
}

/// A key of a map and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub at: Position,
}

impl Node {
    /// Whether this is YAML's nothing: an empty place, `~` or `null`, not in quotes.
    pub fn is_null(&self) -> bool {
        let null = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.kind, NodeKind::Scalar { text, plain: true } if null(text))
    }

    /// What a person calls it.
    pub fn shape(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            NodeKind::Scalar { .. } => "a single value",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map of keys",
        }
    }

    fn scalar(at: Position, text: String, plain: bool) -> Self {
        Node { at, kind: NodeKind::Scalar { text, plain }, size: 1, height: 1 }
    }

    fn above<'n>(at: Position, kind: NodeKind, below: impl Iterator<Item = &'n Rc<Node>>) -> Self {
        let (size, height) = below.fold((1, 1), |(size, height), node| (size + node.size, height.max(1 + node.height)));
        Node { at, kind, size, height }
    }
}

/// The tree of a text, a map or nothing at its root; `None` when it is no such YAML, which `faults` then says. Keys
/// given twice are noted in `faults` too; the first one stays.
pub fn parse(text: &str, faults: &mut Faults) -> Option<Rc<Node>> {
    if text.len() > CONFIG_BYTES_MAX {
        let problem = format!("the file has {} bytes, more than {CONFIG_BYTES_MAX}", text.len());
        faults.push(Position::FILE, "", Wrong::new(problem));
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parser = Parser::new_from_str(text);
    let mut builder =
        Builder { text, parser, anchors: HashMap::new(), path: String::new(), nodes: 0, aliased: 0, faults };
    let root = builder.document().ok()?;
    if matches!(root.kind, NodeKind::Map(_)) || root.is_null() {
        return Some(root);
    }
    let wrong = Wrong::new(format!("{} stands here", root.shape()));
    faults.push(root.at, "", wrong.allowed("a map of keys, such as server:, backends: and routing:"));
    None
}

/// The tree of a JSON value, without lines; `None` when it is no map or too large, which `faults` then says. `${` stands
/// for itself.
pub fn from_value(value: &Json, faults: &mut Faults) -> Option<Rc<Node>> {
    let mut nodes = 0;
    let root = json_node(value, 1, &mut nodes).map_err(|wrong| faults.push(Position::FILE, "", wrong)).ok()?;
    if matches!(root.kind, NodeKind::Map(_)) {
        return Some(root);
    }
    let wrong = Wrong::new(format!("{} stands here", root.shape()));
    faults.push(Position::FILE, "", wrong.allowed("a map of keys, such as server, backends and routing"));
    None
}

fn json_node(value: &Json, depth: usize, nodes: &mut usize) -> Result<Rc<Node>, Wrong> {
    *nodes += 1;
    if depth > DEPTH_LEVELS_MAX {
        return Err(Wrong::new(format!("nested deeper than {DEPTH_LEVELS_MAX} levels")));
    }
    if *nodes > NODES_COUNT_MAX {
        return Err(Wrong::new(format!("more than {NODES_COUNT_MAX} values")));
    }
    let at = Position::FILE;
    Ok(Rc::new(match value {
        Json::Null => Node::scalar(at, String::new(), true),
        Json::Bool(value) => Node::scalar(at, value.to_string(), true),
        Json::Number(value) => Node::scalar(at, value.to_string(), true),
        Json::String(text) => Node::scalar(at, text.replace("${", "$${"), false),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| json_node(item, depth + 1, nodes)).collect::<Result<_, _>>()?;
            let kind = NodeKind::List(items.clone());
            Node::above(at, kind, items.iter())
        }
        Json::Object(map) => {
            let entry = |(name, value): (&String, &Json)| {
                json_node(value, depth + 1, nodes).map(|node| (Name { text: name.clone(), at }, node))
            };
            let entries: Vec<_> = map.iter().map(entry).collect::<Result<_, _>>()?;
            let below: Vec<_> = entries.iter().map(|(_, node)| Rc::clone(node)).collect();
            Node::above(at, NodeKind::Map(entries), below.iter())
        }
    }))
}

/// A fault that ends the reading has been noted.
struct Stop;

struct Builder<'t, 'f> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Rc<Node>>,
    /// Key path of the value being read.
    path: String,
    nodes: usize,
    aliased: usize,
    faults: &'f mut Faults,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Rc<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(root.unwrap_or_else(|| Rc::new(Node::scalar(Position::FILE, String::new(), true))));
                }
                Event::DocumentStart(_) if root.is_some() => {
                    let problem = Wrong::new("a second document begins here; one file is one document");
                    return Err(
                        self.stop(position(span), problem.cure("remove the `---`, or check the files one by one"))
                    );
                }
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 1)?),
            }
        }
    }

    /// The node that begins with `event`, down to its end.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Rc<Node>, Stop> {
        let at = position(span);
        self.count(at, depth)?;
        let (anchor, node) = match event {
            Event::Alias(anchor) => return self.alias(anchor, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(at, tag.as_deref());
                let plain = style == saphyr_parser::ScalarStyle::Plain;
                (anchor, Node::scalar(at, text.into_owned(), plain))
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(at, tag.as_deref());
                (anchor, self.list(at, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(at, tag.as_deref());
                (anchor, self.map(at, depth)?)
            }
            _ => return Err(self.stop(at, Wrong::new("this is not valid YAML"))),
        };
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn list(&mut self, at: Position, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        let (mut size, mut height) = (1, 1);
        let parent = self.path.len();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node { at, kind: NodeKind::List(items), size, height });
            }
            self.path.push_str(&format!("[{}]", items.len()));
            let item = self.node(event, span, depth + 1)?;
            self.path.truncate(parent);
            (size, height) = (size + item.size, height.max(1 + item.height));
            items.push(item);
        }
    }

    fn map(&mut self, at: Position, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<(Name, Rc<Node>)> = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        let (mut size, mut height) = (1, 1);
        let parent = self.path.len();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Node { at, kind: NodeKind::Map(entries), size, height });
            }
            let name = self.name(event, span, depth)?;
            if let Some(name) = &name {
                push_name(&mut self.path, &name.text);
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if let Some(name) = name.filter(|name| self.is_first(name, &mut seen)) {
                (size, height) = (size + value.size, height.max(1 + value.height));
                let value =
                    if is_empty_place(&value) { Rc::new(Node::scalar(name.at, String::new(), true)) } else { value };
                entries.push((name, value));
            }
            self.path.truncate(parent);
        }
    }

    /// A key of a map; `None` when it is none that a configuration could have, which has been noted.
    fn name(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Option<Name>, Stop> {
        let at = position(span);
        let key = self.node(event, span, depth + 1)?;
        let wrong = match &key.kind {
            NodeKind::Scalar { text, plain: true } if text == "<<" => Wrong::new("merge keys are not supported")
                .cure("repeat the keys, or use an alias for the whole section"),
            NodeKind::Scalar { text, .. } if !text.is_empty() => return Ok(Some(Name { text: text.clone(), at })),
            NodeKind::Scalar { .. } => Wrong::new("a key is empty").cure("write its name in front of the colon"),
            _ => Wrong::new(format!("a key is {}", key.shape())).cure("a key is one word"),
        };
        let path = self.path.clone();
        self.faults.push(at, &path, wrong);
        Ok(None)
    }

    fn is_first(&mut self, name: &Name, seen: &mut HashMap<String, Position>) -> bool {
        let Some(first) = seen.get(&name.text) else {
            seen.insert(name.text.clone(), name.at);
            return true;
        };
        let wrong = Wrong::new(format!("given twice, first on line {}", first.line)).cure("keep one of the two");
        self.faults.push(name.at, &self.path, wrong);
        false
    }

    fn alias(&mut self, anchor: usize, at: Position, depth: usize) -> Result<Rc<Node>, Stop> {
        let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
            return Err(self.stop(at, Wrong::new("this alias stands inside the value that it repeats")));
        };
        self.aliased = self.aliased.saturating_add(node.size);
        if self.aliased > ALIASED_NODES_COUNT_MAX {
            let problem = format!("aliases repeat more than {ALIASED_NODES_COUNT_MAX} values");
            return Err(self.stop(at, Wrong::new(problem).cure("write the values out")));
        }
        self.count(at, depth + node.height - 1)?;
        Ok(node)
    }

    /// Bounds nesting and the number of nodes.
    fn count(&mut self, at: Position, depth: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if depth > DEPTH_LEVELS_MAX {
            return Err(self.stop(at, Wrong::new(format!("nested deeper than {DEPTH_LEVELS_MAX} levels"))));
        }
        if self.nodes > NODES_COUNT_MAX {
            return Err(self.stop(at, Wrong::new(format!("more than {NODES_COUNT_MAX} values in one file"))));
        }
        Ok(())
    }

    fn tag(&mut self, at: Position, tag: Option<&Tag>) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let problem = format!("the tag {} has no meaning here", shown(&format!("{}{}", tag.handle, tag.suffix)));
            self.faults.push(at, &self.path, Wrong::new(problem).cure("remove it, or put the value in quotes"));
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Stop {
        let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
        let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        let cure = match () {
            () if indent.contains('\t') => "indent with spaces; YAML does not allow tabs there",
            () if line.contains("${") => "inside [ ] and { }, put a value with ${NAME} in quotes",
            () => "",
        };
        self.stop(at, Wrong::new(format!("not valid YAML: {}", error.info())).cure(cure))
    }

    fn stop(&mut self, at: Position, wrong: Wrong) -> Stop {
        self.faults.push(at, &self.path, wrong);
        Stop
    }
}

/// Nothing at all was written as the value; the parser then names a place after it, often on another line.
fn is_empty_place(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Scalar { text, plain: true } if text.is_empty())
}

/// Appends a key to a key path, quoted when it would not read as one step.
pub fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if name.len() <= 128 && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        path.push_str(name);
    } else {
        path.push_str(&shown(name));
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}
