//! The gRPC skin: the services of `proto/` over the verbs, beside REST on the same port and behind the same guard.
//!
//! Owns the routes of the services, the way from a request to a verb, and from a refusal to a code of gRPC. Never
//! decides what a verb does.

mod backend;
mod config;
mod health;
mod monitor;
mod stats;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use serde_json::json;
use tonic::server::NamedService;
use tonic::{Code, Extensions, Request, Response, Status};

use super::Desk;
use super::auth::{Denial, Peer, Who};
use super::rest::{BODY_BYTES_MAX, invalid, told};
use crate::config::tree::CONFIG_BYTES_MAX;
use crate::control::thread::Asked;
use crate::control::verb::{BackendName, Refusal, RefusalKind, Verb};

/// Messages and services of `proto/speedmimi/v1`; the comments there are the manual.
pub mod v1 {
    #![allow(clippy::all, missing_docs, rustdoc::all)]
    tonic::include_proto!("speedmimi.v1");
}

pub(super) use monitor::figures;
use v1::backend_service_server::BackendServiceServer;
use v1::config_service_server::ConfigServiceServer;
use v1::monitor_service_server::MonitorServiceServer;

/// Describes [`v1`], for reflection.
const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("speedmimi.v1");
/// For what stands beside a configuration in its message.
const ENVELOPE_BYTES: usize = 4096;
/// Bytes of a refusal's words at most. Escaped they may be three times as long, and clients take 8 KiB of trailers.
const WORDS_BYTES_MAX: usize = 2048;

/// All services; the guard of the port still has to be put in front.
pub(super) fn routes(desk: &Arc<Desk>) -> Router<Arc<Desk>> {
    let backends = BackendServiceServer::from_arc(desk.clone()).max_decoding_message_size(BODY_BYTES_MAX);
    let monitor = MonitorServiceServer::from_arc(desk.clone()).max_decoding_message_size(BODY_BYTES_MAX);
    let config_bytes_max = CONFIG_BYTES_MAX + ENVELOPE_BYTES;
    let config = ConfigServiceServer::from_arc(desk.clone()).max_decoding_message_size(config_bytes_max);
    let router = Router::new()
        .route_service(&calls(&backends), backends)
        .route_service(&calls(&monitor), monitor)
        .route_service(&calls(&config), config);
    reflected(health::route(router, desk)).layer(middleware::from_fn(only_grpc))
}

/// The paths of a service.
fn calls<S: NamedService>(_: &S) -> String {
    format!("/{}/{{*call}}", S::NAME)
}

/// Adds reflection, also by the name it had before, which many clients still ask for.
fn reflected(router: Router<Arc<Desk>>) -> Router<Arc<Desk>> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "descriptors that were made with the program";
    let now = builder().build_v1().expect(sound).max_decoding_message_size(BODY_BYTES_MAX);
    let before = builder().build_v1alpha().expect(sound).max_decoding_message_size(BODY_BYTES_MAX);
    router.route_service(&calls(&now), now).route_service(&calls(&before), before)
}

/// Whether gRPC is spoken, in the one form of it that is served (Protocol Buffers).
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    ["application/grpc", "application/grpc+proto"].into_iter().any(|grpc| kind.eq_ignore_ascii_case(grpc))
}

/// Nothing but gRPC gets to the services: a page in a browser can send other types without asking first.
async fn only_grpc(request: HttpRequest, next: Next) -> HttpResponse {
    let is_grpc = request.method() == Method::POST && request.version() == Version::HTTP_2;
    if is_grpc && is_spoken(request.headers()) {
        return next.run(request).await;
    }
    let error = "gRPC is served here: POST over HTTP/2 with Content-Type: application/grpc (REST is at /api/v1/)";
    told(StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!({ "error": error }))
}

/// An answer that is nothing but its end: a refusal before a service was reached.
pub(super) fn refused(code: Code, words: &str) -> HttpResponse {
    Status::new(code, words).into_http()
}

/// The code for somebody who is turned away.
pub(super) fn denial_code(denial: Denial) -> Code {
    match denial {
        Denial::Token => Code::Unauthenticated,
        Denial::Host | Denial::Origin | Denial::Role => Code::PermissionDenied,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.kind {
            RefusalKind::Invalid => Code::InvalidArgument,
            RefusalKind::Unknown => Code::NotFound,
            RefusalKind::Exists => Code::AlreadyExists,
            RefusalKind::Conflict => Code::FailedPrecondition,
            RefusalKind::Stale => Code::Aborted,
            RefusalKind::Failed => Code::Internal,
        };
        Status::new(code, shortened(refusal.error))
    }
}

/// As much of a refusal's words as fits into the trailers that clients take.
fn shortened(mut words: String) -> String {
    if words.len() > WORDS_BYTES_MAX {
        let end = (0..=WORDS_BYTES_MAX).rev().find(|&at| words.is_char_boundary(at)).unwrap_or(0);
        words.truncate(end);
        words.push_str(" … (REST tells the rest)");
    }
    words
}

/// On which terms a change is asked for.
struct Terms {
    /// Empty or `*`: for any configuration.
    if_match: String,
    /// Unset: yes.
    persist: Option<bool>,
}

/// Takes the sender and the message apart, has control make the change, and tells of it.
async fn change(
    desk: &Desk,
    sender: &Extensions,
    terms: Terms,
    verb: Verb,
) -> Result<Response<v1::ChangeResponse>, Status> {
    let who = sender.get::<Who>().ok_or_else(|| Status::internal("a request without its sender"))?;
    let if_match = Some(terms.if_match).filter(|tag| !tag.is_empty() && tag != "*");
    let asked = Asked {
        verb,
        if_match,
        persist: terms.persist.unwrap_or(true),
        who: who.name.to_owned(),
        from: sender.get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default(),
    };
    let done = desk.ask(asked).await?;
    Ok(Response::new(v1::ChangeResponse {
        etag: done.etag,
        changed: done.changed,
        persisted: done.persisted,
        restart_required: done.restart_required.into_iter().map(str::to_owned).collect(),
        warnings: done.warnings,
    }))
}

/// The message of a request and its sender.
fn opened<T>(request: Request<T>) -> (Extensions, T) {
    let (_, sender, message) = request.into_parts();
    (sender, message)
}

/// A text that has to be there.
fn needed(name: &str, text: String) -> Result<String, Refusal> {
    if text.is_empty() { Err(invalid(format!("{name}: missing"))) } else { Ok(text) }
}

fn backend_name(upstream: String, backend_id: String) -> Result<BackendName, Refusal> {
    Ok(BackendName { upstream: needed("upstream", upstream)?, id: needed("backend_id", backend_id)? })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_known_by_its_type() {
        let spoken = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            is_spoken(&headers)
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=x"] {
            assert!(spoken(kind), "{kind}");
        }
        for kind in ["", "text/plain", "application/grpc-web", "application/grpc+json", "application/grpcx"] {
            assert!(!spoken(kind), "{kind}");
        }
        assert!(!is_spoken(&HeaderMap::new()));
    }

    #[test]
    fn words_fit_into_trailers_wherever_they_are_cut() {
        for front in 0..4 {
            let words = "x".repeat(front) + &"…".repeat(WORDS_BYTES_MAX);
            let status = Status::from(Refusal::new(RefusalKind::Stale, words));
            assert_eq!(status.code(), Code::Aborted);
            let response: HttpResponse = status.into_http();
            assert!(response.headers()["grpc-message"].len() < 8192 - 1024);
        }
        assert_eq!(Status::from(invalid("short")).message(), "short");
    }
}
