//! Bytes to heads: httparse for the field lines, our own strictness around it (RFC 9112).
//!
//! Owns finding the end of a head, the request and status lines, and the refusal of everything malformed. Never
//! allocates but into the caller's [`FieldTable`], and never decides anything beyond the head at hand.
//!
//! Decisions where the RFCs leave a choice: lines end in CRLF only (RFC 9112, section 2.2 merely allows a bare LF); a
//! fragment, a byte beyond ASCII and a backslash in the path are refused (RFC 3986 has none of them in a path); other
//! visible ASCII that RFC 3986 would escape is taken as browsers send it; `TRACE` is not served, because it would tell
//! the client which fields the proxy adds.

use crate::error::{Fault, Reason};
use crate::http::authority::Authority;
use crate::http::framing::{
    BodyFraming, ConnectionOptions, FramingFields, ResponseFraming, Sender, list_members, request_framing,
    response_framing,
};
use crate::http::head::{
    Entry, FieldKind, FieldTable, Fields, Method, RequestHead, ResponseHead, TargetForm, Version, field,
};
use crate::limits;

/// Empty lines in front of a request line that are skipped (RFC 9112, section 2.2), in lines.
pub const EMPTY_LINES_MAX: usize = 4;
/// Longest method, in bytes.
pub const METHOD_BYTES_MAX: usize = 32;

/// Fields that httparse gets room for at first; heads with more of them are read again with room for the most.
const FIELDS_COUNT_USUAL: usize = 32;
const VERSION_LEN: usize = 8;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// All bytes of the head; at most [`limits::HEADER_BYTES_MAX`].
    pub head_bytes: usize,
    /// All field lines; at most [`limits::HEADERS_COUNT_MAX`].
    pub fields: usize,
}

impl HeadLimits {
    /// What is taken from a backend.
    pub const RESPONSE: HeadLimits =
        HeadLimits { head_bytes: limits::RESPONSE_HEAD_BYTES_MAX, fields: limits::HEADERS_COUNT_MAX };
}

/// How far the search for the end of a head has come, so that a head that trickles in is looked at once.
///
/// Start with the default for each head; hand it in again with the same bytes and more behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadEnd {
    seen: u32,
    start_line_passed: bool,
}

impl HeadEnd {
    /// Whether `window` may hold a whole head: always at the first look, later when an empty line came in since.
    fn may_be_whole(&self, window: &[u8]) -> bool {
        let seen = self.seen as usize;
        seen == 0 || has_empty_line(window.get(seen.saturating_sub(3)..).unwrap_or(&[]))
    }

    /// Refuses early what cannot become a head any more, looking at new bytes only.
    fn check_partial(&mut self, window: &[u8], sender: Sender) -> Result<usize, Fault> {
        let from = (self.seen as usize).min(window.len());
        let mut before = if from == 0 { 0 } else { window[from - 1] };
        for &byte in &window[from..] {
            match byte {
                b'\n' if before != b'\r' => return Err(sender.malformed(BARE_LF)),
                _ if before == b'\r' && byte != b'\n' => return Err(sender.malformed(BARE_CR)),
                b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80.. => before = byte,
                _ => return Err(sender.malformed("a control character in the head (RFC 9110 5.5)")),
            }
        }
        self.seen = window.len() as u32;
        Ok(from)
    }
}

const BARE_LF: &str = "a line of the head ends in a bare LF (RFC 9112 2.2)";
const BARE_CR: &str = "a bare CR in the head (RFC 9112 2.2)";

fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| bytes[..at].ends_with(b"\r\n\r"))
}

/// Reads a request head at the start of `buf`: the head and the bytes it took, or `None` while it is not whole.
///
/// Refusals are final: 400 for what is malformed or ambiguous, 405 for `CONNECT` and `TRACE`, 414 for a target that is
/// too long, 431 for a head that is, 505 for a version that isn't HTTP/1. Many come before the head is whole.
pub fn parse_request<'b>(
    buf: &'b [u8],
    end: &mut HeadEnd,
    limits: &HeadLimits,
    table: &'b mut FieldTable,
) -> Result<Option<(RequestHead<'b>, usize)>, Fault> {
    let window = &buf[..buf.len().min(limits.head_bytes)];
    if end.may_be_whole(window) {
        let start = skip_empty_lines(window)?;
        if let Some(line) = request_line(window, start)?
            && let Some(len) = parse_fields(window, line.end, limits.fields, Sender::Client, table)?
        {
            let fields = Fields { head: &window[..len], entries: &table.entries };
            return Ok(Some((line.into_head(fields)?, len)));
        }
    }
    let from = end.check_partial(window, Sender::Client)?;
    check_partial_request(window, from, end)?;
    if window.len() == limits.head_bytes {
        return Err(if end.start_line_passed {
            Fault::new(Reason::HeadTooLarge, "the head is larger than max_header_bytes (RFC 6585 5)")
        } else {
            TARGET_TOO_LONG
        });
    }
    Ok(None)
}

const TARGET_TOO_LONG: Fault = Fault::new(Reason::TargetTooLong, "the request target is too long (RFC 9110 15.5.15)");

/// The start line of a request that isn't whole yet: checked as a whole once, bounded until then.
fn check_partial_request(window: &[u8], from: usize, end: &mut HeadEnd) -> Result<(), Fault> {
    if end.start_line_passed {
        return Ok(());
    }
    let start = skip_empty_lines(window)?;
    let line = window.get(start..).unwrap_or(&[]);
    if line.first().is_some_and(|&byte| byte != b'\r' && !is_token(byte)) {
        return Err(Sender::Client.malformed(NO_METHOD));
    }
    if from.max(start) < window.len() && memchr::memchr(b'\n', &window[from.max(start)..]).is_some() {
        end.start_line_passed = request_line(window, start)?.is_some();
    } else if line.len() > METHOD_BYTES_MAX && memchr::memchr(b' ', &line[..=METHOD_BYTES_MAX]).is_none() {
        return Err(Sender::Client.malformed(NO_METHOD));
    } else if line.len() > METHOD_BYTES_MAX + limits::TARGET_BYTES_MAX + VERSION_LEN + 4 {
        return Err(TARGET_TOO_LONG);
    }
    Ok(())
}

/// Where the request line begins.
fn skip_empty_lines(window: &[u8]) -> Result<usize, Fault> {
    let mut start = 0;
    while let Some([b'\r', b'\n']) = window.get(start..start + 2) {
        start += 2;
        if start > 2 * EMPTY_LINES_MAX {
            return Err(Sender::Client.malformed("too many empty lines before the request line (RFC 9112 2.2)"));
        }
    }
    Ok(start)
}

struct RequestLine<'b> {
    method: Method,
    method_name: &'b [u8],
    target: &'b [u8],
    /// Offset of the first question mark in the target, or its length.
    query_at: usize,
    version: Version,
    /// Offset behind its CRLF.
    end: usize,
}

const NO_METHOD: &str = "the request does not begin with a method (RFC 9112 3)";

/// `method SP request-target SP HTTP-version CRLF` (RFC 9112, section 3); `None` while its end is missing.
fn request_line(window: &[u8], start: usize) -> Result<Option<RequestLine<'_>>, Fault> {
    let Some(method_len) = method_len(&window[start..])? else { return Ok(None) };
    let method_name = &window[start..start + method_len];
    let target_start = start + method_len + 1;
    let Some((target_len, query_at)) = target_len(&window[target_start..])? else { return Ok(None) };
    if target_len > limits::TARGET_BYTES_MAX {
        return Err(TARGET_TOO_LONG);
    }
    let target = &window[target_start..target_start + target_len];
    let Some((version, rest)) = window[target_start + target_len + 1..].split_first_chunk::<VERSION_LEN>() else {
        return Ok(None);
    };
    let version = version_of(version).map_err(|wrong| match wrong {
        WrongVersion::Malformed => Sender::Client.malformed("the version is malformed (RFC 9112 2.3)"),
        WrongVersion::NotServed => Fault::new(Reason::VersionNotServed, "only HTTP/1 is served here (RFC 9110 15.6.6)"),
    })?;
    match rest {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Ok(None),
        [b'\n', ..] => return Err(Sender::Client.malformed(BARE_LF)),
        [b'\r', ..] => return Err(Sender::Client.malformed(BARE_CR)),
        _ => return Err(Sender::Client.malformed("the request line goes on after the version (RFC 9112 3)")),
    }
    let method = match method_name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"CONNECT" => return Err(Fault::new(Reason::MethodNotServed, "CONNECT is not served (RFC 9110 9.3.6)")),
        b"TRACE" => return Err(Fault::new(Reason::MethodNotServed, "TRACE is not served (RFC 9110 9.3.8)")),
        _ => Method::Other,
    };
    let end = window.len() - rest.len() + 2;
    Ok(Some(RequestLine { method, method_name, target, query_at, version, end }))
}

fn method_len(line: &[u8]) -> Result<Option<usize>, Fault> {
    let wrong = || Sender::Client.malformed(NO_METHOD);
    match line.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| !is_token(byte)) {
        Some(0) if line == b"\r" => Ok(None),
        Some(0) => Err(wrong()),
        Some(len) if line[len] == b' ' => Ok(Some(len)),
        Some(_) => Err(wrong()),
        None if line.len() > METHOD_BYTES_MAX => Err(wrong()),
        None => Ok(None),
    }
}

/// Length of the target and offset of its query, up to the space behind it.
fn target_len(line: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut at = 0;
    let mut query_at = None;
    loop {
        let Some(plain) = line[at..].iter().position(|&byte| !TARGET_BYTE[byte as usize]) else {
            return if line.len() > limits::TARGET_BYTES_MAX { Err(TARGET_TOO_LONG) } else { Ok(None) };
        };
        at += plain;
        let detail = match line[at] {
            b' ' if at == 0 => "the request target is empty (RFC 9112 3.2)",
            b' ' => return Ok(Some((at, query_at.unwrap_or(at)))),
            b'?' => {
                query_at.get_or_insert(at);
                at += 1;
                continue;
            }
            b'\\' if query_at.is_some() => {
                at += 1;
                continue;
            }
            b'\\' => "a backslash in the path (RFC 3986 3.3)",
            b'#' => "a fragment in the request target (RFC 9112 3.2)",
            b'\r' | b'\n' => "the request line has no version (RFC 9112 3)",
            0x80.. => "a byte beyond ASCII in the request target (RFC 3986 2)",
            _ => "a control character in the request target (RFC 9112 3.2)",
        };
        return Err(Sender::Client.malformed(detail));
    }
}

/// `true` for visible ASCII that needs no further look in a target.
static TARGET_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = !matches!(byte as u8, b'#' | b'?' | b'\\');
        byte += 1;
    }
    table
};

/// `true` for `tchar` (RFC 9110, section 5.6.2).
static TOKEN_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

/// Whether this is a `tchar` (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN_BYTE[byte as usize]
}

enum WrongVersion {
    Malformed,
    NotServed,
}

/// `HTTP/` DIGIT `.` DIGIT, case-sensitive (RFC 9112, section 2.3).
fn version_of(text: &[u8; VERSION_LEN]) -> Result<Version, WrongVersion> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(WrongVersion::NotServed),
        _ => Err(WrongVersion::Malformed),
    }
}

/// Reads field lines from `start` to the empty line that ends them; the offset behind it, `None` while it is missing.
pub(super) fn parse_fields(
    head: &[u8],
    start: usize,
    fields_max: usize,
    sender: Sender,
    table: &mut FieldTable,
) -> Result<Option<usize>, Fault> {
    let mut few = [httparse::EMPTY_HEADER; FIELDS_COUNT_USUAL];
    match httparse::parse_headers(&head[start..], &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = [httparse::EMPTY_HEADER; limits::HEADERS_COUNT_MAX];
            let parsed = httparse::parse_headers(&head[start..], &mut many);
            record_fields(head, start, parsed, fields_max, sender, table)
        }
        parsed => record_fields(head, start, parsed, fields_max, sender, table),
    }
}

type ParsedHeaders<'a, 'b> = httparse::Result<(usize, &'a [httparse::Header<'b>])>;

fn record_fields<'b>(
    head: &'b [u8],
    start: usize,
    parsed: ParsedHeaders<'_, 'b>,
    fields_max: usize,
    sender: Sender,
    table: &mut FieldTable,
) -> Result<Option<usize>, Fault> {
    let (len, headers) = match parsed {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(field_fault(error, sender)),
    };
    if headers.len() > fields_max {
        return Err(sender.too_large("more fields than max_headers (RFC 6585 5)"));
    }
    let end = start + len;
    if !head[..end].ends_with(b"\r\n") {
        return Err(sender.malformed(BARE_LF));
    }
    table.entries.clear();
    for header in headers {
        table.entries.push(entry(head, header).ok_or_else(|| sender.malformed(BARE_LF))?);
    }
    Ok(Some(end))
}

/// Where httparse found this field; `None` when its line doesn't end in CRLF.
#[inline]
fn entry(head: &[u8], header: &httparse::Header<'_>) -> Option<Entry> {
    let base = head.as_ptr() as usize;
    let name_start = header.name.as_ptr() as usize - base;
    let value_start = header.value.as_ptr() as usize - base;
    let value_end = value_start + header.value.len();
    let name_end = name_start + header.name.len();
    let ends_at_once = head.get(value_end) == Some(&b'\r');
    if !ends_at_once && trim_start(&head[value_end..]).first() != Some(&b'\r') {
        return None;
    }
    Some(Entry {
        name_start: name_start as u32,
        value_start: value_start as u32,
        value_len: header.value.len() as u32,
        name_len: header.name.len() as u16,
        kind: FieldKind::of(header.name.as_bytes()),
        is_canonical: ends_at_once && value_start == name_end + 2 && head[name_end + 1] == b' ',
    })
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

#[cold]
fn field_fault(error: httparse::Error, sender: Sender) -> Fault {
    match error {
        httparse::Error::HeaderName => {
            sender.malformed("a field name is empty, not a token, folded, or apart from its colon (RFC 9112 5)")
        }
        httparse::Error::HeaderValue => sender.malformed("a control character in a field value (RFC 9110 5.5)"),
        httparse::Error::NewLine => sender.malformed(BARE_CR),
        httparse::Error::TooManyHeaders => sender.too_large("more fields than any head may have (RFC 6585 5)"),
        _ => sender.malformed("a malformed field (RFC 9112 5)"),
    }
}

/// What the known fields of a request say, before it is put together.
#[derive(Default)]
struct RequestFacts<'b> {
    host: Option<&'b [u8]>,
    framing: FramingFields<'b>,
    connection: ConnectionOptions,
    upgrade: Option<&'b [u8]>,
    upgrade_doubled: bool,
    expect_continue: bool,
    wants_trailers: bool,
    accepts_event_stream: bool,
    is_grpc: bool,
}

impl<'b> RequestFacts<'b> {
    fn collect(fields: Fields<'b>) -> Result<RequestFacts<'b>, Fault> {
        let mut facts = RequestFacts::default();
        for entry in fields.entries.iter().filter(|entry| entry.kind != FieldKind::Other) {
            facts.add(field(fields.head, entry).name, field(fields.head, entry).value, entry.kind)?;
        }
        Ok(facts)
    }

    fn add(&mut self, name: &[u8], value: &'b [u8], kind: FieldKind) -> Result<(), Fault> {
        match kind {
            FieldKind::Host if self.host.replace(value).is_some() => {
                return Err(Sender::Client.malformed("Host comes twice (RFC 9112 3.2)"));
            }
            FieldKind::ContentLength => self.framing.add_content_length(value),
            FieldKind::TransferEncoding => self.framing.add_transfer_encoding(value),
            FieldKind::Connection => self.connection.add(value),
            FieldKind::Upgrade => self.upgrade_doubled |= self.upgrade.replace(value).is_some(),
            FieldKind::Expect => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            FieldKind::Te => {
                self.wants_trailers |= list_members(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            FieldKind::Accept => self.accepts_event_stream |= has_event_stream(value),
            FieldKind::ContentType => self.is_grpc |= begins_with(value, b"application/grpc"),
            FieldKind::LookAlike if is_framing_look_alike(name) => {
                return Err(Sender::Client.malformed("a framing field with underscores (RFC 9112 11.2)"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The protocol to switch to, when asking for it is passed on; see [`RequestHead::upgrade`].
    fn upgrade(&self, line: &RequestLine<'b>, framing: BodyFraming) -> Option<&'b [u8]> {
        let protocol = self.upgrade.filter(|_| self.connection.upgrade && !self.upgrade_doubled)?;
        let is_name = !protocol.is_empty() && protocol.iter().all(|&b| is_token(b) || b == b'/');
        let is_http = protocol.eq_ignore_ascii_case(b"h2c")
            || protocol.eq_ignore_ascii_case(b"h2")
            || begins_with(protocol, b"http/")
            || begins_with(protocol, b"tls/");
        let fits_method = line.method == Method::Get || !protocol.eq_ignore_ascii_case(b"websocket");
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        (is_name && !is_http && fits_method && !has_body && line.version == Version::Http11).then_some(protocol)
    }
}

fn is_framing_look_alike(name: &[u8]) -> bool {
    use crate::http::head::same_name;
    same_name(name, b"content-length") || same_name(name, b"transfer-encoding")
}

/// Whether a list of media ranges has `text/event-stream`.
fn has_event_stream(value: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    const DASH: usize = 10;
    memchr::memchr_iter(b'-', value).any(|dash| {
        let Some(start) = dash.checked_sub(DASH) else { return false };
        let before = start.checked_sub(1).map(|at| value[at]);
        value.get(start..start + NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
            && matches!(before, None | Some(b',' | b' ' | b'\t'))
            && matches!(value.get(start + NAME.len()), None | Some(b',' | b';' | b' ' | b'\t'))
    })
}

fn begins_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl<'b> RequestLine<'b> {
    fn into_head(self, fields: Fields<'b>) -> Result<RequestHead<'b>, Fault> {
        let facts = RequestFacts::collect(fields)?;
        let framing = request_framing(self.version, &facts.framing)?;
        let target = self.split_target()?;
        let malformed = |detail| Sender::Client.malformed(detail);
        let host = match facts.host {
            Some(value) => Some(Authority::parse(value).map_err(malformed)?),
            None if self.version == Version::Http11 => return Err(malformed("Host is missing (RFC 9112 3.2)")),
            None => None,
        };
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        Ok(RequestHead {
            fields,
            method_name: self.method_name,
            target: self.target,
            path: target.path,
            query: target.query,
            authority: target.authority.or(host),
            upgrade: facts.upgrade(&self, framing),
            framing,
            method: self.method,
            form: target.form,
            version: self.version,
            connection: facts.connection,
            expect_continue: facts.expect_continue && has_body && self.version == Version::Http11,
            wants_trailers: facts.wants_trailers,
            accepts_event_stream: facts.accepts_event_stream,
            is_grpc: facts.is_grpc,
        })
    }

    /// The forms of RFC 9112, section 3.2; authority-form belongs to `CONNECT` alone.
    fn split_target(&self) -> Result<SplitTarget<'b>, Fault> {
        let (path, query) = self.target.split_at(self.query_at);
        match self.target {
            [b'/', ..] => Ok(SplitTarget { form: TargetForm::Origin, authority: None, path, query }),
            b"*" if self.method == Method::Options => {
                Ok(SplitTarget { form: TargetForm::Asterisk, authority: None, path, query })
            }
            b"*" => Err(Sender::Client.malformed("the target * is for OPTIONS alone (RFC 9112 3.2.4)")),
            _ => self.split_absolute(path, query),
        }
    }

    fn split_absolute(&self, before_query: &'b [u8], query: &'b [u8]) -> Result<SplitTarget<'b>, Fault> {
        let scheme_len = match before_query {
            _ if begins_with(before_query, b"http://") => 7,
            _ if begins_with(before_query, b"https://") => 8,
            _ => return Err(Sender::Client.malformed("the target has none of the forms of RFC 9112 3.2")),
        };
        let rest = &before_query[scheme_len..];
        let (authority, path) = rest.split_at(memchr::memchr(b'/', rest).unwrap_or(rest.len()));
        let authority = Authority::parse(authority).map_err(|detail| Sender::Client.malformed(detail))?;
        let path = match path {
            b"" if self.method == Method::Options && query.is_empty() => b"*",
            b"" => b"/",
            _ => path,
        };
        Ok(SplitTarget { form: TargetForm::Absolute, authority: Some(authority), path, query })
    }
}

struct SplitTarget<'b> {
    form: TargetForm,
    authority: Option<Authority<'b>>,
    path: &'b [u8],
    query: &'b [u8],
}

/// What a response answers; its framing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request was a `HEAD`.
    pub head: bool,
    /// The request asked to switch protocols, so a 101 may come.
    pub upgrade: bool,
}

/// Reads a response head at the start of `buf`: the head and the bytes it took, or `None` while it is not whole.
///
/// The same strictness as for requests; every refusal is [`Reason::BackendProtocol`], but for a 101 nobody asked for
/// ([`Reason::BackendUpgrade`]).
pub fn parse_response<'b>(
    buf: &'b [u8],
    end: &mut HeadEnd,
    asked: Asked,
    limits: &HeadLimits,
    table: &'b mut FieldTable,
) -> Result<Option<(ResponseHead<'b>, usize)>, Fault> {
    let window = &buf[..buf.len().min(limits.head_bytes)];
    if end.may_be_whole(window)
        && let Some(line) = status_line(window)?
        && let Some(len) = parse_fields(window, line.end, limits.fields, Sender::Backend, table)?
    {
        let fields = Fields { head: &window[..len], entries: &table.entries };
        return Ok(Some((line.into_head(fields, asked)?, len)));
    }
    end.check_partial(window, Sender::Backend)?;
    if window.len() == limits.head_bytes {
        return Err(Sender::Backend.too_large("the response head is too large"));
    }
    Ok(None)
}

struct StatusLine<'b> {
    version: Version,
    status: u16,
    reason: &'b [u8],
    /// Offset behind its CRLF.
    end: usize,
}

/// `HTTP-version SP status-code [ SP reason-phrase ] CRLF` (RFC 9112, section 4; the second space is often forgotten).
fn status_line(window: &[u8]) -> Result<Option<StatusLine<'_>>, Fault> {
    let wrong = |detail| Err(Sender::Backend.malformed(detail));
    let known = window.len().min(VERSION_LEN - 3);
    if window[..known] != b"HTTP/"[..known] {
        return wrong("the answer does not begin with HTTP/ (RFC 9112 4)");
    }
    let Some(lf) = memchr::memchr(b'\n', window) else { return Ok(None) };
    let Some((line, b'\r')) = window[..lf].split_last().map(|(last, line)| (line, *last)) else {
        return wrong(BARE_LF);
    };
    let Some((version, rest)) = line.split_first_chunk::<VERSION_LEN>() else {
        return wrong("the status line is malformed (RFC 9112 4)");
    };
    let Ok(version) = version_of(version) else {
        return wrong("the answer's version is not HTTP/1 (RFC 9112 2.3)");
    };
    let (digits, reason) = match rest {
        [b' ', a, b, c] => ([*a, *b, *c], &[] as &[u8]),
        [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return wrong("the status line is malformed (RFC 9112 4)"),
    };
    if !reason.iter().all(|&byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
        return wrong("a control character in the reason phrase (RFC 9112 4)");
    }
    let [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] = digits else {
        return wrong("the status is outside 100 to 599 (RFC 9110 15)");
    };
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    Ok(Some(StatusLine { version, status, reason, end: lf + 1 }))
}

impl<'b> StatusLine<'b> {
    fn into_head(self, fields: Fields<'b>, asked: Asked) -> Result<ResponseHead<'b>, Fault> {
        let mut framing_fields = FramingFields::default();
        let mut head = ResponseHead {
            fields,
            reason: self.reason,
            upgrade: None,
            backend_load: None,
            framing: ResponseFraming::None,
            status: self.status,
            version: self.version,
            connection: ConnectionOptions::default(),
            has_date: false,
            may_persist: true,
            is_event_stream: false,
        };
        for entry in fields.entries.iter().filter(|entry| entry.kind != FieldKind::Other) {
            let value = field(fields.head, entry).value;
            match entry.kind {
                FieldKind::ContentLength => framing_fields.add_content_length(value),
                FieldKind::TransferEncoding => framing_fields.add_transfer_encoding(value),
                FieldKind::Connection => head.connection.add(value),
                FieldKind::Upgrade => head.upgrade = Some(value),
                FieldKind::Date => head.has_date = true,
                FieldKind::XBackendLoad => head.backend_load = Some(value),
                FieldKind::ContentType => head.is_event_stream |= has_event_stream(value),
                _ => {}
            }
        }
        head.framing = response_framing(self.version, self.status, asked.head, &framing_fields)?;
        // A sender that frames the body of an answer which has none may send one as well.
        let contradicts = matches!(self.status, 100..200 | 204) && framing_fields.has_transfer_encoding();
        head.may_persist = head.framing != ResponseFraming::UntilClose && !contradicts;
        if self.status == 101 && !(asked.upgrade && head.upgrade.is_some()) {
            return Err(Fault::new(Reason::BackendUpgrade, "a 101 that was not asked for (RFC 9110 15.2.2)"));
        }
        Ok(head)
    }
}
