//! Who may come in: `Host` and `Origin`, the token and what it allows.
//!
//! Owns the decision, as functions of the request's head. Never reads a body.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::plan::Secret;
use crate::control::entrance::Entrance;

/// From where a request came.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Full,
    /// Looking.
    Read,
    /// Reporting the load of backends.
    Report,
    /// What needs no token.
    Nothing,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// What they may do.
    pub role: Role,
    /// Name for the log of changes.
    pub name: &'static str,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: whether it is alive, and the page that asks for a token.
    Nothing,
    /// To look.
    Read,
    /// To report.
    Report,
    /// To change something.
    Change,
}

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The name they came by is not ours: a browser may have been sent here by somebody else's page.
    Host,
    /// A page of another origin sent them.
    Origin,
    /// No token, or a wrong one.
    Token,
    /// A token that doesn't allow this.
    Role,
}

impl Denial {
    /// What to do about it.
    pub fn error(self) -> &'static str {
        match self {
            Denial::Host => "Host: this name is not allowed here (add it to grpc.allowed_hosts)",
            Denial::Origin => "Origin: requests from pages of another origin are refused",
            Denial::Token => "Authorization: a valid token is needed (Authorization: Bearer TOKEN, see grpc.token)",
            Denial::Role => "Authorization: this token does not allow it (grpc.token allows everything)",
        }
    }
}

/// What a request needs, by its method and path.
pub fn need(method: &Method, path: &str) -> Need {
    match path {
        "/healthz" | "/readyz" | "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => Need::Nothing,
        "/api/v1/report" | "/speedmimi.v1.MonitorService/Report" => Need::Report,
        _ if path.starts_with("/grpc.reflection.") => Need::Read,
        _ => match path.strip_prefix("/speedmimi.v1.") {
            Some(call) => {
                let verb = call.split_once('/').map_or("", |(_, verb)| verb);
                let is_look = ["Get", "List", "Watch", "Explain"].into_iter().any(|look| verb.starts_with(look));
                if is_look { Need::Read } else { Need::Change }
            }
            None if !path.starts_with("/api/") && path != "/metrics" => Need::Nothing,
            None if method == Method::GET || method == Method::HEAD => Need::Read,
            None => Need::Change,
        },
    }
}

/// Whether it is what orchestrators and balancers ask, by whatever name they know us.
pub fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Whether the head of a request lets it in, and as whom.
///
/// # Errors
/// [`Denial`].
pub fn admit(entrance: &Entrance, head: &Parts) -> Result<Who, Denial> {
    let path = head.uri.path();
    let need = need(&head.method, path);
    if is_probe(path) {
        return Ok(Who { role: Role::Nothing, name: "anybody" });
    }
    let host = authority(head);
    if !host.is_some_and(|host| is_own_host(entrance, host)) {
        return Err(Denial::Host);
    }
    if !is_same_origin(&head.headers, host) {
        return Err(Denial::Origin);
    }
    if need == Need::Nothing {
        return Ok(Who { role: Role::Nothing, name: "anybody" });
    }
    let who = who(entrance, &head.headers).ok_or(Denial::Token)?;
    let may = match (who.role, need) {
        (Role::Full, _) => true,
        (Role::Read, need) => need == Need::Read,
        (Role::Report, need) => need == Need::Report,
        (Role::Nothing, _) => false,
    };
    may.then_some(who).ok_or(Denial::Role)
}

/// `Host`, or `:authority` in HTTP/2. Of two hosts none is the right one (RFC 9112, section 3.2).
fn authority(head: &Parts) -> Option<&str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return None;
    }
    head.uri.authority().map(|authority| authority.as_str()).or(host)
}

/// Names that lead here and nowhere else, whoever answers for DNS: an address can't be rebound to ours, but of names only
/// those that the operator knows are safe.
fn is_own_host(entrance: &Entrance, authority: &str) -> bool {
    let Some(host) = host_of(authority) else { return false };
    let bound = entrance.addr.ip();
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return ip.is_loopback() || ip == bound || bound.is_unspecified();
    }
    let host = host.to_ascii_lowercase();
    host == "localhost" || entrance.conf.allowed_hosts.iter().any(|pattern| matches(pattern, &host))
}

/// The host of an authority without its port.
fn host_of(authority: &str) -> Option<&str> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()).then_some(host)?,
        _ => authority,
    };
    (!host.is_empty() && !host.contains('@')).then_some(host)
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
        None => host == pattern,
    }
}

/// Browsers name the origin of the page that sends a request that could change something; other programs don't.
fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let mode = headers.get("sec-fetch-mode").map(|mode| mode.as_bytes());
    let is_link = mode == Some(b"navigate");
    let from_elsewhere = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or(""));
    let is_other = origin.is_some_and(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_none() || !authority.zip(host).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    });
    !is_other && (is_link || !from_elsewhere)
}

/// Whose token it is. Without any set, who reaches a loopback address is an operator.
fn who(entrance: &Entrance, headers: &HeaderMap) -> Option<Who> {
    let Some(token) = &entrance.token else { return Some(Who { role: Role::Full, name: "local" }) };
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let sent = given.next()?.to_str().ok()?;
    if given.next().is_some() {
        return None;
    }
    let (scheme, sent) = sent.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let sent = sent.trim();
    let sent = digest(sent);
    let known = [
        (Some(token), Who { role: Role::Full, name: "token" }),
        (entrance.conf.read_token.as_ref(), Who { role: Role::Read, name: "read_token" }),
        (entrance.conf.report_token.as_ref(), Who { role: Role::Report, name: "report_token" }),
    ];
    known.into_iter().find(|(secret, _)| secret.is_some_and(|secret| is_same(secret, &sent))).map(|(_, who)| who)
}

/// In a time that tells nothing of how much is right: the digests are compared, in constant time.
fn is_same(secret: &Secret, sent: &[u8]) -> bool {
    digest(secret.reveal()).ct_eq(sent).into()
}

fn digest(text: &str) -> impl Deref<Target = [u8]> {
    Sha256::digest(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::Request;

    use super::*;
    use crate::config::plan::Management;

    fn entrance(addr: &str, token: Option<&str>) -> Entrance {
        let conf = Management {
            addr: addr.parse().unwrap(),
            token: None,
            token_file: None,
            report_token: Some(Secret::new("reporter")),
            read_token: Some(Secret::new("readonly")),
            allowed_hosts: vec!["mimi.example".into(), "*.ops.example".into()],
            persist: true,
        };
        Entrance { addr: conf.addr, conf: Arc::new(conf), token: token.map(Secret::new) }
    }

    fn ask(entrance: &Entrance, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<Role, Denial> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        admit(entrance, &head).map(|who| who.role)
    }

    #[test]
    fn only_names_that_lead_nowhere_else_are_served() {
        let local = entrance("127.0.0.1:9091", None);
        let with = |entrance: &Entrance, host: &str| ask(entrance, "GET", "/api/v1/config", &[("host", host)]);
        for host in [
            "127.0.0.1:9091",
            "localhost",
            "LOCALHOST:1",
            "[::1]:9091",
            "127.8.8.8",
            "mimi.example:80",
            "a.b.ops.example",
        ] {
            assert_eq!(with(&local, host), Ok(Role::Full), "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.1",
            "localhost.evil.example",
            "ops.example",
            ".ops.example",
            "",
            ":80",
            "a@localhost",
            "127.0.0.1:x",
        ] {
            assert_eq!(with(&local, host), Err(Denial::Host), "{host}");
        }
        assert_eq!(ask(&local, "GET", "/api/v1/config", &[]), Err(Denial::Host));
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(ask(&local, "GET", "/api/v1/config", &two), Err(Denial::Host));
        let wide = entrance("0.0.0.0:9091", Some("everything"));
        assert_eq!(with(&wide, "10.0.0.1:9091"), Err(Denial::Token));
        assert_eq!(with(&wide, "evil.example"), Err(Denial::Host));
        // Probes come by whatever name.
        assert!(ask(&wide, "GET", "/readyz", &[("host", "evil.example")]).is_ok());
    }

    #[test]
    fn pages_of_others_are_turned_away() {
        let local = entrance("127.0.0.1:9091", None);
        let with = |method: &str, field: (&str, &str)| {
            ask(&local, method, "/api/v1/config/reload", &[("host", "localhost:9091"), field])
        };
        assert_eq!(with("POST", ("origin", "http://localhost:9091")), Ok(Role::Full));
        for origin in ["http://evil.example", "null", "http://localhost:9092", "file://", "http://localhost"] {
            assert_eq!(with("POST", ("origin", origin)), Err(Denial::Origin), "{origin}");
        }
        assert_eq!(with("GET", ("sec-fetch-site", "cross-site")), Err(Denial::Origin));
        assert_eq!(with("GET", ("sec-fetch-site", "same-site")), Err(Denial::Origin));
        assert_eq!(with("GET", ("sec-fetch-site", "same-origin")), Ok(Role::Full));
        // A link on another page to the dashboard is no attack.
        let link = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(ask(&local, "GET", "/", &link).is_ok());
    }

    #[test]
    fn a_token_allows_what_it_says_and_no_more() {
        let entrance = entrance("127.0.0.1:9091", Some("everything"));
        let with = |method: &str, path: &str, token: &str| {
            ask(&entrance, method, path, &[("host", "localhost"), ("authorization", token)])
        };
        let (full, read, report) = ("Bearer everything", "bearer readonly", "Bearer reporter");
        for (method, path, allowed) in [
            ("GET", "/api/v1/config", [true, true, false]),
            ("PUT", "/api/v1/config", [true, false, false]),
            ("POST", "/api/v1/report", [true, false, true]),
            ("GET", "/metrics", [true, true, false]),
            ("POST", "/speedmimi.v1.BackendService/ListBackends", [true, true, false]),
            ("POST", "/speedmimi.v1.BackendService/RemoveBackend", [true, false, false]),
            ("POST", "/speedmimi.v1.MonitorService/Report", [true, false, true]),
            ("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [true, true, false]),
            ("POST", "/api/v1/unheard/of", [true, false, false]),
        ] {
            let got = [full, read, report].map(|token| with(method, path, token).is_ok());
            assert_eq!(got, allowed, "{method} {path}");
        }
        for wrong in
            ["", "everything", "Bearer", "Bearer ", "Bearer everythin", "Basic everything", "Bearer everything x"]
        {
            assert_eq!(with("GET", "/api/v1/config", wrong), Err(Denial::Token), "{wrong:?}");
        }
        let twice = [("host", "localhost"), ("authorization", full), ("authorization", full)];
        assert_eq!(ask(&entrance, "GET", "/metrics", &twice), Err(Denial::Token));
        for open in ["/", "/dashboard.js", "/healthz", "/grpc.health.v1.Health/Check"] {
            assert!(ask(&entrance, "GET", open, &[("host", "localhost")]).is_ok(), "{open}");
        }
    }
}
