//! The dashboard on `/`: a page, its style and its scripts, which are part of the program.
//!
//! Owns what is served under these paths and the fields that keep the page to itself. Never knows a figure: the page
//! reads them over REST, as anybody would.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Desk;
use super::rest::allowing;

/// Nothing comes from elsewhere, nothing stands inline, and nobody frames it: what is injected has nothing to run by.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Path, type and text of everything there is.
const ASSETS: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("dashboard/index.html")),
    ("/dashboard/style.css", STYLE, include_str!("dashboard/style.css")),
    ("/dashboard/icon.svg", ICON, include_str!("dashboard/icon.svg")),
    ("/dashboard/api.js", SCRIPT, include_str!("dashboard/api.js")),
    ("/dashboard/app.js", SCRIPT, include_str!("dashboard/app.js")),
    ("/dashboard/backends.js", SCRIPT, include_str!("dashboard/backends.js")),
    ("/dashboard/chart.js", SCRIPT, include_str!("dashboard/chart.js")),
    ("/dashboard/dialogs.js", SCRIPT, include_str!("dashboard/dialogs.js")),
    ("/dashboard/dom.js", SCRIPT, include_str!("dashboard/dom.js")),
    ("/dashboard/history.js", SCRIPT, include_str!("dashboard/history.js")),
    ("/dashboard/lists.js", SCRIPT, include_str!("dashboard/lists.js")),
    ("/dashboard/overview.js", SCRIPT, include_str!("dashboard/overview.js")),
    ("/dashboard/say.js", SCRIPT, include_str!("dashboard/say.js")),
    ("/dashboard/texts.js", SCRIPT, include_str!("dashboard/texts.js")),
];

/// One tag for all: the parts of a page fit each other only if they are of one version.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = ASSETS.iter().fold(Sha256::new(), |digest, (_, _, text)| digest.chain_update(text));
    let bytes = digest.finalize();
    bytes.iter().take(8).fold(String::from("\""), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    }) + "\""
});

/// The page and what it is made of.
pub(super) fn routes() -> Router<Arc<Desk>> {
    ASSETS.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let serve = get(move |headers: HeaderMap| async move { answer(&headers, kind, text) });
        router.route(path, allowing(serve, "GET, HEAD"))
    })
}

fn answer(headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    // Something in between may have made it a weak one (RFC 9110, section 13.1.2).
    let is_known = known.is_some_and(|known| {
        known == "*" || known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == TAG.as_str())
    });
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let fields = response.headers_mut();
    if !is_known {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Ok(tag) = HeaderValue::from_str(&TAG) {
        fields.insert(ETAG, tag);
    }
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    fields.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Map, Value as Json};

    use super::*;
    use crate::error::{Blame, Reason};

    fn asset(path: &str) -> &'static str {
        ASSETS.iter().find(|asset| asset.0 == path).unwrap_or_else(|| panic!("no {path}")).2
    }

    /// The table of texts is JSON but for its first words.
    fn texts(language: &str) -> Map<String, Json> {
        let text = asset("/dashboard/texts.js").trim();
        let text = text.strip_prefix("export default ").and_then(|t| t.strip_suffix(';')).expect("its frame");
        let all: Json = serde_json::from_str(text).expect("JSON");
        all[language].as_object().cloned().expect("a language")
    }

    fn keys(texts: &Map<String, Json>) -> BTreeSet<&str> {
        texts.keys().map(String::as_str).collect()
    }

    /// The `{places}` of a text.
    fn places(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(place, _)| place).collect()
    }

    #[test]
    fn both_languages_say_the_same() {
        let (english, chinese) = (texts("en"), texts("zh"));
        assert_eq!(keys(&english), keys(&chinese));
        for (key, text) in &english {
            let other = &chinese[key];
            match (text, other) {
                (Json::String(text), Json::String(other)) => assert_eq!(places(text), places(other), "{key}"),
                (Json::Array(pair), Json::Array(other)) => assert_eq!((pair.len(), other.len()), (2, 2), "{key}"),
                _ => panic!("{key}: of two kinds"),
            }
        }
    }

    #[test]
    fn every_text_that_is_asked_for_is_there() {
        let english = texts("en");
        let scripts = ASSETS.iter().filter(|asset| asset.1 == SCRIPT && asset.0 != "/dashboard/texts.js");
        let in_scripts = scripts.flat_map(|asset| asset.2.split(" t(\"").chain(asset.2.split("(t(\"")).skip(1));
        // A key that goes on after the quote is made of two.
        let in_scripts = in_scripts.filter_map(|rest| rest.split_once('"')).filter(|(_, rest)| !rest.starts_with(" +"));
        let page = asset("/");
        let in_page = page.split("data-t=\"").chain(page.split("data-t-label=\"")).skip(1);
        let in_page = in_page.filter_map(|rest| rest.split_once('"'));
        let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let asked: Vec<&str> = in_scripts.chain(in_page).map(|(key, _)| key).filter(|key| is_key(key)).collect();
        assert!(asked.len() > 80, "the keys were not found: {}", asked.len());
        let missing: Vec<&&str> = asked.iter().filter(|key| !english.contains_key(**key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// Every reason is explained, and the page blames who the table blames.
    #[test]
    fn every_reason_is_told_in_words() {
        let english = texts("en");
        let explained = |reason: &&Reason| english.contains_key(&format!("reason_{}", reason.code()));
        let unexplained: Vec<_> = Reason::ALL.iter().filter(|reason| !explained(reason)).collect();
        assert!(unexplained.is_empty(), "{unexplained:?}");
        let lists = asset("/dashboard/lists.js");
        let blamed = lists.split_once("const BLAME = {").and_then(|(_, rest)| rest.split_once("};")).expect("BLAME").0;
        for reason in Reason::ALL {
            let name = match reason.blame() {
                Blame::Client => "client: [",
                Blame::Backend => "backend: [",
                Blame::Operator => "operator: [",
            };
            let list = blamed.split_once(name).and_then(|(_, rest)| rest.split_once(']')).expect(name).0;
            assert!(list.contains(&format!("\"{}\"", reason.code())), "{reason} is not in {name}");
        }
    }

    /// What comes from the wire is never read as markup, and nothing is loaded from elsewhere.
    #[test]
    fn the_page_keeps_its_own_policy() {
        for (path, kind, text) in ASSETS {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!text.contains(word), "{path}: {word}");
            }
            let links = text.matches("://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(links, 0, "{path}: an address of somebody else");
            let is_page = *kind == HTML;
            assert!(!is_page || !text.contains("<style") && !text.contains(" style=") && !text.contains(" onclick="));
        }
        let page = asset("/");
        let linked = page.split("src=\"").chain(page.split("href=\"")).skip(1).filter_map(|rest| rest.split_once('"'));
        for (path, _) in linked.filter(|(path, _)| path.starts_with('/')) {
            asset(path);
        }
        for (_, _, text) in ASSETS.iter().filter(|asset| asset.1 == SCRIPT) {
            for (name, _) in text.split("from \"./").skip(1).filter_map(|rest| rest.split_once('"')) {
                asset(&format!("/dashboard/{name}"));
            }
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        let first = answer(&headers, HTML, "page");
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CONTENT_TYPE], HTML);
        assert_eq!(first.headers()[CONTENT_SECURITY_POLICY], POLICY);
        for tag in [TAG.clone(), format!("W/{}", *TAG), format!("\"x\", {}", *TAG), "*".to_owned()] {
            headers.insert(IF_NONE_MATCH, tag.parse().unwrap());
            assert_eq!(answer(&headers, HTML, "page").status(), StatusCode::NOT_MODIFIED, "{tag}");
        }
        headers.insert(IF_NONE_MATCH, "\"x\"".parse().unwrap());
        assert_eq!(answer(&headers, HTML, "page").status(), StatusCode::OK);
    }
}
