//! One check of a backend that speaks HTTP/2: a GET, or the call of gRPC's health protocol.
//!
//! Owns the request and what counts as a good answer. Never connects and never sets a deadline.

use std::future::poll_fn;
use std::time::Duration;

use ::h2::client::{Builder, SendRequest};
use ::h2::{Error, RecvStream};
use ::http::{HeaderMap, Method, Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{HEAD_BYTES_MAX, USER_AGENT};
use crate::config::plan::{HealthCheck, HealthCheckKind};

/// Largest message that the answer to a call may hold, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Before a message of gRPC stand a flag and its length.
const PREFIX_BYTES: usize = 5;

/// Asks over `stream` as `check` says; `authority` is the backend's own, and `scheme` that of its URLs.
///
/// # Errors
/// Why the answer is not a good one, in words.
pub async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    scheme: &str,
    check: &HealthCheck,
) -> Result<(), String> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX as u32);
    let (sender, connection) = builder.handshake(stream).await.map_err(|e| told(&e))?;
    tokio::select! {
        biased;
        result = one(sender, authority, scheme, check) => result,
        ended = connection => Err(ended.map_or_else(|e| told(&e), |()| "the connection was closed".into())),
    }
}

async fn one(sender: SendRequest<Bytes>, authority: &str, scheme: &str, check: &HealthCheck) -> Result<(), String> {
    let mut sender = sender.ready().await.map_err(|e| told(&e))?;
    match &check.kind {
        HealthCheckKind::Tcp => Ok(()),
        HealthCheckKind::Http { path, host, expect } => {
            let uri = uri(scheme, host, authority, path);
            let request = Request::get(uri).header("user-agent", USER_AGENT).header("accept", "*/*");
            let request = request.body(()).map_err(|e| e.to_string())?;
            let (answer, _) = sender.send_request(request, true).map_err(|e| told(&e))?;
            let status = answer.await.map_err(|e| told(&e))?.status().as_u16();
            super::judge(status, *expect)
        }
        HealthCheckKind::Grpc { service, host } => {
            let uri = uri(scheme, host, authority, "/grpc.health.v1.Health/Check");
            let (answer, mut stream) = sender.send_request(call(uri, check.timeout)?, false).map_err(|e| told(&e))?;
            stream.send_data(message(service), true).map_err(|e| told(&e))?;
            serving(answer.await.map_err(|e| told(&e))?).await
        }
    }
}

fn uri(scheme: &str, host: &str, authority: &str, path: &str) -> String {
    let host = if host.is_empty() { authority } else { host };
    format!("{scheme}://{host}{path}")
}

/// The head of a unary call.
fn call(uri: String, timeout: Duration) -> Result<Request<()>, String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", timeout.as_millis()))
        .header("user-agent", USER_AGENT);
    request.body(()).map_err(|e| e.to_string())
}

fn message(service: &str) -> Bytes {
    let asked = HealthCheckRequest { service: service.to_owned() };
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + asked.encoded_len());
    out.put_u8(0);
    out.put_u32(asked.encoded_len() as u32);
    out.extend_from_slice(&asked.encode_to_vec());
    out.freeze()
}

/// Whether the whole answer says `SERVING`.
async fn serving(answer: Response<RecvStream>) -> Result<(), String> {
    let (head, mut body) = answer.into_parts();
    if head.status != 200 {
        return Err(format!("status {}, no answer of gRPC", head.status.as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        let data = data.map_err(|e| told(&e))?;
        if bytes.len() + data.len() > PREFIX_BYTES + MESSAGE_BYTES_MAX {
            return Err("the answer is larger than 1 KiB".into());
        }
        bytes.extend_from_slice(&data);
    }
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await.map_err(|e| told(&e))?;
    // Without a message, the head holds what else the trailers do.
    let code = trailers.as_ref().and_then(|trailers| grpc_status(trailers)).or_else(|| grpc_status(&head.headers));
    match code {
        Some("0") => {}
        // As the protocol has it, for a service that the backend doesn't know.
        Some("5") => return Err("the backend does not know the service (grpc-status 5)".into()),
        Some(code) => return Err(format!("grpc-status {code}")),
        None => return Err("an answer without grpc-status".into()),
    }
    let answer = HealthCheckResponse::decode(only_message(&bytes)?).map_err(|e| e.to_string())?;
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("the service says {}", other.as_str_name())),
    }
}

/// The one message of an answer, behind its flag and its length.
fn only_message(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let Some((&[flag, a, b, c, d], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err("an answer without a message");
    };
    match (flag, u32::from_be_bytes([a, b, c, d])) {
        (0, len) if usize::try_from(len).is_ok_and(|len| len == message.len()) => Ok(message),
        (0, _) => Err("an answer whose length is not that of its message"),
        _ => Err("an answer that is compressed, which was not asked for"),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<&str> {
    fields.get("grpc-status")?.to_str().ok()
}

fn told(error: &Error) -> String {
    format!("HTTP/2: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_one_message_of_the_length_it_says() {
        assert_eq!(only_message(&[0, 0, 0, 0, 2, 8, 1]), Ok([8, 1].as_slice()));
        assert_eq!(only_message(&[0, 0, 0, 0, 0]), Ok([].as_slice()));
        let bad: [&[u8]; 6] = [
            b"",
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 1, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 255, 255, 255, 255, 8, 1],
        ];
        bad.iter().for_each(|bytes| assert!(only_message(bytes).is_err(), "{bytes:?}"));
    }
}
