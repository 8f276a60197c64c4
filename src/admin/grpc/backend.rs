//! `BackendService`: upstreams and backends.
//!
//! Owns the way from a backend as a message to its keys, and which of them an update names. Never checks a value: that
//! is for the table of keys.

use serde_json::{Map, Value as Json};
use tonic::{Request, Response, Status};

use super::v1::backend_service_server::BackendService;
use super::{Terms, backend_name, change, needed, opened, stats, v1};
use crate::admin::Desk;
use crate::admin::figures::{routes_to, unknown};
use crate::admin::rest::{force, invalid};
use crate::control::verb::{BackendName, Refusal, Verb};

type Answer<T> = Result<Response<T>, Status>;
type Changed = Answer<v1::ChangeResponse>;

#[tonic::async_trait]
impl BackendService for Desk {
    async fn list_upstreams(&self, _: Request<v1::ListUpstreamsRequest>) -> Answer<v1::ListUpstreamsResponse> {
        let shown = self.board.shown();
        let upstreams = shown.published.upstreams.iter().map(|upstream| {
            let name = &upstream.conf.name;
            v1::Upstream {
                name: name.clone(),
                routes: routes_to(&shown, name).into_iter().map(str::to_owned).collect(),
                waiting: upstream.state.waiting() as u64,
                queue_size: upstream.conf.queue.size as u64,
                backends: stats::backends(&self.board, Some(name)),
            }
        });
        Ok(Response::new(v1::ListUpstreamsResponse { upstreams: upstreams.collect() }))
    }

    async fn list_backends(&self, request: Request<v1::ListBackendsRequest>) -> Answer<v1::ListBackendsResponse> {
        let upstream = request.into_inner().upstream;
        let upstream = Some(upstream.as_str()).filter(|name| !name.is_empty());
        if let Some(name) = upstream
            && self.board.shown().published.plan.upstream(name).is_none()
        {
            return Err(unknown(&self.board, name, None).into());
        }
        Ok(Response::new(v1::ListBackendsResponse {
            backends: stats::backends(&self.board, upstream),
            removed: stats::removed(&self.board, upstream),
        }))
    }

    async fn add_backend(&self, request: Request<v1::AddBackendRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let upstream = needed("upstream", asked.upstream)?;
        let backend = asked.backend.ok_or_else(|| invalid("backend: missing; allowed: a backend's keys"))?;
        let backend = Json::Object(given(fields(backend)));
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::AddBackend { upstream, backend }).await
    }

    async fn remove_backend(&self, request: Request<v1::RemoveBackendRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let backend = backend_name(asked.upstream, asked.backend_id)?;
        let force = patience(asked.force, asked.timeout)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::RemoveBackend { backend, force }).await
    }

    async fn update_backend(&self, request: Request<v1::UpdateBackendRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let upstream = needed("upstream", asked.upstream)?;
        let mut backend = asked.backend.ok_or_else(|| invalid("backend: missing; allowed: a backend's keys"))?;
        let id = needed("backend.id", std::mem::take(&mut backend.id))?;
        let paths = asked.update_mask.unwrap_or_default().paths;
        let fields = if paths.is_empty() { given(fields(backend)) } else { masked(backend, &paths)? };
        if fields.is_empty() {
            return Err(invalid("backend: there is nothing to change; allowed: any key of a backend but id").into());
        }
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        let backend = BackendName { upstream, id };
        change(self, &sender, terms, Verb::UpdateBackend { backend, fields }).await
    }

    async fn disconnect(&self, request: Request<v1::DisconnectRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let backend = backend_name(asked.upstream, asked.backend_id)?;
        let force = patience(asked.force, asked.timeout)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::Disconnect { backend, force }).await
    }

    async fn connect(&self, request: Request<v1::ConnectRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let backend = backend_name(asked.upstream, asked.backend_id)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::Connect { backend }).await
    }
}

/// When what still runs is ended, by the rules of REST.
fn patience(is_forced: bool, timeout: String) -> Result<Option<std::time::Duration>, Refusal> {
    let mut named = Map::new();
    named.insert("force".to_owned(), is_forced.into());
    if !timeout.is_empty() {
        named.insert("timeout".to_owned(), timeout.into());
    }
    force(&mut named)
}

/// Keys of a section with what a message says of them.
type Fields = Vec<(&'static str, Option<Json>)>;

/// All keys of a backend.
fn fields(backend: v1::Backend) -> Fields {
    let v1::Backend { id, name, host, port, weight, scheme, active, backup, max_conn, health_check } = backend;
    vec![
        ("id", Some(id).filter(|id| !id.is_empty()).map(Json::from)),
        ("name", name.map(Json::from)),
        ("host", host.map(Json::from)),
        ("port", port.map(Json::from)),
        ("weight", weight.map(Json::from)),
        ("scheme", scheme.map(Json::from)),
        ("active", active.map(Json::from)),
        ("backup", backup.map(Json::from)),
        ("max_conn", max_conn.map(Json::from)),
        ("health_check", health_check.map(|check| Json::Object(given(check_fields(check))))),
    ]
}

/// All keys of a health check.
fn check_fields(check: v1::HealthCheck) -> Fields {
    let v1::HealthCheck { r#type, path, interval, timeout, failures, successes, expect, host, port, service } = check;
    vec![
        ("type", r#type.map(Json::from)),
        ("path", path.map(Json::from)),
        ("service", service.map(Json::from)),
        ("interval", interval.map(Json::from)),
        ("timeout", timeout.map(Json::from)),
        ("failures", failures.map(Json::from)),
        ("successes", successes.map(Json::from)),
        ("expect", expect.map(Json::from)),
        ("host", host.map(Json::from)),
        ("port", port.map(Json::from)),
    ]
}

/// Those that the message sets.
fn given(fields: Fields) -> Map<String, Json> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Those that a mask names (AIP-134): as the message sets them, else null, which puts them back to their defaults.
fn masked(backend: v1::Backend, paths: &[String]) -> Result<Map<String, Json>, Refusal> {
    let check = backend.health_check.clone();
    let check_fields = check_fields(check.clone().unwrap_or_default());
    let fields: Fields = fields(backend).into_iter().filter(|(name, _)| *name != "id").collect();
    let mut wanted = Map::new();
    for path in paths {
        let no_such = || {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let allowed = format!("{}, and health_check's as health_check.KEY", names.join(", "));
            invalid(format!("update_mask: {path:?} is no field that can be changed; allowed: {allowed}"))
        };
        let of = |fields: &Fields, name: &str| {
            let found = fields.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone().unwrap_or_default()).ok_or_else(no_such)
        };
        match path.split_once('.') {
            Some(("health_check", key)) => {
                let value = of(&check_fields, key)?;
                let section = wanted.entry("health_check").or_insert_with(|| Map::new().into());
                if let Some(section) = section.as_object_mut() {
                    section.insert(key.to_owned(), value);
                }
            }
            Some(_) => return Err(no_such()),
            None if path == "health_check" && check.is_some() => {
                let whole =
                    check_fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone().unwrap_or_default()));
                wanted.insert(path.clone(), Json::Object(whole.collect()));
            }
            None => {
                wanted.insert(path.clone(), of(&fields, path)?);
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn the_message_has_the_keys_of_the_configuration() {
        let known = KEYS.iter().filter_map(|key| key.path.strip_prefix("backends.NAME[]."));
        let own = fields(v1::Backend::default()).into_iter().map(|(name, _)| name.to_owned());
        let of_check =
            check_fields(v1::HealthCheck::default()).into_iter().map(|(name, _)| format!("health_check.{name}"));
        assert_eq!(own.chain(of_check).collect::<BTreeSet<_>>(), known.map(str::to_owned).collect::<BTreeSet<_>>());
    }

    #[test]
    fn what_is_set_is_given_even_if_it_is_the_zero_of_its_type() {
        let check = v1::HealthCheck { path: Some(String::new()), ..Default::default() };
        let backend =
            v1::Backend { weight: Some(0), active: Some(false), health_check: Some(check), ..Default::default() };
        let expected = json!({"weight": 0, "active": false, "health_check": {"path": ""}});
        assert_eq!(Json::Object(given(fields(backend))), expected);
        assert!(given(fields(v1::Backend::default())).is_empty());
    }

    #[test]
    fn a_mask_names_exactly_what_changes() {
        let masked = |paths: &[&str]| {
            let check = v1::HealthCheck { interval: Some("1s".into()), ..Default::default() };
            let backend = v1::Backend { weight: Some(7), health_check: Some(check), ..Default::default() };
            masked(backend, &paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(Json::from(masked(&["weight", "name"]).unwrap()), json!({"weight": 7, "name": null}));
        let parts = masked(&["health_check.interval", "health_check.port"]).unwrap();
        assert_eq!(Json::from(parts), json!({"health_check": {"interval": "1s", "port": null}}));
        let whole = masked(&["health_check"]).unwrap();
        assert_eq!(whole["health_check"]["interval"], "1s");
        assert_eq!(whole["health_check"].as_object().unwrap().values().filter(|value| value.is_null()).count(), 9);
        for wrong in ["id", "", "wait", "weight.x", "health_check.x", "health_check."] {
            let refusal = masked(&[wrong]).unwrap_err();
            assert!(refusal.error.contains("allowed: name, host"), "{}", refusal.error);
        }
        let unset = super::masked(v1::Backend::default(), &["health_check".to_owned()]).unwrap();
        assert_eq!(Json::from(unset), json!({"health_check": null}));
    }
}
