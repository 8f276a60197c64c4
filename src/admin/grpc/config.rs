//! `ConfigService`: the whole configuration, as JSON text.
//!
//! Owns reading and telling that text. Never looks into it.

use serde_json::Value as Json;
use tonic::{Request, Response, Status};

use super::v1::config_service_server::ConfigService;
use super::{Terms, change, needed, opened, v1};
use crate::admin::Desk;
use crate::admin::rest::invalid;
use crate::control::certificates::{self, CertificateFigures};
use crate::control::verb::{Refusal, Verb};

type Changed = Result<Response<v1::ChangeResponse>, Status>;

#[tonic::async_trait]
impl ConfigService for Desk {
    async fn get_config(&self, _: Request<v1::GetConfigRequest>) -> Result<Response<v1::GetConfigResponse>, Status> {
        let shown = self.board.shown();
        Ok(Response::new(v1::GetConfigResponse {
            config_json: shown.document.shown().to_string(),
            etag: shown.etag.clone(),
            restart_required: shown.restart_required.iter().map(|&key| key.to_owned()).collect(),
            file_refused: self.board.trouble().map(|trouble| trouble.as_str().to_owned()).unwrap_or_default(),
        }))
    }

    async fn replace_config(&self, request: Request<v1::ReplaceConfigRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let config = object("config_json", &asked.config_json)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::Replace(config)).await
    }

    async fn patch_config(&self, request: Request<v1::PatchConfigRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let patch = object("patch_json", &asked.patch_json)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::Patch(patch)).await
    }

    async fn reload(&self, request: Request<v1::ReloadRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let terms = Terms { if_match: asked.if_match, persist: None };
        change(self, &sender, terms, Verb::Reload).await
    }

    async fn reload_certificates(&self, request: Request<v1::ReloadCertificatesRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let terms = Terms { if_match: asked.if_match, persist: None };
        change(self, &sender, terms, Verb::ReloadCertificates).await
    }

    async fn list_certificates(
        &self,
        _: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesResponse>, Status> {
        let tls = self.board.tls();
        let all = certificates::figures(&tls, certificates::unix_seconds());
        Ok(Response::new(v1::ListCertificatesResponse {
            certificates: all.into_iter().map(told).collect(),
            troubles: tls.troubles.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn set_log_level(&self, request: Request<v1::SetLogLevelRequest>) -> Changed {
        let (sender, asked) = opened(request);
        let level = needed("level", asked.level)?;
        let terms = Terms { if_match: asked.if_match, persist: asked.persist };
        change(self, &sender, terms, Verb::LogLevel(level)).await
    }
}

fn told(certificate: CertificateFigures) -> v1::list_certificates_response::Certificate {
    v1::list_certificates_response::Certificate {
        cert_file: certificate.cert_file.display().to_string(),
        key_file: certificate.key_file.display().to_string(),
        used_for: certificate.used_for,
        default: certificate.default,
        names: certificate.names,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        days_left: certificate.days_left,
        trouble: certificate.trouble.unwrap_or_default(),
    }
}

/// A text that is a JSON object.
fn object(name: &str, text: &str) -> Result<Json, Refusal> {
    match serde_json::from_str(text) {
        Ok(object @ Json::Object(_)) => Ok(object),
        Ok(_) => Err(invalid(format!("{name}: is JSON, but no object; allowed: {{…}}"))),
        Err(_) if text.is_empty() => Err(invalid(format!("{name}: missing; allowed: {{…}}"))),
        Err(error) => Err(invalid(format!("{name}: is not JSON: {error}"))),
    }
}
