//! `MonitorService`: figures, reports of backends, explain, the last errors and changes.
//!
//! Owns the message of figures. Never counts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value as Json};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::v1::monitor_service_server::MonitorService;
use super::{backend_name, stats, v1};
use crate::admin::Desk;
use crate::admin::figures::{question, read_report, take_report, troubles, unknown};
use crate::admin::rest::invalid;
use crate::clock;
use crate::control::board::{Board, ChangeRecord};
use crate::control::explain;
use crate::shared::trouble::{TROUBLES_COUNT_MAX, Trouble};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl MonitorService for Desk {
    async fn get_server_stats(&self, _: Request<v1::GetServerStatsRequest>) -> Answer<v1::ServerStats> {
        Ok(Response::new(stats::server(&self.board)))
    }

    async fn get_backend_stats(&self, request: Request<v1::GetBackendStatsRequest>) -> Answer<v1::BackendStats> {
        let asked = request.into_inner();
        let name = backend_name(asked.upstream, asked.backend_id)?;
        let found = stats::backend(&self.board, &name);
        Ok(Response::new(found.ok_or_else(|| unknown(&self.board, &name.upstream, Some(&name.id)))?))
    }

    type WatchStatsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchStatsResponse, Status>> + Send>>;

    async fn watch_stats(&self, _: Request<v1::WatchStatsRequest>) -> Answer<Self::WatchStatsStream> {
        let messages = self.feeds.messages(&self.board);
        Ok(Response::new(Box::pin(messages.map(|message| Ok(Arc::unwrap_or_clone(message))))))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Answer<v1::ReportResponse> {
        let asked = request.into_inner();
        let name = backend_name(asked.upstream, asked.backend_id)?;
        let missing = "performance: missing; allowed: cpu_usage, memory_usage, load_avg_1, cpus";
        let performance = asked.performance.ok_or_else(|| invalid(missing))?;
        let report = read_report(&given(performance))?;
        take_report(&self.board, &name.upstream, &name.id, report)?;
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let asked = request.into_inner();
        let question = question(asked.host, asked.method, asked.path, asked.client, asked.headers)?;
        let told_of = explain::explain(&self.board.shown().published, &question, clock::now_ms())?;
        Ok(Response::new(v1::ExplainResponse { explanation_json: told_of.to_string() }))
    }

    async fn list_errors(&self, request: Request<v1::ListErrorsRequest>) -> Answer<v1::ListErrorsResponse> {
        let limit = match request.into_inner().limit as usize {
            0 => TROUBLES_COUNT_MAX,
            limit @ 1..=TROUBLES_COUNT_MAX => limit,
            limit => Err(invalid(format!("limit: {limit} is outside 1..={TROUBLES_COUNT_MAX}")))?,
        };
        let errors = troubles(&self.board).iter().take(limit).map(error_answer).collect();
        Ok(Response::new(v1::ListErrorsResponse { errors }))
    }

    async fn list_changes(&self, _: Request<v1::ListChangesRequest>) -> Answer<v1::ListChangesResponse> {
        let changes = self.board.changes().into_iter().map(told).collect();
        Ok(Response::new(v1::ListChangesResponse { changes }))
    }
}

/// Everything as it is now.
pub(in crate::admin) fn figures(board: &Board) -> Arc<v1::WatchStatsResponse> {
    let shown = board.shown();
    Arc::new(v1::WatchStatsResponse {
        server: Some(stats::server(board)),
        backends: stats::backends(board, None),
        removed: stats::removed(board, None),
        etag: shown.etag.clone(),
        ready: board.is_ready(),
        restart_required: shown.restart_required.iter().map(|&key| key.to_owned()).collect(),
        file_refused: board.trouble().map(|trouble| trouble.as_str().to_owned()).unwrap_or_default(),
    })
}

/// A report as REST has it, so that both are held to the same ranges in the same words.
fn given(performance: v1::report_request::Performance) -> Map<String, Json> {
    let v1::report_request::Performance { cpu_usage, memory_usage, load_avg_1, cpus } = performance;
    let all = [("cpu_usage", cpu_usage), ("memory_usage", memory_usage), ("load_avg_1", load_avg_1), ("cpus", cpus)];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Json::from(value?)))).collect()
}

fn told(change: ChangeRecord) -> v1::Change {
    let since = change.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    v1::Change {
        timestamp: since.as_millis() as u64,
        who: change.who,
        from_address: change.from,
        what: change.what,
        changed: change.paths,
        refused: change.refused,
    }
}

fn error_answer(trouble: &Trouble) -> v1::ErrorAnswer {
    let since = trouble.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let noted = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    v1::ErrorAnswer {
        timestamp: since.as_millis() as u64,
        request_id: trouble.request_id.clone(),
        reason: trouble.reason.code().to_owned(),
        status: trouble.status.into(),
        detail: trouble.detail.to_owned(),
        timer: trouble.timer(),
        route: trouble.route.clone(),
        upstream: trouble.upstream.clone(),
        backend: trouble.backend.clone(),
        client: trouble.client.map(|client| client.to_string()),
        method: noted(&trouble.method),
        host: noted(&trouble.host),
        path: noted(&trouble.path),
        retries: trouble.retries,
    }
}
