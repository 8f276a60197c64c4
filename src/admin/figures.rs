//! The REST skin of what is looked at and not changed: figures, live state, reports of backends.
//!
//! Owns the way from a board to JSON. Never counts.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, RawQuery};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use tokio_stream::StreamExt;

use super::Desk;
use super::rest::{BODY_BYTES_MAX, Query, invalid, nothing_else, object, text, told};
use super::sent::{Sent, quoted};
use crate::balance::score::{Report, Score};
use crate::clock;
use crate::config::plan::Target;
use crate::control::board::{Board, Shown};
use crate::control::certificates;
use crate::control::explain::{self, Question};
use crate::control::figures::{BackendFigures, ServerFigures, State};
use crate::control::metrics::{self, Format};
use crate::control::verb::{Refusal, RefusalKind};
use crate::shared::trouble::{TROUBLES_COUNT_MAX, Trouble, Troubles};

type Shared = extract::State<Arc<Desk>>;
type Answer = Result<Response, Refusal>;

/// Load average of a backend at most, in a report.
const LOAD_MAX: f64 = 1_000_000.0;
/// CPUs of a backend at most, in a report.
const CPUS_MAX: f64 = 65_536.0;

pub(super) async fn server(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    Ok(told(StatusCode::OK, &desk.board.watch.server()))
}

pub(super) async fn backend(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query, &["upstream", "backend_id"])?;
    let (upstream, id) = (query.required("upstream")?, query.required("backend_id")?);
    let found = desk.board.watch.backend(upstream, id);
    found.map(|found| told(StatusCode::OK, &found)).ok_or_else(|| unknown(&desk.board, upstream, Some(id)))
}

pub(super) async fn backends(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query, &["upstream"])?;
    let upstream = query.get("upstream");
    if let Some(name) = upstream
        && desk.board.shown().published.plan.upstream(name).is_none()
    {
        return Err(unknown(&desk.board, name, None));
    }
    Ok(told(StatusCode::OK, &all(&desk.board, upstream)))
}

/// Backends with their figures, and those that were removed while something still runs with them.
#[derive(Serialize)]
struct Backends {
    backends: Vec<BackendFigures>,
    removed: Vec<Removed>,
}

#[derive(Serialize)]
struct Removed {
    upstream: String,
    backend_id: String,
    state: State,
    in_flight: u32,
}

fn all(board: &Board, upstream: Option<&str>) -> Backends {
    let leaving = board.leaving();
    let leaving = leaving.iter().filter(|l| upstream.is_none_or(|name| l.identity.upstream == name));
    let removed = leaving.map(|l| Removed {
        upstream: l.identity.upstream.clone(),
        backend_id: l.identity.id.clone(),
        state: State::Draining,
        in_flight: l.state.in_flight(),
    });
    Backends { removed: removed.collect(), backends: board.watch.backends(upstream) }
}

pub(super) async fn upstreams(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    let shown = desk.board.shown();
    let all = desk.board.watch.backends(None);
    let told_of = shown.published.upstreams.iter().map(|upstream| {
        let name = &upstream.conf.name;
        json!({
            "name": name,
            "routes": routes_to(&shown, name),
            "waiting": upstream.state.waiting(),
            "queue_size": upstream.conf.queue.size,
            "backends": all.iter().filter(|backend| backend.upstream == *name).collect::<Vec<_>>(),
        })
    });
    Ok(told(StatusCode::OK, &json!({"upstreams": told_of.collect::<Vec<_>>()})))
}

/// Names of the routes that lead to an upstream.
pub(super) fn routes_to<'s>(shown: &'s Shown, upstream: &str) -> Vec<&'s str> {
    let plan = &shown.published.plan;
    let leads_there = |target: &Target| match target {
        Target::Upstream(id) => plan.upstreams.get(id.0 as usize).is_some_and(|u| u.name == upstream),
        _ => false,
    };
    plan.routes.iter().filter(|route| leads_there(&route.target)).map(|route| route.name.as_str()).collect()
}

/// An event a second, for as long as somebody listens.
pub(super) async fn stream(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    let events = desk.feeds.events(&desk.board).map(Ok::<_, Infallible>);
    Ok((StatusCode::OK, [(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

/// What [`stream`] tells.
#[derive(Serialize)]
struct Frame<'b> {
    #[serde(flatten)]
    all: Backends,
    server: ServerFigures,
    etag: &'b str,
    ready: bool,
    restart_required: &'b [&'static str],
    file_refused: Option<&'b str>,
}

/// Everything as it is now, as an event of a stream.
pub(super) fn event(board: &Board) -> Bytes {
    let shown = board.shown();
    let all = all(board, None);
    let trouble = board.trouble();
    let frame = Frame {
        all,
        server: board.watch.server(),
        etag: &shown.etag,
        ready: board.is_ready(),
        restart_required: &shown.restart_required,
        file_refused: trouble.as_ref().map(|trouble| trouble.as_str()),
    };
    let mut event = b"data: ".to_vec();
    // JSON has no line breaks of its own, which would be the end of the event's field.
    if let Err(error) = serde_json::to_writer(&mut event, &frame) {
        tracing::error!(%error, "figures that are no JSON");
    }
    event.extend(b"\n\n");
    event.into()
}

pub(super) fn unknown(board: &Board, upstream: &str, id: Option<&str>) -> Refusal {
    let shown = board.shown();
    let named = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let error = match (shown.published.plan.upstream(upstream), id) {
        (Some(known), Some(id)) => {
            let ids = named(known.backends.iter().map(|b| b.id.as_str()).collect());
            format!("backend_id: {upstream} has no backend {}; it has: {ids}", quoted(id))
        }
        _ => {
            let names = named(shown.published.plan.upstreams.iter().map(|u| u.name.as_str()).collect());
            format!("upstream: there is no {}; there are: {names}", quoted(upstream))
        }
    };
    Refusal::new(RefusalKind::Unknown, error)
}

/// `{"upstream", "backend_id", "performance": {…}}`. What else agents put into `performance` is passed over.
pub(super) async fn report(
    extract::State(desk): Shared,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    Query::read(query, &[])?;
    let mut body = object(&body)?;
    let upstream = text(&mut body, &["upstream", "upstream_id"])?;
    let id = text(&mut body, &["backend_id", "id"])?;
    let Some(Json::Object(performance)) = body.remove("performance") else {
        return Err(invalid("performance: missing; allowed: {cpu_usage, memory_usage, load_avg_1, cpus}"));
    };
    nothing_else(&body, "upstream, backend_id and performance")?;
    let report = read_report(&performance)?;
    take_report(&desk.board, &upstream, &id, report)?;
    Ok(told(StatusCode::ACCEPTED, &json!({"accepted": true})))
}

/// A report of these figures.
///
/// # Errors
/// When it says nothing, or something outside its range.
pub(super) fn read_report(performance: &Map<String, Json>) -> Result<Report, Refusal> {
    let cpu = within(performance, "cpu_usage", 100.0)?;
    let memory = within(performance, "memory_usage", 100.0)?;
    let load = within(performance, "load_avg_1", LOAD_MAX)?;
    let cpus = within(performance, "cpus", CPUS_MAX)?.unwrap_or(1.0).max(1.0);
    if cpu.is_none() && memory.is_none() && load.is_none() {
        return Err(invalid("performance: says nothing; allowed: cpu_usage, memory_usage and load_avg_1"));
    }
    let part = |percent: Option<f64>| (percent.unwrap_or(0.0) / 100.0) as f32;
    Report::new(part(cpu), part(memory), (load.unwrap_or(0.0) / cpus) as f32)
        .ok_or_else(|| invalid("performance: a value is not a number"))
}

fn within(performance: &Map<String, Json>, name: &str, max: f64) -> Result<Option<f64>, Refusal> {
    let Some(value) = performance.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(value) if (0.0..=max).contains(&value) => Ok(Some(value)),
        _ => Err(invalid(format!("performance.{name}: {} is outside 0..={max}", quoted(&value.to_string())))),
    }
}

/// Lets a report count in the balancing.
///
/// # Errors
/// When it names nothing.
pub(super) fn take_report(board: &Board, upstream: &str, id: &str, report: Report) -> Result<(), Refusal> {
    let shown = board.shown();
    let state = shown.published.upstreams.iter().find(|u| u.conf.name == upstream).and_then(|u| {
        let at = u.conf.backends.iter().position(|backend| backend.id == id)?;
        u.backends.get(at)
    });
    let state = state.ok_or_else(|| unknown(board, upstream, Some(id)))?;
    let now_ms = clock::now_ms();
    state.update_load(|last| Score::after(last.map(Score::from), now_ms, report).into());
    Ok(())
}

pub(super) async fn metrics(extract::State(desk): Shared, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let format = Format::accepted(accept);
    let mut page = desk.board.watch.with(|sources| metrics::page(sources, format));
    let end = if format == Format::OpenMetrics { page.find("# EOF") } else { None };
    page.insert_str(end.unwrap_or(page.len()), &metrics::certificates(&desk.board.tls()));
    let end = if format == Format::OpenMetrics { page.find("# EOF") } else { None };
    page.insert_str(end.unwrap_or(page.len()), &configuration(&desk.board));
    (StatusCode::OK, [(CONTENT_TYPE, format.content_type())], page).into_response()
}

/// `GET /api/v1/certificates`.
pub(super) async fn certificates(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    let tls = desk.board.tls();
    let all = certificates::figures(&tls, certificates::unix_seconds());
    // Also those of files that are no certificates of ours, such as a backend's authority.
    let troubles: Vec<String> = tls.troubles.iter().map(ToString::to_string).collect();
    Ok(told(StatusCode::OK, &json!({"certificates": all, "troubles": troubles})))
}

/// What of the configuration somebody should be woken for.
fn configuration(board: &Board) -> String {
    let shown = board.shown();
    let gauge = |name: &str, help: &str, value: u64| {
        format!("# HELP speedmimi_{name} {help}\n# TYPE speedmimi_{name} gauge\nspeedmimi_{name} {value}\n")
    };
    let refused = u64::from(board.trouble().is_some());
    let required = shown.restart_required.len() as u64;
    gauge("ready", "Whether new requests are welcome.", board.is_ready().into())
        + &gauge("config_file_refused", "Whether the last reading of the file was refused.", refused)
        + &gauge("config_restart_required_keys", "Keys that keep their old values until a restart.", required)
}

/// `?method=&host=&path=&client=&header=Name: value` (the last as often as needed).
pub(super) async fn explain(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    let (headers, query) = Query::read_with_list(query, "header", &["method", "host", "path", "client"])?;
    let given = |name: &str| match query.get(name) {
        Some("") => Err(invalid(format!("{name}: missing"))),
        given => Ok(given.unwrap_or("").to_owned()),
    };
    let question = question(given("host")?, given("method")?, given("path")?, given("client")?, headers)?;
    let told_of = explain::explain(&desk.board.shown().published, &question, clock::now_ms())?;
    Ok(told(StatusCode::OK, &told_of))
}

/// What is asked about a request; what is empty has its default.
///
/// # Errors
/// Without a host, or with a client that is no address.
pub(super) fn question(
    host: String,
    method: String,
    path: String,
    client: String,
    headers: Vec<String>,
) -> Result<Question, Refusal> {
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let client = or(client, "127.0.0.1");
    Ok(Question {
        host: Some(host).filter(|host| !host.is_empty()).ok_or_else(|| invalid("host: missing"))?,
        method: or(method, "GET"),
        path: or(path, "/"),
        client: client.parse().map_err(|_| invalid(format!("client: {} is no IP address", quoted(&client))))?,
        headers,
    })
}

/// Newest first, of all workers.
pub(super) fn troubles(board: &Board) -> Vec<Trouble> {
    Troubles::last(board.workers.iter().filter_map(|worker| worker.troubles_so_far()))
}

/// The last answers that the proxy made because something was wrong.
pub(super) async fn errors(extract::State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query, &["limit"])?;
    let limit = query.get("limit").map_or(Ok(TROUBLES_COUNT_MAX), |limit| match limit.parse() {
        Ok(limit @ 1..=TROUBLES_COUNT_MAX) => Ok(limit),
        _ => Err(invalid(format!("limit: {} is outside 1..={TROUBLES_COUNT_MAX}", quoted(limit)))),
    })?;
    let errors: Vec<Json> = troubles(&desk.board).iter().take(limit).map(error).collect();
    Ok(told(StatusCode::OK, &json!({"errors": errors})))
}

fn error(trouble: &Trouble) -> Json {
    let since = trouble.at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let noted = |text: &str| if text.is_empty() { Json::Null } else { text.into() };
    json!({
        "timestamp": since.as_millis() as u64,
        "request_id": trouble.request_id,
        "reason": trouble.reason.code(),
        "status": trouble.status,
        "detail": trouble.detail,
        "timer": trouble.timer(),
        "route": trouble.route,
        "upstream": trouble.upstream,
        "backend": trouble.backend,
        "client": trouble.client.map(|client| client.to_string()),
        "method": noted(&trouble.method),
        "host": noted(&trouble.host),
        "path": noted(&trouble.path),
        "retries": trouble.retries,
    })
}
