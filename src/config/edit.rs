//! The text of a configuration file changed so that it means another configuration, with nothing else in it touched.
//!
//! Owns where a change goes and when it can't: only the bytes of changed values are rewritten, comments, order, quoting
//! and blank lines elsewhere stay, and what comes out is read again and compared before it counts. Never touches files.

use std::fmt;
use std::ops::Range;

use saphyr_parser::ScalarStyle;
use serde_json::{Map, Value as Json};

use super::change::{self, Change, Item};
use super::document::Document;
use super::expand::has_variable;
use super::place::{self, Dashed, Pair, Place, Shape, line_start, next_line};
use super::spell;
use super::tree::push_name;

/// The file can't be made to mean what is wanted without touching more than what changes. Never repeats a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotEdit {
    /// E.g. `backends.api[2].weight`; empty when no key is to blame.
    pub path: String,
    /// From 1; 0 = the file as a whole.
    pub line: usize,
    /// Reads on after "cannot be changed in the file: ".
    pub why: String,
}

impl fmt::Display for CannotEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.path.is_empty() { "the configuration" } else { &self.path };
        write!(f, "{what} cannot be changed in the file")?;
        if self.line > 0 {
            write!(f, " (line {})", self.line)?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for CannotEdit {}

/// The text of a file, changed so that it means `wanted`; only the lines of what differs are other ones. `env` gives
/// environment variables, the same as when `wanted` was read.
///
/// # Errors
/// When that can't be done exactly: the text has a fault, or what differs holds a variable, an anchor, an alias or a
/// comment that would be lost.
pub fn rewrite(text: &str, wanted: &Document, env: impl Fn(&str) -> Option<String>) -> Result<String, CannotEdit> {
    let present = Document::from_text(text, "", &env).map_err(|faults| {
        let first = faults.iter().find(|fault| fault.line > 0).or(faults.first());
        let line = first.map_or(0, |fault| fault.line);
        let told = first.map(ToString::to_string).unwrap_or_default();
        CannotEdit { path: String::new(), line, why: format!("it has a fault now: {told}") }
    })?;
    let Some(change) = change::between(&present, wanted) else { return Ok(text.to_owned()) };
    let unread = || whole("it is written in an unusual way");
    let root = place::parse(text).ok_or_else(unread)?;
    let mut edit = Edit { text, path: String::new(), splices: Vec::new() };
    edit.change(&root, None, &change)?;
    let changed = splice(text, edit.splices).ok_or_else(unread)?;
    // The proof: whatever was wrong above, nothing that reads otherwise ever reaches the file.
    match Document::from_text(&changed, "", &env) {
        Ok(back) if back.means_the_same(wanted) => Ok(changed),
        _ => Err(whole("the change would not read back as it was meant")),
    }
}

fn whole(why: &str) -> CannotEdit {
    CannotEdit { path: String::new(), line: 0, why: why.to_owned() }
}

/// Puts the pieces in; `None` when they overlap.
fn splice(text: &str, mut splices: Vec<(Range<usize>, String)>) -> Option<String> {
    // Stable: of several at one place the first stays first, and what goes in comes before what is taken out.
    splices.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, piece) in splices {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&piece);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// What a value hangs on: a colon or a dash.
#[derive(Clone, Copy)]
struct Hook {
    /// Behind it.
    after: usize,
    /// Column of the key or the dash.
    indent: usize,
}

/// The changes of one text, found one by one.
struct Edit<'t> {
    text: &'t str,
    /// Key path of what is being looked at.
    path: String,
    splices: Vec<(Range<usize>, String)>,
}

impl Edit<'_> {
    fn change(&mut self, place: &Place, hook: Option<Hook>, change: &Change) -> Result<(), CannotEdit> {
        self.is_free(place)?;
        match (&place.shape, change) {
            (Shape::BlockMap(pairs), Change::Map(changes)) => self.block_map(place, pairs, hook, changes),
            (Shape::BlockList(items), Change::List(wanted)) => self.block_list(place, items, hook, wanted),
            (Shape::Nothing, change) => self.fill(place, hook, change),
            (Shape::BlockMap(_) | Shape::BlockList(_), Change::Set { value, .. }) => {
                self.is_plain(place, false)?;
                self.replace_block(place, hook, value)
            }
            _ => {
                let indent = hook.map_or(0, |hook| hook.indent);
                let text = self.inline(place, change, indent)?;
                self.put(place.start..place.end, text);
                Ok(())
            }
        }
    }

    /// The new text of a scalar or of something in brackets.
    fn inline(&mut self, place: &Place, change: &Change, indent: usize) -> Result<String, CannotEdit> {
        self.is_free(place)?;
        match (&place.shape, change) {
            (Shape::Scalar { text, style }, Change::Set { value, placeholders }) => {
                self.is_plain(place, *placeholders)?;
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    self.has_no_comment(&self.text[place.start..next_line(self.text, place.start)], place.start)?;
                }
                Ok(spell::like(value, text, *style, indent, self.newline(place.start)))
            }
            (Shape::FlowMap(_) | Shape::FlowList(_), Change::Set { value, .. }) => {
                self.is_plain(place, false)?;
                Ok(spell::flow(value))
            }
            (Shape::FlowMap(pairs), Change::Map(changes)) => self.flow_map(place, pairs, changes),
            (Shape::FlowList(items), Change::List(wanted)) => self.flow_list(place, items, wanted),
            // Nothing, however it is written: `~` for a map, or no value at all.
            (Shape::Nothing | Shape::Scalar { style: ScalarStyle::Plain, .. }, change) => {
                made(change).map(|value| spell::flow(&value)).ok_or_else(|| self.cannot(place.start, UNUSUAL))
            }
            _ => Err(self.cannot(place.start, UNUSUAL)),
        }
    }

    /// A value where there is none yet.
    fn fill(&mut self, place: &Place, hook: Option<Hook>, change: &Change) -> Result<(), CannotEdit> {
        let (Some(hook), Some(value)) = (hook, made(change)) else { return Err(self.cannot(place.start, UNUSUAL)) };
        self.put(hook.after..hook.after, format!(" {}", spell::flow(&value)));
        Ok(())
    }

    fn replace_block(&mut self, place: &Place, hook: Option<Hook>, value: &Json) -> Result<(), CannotEdit> {
        let Some(hook) = hook else { return Err(self.cannot(place.start, UNUSUAL)) };
        let first = line_start(self.text, place.start);
        if first < hook.after {
            self.put(place.start..place.end, spell::flow(value));
            return Ok(());
        }
        self.has_no_comment(&self.text[place.end..next_line(self.text, place.end)], place.start)?;
        let newline = self.newline(place.start);
        let text = spell::behind_colon(value, hook.indent, newline);
        let lines = first..next_line(self.text, place.end);
        match text.strip_prefix(newline) {
            Some(block) => self.put(lines, format!("{block}{newline}")),
            None => {
                self.put(hook.after..hook.after, text);
                self.put(lines, String::new());
            }
        }
        Ok(())
    }

    fn block_map(
        &mut self,
        place: &Place,
        pairs: &[Pair],
        hook: Option<Hook>,
        changes: &[(String, Change)],
    ) -> Result<(), CannotEdit> {
        let indent = self.indent(place.start)?;
        let find = |name: &str| pairs.iter().position(|pair| pair.name == name);
        let mut gone = vec![false; pairs.len()];
        for (name, _) in changes.iter().filter(|(_, change)| *change == Change::Remove) {
            if let Some(at) = find(name) {
                gone[at] = true;
            }
        }
        let added: Vec<&(String, Change)> =
            changes.iter().filter(|(name, change)| *change != Change::Remove && find(name).is_none()).collect();
        if gone.iter().all(|gone| *gone) && added.is_empty() {
            return self.empty(place, hook, pairs.iter().map(|pair| pair.key_start..pair.end()), "{}");
        }
        self.remove_pairs(pairs, &gone)?;
        for (name, change) in changes.iter().filter(|(_, change)| *change != Change::Remove) {
            if let Some(at) = find(name) {
                let hook = pairs[at].colon.map(|after| Hook { after, indent });
                self.below(name, |edit| edit.change(&pairs[at].value, hook, change))?;
            }
        }
        for (name, change) in added {
            let value = made(change).ok_or_else(|| self.cannot(place.start, UNUSUAL))?;
            let newline = self.newline(place.start);
            let line = format!("{}:{}", spell::key(name), spell::behind_colon(&value, indent, newline));
            self.add_line(place.end, indent, &line);
        }
        Ok(())
    }

    /// Those in front go together where the first one shares its line with a dash.
    fn remove_pairs(&mut self, pairs: &[Pair], gone: &[bool]) -> Result<(), CannotEdit> {
        let Some(first) = pairs.first().filter(|_| gone.contains(&true)) else { return Ok(()) };
        let starts_line = self.text[line_start(self.text, first.key_start)..first.key_start].trim().is_empty();
        let front = if starts_line { 0 } else { gone.iter().take_while(|gone| **gone).count() };
        if front > 0 {
            let Some(kept) = pairs.get(front) else {
                return Err(self.cannot(first.key_start, "its first line can't be removed alone"));
            };
            let between = &self.text[next_line(self.text, pairs[front - 1].end()).min(kept.key_start)..kept.key_start];
            self.has_no_comment(between, first.key_start)?;
            self.put(first.key_start..kept.key_start, String::new());
        }
        for (pair, _) in pairs.iter().zip(gone).skip(front).filter(|(_, gone)| **gone) {
            self.remove_lines(pair.key_start, pair.end());
        }
        Ok(())
    }

    fn block_list(
        &mut self,
        place: &Place,
        items: &[Dashed],
        hook: Option<Hook>,
        wanted: &[Item],
    ) -> Result<(), CannotEdit> {
        if wanted.is_empty() {
            return self.empty(place, hook, items.iter().map(|item| item.dash..item.end()), "[]");
        }
        let indent = self.indent(place.start)?;
        let newline = self.newline(place.start);
        let one_line = !matches!(items.last(), Some(Dashed { value: Place { shape: Shape::BlockMap(_), .. }, .. }));
        let mut kept = vec![false; items.len()];
        let mut after = None;
        for item in wanted {
            match item {
                Item::Kept(at, change) => {
                    let item = items.get(*at).ok_or_else(|| self.cannot(place.start, UNUSUAL))?;
                    kept[*at] = true;
                    after = Some(item.end());
                    if let Some(change) = change {
                        let hook = Hook { after: item.dash + 1, indent };
                        self.item(*at, |edit| edit.change(&item.value, Some(hook), change))?;
                    }
                }
                Item::New(value) => {
                    let line = format!("-{}", spell::behind_dash(value, indent, newline, one_line));
                    match after {
                        Some(after) => self.add_line(after, indent, &line),
                        None => {
                            let start = line_start(self.text, place.start);
                            self.put(start..start, format!("{}{line}{newline}", " ".repeat(indent)));
                        }
                    }
                }
            }
        }
        for (item, _) in items.iter().zip(kept).filter(|(_, kept)| !kept) {
            self.remove_lines(item.dash, item.end());
        }
        Ok(())
    }

    /// Takes all of a block away and leaves empty brackets. Comments between its parts stay.
    fn empty(
        &mut self,
        place: &Place,
        hook: Option<Hook>,
        parts: impl Iterator<Item = Range<usize>>,
        brackets: &str,
    ) -> Result<(), CannotEdit> {
        let Some(hook) = hook else { return Err(self.cannot(place.start, "nothing would be left of the file")) };
        if line_start(self.text, place.start) < hook.after {
            let mut at = place.start;
            for part in parts {
                self.has_no_comment(&self.text[at.min(part.start)..part.start], part.start)?;
                at = part.end;
            }
            self.put(place.start..place.end, brackets.to_owned());
            return Ok(());
        }
        self.put(hook.after..hook.after, format!(" {brackets}"));
        for part in parts {
            self.remove_lines(part.start, part.end);
        }
        Ok(())
    }

    fn flow_map(&mut self, place: &Place, pairs: &[Pair], changes: &[(String, Change)]) -> Result<String, CannotEdit> {
        let find = |name: &str| changes.iter().find(|(changed, _)| changed == name).map(|(_, change)| change);
        let mut parts = Vec::with_capacity(pairs.len() + changes.len());
        for (at, pair) in pairs.iter().enumerate() {
            let text = match find(&pair.name) {
                Some(Change::Remove) => continue,
                Some(change) => self.below(&pair.name, |edit| edit.flow_pair(pair, change))?,
                None => self.text[pair.key_start..pair.end()].to_owned(),
            };
            parts.push(Part { text, old: Some(at) });
        }
        for (name, change) in changes {
            if *change != Change::Remove && pairs.iter().all(|pair| pair.name != *name) {
                let value = made(change).ok_or_else(|| self.cannot(place.start, UNUSUAL))?;
                parts.push(Part { text: format!("{}: {}", spell::key(name), spell::flow(&value)), old: None });
            }
        }
        let old: Vec<_> = pairs.iter().map(|pair| pair.key_start..pair.end()).collect();
        self.brackets(place, &old, &parts)
    }

    fn flow_pair(&mut self, pair: &Pair, change: &Change) -> Result<String, CannotEdit> {
        let value = self.inline(&pair.value, change, 0)?;
        let front = match (&pair.value.shape, pair.colon) {
            (Shape::Nothing, Some(colon)) => format!("{} ", &self.text[pair.key_start..colon]),
            (Shape::Nothing, None) => format!("{}: ", &self.text[pair.key_start..pair.key_end]),
            _ => self.text[pair.key_start..pair.value.start].to_owned(),
        };
        Ok(front + &value)
    }

    fn flow_list(&mut self, place: &Place, items: &[Place], wanted: &[Item]) -> Result<String, CannotEdit> {
        let mut parts = Vec::with_capacity(wanted.len());
        for item in wanted {
            parts.push(match item {
                Item::New(value) => Part { text: spell::flow(value), old: None },
                Item::Kept(at, change) => {
                    let item = items.get(*at).ok_or_else(|| self.cannot(place.start, UNUSUAL))?;
                    let text = match change {
                        Some(change) => self.item(*at, |edit| edit.inline(item, change, 0))?,
                        None => self.text[item.start..item.end].to_owned(),
                    };
                    Part { text, old: Some(*at) }
                }
            });
        }
        let old: Vec<_> = items.iter().map(|item| item.start..item.end).collect();
        self.brackets(place, &old, &parts)
    }

    /// The parts in the brackets of `place`, with what stood between them where the same two still follow each other.
    fn brackets(&self, place: &Place, old: &[Range<usize>], parts: &[Part]) -> Result<String, CannotEdit> {
        let (open, close) = (place.start + 1, place.end - 1);
        let first = old.first().map_or(close, |range| range.start);
        let (head, tail) = (&self.text[open..first], &self.text[old.last().map_or(close, |range| range.end)..close]);
        let mut out = self.text[place.start..open].to_owned();
        let mut gaps_kept = vec![false; old.len()];
        if parts.is_empty() {
            self.has_no_comment(head, place.start)?;
            self.has_no_comment(tail, place.start)?;
        } else {
            out.push_str(head);
        }
        for (at, part) in parts.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| parts[before].old);
            match (before, part.old) {
                (None, _) => {}
                (Some(Some(before)), Some(this)) if before + 1 == this => {
                    gaps_kept[this] = true;
                    out.push_str(&self.text[old[before].end..old[this].start]);
                }
                _ => out.push_str(", "),
            }
            out.push_str(&part.text);
        }
        for at in (1..old.len()).filter(|at| !gaps_kept[*at]) {
            self.has_no_comment(&self.text[old[at - 1].end..old[at].start], old[at].start)?;
        }
        if !parts.is_empty() {
            out.push_str(tail);
        }
        out.push_str(&self.text[close..place.end]);
        Ok(out)
    }

    fn put(&mut self, range: Range<usize>, text: String) {
        self.splices.push((range, text));
    }

    /// A line behind the one where `end` is.
    fn add_line(&mut self, end: usize, indent: usize, line: &str) {
        let at = next_line(self.text, end);
        let (front, newline) = (" ".repeat(indent), self.newline(end));
        let ended = self.text[..at].ends_with('\n');
        let line = if ended { format!("{front}{line}{newline}") } else { format!("{newline}{front}{line}") };
        self.put(at..at, line);
    }

    fn remove_lines(&mut self, start: usize, end: usize) {
        self.put(line_start(self.text, start)..next_line(self.text, end), String::new());
    }

    /// The line break that the line of `at` has, or the one before it.
    fn newline(&self, at: usize) -> &'static str {
        let end = next_line(self.text, at);
        let end = if self.text[..end].ends_with('\n') { end } else { line_start(self.text, at) };
        if self.text[..end].ends_with("\r\n") { "\r\n" } else { "\n" }
    }

    /// The column of `at`, with nothing but spaces and dashes in front.
    fn indent(&self, at: usize) -> Result<usize, CannotEdit> {
        let front = &self.text[line_start(self.text, at)..at];
        let front = front.strip_prefix('\u{feff}').unwrap_or(front);
        if front.bytes().all(|byte| matches!(byte, b' ' | b'-')) {
            return Ok(front.len());
        }
        Err(self.cannot(at, UNUSUAL))
    }

    fn is_free(&self, place: &Place) -> Result<(), CannotEdit> {
        place.fixed.map_or(Ok(()), |why| Err(self.cannot(place.start, why)))
    }

    /// Whether it may be written anew as a whole: no variable, no anchor and no comment anywhere in it.
    fn is_plain(&self, place: &Place, placeholders: bool) -> Result<(), CannotEdit> {
        self.is_free(place)?;
        let mut at = place.start;
        let mut tokens = Vec::new();
        self.tokens(place, placeholders, &mut tokens)?;
        for token in tokens {
            self.has_no_comment(&self.text[at.min(token.start)..token.start], place.start)?;
            at = token.end;
        }
        self.has_no_comment(&self.text[at.min(place.end)..place.end], place.start)
    }

    /// Where keys and scalars stand, in order: elsewhere a `#` begins a comment.
    fn tokens(&self, place: &Place, placeholders: bool, all: &mut Vec<Range<usize>>) -> Result<(), CannotEdit> {
        self.is_free(place)?;
        match &place.shape {
            Shape::Nothing => {}
            Shape::Scalar { text, .. } if has_variable(text, placeholders) => {
                return Err(self.cannot(place.start, "it is written with a variable of the environment"));
            }
            Shape::Scalar { .. } => all.push(place.start..place.end),
            Shape::FlowMap(pairs) | Shape::BlockMap(pairs) => {
                for pair in pairs {
                    all.push(pair.key_start..pair.key_end);
                    self.tokens(&pair.value, placeholders, all)?;
                }
            }
            Shape::FlowList(items) => items.iter().try_for_each(|item| self.tokens(item, placeholders, all))?,
            Shape::BlockList(items) => {
                items.iter().try_for_each(|item| self.tokens(&item.value, placeholders, all))?;
            }
        }
        Ok(())
    }

    fn has_no_comment(&self, text: &str, at: usize) -> Result<(), CannotEdit> {
        if text.contains('#') { Err(self.cannot(at, "a comment in it would be lost")) } else { Ok(()) }
    }

    fn cannot(&self, at: usize, why: &str) -> CannotEdit {
        let line = 1 + self.text[..at].bytes().filter(|byte| *byte == b'\n').count();
        CannotEdit { path: self.path.clone(), line, why: why.to_owned() }
    }

    fn below<T>(&mut self, name: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.path.len();
        push_name(&mut self.path, name);
        let result = look(self);
        self.path.truncate(parent);
        result
    }

    fn item<T>(&mut self, at: usize, look: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.path.len();
        self.path.push_str(&format!("[{at}]"));
        let result = look(self);
        self.path.truncate(parent);
        result
    }
}

const UNUSUAL: &str = "it is written in an unusual way";

/// What stands between brackets.
struct Part {
    text: String,
    /// Which one it was before.
    old: Option<usize>,
}

/// The value that a change makes of nothing.
fn made(change: &Change) -> Option<Json> {
    match change {
        Change::Set { value, .. } => Some(value.clone()),
        Change::Remove => None,
        Change::Map(changes) => {
            let set = changes.iter().filter(|(_, change)| *change != Change::Remove);
            let set = set.map(|(name, change)| Some((name.clone(), made(change)?)));
            set.collect::<Option<Map<_, _>>>().map(Json::Object)
        }
        Change::List(items) => {
            let item = |item: &Item| match item {
                Item::New(value) => Some(value.clone()),
                Item::Kept(..) => None,
            };
            items.iter().map(item).collect::<Option<Vec<_>>>().map(Json::Array)
        }
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
