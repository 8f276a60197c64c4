//! Bytes to heads, strictly (RFC 9112).
//!
//! Owns finding the end of a head, what its known fields say together, and the refusal of everything malformed. Never
//! allocates but into the caller's [`FieldTable`], and never decides anything beyond the head at hand. Written by hand
//! in place of httparse: no slower, exact about line ends, and every refusal can name its rule; a property test holds
//! the two to the same reading.
//!
//! Decisions where the RFCs leave a choice: lines end in CRLF only (RFC 9112, section 2.2 merely allows a bare LF); a
//! fragment, a byte beyond ASCII and a backslash in the path are refused (RFC 3986 has none of them in a path); other
//! visible ASCII that RFC 3986 would escape is taken as browsers send it; `TRACE` is not served, because it would tell
//! the client which fields the proxy adds.

use crate::error::{Fault, Reason};
use crate::http::authority::Authority;
use crate::http::fields::{BARE_CR, BARE_LF, is_token, parse_fields};
use crate::http::framing::{
    BodyFraming, ConnectionOptions, FramingFields, ResponseFraming, Sender, decimal, list_members, request_framing,
    response_framing,
};
use crate::http::head::{
    FieldKind, FieldTable, Fields, Method, RequestHead, ResponseHead, TargetForm, Version, field, same_name,
};
use crate::http::start_line::{
    METHOD_BYTES_MAX, NO_METHOD, REQUEST_LINE_BYTES_MAX, RequestLine, StatusLine, TARGET_TOO_LONG, request_line,
    skip_empty_lines, status_line,
};
use crate::limits;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// All bytes of the head; of a request at most [`limits::HEADER_BYTES_MAX`].
    pub head_bytes: usize,
    /// All field lines; at most [`limits::HEADERS_COUNT_MAX`].
    pub fields: usize,
}

impl HeadLimits {
    /// What is taken from a backend.
    pub const RESPONSE: HeadLimits =
        HeadLimits { head_bytes: limits::RESPONSE_HEAD_BYTES_MAX, fields: limits::HEADERS_COUNT_MAX };

    /// For a head that our own writer made of one that was within [`HeadLimits::RESPONSE`]: what we and the route add comes
    /// on top, so that it has no bound of its own but what offsets in it can say.
    pub const OURS: HeadLimits = HeadLimits { head_bytes: u32::MAX as usize, fields: usize::MAX };
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
    let window = &buf[..buf.len().min(limits.head_bytes).min(limits::HEADER_BYTES_MAX)];
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
    if window.len() >= limits.head_bytes.min(limits::HEADER_BYTES_MAX) {
        return Err(if end.start_line_passed {
            Fault::new(Reason::HeadTooLarge, "the head is larger than max_header_bytes (RFC 6585 5)")
        } else {
            TARGET_TOO_LONG
        });
    }
    Ok(None)
}

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
    } else if line.len() > REQUEST_LINE_BYTES_MAX + 2 {
        return Err(TARGET_TOO_LONG);
    }
    Ok(())
}

/// What the known fields of a request say, before it is put together.
#[derive(Default)]
struct RequestFacts<'b> {
    host: Option<&'b [u8]>,
    framing: FramingFields<'b>,
    connection: ConnectionOptions,
    upgrade: Option<&'b [u8]>,
    upgrade_doubled: bool,
    max_forwards: Option<&'b [u8]>,
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
            FieldKind::MaxForwards => self.max_forwards = Some(value),
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
    same_name(name, b"content-length") || same_name(name, b"transfer-encoding")
}

/// Whether a list of media ranges has `text/event-stream`.
fn has_event_stream(value: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    const DASH: usize = 10;
    if value.len() < NAME.len() {
        return false;
    }
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
            path_is_suspect: self.path_is_suspect,
            authority: target.authority.or(host),
            upgrade: facts.upgrade(&self, framing),
            framing,
            method: self.method,
            form: target.form,
            version: self.version,
            connection: facts.connection,
            max_forwards: facts.max_forwards.filter(|_| self.method == Method::Options).and_then(decimal),
            expect_continue: facts.expect_continue && has_body && self.version == Version::Http11,
            wants_trailers: facts.wants_trailers && self.version == Version::Http11,
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
    if window.len() >= limits.head_bytes {
        return Err(Sender::Backend.too_large("the response head is too large"));
    }
    Ok(None)
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
            plain_length: None,
            status: self.status,
            version: self.version,
            connection: ConnectionOptions::default(),
            has_date: false,
            may_persist: true,
            is_event_stream: false,
            is_grpc: false,
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
                FieldKind::ContentType => {
                    head.is_event_stream |= has_event_stream(value);
                    head.is_grpc |= begins_with(value, b"application/grpc");
                }
                _ => {}
            }
        }
        head.framing = response_framing(self.version, self.status, asked.head, &framing_fields)?;
        head.plain_length = match head.framing {
            ResponseFraming::Length(len) if !framing_fields.has_leading_zeros() => Some(len),
            _ => None,
        };
        // A sender that frames the body of an answer which has none may send one as well.
        let contradicts = matches!(self.status, 100..200 | 204) && framing_fields.declare_a_body();
        head.may_persist = head.framing != ResponseFraming::UntilClose && !contradicts;
        if self.status == 101 && !(asked.upgrade && head.upgrade.is_some()) {
            return Err(Fault::new(Reason::BackendUpgrade, "a 101 that was not asked for (RFC 9110 15.2.2)"));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::class::{Protocol, classify};
    use crate::http::start_line::EMPTY_LINES_MAX;
    use crate::http::target::canonical_path;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, fields: 100 };

    /// The reason a whole buffer is refused for, with what `seen` makes of the head otherwise.
    fn request<T>(text: &[u8], seen: impl FnOnce(RequestHead<'_>, usize) -> T) -> Result<Option<T>, Fault> {
        let mut table = FieldTable::default();
        let parsed = parse_request(text, &mut HeadEnd::default(), &LIMITS, &mut table)?;
        Ok(parsed.map(|(head, len)| seen(head, len)))
    }

    fn reason(text: &str) -> Option<Reason> {
        request(text.as_bytes(), |_, _| ()).err().map(|fault| fault.reason)
    }

    fn with_fields(lines: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
    }

    fn accepts(text: &str) -> bool {
        matches!(request(text.as_bytes(), |_, len| len), Ok(Some(len)) if len == text.len())
    }

    #[test]
    fn only_paths_that_need_it_are_rewritten() {
        let targets =
            ["/", "/a.b/c", "/a/./b?x=/../", "/a/..?", "/%41", "/.", "/a?%2e", "/..a", "//.", "http://.a/b/../c"];
        for target in targets {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            request(text.as_bytes(), |head, _| {
                let (mut room, mut anew) = (Vec::new(), Vec::new());
                assert_eq!(head.canonical_path(&mut room), canonical_path(head.path(), &mut anew), "{target}");
            })
            .unwrap();
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let text = "POST /a/b?c=d?e HTTP/1.1\r\nhoSt:\texample.com:80 \r\nempty:\r\nContent-Length: 5\r\n\
                    Cookie: x=1; sid=\"two\" ;y\r\nCookie: sid=3\r\nExpect: 100-Continue\r\nTE: gzip, trailers\r\n\r\nhello";
        request(text.as_bytes(), |head, len| {
            assert_eq!(&text[len..], "hello");
            assert_eq!((head.method(), head.method_name()), (Method::Post, &b"POST"[..]));
            assert_eq!((head.path(), head.query()), (&b"/a/b"[..], Some(&b"c=d?e"[..])));
            assert_eq!((head.form(), head.version()), (TargetForm::Origin, Version::Http11));
            assert_eq!((head.host(), head.authority().unwrap().port()), (&b"example.com"[..], Some(80)));
            assert_eq!(head.framing(), BodyFraming::Length(5));
            assert!(head.keep_alive() && head.expect_continue() && head.wants_trailers());
            assert_eq!(head.fields().get("EMPTY"), Some(&b""[..]));
            assert_eq!(head.fields().cookie("sid"), Some(&b"\"two\""[..]));
            assert_eq!(head.fields().cookie("y"), None);
            assert_eq!(head.fields().len(), 7);
        })
        .unwrap()
        .unwrap();
    }

    #[test]
    fn malformed_request_lines_are_refused() {
        for line in [
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/1.1x",
            "GET /",
            "GET / ",
            "GET HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/01.01",
            "GET / HTTP/1",
            "GET / HTTP/1.",
            "GET / HTTP/1.10",
            "GET / HTTP/ 1.1",
            "GET / HTTP 1.1",
            "GET /a b HTTP/1.1",
            "G@T / HTTP/1.1",
            "/ HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET /caf\u{e9} HTTP/1.1",
            "GET /a\\b HTTP/1.1",
            "GET /?\t HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ?a HTTP/1.1",
            "GET a:80 HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:/a HTTP/1.1",
            "GET http:// HTTP/1.1",
            "GET http://u@a/ HTTP/1.1",
            "GET http://a:x/ HTTP/1.1",
            "GET http://?a HTTP/1.1",
            "OPTIONS *a HTTP/1.1",
            "OPTIONS *?a HTTP/1.1",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1",
        ] {
            let text = format!("{line}\r\nHost: a\r\n\r\n");
            assert_eq!(reason(&text), Some(Reason::BadRequest), "{line:?}");
        }
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "   \r\n\r\n",
        ] {
            assert_eq!(reason(text), Some(Reason::BadRequest), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_served_has_its_own_status() {
        let cases = [
            ("GET / HTTP/2.0", Reason::VersionNotServed),
            ("GET / HTTP/0.9", Reason::VersionNotServed),
            ("GET / HTTP/9.9", Reason::VersionNotServed),
            ("PRI * HTTP/2.0", Reason::VersionNotServed),
            ("CONNECT a:443 HTTP/1.1", Reason::MethodNotServed),
            ("TRACE / HTTP/1.1", Reason::MethodNotServed),
        ];
        for (line, expected) in cases {
            assert_eq!(reason(&format!("{line}\r\nHost: a\r\n\r\n")), Some(expected), "{line}");
        }
        assert_eq!(reason("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Reason::VersionNotServed));
    }

    #[test]
    fn later_minor_versions_are_1_1() {
        let version =
            |minor| request(format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n").as_bytes(), |head, _| head.version());
        assert_eq!(version(0).unwrap(), Some(Version::Http10));
        assert_eq!(version(2).unwrap(), Some(Version::Http11));
        assert_eq!(version(9).unwrap(), Some(Version::Http11));
    }

    #[test]
    fn malformed_fields_are_refused() {
        for lines in [
            "A : b",
            "A\t: b",
            ": b",
            "A",
            "A: b\r\n c",
            "A: b\r\n\tc",
            "A[]: b",
            "A\u{eb}: b",
            "A b: c",
            "A: b\0",
            "A: b\x07",
            "A: \x7f",
            "A: b\x0bc",
            "A: b\rc",
            "A: b\nC: d",
            "A: b\n",
            "A:\n",
            "A: \n",
            "A: b \n",
            "A:\r\n b",
            "(A): b",
            "A\\: b",
            "A: b\r\n\rC: d",
            "\0: b",
            "A: b\r\r",
        ] {
            assert_eq!(reason(&with_fields(lines)), Some(Reason::BadRequest), "{lines:?}");
        }
        assert_eq!(reason("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Some(Reason::BadRequest));
        assert_eq!(reason("GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"), Some(Reason::BadRequest));
        assert_eq!(reason("GET / HTTP/1.1\r\nHost: a\r\n\n"), Some(Reason::BadRequest));
        assert_eq!(reason("GET / HTTP/1.1\r\nHost: a\n\n"), Some(Reason::BadRequest));
    }

    #[test]
    fn unusual_but_valid_fields_are_taken() {
        for lines in ["A:b", "A:  b\t", "A:", "A: \t", "A: b\u{e9}\tc", "!#$%&'*+-.^_`|~09: x", "A: b: c"] {
            assert!(accepts(&with_fields(lines)), "{lines:?}");
        }
    }

    #[test]
    fn host_is_there_once_and_well_formed() {
        let of = |version: &str, lines: &str| reason(&format!("GET / HTTP/{version}\r\n{lines}\r\n"));
        for lines in [
            "",
            "Host:\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a, b\r\n",
            "Host: u@a\r\n",
            "Host: a/b\r\n",
            "Host: a:b\r\n",
        ] {
            assert_eq!(of("1.1", lines), Some(Reason::BadRequest), "{lines:?}");
        }
        assert_eq!(of("1.0", "Host: a\r\nHost: b\r\n"), Some(Reason::BadRequest));
        assert_eq!(of("1.0", ""), None);
    }

    #[test]
    fn the_authority_of_the_target_replaces_host() {
        let parts = |line: &str| {
            request(format!("{line}\r\nHost: other\r\n\r\n").as_bytes(), |head, _| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(head.authority().unwrap().as_bytes()), text(head.path()), text(head.query_suffix()))
            })
            .unwrap()
            .unwrap()
        };
        let expected = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("GET http://a:1/b?c HTTP/1.1"), expected("a:1", "/b", "?c"));
        assert_eq!(parts("GET HTTPS://a HTTP/1.1"), expected("a", "/", ""));
        assert_eq!(parts("GET http://a?b/c HTTP/1.1"), expected("a", "/", "?b/c"));
        assert_eq!(parts("OPTIONS http://a HTTP/1.1"), expected("a", "*", ""));
        assert_eq!(parts("OPTIONS http://a/ HTTP/1.1"), expected("a", "/", ""));
        assert_eq!(parts("OPTIONS * HTTP/1.1"), expected("other", "*", ""));
        assert_eq!(
            reason("GET http://a/ HTTP/1.1\r\n\r\n"),
            Some(Reason::BadRequest),
            "Host has to be there all the same"
        );
    }

    #[test]
    fn framing_look_alikes_are_refused() {
        assert_eq!(reason(&with_fields("Transfer_Encoding: chunked")), Some(Reason::BadRequest));
        assert_eq!(reason(&with_fields("content_length: 5")), Some(Reason::BadRequest));
        assert!(accepts(&with_fields("X_Forwarded_For: 1.1.1.1")));
    }

    #[test]
    fn each_limit_has_its_status() {
        let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
        assert!(accepts(&target(limits::TARGET_BYTES_MAX)));
        assert_eq!(reason(&target(limits::TARGET_BYTES_MAX + 1)), Some(Reason::TargetTooLong));
        let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
        assert!(accepts(&fields(33)) && accepts(&fields(LIMITS.fields)));
        assert_eq!(reason(&fields(LIMITS.fields + 1)), Some(Reason::HeadTooLarge));
        assert_eq!(reason(&fields(1000)), Some(Reason::HeadTooLarge));
        let padding = LIMITS.head_bytes - with_fields("A: ").len();
        assert!(accepts(&with_fields(&format!("A: {}", "b".repeat(padding)))));
        assert_eq!(reason(&with_fields(&format!("A: {}", "b".repeat(padding + 1)))), Some(Reason::HeadTooLarge));
        assert_eq!(reason(&"A".repeat(METHOD_BYTES_MAX + 1)), Some(Reason::BadRequest));
        assert_eq!(reason(&format!("GET /{}", "a".repeat(limits::TARGET_BYTES_MAX))), Some(Reason::TargetTooLong));
    }

    #[test]
    fn a_few_empty_lines_may_come_first() {
        let text = |lines| format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(lines));
        assert!(accepts(&text(1)) && accepts(&text(EMPTY_LINES_MAX)));
        assert_eq!(reason(&text(EMPTY_LINES_MAX + 1)), Some(Reason::BadRequest));
    }

    /// The reason for refusing `text` when it comes byte by byte, and after how many bytes.
    fn refused_at(text: &[u8]) -> Option<(usize, Reason)> {
        let mut end = HeadEnd::default();
        (1..=text.len()).find_map(|len| {
            let mut table = FieldTable::default();
            let fault = parse_request(&text[..len], &mut end, &LIMITS, &mut table).err()?;
            Some((len, fault.reason))
        })
    }

    #[test]
    fn garbage_is_refused_before_the_head_ends() {
        assert_eq!(refused_at(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Some((1, Reason::BadRequest)));
        assert_eq!(refused_at(b"GET /\r\n"), Some((7, Reason::BadRequest)));
        assert_eq!(refused_at(b"GET / \r\n\r\n"), Some((8, Reason::BadRequest)));
        assert_eq!(refused_at(b"GET / HTTP/3.0\r\nHost: a"), Some((16, Reason::VersionNotServed)));
        assert_eq!(refused_at(b"GET / HTTP/1.1\nHost: a"), Some((15, Reason::BadRequest)));
        assert_eq!(refused_at(b"GET / HTTP/1.1\r\nHost: a\0"), Some((24, Reason::BadRequest)));
        assert_eq!(refused_at("A".repeat(40).as_bytes()), Some((33, Reason::BadRequest)));
        let (at, reason) = refused_at(format!("GET /{}", "a".repeat(LIMITS.head_bytes)).as_bytes()).unwrap();
        assert!(at < 8300 && reason == Reason::TargetTooLong, "{at} {reason}");
        for beginning in
            ["G", "GET ", "GET /hello ", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\nHost: localhost\r\n\r", "\r\n\r"]
        {
            assert_eq!(refused_at(beginning.as_bytes()), None, "{beginning:?}");
        }
    }

    #[test]
    fn upgrades_are_passed_on_with_care() {
        let upgrade = |start: &str, lines: &str| {
            request(format!("{start}\r\nHost: a\r\n{lines}\r\n\r\n").as_bytes(), |head, _| head.upgrade().is_some())
        };
        let get = "GET / HTTP/1.1";
        let connection = "Connection: keep-alive, Upgrade\r\n";
        let yes = |start, lines: String| assert_eq!(upgrade(start, &lines).unwrap(), Some(true), "{start} {lines}");
        let no = |start, lines: String| assert_eq!(upgrade(start, &lines).unwrap(), Some(false), "{start} {lines}");
        yes(get, format!("{connection}Upgrade: WebSocket"));
        yes("POST / HTTP/1.1", format!("{connection}Upgrade: tcp/1"));
        no(get, "Upgrade: websocket".into());
        no("GET / HTTP/1.0", format!("{connection}Upgrade: websocket"));
        no("POST / HTTP/1.1", format!("{connection}Upgrade: websocket"));
        no(get, format!("{connection}Upgrade: websocket\r\nContent-Length: 5"));
        no(get, format!("{connection}Upgrade: websocket\r\nUpgrade: websocket"));
        for protocol in ["h2c", "H2C", "h2c, websocket", "HTTP/2.0", "TLS/1.0", "a b", ""] {
            no(get, format!("{connection}Upgrade: {protocol}"));
        }
    }

    #[test]
    fn a_request_has_one_protocol() {
        let class = |lines: &str, tls| request(with_fields(lines).as_bytes(), |head, _| classify(&head, tls)).unwrap();
        let cases = [
            ("A: b", Protocol::Http),
            ("Accept: text/event-stream", Protocol::Sse),
            ("Accept: text/html, TEXT/Event-Stream;q=0.5", Protocol::Sse),
            ("Accept: text/event-streams, xtext/event-stream, -", Protocol::Http),
            ("Content-Type: application/grpc+proto\r\nAccept: text/event-stream", Protocol::Grpc),
            ("Connection: upgrade\r\nUpgrade: websocket", Protocol::Websocket),
        ];
        for (lines, protocol) in cases {
            assert_eq!(class(lines, false), Some(protocol), "{lines}");
        }
        assert_eq!(class("A: b", true), Some(Protocol::Https));
    }

    #[test]
    fn forwards_are_counted_for_options_alone() {
        let left = |method: &str, value: &str| {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
            request(text.as_bytes(), |head, _| head.max_forwards()).unwrap().unwrap()
        };
        assert_eq!((left("OPTIONS", "0"), left("OPTIONS", "12"), left("OPTIONS", "-1")), (Some(0), Some(12), None));
        assert_eq!(left("GET", "0"), None);
    }

    #[test]
    fn a_request_id_is_kept_when_it_is_sane() {
        let id = |lines: &str| request(with_fields(lines).as_bytes(), |head, _| head.request_id().is_some()).unwrap();
        assert_eq!(id("X-Request-ID: a-1"), Some(true));
        for lines in
            ["A: b", "X-Request-ID:", "X-Request-ID: a b", "X-Request-ID: a\r\nX-Request-ID: a", "X-Request-ID: \u{e9}"]
        {
            assert_eq!(id(lines), Some(false), "{lines}");
        }
        assert_eq!(id(&format!("X-Request-ID: {}", "a".repeat(129))), Some(false));
    }

    const ASKED: Asked = Asked { head: false, upgrade: false };

    fn response<T>(text: &str, asked: Asked, seen: impl FnOnce(ResponseHead<'_>) -> T) -> Result<Option<T>, Fault> {
        let mut table = FieldTable::default();
        let parsed =
            parse_response(text.as_bytes(), &mut HeadEnd::default(), asked, &HeadLimits::RESPONSE, &mut table)?;
        Ok(parsed.map(|(head, _)| seen(head)))
    }

    #[test]
    fn a_response_is_taken_apart() {
        let text =
            "HTTP/1.1 404 Nothing h\u{e9}re\r\nDate: now\r\nContent-Length: 007\r\nX-Backend-Load: cpu=0.4\r\n\r\n";
        response(text, ASKED, |head| {
            assert_eq!((head.status(), head.reason()), (404, "Nothing h\u{e9}re".as_bytes()));
            assert_eq!(head.framing(), ResponseFraming::Length(7));
            assert!(head.has_date() && head.keep_alive() && !head.is_interim());
            assert_eq!(head.backend_load(), Some(&b"cpu=0.4"[..]));
        })
        .unwrap()
        .unwrap();
        for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.5 200 \t"] {
            assert_eq!(response(&format!("{line}\r\n\r\n"), ASKED, |head| head.status()), Ok(Some(200)), "{line:?}");
        }
    }

    #[test]
    fn malformed_responses_are_refused() {
        for text in [
            "HTTP/1.1 099 A\r\n\r\n",
            "HTTP/1.1 600 A\r\n\r\n",
            "HTTP/1.1 20 A\r\n\r\n",
            "HTTP/1.1 2000 A\r\n\r\n",
            "HTTP/1.1  200 A\r\n\r\n",
            "HTTP/1.1 200A\r\n\r\n",
            "HTTP/2.0 200 A\r\n\r\n",
            "HTTP/1.1 200 A\0\r\n\r\n",
            "HTTP/1.1 200 A\n\n",
            "HTTP/1.1 200 A\r\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTX",
            "\r\nHTTP/1.1 200 A\r\n\r\n",
            "HTTP/1.1 +20 A\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 A\r\nB : c\r\n\r\n",
            "HTTP/1.1 200 A\r\nB: c\r\n d\r\n\r\n",
            "HTTP/1.1 200 A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 A\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 2\u{b9}0 A\r\n\r\n",
        ] {
            assert_eq!(response(text, ASKED, |_| ()).unwrap_err().reason, Reason::BackendProtocol, "{text:?}");
        }
    }

    #[test]
    fn a_101_has_to_be_asked_for() {
        let text = "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(response(text, ASKED, |_| ()).unwrap_err().reason, Reason::BackendUpgrade);
        let asked = Asked { head: false, upgrade: true };
        assert_eq!(response(text, asked, |head| head.upgrade().is_some()), Ok(Some(true)));
        assert_eq!(response("HTTP/1.1 101 S\r\n\r\n", asked, |_| ()).unwrap_err().reason, Reason::BackendUpgrade);
    }

    #[test]
    fn a_backend_is_kept_only_when_nothing_can_be_left_on_its_connection() {
        let keeps = |text: &str| response(text, ASKED, |head| head.keep_alive()).unwrap().unwrap();
        assert!(keeps("HTTP/1.1 200 A\r\nContent-Length: 1\r\n\r\n"));
        assert!(keeps("HTTP/1.1 204 A\r\n\r\n") && keeps("HTTP/1.1 204 A\r\nContent-Length: 0\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 A\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 A\r\nContent-Length: 1\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 A\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 A\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 204 A\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 204 A\r\nContent-Length: 5\r\n\r\n"));
    }

    /// What a head says, in a form that outlives its buffer; the fault is not part of it.
    fn summary(parsed: Result<Option<(RequestHead<'_>, usize)>, Fault>) -> Result<Option<String>, ()> {
        let parsed = parsed.map_err(|_| ())?;
        Ok(parsed.map(|(head, len)| format!("{len} {:?} {:?}", head, head.fields().iter().collect::<Vec<_>>())))
    }

    /// Pieces that make likely, unlikely and malformed heads when strung together.
    fn any_head() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => prop::sample::select(vec![
                "GET ", "/", "/a?b=c", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "Host: a\r\n", "X: y\r\n", "\r\n", "\r", "\n", " ", ":",
                "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "\r\n\r\n", "A:\r\n",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..3),
        ];
        let wild = prop::collection::vec(piece.clone(), 0..10).prop_map(|pieces| pieces.concat());
        let tame = prop::collection::vec(piece, 0..2)
            .prop_map(|pieces| [b"GET /a HTTP/1.1\r\nHost: a\r\n", &pieces.concat()[..], b"\r\n\r\nrest"].concat());
        // Whatever came before, this ends a head or makes one malformed.
        prop_oneof![wild, tame].prop_map(|text| [&text[..], b"\r\n\r\nx\r\n\r\n"].concat())
    }

    proptest! {
        #[test]
        fn every_way_of_delivery_gives_the_same(text in any_head(), step in 1usize..9) {
            let mut table = FieldTable::default();
            let whole = summary(parse_request(&text, &mut HeadEnd::default(), &LIMITS, &mut table));
            let mut end = HeadEnd::default();
            let mut lens: Vec<usize> = (0..text.len()).step_by(step).collect();
            lens.push(text.len());
            let pieces = lens.into_iter().find_map(|len| {
                let mut table = FieldTable::default();
                match summary(parse_request(&text[..len], &mut end, &LIMITS, &mut table)) {
                    Ok(None) => None,
                    found => Some(found),
                }
            });
            prop_assert_eq!(pieces.unwrap_or(Ok(None)), whole);
        }

        #[test]
        fn no_bytes_break_the_response_parser(text in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..64) {
            let text = [b"HTTP/1.1 200 OK\r\n", &text[..], b"\r\n\r\n"].concat();
            let mut table = FieldTable::default();
            let mut end = HeadEnd::default();
            let whole = parse_response(&text, &mut HeadEnd::default(), ASKED, &HeadLimits::RESPONSE, &mut table).is_ok();
            let mut table = FieldTable::default();
            let first = parse_response(&text[..cut.min(text.len())], &mut end, ASKED, &HeadLimits::RESPONSE, &mut table);
            let pieces = match first {
                Ok(None) => parse_response(&text, &mut end, ASKED, &HeadLimits::RESPONSE, &mut table).is_ok(),
                found => found.is_ok(),
            };
            prop_assert_eq!(pieces, whole);
        }
    }

    proptest! {
        /// What we take, httparse takes too, and reads as the same fields.
        #[test]
        fn another_parser_reads_the_same_fields(text in any_head()) {
            let mut table = FieldTable::default();
            if let Ok(Some((head, len))) = parse_request(&text, &mut HeadEnd::default(), &LIMITS, &mut table) {
                let mut headers = [httparse::EMPTY_HEADER; 64];
                let mut other = httparse::Request::new(&mut headers);
                prop_assert_eq!(other.parse(&text), Ok(httparse::Status::Complete(len)));
                prop_assert_eq!(other.path.map(str::as_bytes), Some(head.target()));
                let theirs: Vec<_> = other.headers.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
                let ours: Vec<_> = head.fields().iter().map(|field| (field.name, field.value)).collect();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
