//! The REST skin: paths, JSON and statuses over the verbs.
//!
//! Owns the routes and the way from a request to a verb and from an answer to JSON. Never decides what a verb does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use tonic::Code;

use super::Desk;
use super::auth::{self, Denial, Need, Peer, Who};
use super::rate::Kind;
use super::sent::{self, Sent, quoted, shortened};
use super::{dashboard, description, figures, grpc};
use crate::clock;
use crate::config::tree::CONFIG_BYTES_MAX;
use crate::config::values;
use crate::control::thread::{Asked, Done};
use crate::control::verb::{BackendName, Refusal, RefusalKind, Verb};

/// Bytes of a body that is no configuration.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a name that somebody sends: more than any has. What is refused is logged, and repeated to who asked.
const NAME_BYTES_MAX: usize = 512;
/// For a whole request; event streams begin in it and go on after.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a forced end waits where nobody says.
const FORCE_TIMEOUT: Duration = Duration::from_secs(30);
/// And how long it may wait at most.
const FORCE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Every method and path; the served description is held against it.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/config"),
    ("PUT", "/api/v1/config"),
    ("PATCH", "/api/v1/config"),
    ("POST", "/api/v1/config/reload"),
    ("POST", "/api/v1/config/reload-ssl"),
    ("GET", "/api/v1/certificates"),
    ("GET", "/api/v1/upstreams"),
    ("GET", "/api/v1/backends"),
    ("POST", "/api/v1/backends/add"),
    ("DELETE", "/api/v1/backends/remove"),
    ("PUT", "/api/v1/backends/update"),
    ("POST", "/api/v1/backends/disconnect"),
    ("POST", "/api/v1/backends/connect"),
    ("GET", "/api/v1/stats/server"),
    ("GET", "/api/v1/stats/backend"),
    ("GET", "/api/v1/stats/stream"),
    ("POST", "/api/v1/report"),
    ("GET", "/api/v1/explain"),
    ("GET", "/api/v1/errors"),
    ("GET", "/api/v1/changes"),
    ("GET", "/api/v1/log/level"),
    ("PUT", "/api/v1/log/level"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
];

type Shared = State<Arc<Desk>>;
type Answer = Result<Response, Refusal>;

/// All of REST.
pub fn routes(desk: Arc<Desk>) -> Router {
    let config = get(get_config).put(put_config).patch(patch_config);
    let api = Router::new()
        .route("/openapi.json", allowing(get(description::show), "GET, HEAD"))
        .route("/config", allowing(config, "GET, HEAD, PUT, PATCH"))
        .route("/config/reload", allowing(post(reload), "POST"))
        .route("/config/reload-ssl", allowing(post(reload_ssl), "POST"))
        .route("/certificates", allowing(get(figures::certificates), "GET, HEAD"))
        .route("/upstreams", allowing(get(figures::upstreams), "GET, HEAD"))
        .route("/backends", allowing(get(figures::backends), "GET, HEAD"))
        .route("/backends/add", allowing(post(add), "POST"))
        .route("/backends/remove", allowing(delete(remove), "DELETE"))
        .route("/backends/update", allowing(put(update), "PUT"))
        .route("/backends/disconnect", allowing(post(disconnect), "POST"))
        .route("/backends/connect", allowing(post(connect), "POST"))
        .route("/stats/server", allowing(get(figures::server), "GET, HEAD"))
        .route("/stats/backend", allowing(get(figures::backend), "GET, HEAD"))
        .route("/stats/stream", allowing(get(figures::stream), "GET, HEAD"))
        .route("/report", allowing(post(figures::report), "POST"))
        .route("/explain", allowing(get(figures::explain), "GET, HEAD"))
        .route("/errors", allowing(get(figures::errors), "GET, HEAD"))
        .route("/changes", allowing(get(changes), "GET, HEAD"))
        .route("/log/level", allowing(get(get_level).put(put_level), "GET, HEAD, PUT"));
    Router::new()
        .nest("/api/v1", api)
        .route("/metrics", allowing(get(figures::metrics), "GET, HEAD"))
        .merge(dashboard::routes())
        .route("/healthz", allowing(get(|| async { plain(StatusCode::OK, "ok\n") }), "GET, HEAD"))
        .route("/readyz", allowing(get(ready), "GET, HEAD"))
        .merge(grpc::routes(&desk))
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

async fn nothing_here(uri: Uri, headers: HeaderMap) -> Response {
    if grpc::is_spoken(&headers) {
        return grpc::refused(Code::Unimplemented, "there is no such service here (reflection lists what there is)");
    }
    let path = shortened(uri.path());
    let error = format!("{path}: there is nothing here (GET /api/v1/openapi.json lists what there is)");
    Refusal::new(RefusalKind::Unknown, error).into_response()
}

/// A route that tells which methods it has when it is asked by another.
pub(super) fn allowing(route: MethodRouter<Arc<Desk>>, methods: &'static str) -> MethodRouter<Arc<Desk>> {
    route.fallback(move |method: Method| async move {
        let error = format!("{} is not served here; allowed: {methods}", shortened(method.as_str()));
        let mut response = told(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        response
    })
}

/// In front of everything: who, how often, how long.
async fn guard(State(desk): Shared, request: Request, next: Next) -> Response {
    let mut response = admitted(&desk, request, next).await;
    let fields = response.headers_mut();
    fields.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    fields.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

async fn admitted(desk: &Desk, request: Request, next: Next) -> Response {
    let now_ms = clock::now_ms();
    let is_grpc = grpc::is_spoken(request.headers());
    // Whoever watches over the proxy is told the truth, however many others ask for something.
    let is_probe = auth::is_probe(request.uri().path());
    let (mut head, body) = request.into_parts();
    let admission = auth::admit(&desk.entrance.load(), &head);
    if !is_probe && !desk.rates.allow(Kind::of(&admission), now_ms) {
        return too_often(is_grpc);
    }
    let who = match admission {
        Ok(who) => who,
        Err(Denial::Token) if !desk.rates.allow(Kind::Failure, now_ms) => return too_often(is_grpc),
        Err(denial) => return denied(denial, is_grpc),
    };
    let need = auth::need(&head.method, head.uri.path());
    if need == Need::Change && !desk.rates.allow(Kind::Change, now_ms) {
        return too_often(is_grpc);
    }
    head.extensions.insert(who);
    let done = tokio::time::timeout(REQUEST_TIMEOUT, next.run(Request::from_parts(head, body))).await;
    done.unwrap_or_else(|_| late(is_grpc))
}

fn late(is_grpc: bool) -> Response {
    let error = "the request took longer than 30 s";
    if is_grpc {
        return grpc::refused(Code::DeadlineExceeded, error);
    }
    told(StatusCode::REQUEST_TIMEOUT, &json!({ "error": error }))
}

fn too_often(is_grpc: bool) -> Response {
    let error = "too many requests at once (wait a second)";
    if is_grpc {
        return grpc::refused(Code::ResourceExhausted, error);
    }
    let mut response = told(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn denied(denial: Denial, is_grpc: bool) -> Response {
    if is_grpc {
        return grpc::refused(grpc::denial_code(denial), denial.error());
    }
    let status = match denial {
        Denial::Token => StatusCode::UNAUTHORIZED,
        Denial::Host | Denial::Origin | Denial::Role => StatusCode::FORBIDDEN,
    };
    let mut response = told(status, &json!({"error": denial.error()}));
    if denial == Denial::Token {
        let challenge = HeaderValue::from_static("Bearer realm=\"speedmimi\"");
        response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A JSON answer.
pub(super) fn told(status: StatusCode, value: &impl Serialize) -> Response {
    // Maps with names that are texts: nothing that JSON could not have.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Unknown => StatusCode::NOT_FOUND,
            RefusalKind::Exists | RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Stale => StatusCode::PRECONDITION_FAILED,
            RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let value = if self.faults.len() > 1 {
            json!({"error": self.error, "faults": self.faults})
        } else {
            json!({"error": self.error})
        };
        told(status, &value)
    }
}

pub(super) fn invalid(error: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Invalid, error)
}

async fn ready(State(desk): Shared) -> Response {
    match desk.board.is_ready() {
        true => plain(StatusCode::OK, "ready\n"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

// The whole configuration.

async fn get_config(State(desk): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    let shown = desk.board.shown();
    let mut response = if is_known(&headers, &shown.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut value = json!({"config": shown.document.shown()});
        if !shown.restart_required.is_empty() {
            value["restart_required"] = shown.restart_required.clone().into();
        }
        if let Some(trouble) = desk.board.trouble() {
            value["file_refused"] = trouble.as_str().into();
        }
        told(StatusCode::OK, &value)
    };
    tag(&mut response, &shown.etag);
    Ok(response)
}

/// Whether `If-None-Match` names it (RFC 9110, section 13.1.2: weak ones count too).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|known| known.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

pub(super) fn tag(response: &mut Response, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
}

async fn put_config(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<CONFIG_BYTES_MAX>,
) -> Answer {
    let query = Query::read(query, &["persist"])?;
    let mut body = object(&body)?;
    let config = body.remove("config").ok_or_else(|| invalid("config: missing; allowed: {\"config\": {…}}"))?;
    nothing_else(&body, "config")?;
    change(&desk, from, &query, Verb::Replace(config)).await
}

/// The patch of what `GET` answers, or of the configuration in it.
async fn patch_config(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<CONFIG_BYTES_MAX>,
) -> Answer {
    let query = Query::read(query, &["persist"])?;
    let mut body = object(&body)?;
    let patch = match body.remove("config") {
        Some(patch) => nothing_else(&body, "config").map(|()| patch)?,
        None => Json::Object(body),
    };
    change(&desk, from, &query, Verb::Patch(patch)).await
}

async fn reload(State(desk): Shared, from: From, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query, &[])?;
    change(&desk, from, &query, Verb::Reload).await
}

async fn reload_ssl(State(desk): Shared, from: From, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query, &[])?;
    change(&desk, from, &query, Verb::ReloadCertificates).await
}

// Backends.

async fn add(State(desk): Shared, from: From, RawQuery(query): RawQuery, Sent(body): Sent<BODY_BYTES_MAX>) -> Answer {
    let query = Query::read(query, &["persist"])?;
    let mut body = object(&body)?;
    let upstream = text(&mut body, &["upstream", "upstream_id"])?;
    let backend = body.remove("backend").ok_or_else(|| invalid("backend: missing; allowed: a backend's keys"))?;
    nothing_else(&body, "upstream and backend")?;
    let mut response = change(&desk, from, &query, Verb::AddBackend { upstream, backend }).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

async fn remove(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    let (query, backend, force) = taken_out(query, &body)?;
    change(&desk, from, &query, Verb::RemoveBackend { backend, force }).await
}

async fn disconnect(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    let (query, backend, force) = taken_out(query, &body)?;
    change(&desk, from, &query, Verb::Disconnect { backend, force }).await
}

/// What `remove` and `disconnect` are told: which backend, and when what still runs there is to be ended.
fn taken_out(query: Option<String>, body: &[u8]) -> Result<(Query, BackendName, Option<Duration>), Refusal> {
    let (query, mut named) = named(query, body)?;
    let (backend, force) = (backend_name(&mut named)?, force(&mut named)?);
    nothing_else(&named, "upstream, backend_id, force and timeout")?;
    Ok((query, backend, force))
}

async fn connect(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    let (query, mut named) = named(query, &body)?;
    let backend = backend_name(&mut named)?;
    nothing_else(&named, "upstream and backend_id")?;
    change(&desk, from, &query, Verb::Connect { backend }).await
}

/// `{"upstream", "backend": {"id", …}}`, or as it was once: `{"upstream_id", "backend_id", "max_conn"}`.
async fn update(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    let query = Query::read(query, &["persist"])?;
    let mut body = object(&body)?;
    let upstream = text(&mut body, &["upstream", "upstream_id"])?;
    let (id, fields) = match body.remove("backend") {
        Some(Json::Object(mut fields)) => {
            nothing_else(&body, "upstream and backend")?;
            let id = text(&mut fields, &["id"]).map_err(|wrong| invalid(format!("backend.{wrong}")))?;
            (id, fields)
        }
        Some(_) => return Err(invalid("backend: allowed: an object of a backend's keys")),
        None => (text(&mut body, &["backend_id", "id"])?, body),
    };
    if fields.is_empty() {
        return Err(invalid("backend: there is nothing to change; allowed: any key of a backend but id"));
    }
    change(&desk, from, &query, Verb::UpdateBackend { backend: BackendName { upstream, id }, fields }).await
}

// The log.

async fn get_level(State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    Ok(told(StatusCode::OK, &json!({"level": desk.board.shown().document.shown()["log"]["level"]})))
}

async fn put_level(
    State(desk): Shared,
    from: From,
    RawQuery(query): RawQuery,
    Sent(body): Sent<BODY_BYTES_MAX>,
) -> Answer {
    let query = Query::read(query, &["persist"])?;
    let mut body = object(&body)?;
    let level = text(&mut body, &["level"])?;
    nothing_else(&body, "level")?;
    change(&desk, from, &query, Verb::LogLevel(level)).await
}

async fn changes(State(desk): Shared, RawQuery(query): RawQuery) -> Answer {
    Query::read(query, &[])?;
    let changes = desk.board.changes();
    let told_of = changes.iter().map(|change| {
        let since = change.at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "timestamp": since.as_millis() as u64,
            "who": change.who,
            "from": change.from,
            "what": change.what,
            "changed": change.paths,
            "refused": change.refused,
        })
    });
    Ok(told(StatusCode::OK, &json!({"changes": told_of.collect::<Vec<_>>()})))
}

// From requests to verbs.

/// Who asks, from where, and for which configuration.
pub(super) struct From {
    who: Who,
    peer: String,
    if_match: Option<String>,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for From {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut axum::http::request::Parts, _: &S) -> Result<Self, Refusal> {
        let absent = || Refusal::new(RefusalKind::Failed, "a request without its sender");
        let who = head.extensions.get::<Who>().cloned().ok_or_else(absent)?;
        let peer = head.extensions.get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default();
        // Several lines are one list (RFC 9110, section 5.3); what is no text names no version.
        let tags: Vec<&str> = head.headers.get_all(IF_MATCH).iter().map(|tag| tag.to_str().unwrap_or("")).collect();
        // `*`: any version will do.
        let if_match = (!tags.is_empty()).then(|| tags.join(",")).filter(|tags| tags.trim() != "*");
        Ok(From { who, peer, if_match })
    }
}

async fn change(desk: &Desk, from: From, query: &Query, verb: Verb) -> Answer {
    let asked = Asked {
        verb,
        if_match: from.if_match,
        persist: query.boolean("persist")?.unwrap_or(true),
        who: from.who.name.to_owned(),
        from: from.peer,
    };
    desk.ask(asked).await.map(|done| done_response(&done))
}

fn done_response(done: &Done) -> Response {
    let mut value = json!({
        "etag": done.etag,
        "changed": done.changed,
        "persisted": done.persisted,
        "restart_required": done.restart_required,
    });
    if !done.warnings.is_empty() {
        value["warnings"] = done.warnings.as_slice().into();
    }
    let mut response = told(StatusCode::OK, &value);
    tag(&mut response, &done.etag);
    response
}

/// The parameters of a URI.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them; others than `known` are refused, and so are doubles.
    pub fn read(query: Option<String>, known: &[&str]) -> Result<Query, Refusal> {
        Query::of(pairs(query)?, known)
    }

    fn of(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Query, Refusal> {
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(invalid(format!("{}: unknown parameter; allowed: {allowed}", quoted(name))));
            }
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(invalid(format!("{name}: given twice")));
            }
        }
        Ok(Query(pairs))
    }

    /// As [`Query::read`], with all values of the parameter `list` beside.
    pub fn read_with_list(query: Option<String>, list: &str, known: &[&str]) -> Result<(Vec<String>, Query), Refusal> {
        let (listed, others) = pairs(query)?.into_iter().partition(|(name, _)| name == list);
        let listed: Vec<(String, String)> = listed;
        let known: Vec<&str> = known.iter().copied().chain([list]).collect();
        Ok((listed.into_iter().map(|(_, value)| value).collect(), Query::of(others, &known)?))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// One that has to be there.
    pub fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| invalid(format!("{name}: missing")))
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.get(name).map(|value| boolean(name, value)).transpose()
    }
}

fn pairs(query: Option<String>) -> Result<Vec<(String, String)>, Refusal> {
    let wrong = |part: String| invalid(format!("the parameter {}: allowed: UTF-8, with %25 for a %", quoted(&part)));
    sent::pairs(&query.unwrap_or_default()).map_err(wrong)
}

fn boolean(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(format!("{name}: {} is neither true nor false", quoted(value)))),
    }
}

/// A body that is a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Json>, Refusal> {
    match sent::json(body) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(invalid("the body is JSON, but no object; allowed: {…}")),
        Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
    }
}

/// Parameters and body together: scripts send either.
fn named(query: Option<String>, body: &[u8]) -> Result<(Query, Map<String, Json>), Refusal> {
    let known = ["upstream", "upstream_id", "backend_id", "id", "force", "timeout", "persist"];
    let mut query = Query::read(query, &known)?;
    let mut named = if body.is_empty() { Map::new() } else { object(body)? };
    for (name, value) in query.0.extract_if(.., |(name, _)| name != "persist") {
        if named.insert(name.clone(), Json::String(value)).is_some() {
            return Err(invalid(format!("{name}: given in the body and as a parameter")));
        }
    }
    Ok((query, named))
}

fn backend_name(named: &mut Map<String, Json>) -> Result<BackendName, Refusal> {
    Ok(BackendName { upstream: text(named, &["upstream", "upstream_id"])?, id: text(named, &["backend_id", "id"])? })
}

/// The text under the first of these names that is there.
pub(super) fn text(object: &mut Map<String, Json>, names: &[&str]) -> Result<String, Refusal> {
    let name = names.iter().find(|name| object.contains_key(**name)).unwrap_or(&names[0]);
    match object.remove(*name) {
        Some(Json::String(text)) if (1..=NAME_BYTES_MAX).contains(&text.len()) => Ok(text),
        Some(_) => Err(invalid(format!("{name}: allowed: a text of 1 to {NAME_BYTES_MAX} bytes"))),
        None => Err(invalid(format!("{name}: missing"))),
    }
}

pub(super) fn nothing_else(object: &Map<String, Json>, allowed: &str) -> Result<(), Refusal> {
    match object.keys().next() {
        Some(name) => Err(invalid(format!("{}: unknown key; allowed: {allowed}", quoted(name)))),
        None => Ok(()),
    }
}

/// When what still runs is to be ended; `None`: never.
pub(super) fn force(named: &mut Map<String, Json>) -> Result<Option<Duration>, Refusal> {
    let force = match named.remove("force") {
        None => false,
        Some(Json::Bool(force)) => force,
        Some(Json::String(text)) => boolean("force", &text)?,
        Some(_) => return Err(invalid("force: allowed: true or false")),
    };
    let timeout = match named.remove("timeout") {
        None => FORCE_TIMEOUT,
        Some(Json::String(text)) => values::duration(&text, Duration::ZERO, FORCE_TIMEOUT_MAX)
            .map_err(|wrong| invalid(format!("timeout: {wrong}")))?,
        Some(_) => return Err(invalid("timeout: allowed: a duration such as \"30s\"")),
    };
    Ok(force.then_some(timeout))
}
