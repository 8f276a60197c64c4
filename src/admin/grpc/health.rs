//! `grpc.health.v1`: whether new requests are welcome, as `/readyz` has it.
//!
//! Owns the answers to who asks and who watches. Never finds out itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::v1::backend_service_server::SERVICE_NAME as BACKEND;
use super::v1::config_service_server::SERVICE_NAME as CONFIG;
use super::v1::monitor_service_server::SERVICE_NAME as MONITOR;
use crate::admin::Desk;

/// How soon a watcher hears of it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a request at most: the name of a service.
const REQUEST_BYTES_MAX: usize = 1024;

/// Answers for a desk.
#[derive(Clone, Debug)]
struct Answerer(Arc<Desk>);

/// Adds the service.
pub(super) fn route(router: Router<Arc<Desk>>, desk: &Arc<Desk>) -> Router<Arc<Desk>> {
    let health = HealthServer::new(Answerer(desk.clone())).max_decoding_message_size(REQUEST_BYTES_MAX);
    router.route_service(&super::calls(&health), health)
}

impl Answerer {
    /// `""` is the whole proxy.
    fn status(&self, service: &str) -> ServingStatus {
        let known = ["", BACKEND, CONFIG, MONITOR, HealthServer::<Answerer>::NAME];
        match (known.contains(&service), self.0.board.is_ready()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl Health for Answerer {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("service: there is none of that name here")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (answerer, service) = (self.clone(), request.into_inner().service);
        let mut clock = tokio::time::interval(LOOK_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = None;
        let news = IntervalStream::new(clock).filter_map(move |_| {
            let status = answerer.status(&service);
            let is_news = told.replace(status) != Some(status);
            is_news.then(|| Ok(HealthCheckResponse { status: status.into() }))
        });
        Ok(Response::new(Box::pin(news)))
    }
}
