//! The description of the REST API that is served: OpenAPI 3.1, written by hand beside the routes.
//!
//! Owns the document and how it is served. Never drives anything: tests hold it against the routes, the answers and the
//! configuration's keys.

use std::sync::{Arc, LazyLock};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::Desk;
use super::rest::{Query, is_known, tag, told};
use crate::control::verb::Refusal;

const TEXT: &str = include_str!("openapi.json");

/// The document as it is served, with its entity tag.
struct Served {
    document: Json,
    etag: String,
}

impl Served {
    /// With the version of this program. Without a token set nobody is asked for one.
    fn new(has_token: bool) -> Served {
        let mut document: Json = serde_json::from_str(TEXT).unwrap_or_default();
        document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
        if !has_token {
            document["security"] = Json::Array(Vec::new());
        }
        let digest = Sha256::digest(document.to_string().as_bytes());
        let etag = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        Served { document, etag: format!("\"{etag}\"") }
    }
}

static WITH_TOKEN: LazyLock<Served> = LazyLock::new(|| Served::new(true));
static WITHOUT_TOKEN: LazyLock<Served> = LazyLock::new(|| Served::new(false));

/// `GET /api/v1/openapi.json`.
pub(super) async fn show(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    Query::read(query, &[])?;
    let has_token = desk.entrance.load().token.is_some();
    let Served { document, etag } = if has_token { &*WITH_TOKEN } else { &*WITHOUT_TOKEN };
    let mut response = match is_known(&headers, etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => told(StatusCode::OK, document),
    };
    tag(&mut response, etag);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::rest::ROUTES;
    use super::*;
    use crate::config::keys;

    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

    fn operations() -> Vec<(String, String, &'static Json)> {
        let paths = WITH_TOKEN.document["paths"].as_object().expect("paths");
        let all = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("an item").iter();
            let methods = methods.filter(|(method, _)| METHODS.contains(&method.as_str()));
            methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        });
        all.collect()
    }

    #[test]
    fn it_names_the_operations_that_are_routed() {
        let described: BTreeSet<_> = operations().into_iter().map(|(method, path, _)| (method, path)).collect();
        let routed = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(described, routed);
        assert_eq!(WITH_TOKEN.document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(WITH_TOKEN.document["openapi"], "3.1.0");
        assert_eq!(WITHOUT_TOKEN.document["security"], serde_json::json!([]));
        assert_ne!(WITHOUT_TOKEN.etag, WITH_TOKEN.etag);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_part_is_used() {
        let mut used = BTreeSet::new();
        let mut open = vec![&WITH_TOKEN.document];
        while let Some(value) = open.pop() {
            match value {
                Json::Object(map) => {
                    if let Some(to) = map.get("$ref").and_then(Json::as_str) {
                        let pointer = to.strip_prefix('#').expect("within the document");
                        assert!(WITH_TOKEN.document.pointer(pointer).is_some(), "{to} leads nowhere");
                        used.insert(to.to_owned());
                    }
                    open.extend(map.values());
                }
                Json::Array(list) => open.extend(list),
                _ => {}
            }
        }
        for kind in ["schemas", "responses", "parameters", "headers"] {
            for name in WITH_TOKEN.document["components"][kind].as_object().expect("components").keys() {
                assert!(used.contains(&format!("#/components/{kind}/{name}")), "nothing uses {kind}/{name}");
            }
        }
    }

    #[test]
    fn every_operation_says_what_it_is_and_how_it_fails() {
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations() {
            let name = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{name}: its id twice");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
            let has = |status: &str| operation["responses"].get(status).is_some();
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(is_open, path == "/healthz" || path == "/readyz", "{name}: security");
            assert_eq!([has("401"), has("403")], [!is_open; 2], "{name}");
            assert!(has("405") && has("429"), "{name}");
            assert_eq!(has("400"), path.starts_with("/api/"), "{name}: parameters are checked");
            assert_eq!(has("413"), operation.get("requestBody").is_some(), "{name}");
            let changes = !["GET", "HEAD"].contains(&method.as_str()) && path != "/api/v1/report";
            assert_eq!([has("409"), has("412"), has("500")], [changes; 3], "{name}");
            assert_eq!(has("408"), changes || path == "/api/v1/report", "{name}");
        }
    }

    #[test]
    fn the_configuration_has_the_sections_of_the_table() {
        let sections: BTreeSet<&str> = keys::below("").iter().map(|key| key.name()).collect();
        for schema in ["Configuration", "ConfigurationPatch"] {
            let schema = &WITH_TOKEN.document["components"]["schemas"][schema]["properties"];
            let described: BTreeSet<&str> = schema.as_object().expect("sections").keys().map(String::as_str).collect();
            assert_eq!(described, sections);
        }
        let keys: BTreeSet<&str> = keys::below("backends.NAME[]").iter().map(|key| key.name()).collect();
        let schema = &WITH_TOKEN.document["components"]["schemas"]["Backend"]["properties"];
        assert_eq!(schema.as_object().expect("keys").keys().map(String::as_str).collect::<BTreeSet<_>>(), keys);
    }
}
