//! How a request would be routed and balanced, and why: the same functions as on the data path, told step by step.
//!
//! Owns the telling. Never sends anything and never changes what it looks at: no slot is taken and no rotation moves.

use std::net::IpAddr;

use serde_json::{Map, Value as Json, json};

use super::figures::State;
use super::verb::{Refusal, RefusalKind};
use crate::balance::rng::Rng;
use crate::balance::roster::Roster;
use crate::balance::rotation::Rotation;
use crate::balance::{Algorithm, Load, key, policy};
use crate::config::plan::{self, HashOn, Plan, Target};
use crate::error::{Fault, Reason};
use crate::http::class::classify;
use crate::http::framing::BodyFraming;
use crate::http::head::{FieldTable, Method, RequestHead};
use crate::http::parse::{HeadEnd, HeadLimits, parse_request};
use crate::http::peer::client_address;
use crate::proxy::intake::{hash_key, matched_path};
use crate::proxy::select::load_of;
use crate::route::{AccessList, HostMatch};
use crate::shared::backend::{BackendState, Busy, Mark, Standing};
use crate::shared::command::{Published, PublishedUpstream};
use crate::upstream::sticky::Signer;

/// A request as somebody describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// E.g. `GET`.
    pub method: String,
    /// As in `Host`.
    pub host: String,
    /// With the query, if it has one.
    pub path: String,
    /// The address that the connection comes from.
    pub client: IpAddr,
    /// Further fields, `Name: value`.
    pub headers: Vec<String>,
}

/// Explains what the proxy that runs by `published` would do at `now_ms` of the process clock.
///
/// # Errors
/// When the description is no single request.
pub fn explain(published: &Published, question: &Question, now_ms: u64) -> Result<Json, Refusal> {
    if question.has_line_break() {
        return Err(no_request());
    }
    let text = question.text();
    let server = &published.plan.server;
    let limits = HeadLimits { head_bytes: server.max_header_bytes, fields: server.max_headers };
    let mut fields = FieldTable::default();
    let mut told = Map::new();
    match parse_request(text.as_bytes(), &mut HeadEnd::default(), &limits, &mut fields) {
        Ok(Some((head, used))) if used == text.len() => {
            if let Err(fault) = request(published, question, &head, now_ms, &mut told) {
                told.insert("answer".into(), answer_of(fault));
            }
        }
        Ok(_) => return Err(no_request()),
        Err(fault) => {
            told.insert("answer".into(), answer_of(fault));
        }
    }
    Ok(Json::Object(told))
}

fn no_request() -> Refusal {
    let error = "method, host, path and header: together they are not one request (a line break in one of them?)";
    Refusal::new(RefusalKind::Invalid, error)
}

impl Question {
    /// With one a part could be more than it says: a field in the host.
    fn has_line_break(&self) -> bool {
        let parts = [&self.method, &self.host, &self.path].into_iter().chain(&self.headers);
        parts.into_iter().any(|part| part.contains(['\r', '\n']))
    }

    fn text(&self) -> String {
        let Question { method, host, path, headers, .. } = self;
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
    }
}

fn answer_of(fault: Fault) -> Json {
    json!({"status": fault.reason.status(), "reason": fault.reason.code(), "detail": fault.detail})
}

/// Tells the request's way as far as it goes.
fn request(
    published: &Published,
    question: &Question,
    head: &RequestHead<'_>,
    now_ms: u64,
    told: &mut Map<String, Json>,
) -> Result<(), Fault> {
    let plan = &published.plan;
    let server = &plan.server;
    let header = server.client_ip_header.as_deref();
    let from = client_address(question.client, head.fields(), &server.trusted_proxies, header);
    told.insert("client".into(), from.address.to_string().into());
    told.insert(
        "client_is_from".into(),
        if from.peer_is_trusted { "a trusted proxy" } else { "the connection" }.into(),
    );
    let protocol = classify(head, false);
    told.insert("protocol".into(), protocol.name().into());
    let mut room = Vec::new();
    let path = matched_path(head, &mut room)?;
    told.insert("path".into(), String::from_utf8_lossy(path).into());
    let matching = published.table.explain(head.host(), path);
    told.insert("matches".into(), matching.iter().filter_map(|found| rule(plan, *found)).collect());
    let route = matching.first().and_then(|(id, _)| plan.routes.get(id.0 as usize)).ok_or(Reason::NoRoute)?;
    told.insert("route".into(), route.name.as_str().into());
    let access = AccessList::new(&route.allow, &route.deny);
    if (!route.allow.is_empty() || !route.deny.is_empty()) && !access.allows(from.address) {
        return Err(Reason::Denied.into());
    }
    let max = route.max_body_bytes;
    if max > 0 && matches!(head.framing(), BodyFraming::Length(n) if n > max) {
        return Err(Reason::BodyTooLarge.into());
    }
    if head.method() == Method::Options && head.max_forwards() == Some(0) {
        told.insert("answer".into(), json!({"status": 204}));
        return Ok(());
    }
    match &route.target {
        Target::Redirect { status, location } => {
            told.insert("answer".into(), json!({"status": status, "location": location}));
        }
        Target::Respond { status, .. } => {
            told.insert("answer".into(), json!({ "status": status }));
        }
        Target::Upstream(id) => {
            let Some(upstream) = published.upstreams.get(id.0 as usize) else { return Ok(()) };
            let algorithm = route.algorithms[protocol as usize];
            told.insert("upstream".into(), upstream.conf.name.as_str().into());
            told.insert("algorithm".into(), algorithm.name().into());
            let key = hash_key(algorithm, &upstream.conf.hash_on, head, from.address);
            let choice = Choice { upstream, algorithm, key, now_ms };
            return choice.tell(sticky(upstream, head), told);
        }
    }
    Ok(())
}

fn rule(plan: &Plan, (id, by): (plan::RouteId, HostMatch)) -> Option<Json> {
    let route = plan.routes.get(id.0 as usize)?;
    let by = match by {
        HostMatch::Exact => "this host",
        HostMatch::Wildcard => "a wildcard",
        HostMatch::Any => "any host",
    };
    Some(json!({"route": route.name, "host": by, "path": route.path}))
}

/// The key of the backend that the cookie names.
fn sticky(upstream: &PublishedUpstream, head: &RequestHead<'_>) -> Option<u64> {
    let conf = upstream.conf.sticky.as_ref()?;
    Signer::new(&upstream.conf.name, conf).read(head.fields().cookie(&conf.cookie)?)
}

/// A choice between the backends of an upstream.
struct Choice<'a> {
    upstream: &'a PublishedUpstream,
    algorithm: Algorithm,
    key: u64,
    now_ms: u64,
}

impl Choice<'_> {
    fn tell(&self, sticky: Option<u64>, told: &mut Map<String, Json>) -> Result<(), Fault> {
        let states = &self.upstream.backends;
        let best = Standing::best(states.iter().map(|state| &**state), self.now_ms);
        let backends = (0..states.len()).map(|at| self.backend(at, best)).collect::<Vec<_>>();
        told.insert("backends".into(), backends.into());
        told.insert("waiting".into(), self.upstream.state.waiting().into());
        if self.algorithm == Algorithm::Hash {
            told.insert("hash_on".into(), hash_on(&self.upstream.conf.hash_on).into());
        }
        if best == Standing::Out {
            return Err(Reason::NoBackend.into());
        }
        let (candidates, how) = match sticky.and_then(|hash| self.named_by_cookie(hash)) {
            Some(at) => (vec![at], "the sticky cookie names it"),
            None => self.candidates(best),
        };
        let ids: Vec<&str> = candidates.iter().filter_map(|&at| self.conf(at)).map(|b| b.id.as_str()).collect();
        if ids.is_empty() {
            let waits = self.upstream.conf.queue.size > 0;
            told.insert("how".into(), if waits { "waits in the queue" } else { "all are at max_conn" }.into());
            return if waits { Ok(()) } else { Err(Reason::BackendsFull.into()) };
        }
        told.insert("candidates".into(), ids.into());
        told.insert("how".into(), how.into());
        Ok(())
    }

    fn conf(&self, at: usize) -> Option<&plan::Backend> {
        self.upstream.conf.backends.get(at).map(|conf| &**conf)
    }

    fn state(&self, at: usize) -> &BackendState {
        &self.upstream.backends[at]
    }

    fn named_by_cookie(&self, hash: u64) -> Option<usize> {
        let at = self.upstream.conf.backends.iter().position(|b| key::of_bytes(b.id.as_bytes()) == hash)?;
        let state = self.state(at);
        (state.standing(self.now_ms) < Standing::Ejected && state.occupancy().check().is_ok()).then_some(at)
    }

    fn load(&self, at: usize, best: Standing) -> Option<Load> {
        let state = self.state(at);
        if state.standing(self.now_ms) == best { load_of(state, self.now_ms) } else { None }
    }

    /// One backend with the numbers that the choice looks at.
    fn backend(&self, at: usize, best: Standing) -> Json {
        let (state, Some(conf)) = (self.state(at), self.conf(at)) else { return Json::Null };
        let load = self.load(at, best);
        let mut told = json!({
            "backend_id": conf.id,
            "state": State::of(state, self.now_ms).name(),
            "eligible": load.is_some(),
            "why": self.why(state, conf, best),
            "weight": conf.weight,
            "in_flight": state.in_flight(),
            "max_conn": conf.max_conn,
        });
        if let Some(load) = load {
            told["ramp"] = f64::from(load.ramp).into();
            told["headroom"] = f64::from(load.headroom).into();
            if let Some(cost) = self.cost(at, load) {
                told["cost"] = cost.into();
            }
        }
        told
    }

    fn why(&self, state: &BackendState, conf: &plan::Backend, best: Standing) -> String {
        let marks = [
            (Mark::Draining, "it is being removed"),
            (Mark::Inactive, "it is taken out of use (active: false)"),
            (Mark::Disconnected, "it is disconnected"),
            (Mark::CheckDown, "its health check fails"),
        ];
        if let Some((_, why)) = marks.into_iter().find(|(mark, _)| state.is(*mark)) {
            return why.to_owned();
        }
        let standing = state.standing(self.now_ms);
        if standing != best {
            return match standing {
                Standing::Ejected => {
                    let left_ms = state.ejected_until_ms().saturating_sub(self.now_ms);
                    format!("it is ejected after failures in a row, for {} s more", left_ms.div_ceil(1000))
                }
                _ => "it is a backup, and others are in service".to_owned(),
            };
        }
        match state.occupancy().check() {
            Err(Busy::Full) => format!("all its {} places are taken (max_conn)", conf.max_conn),
            Err(Busy::Waiters) => "others wait already: the queue comes first".to_owned(),
            Ok(()) if standing == Standing::Ejected => "it is ejected, and so are all others".to_owned(),
            Ok(()) => "it is in service and has room".to_owned(),
        }
    }

    /// What the least-rules compare.
    fn cost(&self, at: usize, load: Load) -> Option<f64> {
        let weight = f64::from(self.conf(at)?.weight) * f64::from(load.ramp);
        let power = match self.algorithm {
            Algorithm::LeastConnections => 1.0,
            Algorithm::LeastConnectionsWeight | Algorithm::RandomTwo => weight,
            Algorithm::PerformanceLeastConnectionsWeight => weight * f64::from(load.headroom),
            _ => return None,
        };
        Some((f64::from(load.in_flight) + 1.0) / power)
    }

    /// The backends one of which would be taken, and in words which.
    fn candidates(&self, best: Standing) -> (Vec<usize>, &'static str) {
        let eligible: Vec<(usize, Load)> =
            (0..self.upstream.backends.len()).filter_map(|at| Some((at, self.load(at, best)?))).collect();
        let all = || eligible.iter().map(|(at, _)| *at).collect();
        match self.algorithm {
            Algorithm::IpHash | Algorithm::Hash => {
                (self.hashed(best).into_iter().collect(), "it bids most for this key: weighted rendezvous hash")
            }
            Algorithm::RoundRobin => (all(), "one after the other"),
            Algorithm::Weight => (all(), "in turn by weight: smooth weighted round robin"),
            Algorithm::RandomTwo => (all(), "the cheaper of two drawn by weight"),
            _ => {
                let costs = eligible.iter().filter_map(|&(at, load)| Some((at, self.cost(at, load)?)));
                let costs: Vec<(usize, f64)> = costs.collect();
                let least = costs.iter().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min);
                let cheapest = costs.iter().filter(|(_, cost)| *cost <= least * (1.0 + 1e-9)).map(|(at, _)| *at);
                (cheapest.collect(), "the least (in flight + 1) / power; equal ones in rotation")
            }
        }
    }

    fn hashed(&self, best: Standing) -> Option<usize> {
        let roster = Roster::new(self.upstream.conf.backends.iter().map(|b| (b.id.as_str(), b.weight)));
        let mut rng = Rng::new(0);
        let mut rotation = Rotation::new(&roster, &mut rng);
        policy::pick(self.algorithm, &roster, &mut rotation, self.key, &mut rng, |at| self.load(at, best))
    }
}

fn hash_on(hash_on: &HashOn) -> String {
    match hash_on {
        HashOn::ClientIp => "client_ip".to_owned(),
        HashOn::Header(name) => format!("header:{name}"),
        HashOn::Cookie(name) => format!("cookie:{name}"),
        HashOn::Uri => "uri".to_owned(),
    }
}
