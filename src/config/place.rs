//! Where in the text of a file each value stands, to the byte.
//!
//! Owns the step from YAML events to places. Never judges the text: it has been read before, and what cannot be
//! changed safely is marked as fixed.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

/// A value in the text.
#[derive(Debug)]
pub(super) struct Place {
    /// First byte: of a scalar with its quotes, of `[` or `{`, of the `|` or `>` of a block scalar, of the first key.
    pub start: usize,
    /// Behind the last byte; where nothing is written the same as `start`.
    pub end: usize,
    /// Why it has to stay as it is.
    pub fixed: Option<&'static str>,
    pub shape: Shape,
}

/// How a value is written.
#[derive(Debug)]
pub(super) enum Shape {
    /// An empty place behind a colon.
    Nothing,
    Scalar {
        text: String,
        style: ScalarStyle,
    },
    FlowMap(Vec<Pair>),
    FlowList(Vec<Place>),
    BlockMap(Vec<Pair>),
    BlockList(Vec<Dashed>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Pair {
    pub name: String,
    pub key_start: usize,
    pub key_end: usize,
    /// Behind the colon; in `{a, b}` there is none.
    pub colon: Option<usize>,
    pub value: Place,
}

impl Pair {
    /// Behind its last byte.
    pub fn end(&self) -> usize {
        self.value.end.max(self.colon.unwrap_or(self.key_end))
    }
}

/// An item behind a dash.
#[derive(Debug)]
pub(super) struct Dashed {
    pub dash: usize,
    pub value: Place,
}

impl Dashed {
    /// Behind its last byte.
    pub fn end(&self) -> usize {
        self.value.end.max(self.dash + 1)
    }
}

const ANCHORED: &str = "it has an anchor or a tag";
const ALIAS: &str = "it is an alias";
const UNUSUAL: &str = "it is written in an unusual way";

/// The place of the whole configuration; `None` when there is none, or no such YAML.
pub(super) fn parse(text: &str) -> Option<Place> {
    let base = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let body = &text[base..];
    let bytes = if body.is_ascii() { None } else { Some(body.char_indices().map(|(at, _)| base + at).collect()) };
    let mut reader = Reader { text, base, bytes, parser: Parser::new_from_str(body), flow: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return None,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => return reader.place(event, span, base),
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    /// Bytes of a mark in front.
    base: usize,
    /// Of each character; `None` when all have one byte.
    bytes: Option<Vec<usize>>,
    parser: Parser<'t, StrInput<'t>>,
    /// Brackets around what is being read.
    flow: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        self.parser.next_event()?.ok()
    }

    fn byte(&self, index: usize) -> usize {
        match &self.bytes {
            None => (self.base + index).min(self.text.len()),
            Some(bytes) => bytes.get(index).copied().unwrap_or(self.text.len()),
        }
    }

    /// The value that begins with `event`; `after` is behind what leads to it.
    fn place(&mut self, event: Event<'t>, span: Span, after: usize) -> Option<Place> {
        let start = self.byte(span.start.index());
        let end = self.byte(span.end.index());
        match event {
            Event::Alias(_) => Some(Place { start, end, fixed: Some(ALIAS), shape: Shape::FlowList(Vec::new()) }),
            Event::Scalar(text, style, anchor, tag) => {
                let fixed = (anchor > 0 || tag.is_some()).then_some(ANCHORED);
                Some(self.scalar(text.into_owned(), style, start..end, after, fixed))
            }
            Event::SequenceStart(anchor, tag) => {
                let place = self.list(start)?;
                Some(if anchor > 0 || tag.is_some() { Place { fixed: Some(ANCHORED), ..place } } else { place })
            }
            Event::MappingStart(anchor, tag) => {
                let place = self.map(start)?;
                Some(if anchor > 0 || tag.is_some() { Place { fixed: Some(ANCHORED), ..place } } else { place })
            }
            _ => None,
        }
    }

    fn scalar(
        &self,
        text: String,
        style: ScalarStyle,
        span: std::ops::Range<usize>,
        after: usize,
        fixed: Option<&'static str>,
    ) -> Place {
        let written = self.text.get(span.clone()).unwrap_or_default().trim_end();
        let (mut start, mut end, mut fixed) = (span.start, span.start + written.len(), fixed);
        match style {
            ScalarStyle::Plain if text.is_empty() && fixed.is_none() => {
                return Place { start: after, end: after, fixed, shape: Shape::Nothing };
            }
            ScalarStyle::Plain => {}
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => match quoted_length(written) {
                Some(length) => end = start + length,
                None => fixed = fixed.or(Some(UNUSUAL)),
            },
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let rest = &self.text[after..];
                let header = after + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
                if !self.text[header..].starts_with(['|', '>']) {
                    fixed = fixed.or(Some(UNUSUAL));
                }
                let line = &self.text[header..];
                let line = line.split([' ', '\t', '\r', '\n']).next().unwrap_or_default();
                start = header;
                end = if written.is_empty() { header + line.len() } else { end.max(header + line.len()) };
            }
        }
        Place { start, end, fixed, shape: Shape::Scalar { text, style } }
    }

    fn list(&mut self, start: usize) -> Option<Place> {
        self.flow += usize::from(self.text[start..].starts_with('['));
        let (mut items, mut dashes) = (Vec::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            let at = self.byte(span.start.index());
            if event == Event::SequenceEnd {
                return Some(self.ended_list(start, at, !span.is_empty(), items, dashes));
            }
            let dash = dash_before(self.text, at).filter(|_| self.flow == 0);
            dashes.push(dash);
            items.push(self.place(event, span, dash.map_or(at, |dash| dash + 1))?);
        }
    }

    fn ended_list(
        &mut self,
        start: usize,
        at: usize,
        is_flow: bool,
        items: Vec<Place>,
        dashes: Vec<Option<usize>>,
    ) -> Place {
        if is_flow {
            self.flow = self.flow.saturating_sub(1);
            return Place {
                start,
                end: behind_bracket(self.text, at, ']'),
                fixed: None,
                shape: Shape::FlowList(items),
            };
        }
        let empty = items.iter().any(|item| matches!(item.shape, Shape::Nothing));
        let fixed = (self.flow > 0 || empty || dashes.contains(&None)).then_some(UNUSUAL);
        let dashed = |(dash, value): (Option<usize>, Place)| Dashed { dash: dash.unwrap_or(value.start), value };
        let items: Vec<_> = dashes.into_iter().zip(items).map(dashed).collect();
        let start = items.first().map_or(start, |item| item.dash);
        let end = items.last().map_or(start, Dashed::end);
        Place { start, end, fixed, shape: Shape::BlockList(items) }
    }

    fn map(&mut self, start: usize) -> Option<Place> {
        self.flow += usize::from(self.text[start..].starts_with('{'));
        let (mut pairs, mut fixed) = (Vec::new(), None);
        loop {
            let (event, span) = self.next()?;
            let at = self.byte(span.start.index());
            if event == Event::MappingEnd && !span.is_empty() {
                self.flow = self.flow.saturating_sub(1);
                return Some(Place {
                    start,
                    end: behind_bracket(self.text, at, '}'),
                    fixed,
                    shape: Shape::FlowMap(pairs),
                });
            }
            if event == Event::MappingEnd {
                let start = pairs.first().map_or(start, |pair: &Pair| pair.key_start);
                let end = pairs.last().map_or(start, Pair::end);
                let odd = self.flow > 0 || pairs.iter().any(|pair| pair.colon.is_none());
                return Some(Place {
                    start,
                    end,
                    fixed: fixed.or(odd.then_some(UNUSUAL)),
                    shape: Shape::BlockMap(pairs),
                });
            }
            let key = self.place(event, span, at)?;
            let Shape::Scalar { text: name, .. } = key.shape else { return None };
            fixed = fixed.or(key.fixed);
            let colon = self.colon(key.start, key.end);
            let (event, span) = self.next()?;
            let value = self.place(event, span, colon.unwrap_or(key.end))?;
            pairs.push(Pair { name, key_start: key.start, key_end: key.end, colon, value });
        }
    }

    /// Behind the colon of a key; `None` for `? key` and where there is none on its line.
    fn colon(&self, start: usize, end: usize) -> Option<usize> {
        let line = &self.text[line_start(self.text, start)..start];
        if line.trim_end().ends_with('?') {
            return None;
        }
        let rest = &self.text[end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        rest[blanks..].starts_with(':').then_some(end + blanks + 1)
    }
}

/// Behind the bracket that closes at `at` or, after a last comma, a little later.
fn behind_bracket(text: &str, mut at: usize, bracket: char) -> usize {
    loop {
        match text[at..].chars().next() {
            None => return at,
            Some(c) if c == bracket => return at + 1,
            Some('#') => at = next_line(text, at),
            Some(c) => at += c.len_utf8(),
        }
    }
}

/// Bytes of the quoted scalar that `text` begins with, quotes included.
fn quoted_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = *bytes.first().filter(|quote| matches!(quote, b'\'' | b'"'))?;
    let mut at = 1;
    loop {
        match *bytes.get(at)? {
            b'\\' if quote == b'"' => at += 2,
            byte if byte == quote && quote == b'\'' && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The dash of the item that begins at `at`, on its line or on one above with nothing but comments between. `None` when
/// more than blanks stand in front of the dash.
fn dash_before(text: &str, at: usize) -> Option<usize> {
    let mut start = line_start(text, at);
    if !text[start..at].trim().is_empty() {
        return alone(text, start, at);
    }
    while start > 0 {
        let end = start;
        start = line_start(text, end - 1);
        let line = text[start..end].trim();
        let Some(rest) = line.strip_prefix('-') else {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            return None;
        };
        let rest = rest.trim_start();
        let indent = text[start..end].len() - text[start..end].trim_start().len();
        return (rest.is_empty() || rest.starts_with('#')).then_some(start + indent);
    }
    None
}

fn alone(text: &str, start: usize, at: usize) -> Option<usize> {
    let front = text[start..at].trim_end();
    let dash = front.strip_suffix('-')?;
    dash.bytes().all(|byte| byte == b' ').then_some(start + dash.len())
}

/// The first byte of the line of `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Behind the end of the line of `at`.
pub(super) fn next_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}
