//! From single sound values to a plan: names are resolved, and what must hold between values is held.
//!
//! Owns the rules between keys. Never reads text: every value comes typed and in range from `typed`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::{Faults, Position, Wrong, shown};
use super::keys::one_of;
use super::plan::{
    AccessFormat, Backend, BackendAddr, ClientAuth, CpuAffinity, FdTables, HeaderEdits, HealthCheck, HealthCheckKind,
    KeyPair, Listen, ListenAddr, Log, LogFormat, LogLevel, Management, Plan, Queue, Route, Scheme, Secret, Server,
    Steering, Sticky, Target, Tls, TlsVersion, Upstream, UpstreamId, UpstreamTls,
};
use super::suggest::did_you_mean;
use super::tree::push_name;
use super::typed::{Entry, Section, Value};
use super::values::{BackendHost, show_duration};
use crate::balance::Algorithm;
use crate::http::class::Protocol;
use crate::http::write::is_own_field;

/// Names that a message lists at most.
const LISTED_NAMES_COUNT_MAX: usize = 10;

/// The plan of a file; `token` is management's, from the environment. It may be run by only when `faults` stays empty.
pub(super) fn plan(root: &Section, token: Option<String>, faults: &mut Faults) -> Plan {
    let ssl = root.section("ssl");
    let server = server(root.section("server"), ssl, faults);
    let tls = tls(ssl, faults);
    let management = management(root.section("grpc"), token, faults);
    let upstreams = upstreams(root, faults);
    let routes = routes(root, &upstreams, &server, faults);
    let (server, log) = (Arc::new(server), log(root.section("log")));
    Plan { server, log, management, tls, upstreams: upstreams.plans, routes }
}

fn server(section: &Section, ssl: &Section, faults: &mut Faults) -> Server {
    let trusted_proxies = nets(section, "trusted_proxies");
    let server = Server {
        listen: listen(section, ssl, faults),
        read_timeout: *section.duration("read_timeout"),
        write_timeout: *section.duration("write_timeout"),
        idle_timeout: *section.duration("idle_timeout"),
        tunnel_timeout: *section.duration("tunnel_timeout"),
        max_conn: number(section, "max_conn"),
        real_ip_header: section.text("real_ip_header").clone(),
        client_ip_header: section.text_if("client_ip_header").cloned(),
        trusted_proxies,
        workers: *section.workers("workers"),
        cpu_affinity: section.affinity("cpu_affinity").clone(),
        steering: if *section.choice("steering") == "cpu" { Steering::Cpu } else { Steering::Hash },
        fd_tables: match *section.choice("fd_tables") {
            "shared" => FdTables::Shared,
            "private" => FdTables::Private,
            _ => FdTables::Auto,
        },
        park_after: *section.duration("park_after"),
        normalize: *section.boolean("normalize"),
        max_header_bytes: bytes(section, "max_header_bytes"),
        max_headers: number(section, "max_headers"),
        max_body_bytes: *section.size("max_body_bytes"),
        backlog: number(section, "backlog"),
        congestion_control: section.text_if("congestion_control").cloned(),
        proxy_protocol: *section.choice("proxy_protocol") == "accept",
        http2: *section.boolean("http2"),
        watch: *section.boolean("watch"),
        shutdown_delay: *section.duration("shutdown_delay"),
        shutdown_timeout: *section.duration("shutdown_timeout"),
    };
    server_rules(section, &server, faults);
    server
}

fn server_rules(section: &Section, server: &Server, faults: &mut Faults) {
    let real_ip = section.entry("real_ip_header");
    own_field(&server.real_ip_header, real_ip.at, &section.path_of("real_ip_header"), faults);
    if server.real_ip_header.eq_ignore_ascii_case("host") {
        let wrong = Wrong::new("Host tells the backend whom the client asked for").cure("choose another name");
        faults.push(real_ip.at, &section.path_of("real_ip_header"), wrong);
    }
    let nobody_trusted = server.trusted_proxies.is_empty() && section.entry("trusted_proxies").sound;
    if server.proxy_protocol && nobody_trusted {
        let wrong = Wrong::new("PROXY headers are believed only from server.trusted_proxies, which is empty");
        let wrong = wrong.cure("list the addresses of the load balancers in front there");
        faults.push(section.entry("proxy_protocol").at, &section.path_of("proxy_protocol"), wrong);
    }
    if server.client_ip_header.is_some() && nobody_trusted {
        let text = "has no effect while server.trusted_proxies is empty: the header is believed from nobody";
        faults.notice(section.entry("client_ip_header").at, &section.path_of("client_ip_header"), text);
    }
    if server.steering == Steering::Cpu && server.cpu_affinity == CpuAffinity::Off {
        let wrong = Wrong::new("no worker has a CPU of its own while server.cpu_affinity is off");
        let wrong = wrong.cure("write cpu_affinity: auto, or steering: hash");
        faults.push(section.entry("steering").at, &section.path_of("steering"), wrong);
    }
    let park_after = section.entry("park_after");
    if server.park_after >= server.idle_timeout {
        let ends = show_duration(server.idle_timeout);
        let text = format!("no connection is ever parked: idle ones end after server.idle_timeout, {ends}");
        faults.notice(park_after.at, &section.path_of("park_after"), text);
    }
}

/// `host:port` first, then `listen`, then the port of TLS where it has one of its own.
fn listen(section: &Section, ssl: &Section, faults: &mut Faults) -> Vec<Listen> {
    let (is_tls, tls_port) = (*ssl.boolean("enabled"), number(ssl, "port"));
    let all = plain_listen(section, faults).into_iter();
    let mut all: Vec<Listen> = all.map(|addr| Listen { addr, secure: is_tls && tls_port == 0 }).collect();
    if is_tls && tls_port != 0 {
        let addr = ListenAddr::Tcp(SocketAddr::new(*section.ip("host"), tls_port));
        if all.iter().any(|listen| listen.addr == addr) {
            let wrong = Wrong::new(format!("{tls_port} is listened on without TLS, by server.port or server.listen"));
            let cure = "take another port, or 0 for TLS on all addresses of server";
            faults.push(ssl.entry("port").at, &ssl.path_of("port"), wrong.cure(cure));
        }
        all.push(Listen { addr, secure: true });
    }
    all
}

/// `host:port` first, then `listen`.
fn plain_listen(section: &Section, faults: &mut Faults) -> Vec<ListenAddr> {
    let main = ListenAddr::Tcp(SocketAddr::new(*section.ip("host"), number(section, "port")));
    let mut all = vec![main];
    for (i, entry) in section.list("listen").iter().enumerate() {
        let Value::Listen(addr) = &entry.value else { continue };
        let any_port = matches!(addr, ListenAddr::Tcp(addr) if addr.port() == 0);
        if !any_port && all.contains(addr) {
            let wrong = Wrong::new("this is server.host and server.port already").cure("remove it from the list");
            faults.push(entry.at, &format!("{}[{i}]", section.path_of("listen")), wrong);
        } else {
            all.push(addr.clone());
        }
    }
    all
}

/// `None` when it is switched off.
fn tls(section: &Section, faults: &mut Faults) -> Option<Arc<Tls>> {
    let enabled = *section.boolean("enabled");
    for (i, entry) in section.list("certificates").iter().enumerate() {
        let Value::Section(pair) = &entry.value else { continue };
        for name in ["cert_file", "key_file"].into_iter().filter(|name| pair.file_if(name).is_some()) {
            if named_file(pair, name).is_none() {
                let wrong = Wrong::new("\"\" is no file").cure("name one, or remove the entry");
                faults.push(pair.entry(name).at, &format!("{}[{i}].{name}", section.path_of("certificates")), wrong);
            }
        }
    }
    let own_port: u16 = number(section, "port");
    let redirect = *section.boolean("redirect");
    let first = key_pair(section);
    if enabled {
        let missing = |name: &&str| named_file(section, name).is_none();
        for name in ["cert_file", "key_file"].into_iter().filter(missing) {
            let wrong =
                Wrong::new("TLS needs a certificate and its key").cure("name a file, or set ssl.enabled: false");
            faults.push(section.entry(name).at, &section.path_of(name), wrong);
        }
        if redirect && own_port == 0 {
            let text = "has no effect without ssl.port: there is no plain request to redirect";
            faults.notice(section.entry("redirect").at, &section.path_of("redirect"), text);
        }
    }
    let further = values(section.list("certificates"), |value| match value {
        Value::Section(section) => key_pair(section),
        _ => None,
    });
    let tls = Tls {
        certificates: first.into_iter().chain(further).collect(),
        redirect_port: Some(own_port).filter(|port| redirect && *port != 0),
        client_auth: client_auth(section, enabled, faults),
        min_version: if *section.choice("min_version") == "1.3" { TlsVersion::V1_3 } else { TlsVersion::V1_2 },
    };
    enabled.then(|| Arc::new(tls))
}

fn client_auth(section: &Section, enabled: bool, faults: &mut Faults) -> ClientAuth {
    let wanted = *section.choice("client_auth");
    let ca_file = section.file_if("client_ca_file").cloned();
    match (wanted, ca_file) {
        ("request", Some(file)) => ClientAuth::Request(file),
        ("require", Some(file)) => ClientAuth::Require(file),
        ("off", file) => {
            if enabled && file.is_some() {
                let text = "has no effect while ssl.client_auth is off: no client is asked for a certificate";
                faults.notice(section.entry("client_ca_file").at, &section.path_of("client_ca_file"), text);
            }
            ClientAuth::Off
        }
        _ => {
            if section.entry("client_ca_file").sound {
                let wrong = Wrong::new("there is no ssl.client_ca_file to check certificates of clients against");
                let wrong = wrong.cure("name the file of the authority there");
                faults.push(section.entry("client_auth").at, &section.path_of("client_auth"), wrong);
            }
            ClientAuth::Off
        }
    }
}

/// Both files, where both are named.
fn key_pair(section: &Section) -> Option<KeyPair> {
    Some(KeyPair { cert_file: named_file(section, "cert_file")?, key_file: named_file(section, "key_file")? })
}

/// A file, unless its name is empty.
fn named_file(section: &Section, name: &str) -> Option<PathBuf> {
    section.file_if(name).filter(|file| !file.as_os_str().is_empty()).cloned()
}

/// `token` is the one of the environment, which counts where the file has none.
fn management(section: &Section, token: Option<String>, faults: &mut Faults) -> Option<Arc<Management>> {
    let enabled = *section.boolean("enabled");
    let written = section.text_if("token").cloned().map(Secret::new);
    let token_file = section.file_if("token_file").cloned();
    if let (Some(_), Some(_)) = (&written, &token_file) {
        let wrong = Wrong::new("grpc.token is given as well").cure("keep one of the two");
        faults.push(section.entry("token_file").at, &section.path_of("token_file"), wrong);
    }
    let management = Management {
        addr: SocketAddr::new(*section.ip("host"), number(section, "port")),
        token: written.or_else(|| token.filter(|token| !token.is_empty()).map(Secret::new)),
        token_file,
        report_token: section.text_if("report_token").cloned().map(Secret::new),
        read_token: section.text_if("read_token").cloned().map(Secret::new),
        allowed_hosts: values(section.list("allowed_hosts"), |value| match value {
            Value::Text(host) => Some(host.clone()),
            _ => None,
        }),
        persist: *section.boolean("persist"),
    };
    if enabled {
        management_rules(section, &management, faults);
    }
    enabled.then(|| Arc::new(management))
}

fn management_rules(section: &Section, management: &Management, faults: &mut Faults) {
    let has_token = management.token.is_some() || management.token_file.is_some();
    if !management.addr.ip().is_loopback() && !has_token {
        let host = section.entry("host");
        let wrong = Wrong::new(format!("management on {} is open to others and has no token", management.addr.ip()))
            .cure("set grpc.token, grpc.token_file or SPEEDMIMI_TOKEN, or take 127.0.0.1");
        faults.push(host.at, &section.path_of("host"), wrong);
    }
    for (name, weaker) in [("report_token", &management.report_token), ("read_token", &management.read_token)] {
        let entry = section.entry(name);
        if weaker.is_some() && !has_token {
            let wrong = Wrong::new("without grpc.token everything is allowed to anybody who comes from this machine")
                .cure("set grpc.token as well, or remove this key");
            faults.push(entry.at, &section.path_of(name), wrong);
        } else if weaker.is_some() && *weaker == management.token {
            let wrong = Wrong::new("is the same as grpc.token, which may do everything").cure("choose another one");
            faults.push(entry.at, &section.path_of(name), wrong);
        }
    }
    if management.report_token.is_some() && management.report_token == management.read_token {
        let wrong = Wrong::new("is the same as grpc.report_token").cure("choose another one");
        faults.push(section.entry("read_token").at, &section.path_of("read_token"), wrong);
    }
}

fn log(section: &Section) -> Log {
    Log {
        level: match *section.choice("level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
        format: if *section.choice("format") == "json" { LogFormat::Json } else { LogFormat::Text },
        access: section.access("access").clone(),
        access_format: match *section.choice("access_format") {
            "combined" => AccessFormat::Combined,
            _ => AccessFormat::Json,
        },
    }
}

/// The upstreams of the plan, and every name that routes may mean.
struct Upstreams {
    /// Sorted by name.
    plans: Vec<Arc<Upstream>>,
    /// What the file calls so, sound or not; sorted.
    names: Vec<String>,
}

impl Upstreams {
    fn id(&self, name: &str) -> Option<UpstreamId> {
        let index = self.plans.binary_search_by(|upstream| upstream.name.as_str().cmp(name)).ok()?;
        u32::try_from(index).ok().map(UpstreamId)
    }
}

fn upstreams(root: &Section, faults: &mut Faults) -> Upstreams {
    let lists: HashMap<&str, &Entry> =
        root.named("backends").iter().map(|(name, entry)| (name.text.as_str(), entry)).collect();
    let mut names: Vec<String> = lists.keys().map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    let mut plans = Vec::with_capacity(names.len());
    for (name, entry) in root.named("upstreams") {
        let Value::Section(settings) = &entry.value else { continue };
        match lists.get(name.text.as_str()) {
            Some(list) => plans.push(Arc::new(upstream(&name.text, settings, list, faults))),
            None => {
                let wrong = Wrong::new(format!("there are no backends of the name {}", shown(&name.text)));
                let known = names.iter().map(String::as_str);
                let near = if faults.are_many() { String::new() } else { did_you_mean(&name.text, known) };
                let cure = if near.is_empty() { format!("add backends.{}", name.text) } else { near };
                faults.push(name.at, &settings.path, wrong.cure(cure));
            }
        }
    }
    plans.sort_by(|a, b| a.name.cmp(&b.name));
    Upstreams { plans, names }
}

fn upstream(name: &str, settings: &Section, list: &Entry, faults: &mut Faults) -> Upstream {
    let queue = settings.section("queue");
    let backends = backends(name, list, faults);
    let is_secure = backends.iter().any(|backend| backend.scheme.is_secure());
    Upstream {
        name: name.to_owned(),
        tls: upstream_tls(settings.section("tls"), is_secure, faults),
        backends,
        connect_timeout: *settings.duration("connect_timeout"),
        response_timeout: *settings.duration("response_timeout"),
        read_timeout: *settings.duration("read_timeout"),
        keepalive: number(settings, "keepalive"),
        keepalive_timeout: *settings.duration("keepalive_timeout"),
        retries: number(settings, "retries"),
        retry_buffer: bytes(settings, "retry_buffer"),
        queue: Queue { size: number(queue, "size"), timeout: *queue.duration("timeout") },
        hash_on: settings.hash_on("hash_on").clone(),
        sticky: sticky(settings.section("sticky"), faults),
        local_addresses: values(settings.list("local_addresses"), |value| match value {
            Value::Ip(ip) => Some(*ip),
            _ => None,
        }),
    }
}

fn upstream_tls(section: &Section, is_secure: bool, faults: &mut Faults) -> UpstreamTls {
    if let Some((name, entry)) = section.entries().find(|(_, entry)| entry.written).filter(|_| !is_secure) {
        let text = "has no effect: no backend of the upstream has scheme: https or h2";
        faults.notice(entry.at, &section.path_of(name), text);
    }
    let verify = *section.boolean("verify");
    if !verify && is_secure {
        let text = "whoever can put himself between the proxy and the backends reads and changes everything unnoticed; \
                    better name the backends' certificate in ca_file";
        faults.notice(section.entry("verify").at, &section.path_of("verify"), text);
    }
    let ca_file = section.file_if("ca_file").cloned();
    if !verify && ca_file.is_some() {
        let text = "has no effect with verify: false";
        faults.notice(section.entry("ca_file").at, &section.path_of("ca_file"), text);
    }
    for (named, missing) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if section.file_if(named).is_some() && section.file_if(missing).is_none() && section.entry(missing).sound {
            let wrong = Wrong::new(format!("there is no {missing} beside it")).cure(format!("add {missing}:"));
            faults.push(section.entry(named).at, &section.path_of(named), wrong);
        }
    }
    UpstreamTls { server_name: section.text_if("server_name").cloned(), ca_file, verify, key_pair: key_pair(section) }
}

fn sticky(section: &Section, faults: &mut Faults) -> Option<Sticky> {
    let Some(cookie) = section.text_if("cookie") else {
        if let Some((name, entry)) = section.entries().find(|(name, entry)| entry.written && *name != "cookie") {
            faults.notice(
                entry.at,
                &section.path_of(name),
                "has no effect without the name of a cookie in sticky.cookie",
            );
        }
        return None;
    };
    Some(Sticky {
        cookie: cookie.clone(),
        ttl: *section.duration("ttl"),
        secret: section.text_if("secret").cloned().map(Secret::new),
    })
}

fn backends(upstream: &str, list: &Entry, faults: &mut Faults) -> Vec<Arc<Backend>> {
    let mut path = "backends".to_owned();
    push_name(&mut path, upstream);
    let Value::List(entries) = &list.value else { return Vec::new() };
    if entries.is_empty() && list.sound {
        let wrong = Wrong::new("an upstream without backends can serve nothing");
        faults.push(list.at, &path, wrong.cure("add one: - {host: 127.0.0.1, port: 8081}"));
    }
    let mut first: HashMap<String, Position> = HashMap::new();
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Section(section) = &entry.value else { continue };
        let Some(backend) = backend(upstream, section, faults) else { continue };
        if let Some(at) = first.get(&backend.id) {
            same_id(section, &backend.id, *at, faults);
        } else {
            first.insert(backend.id.clone(), section.at);
        }
        all.push(Arc::new(backend));
    }
    if !all.is_empty() && all.iter().all(|backend| !backend.active) {
        faults.notice(list.at, &path, "no backend is active: every request to this upstream gets 503");
    }
    all
}

fn same_id(section: &Section, id: &str, first: Position, faults: &mut Faults) {
    let entry = section.entry("id");
    let wrong = Wrong::new(format!("{} has the id {} too", other_backend(first), shown(id)));
    let cure = if entry.written { "give each its own" } else { "it comes from host and port; give one of them an id" };
    faults.push(entry.at, &section.path_of("id"), wrong.cure(cure));
}

fn other_backend(at: Position) -> String {
    if at == Position::FILE { "another backend".to_owned() } else { format!("the backend{}", at.on_line()) }
}

/// `None` when there is no address, which has been noted.
fn backend(upstream: &str, section: &Section, faults: &mut Faults) -> Option<Backend> {
    let health_check = section.section_if("health_check").map(|check| health_check(check, section, faults));
    let addr = backend_addr(section, faults)?;
    let id = section.text_if("id").cloned().unwrap_or_else(|| addr.id(upstream));
    Some(Backend {
        name: section.text_if("name").unwrap_or(&id).clone(),
        id,
        addr,
        weight: number(section, "weight"),
        scheme: match *section.choice("scheme") {
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            "h2" => Scheme::H2,
            _ => Scheme::Http,
        },
        active: *section.boolean("active"),
        backup: *section.boolean("backup"),
        max_conn: u32::try_from(*section.integer("max_conn")).unwrap_or(0),
        health_check,
    })
}

fn backend_addr(section: &Section, faults: &mut Faults) -> Option<BackendAddr> {
    let host = section.host_if("host")?;
    let (port, entry) = (section.integer_if("port"), section.entry("port"));
    if let BackendHost::Unix(path) = host {
        if entry.written {
            let wrong = Wrong::new("a backend at unix:/path has no port").cure("remove the key");
            faults.push(entry.at, &section.path_of("port"), wrong);
        }
        return Some(BackendAddr::Unix(path.clone()));
    }
    if !entry.written {
        let wrong = Wrong::new("missing").allowed("a whole number, 1..=65535").cure("add port:");
        faults.push(section.at, &section.path_of("port"), wrong);
    }
    let port = u16::try_from(*port?).ok()?;
    Some(match host {
        BackendHost::Ip(ip) => BackendAddr::Ip(SocketAddr::new(*ip, port)),
        BackendHost::Name(name) => BackendAddr::Name(name.clone(), port),
        BackendHost::Unix(path) => BackendAddr::Unix(path.clone()),
    })
}

fn health_check(check: &Section, backend: &Section, faults: &mut Faults) -> HealthCheck {
    let kind = match (*check.choice("type"), check.text_if("path")) {
        ("http", Some(path)) => HealthCheckKind::Http {
            path: path.clone(),
            host: check.text_if("host").cloned().unwrap_or_default(),
            expect: *check.statuses("expect"),
        },
        ("grpc", _) => {
            if !matches!(*backend.choice("scheme"), "h2c" | "h2") {
                let wrong = Wrong::new("a backend that is not asked over HTTP/2 can't be checked so")
                    .cure("set its scheme: h2c or h2, or take type: http");
                faults.push(check.entry("type").at, &check.path_of("type"), wrong);
            }
            HealthCheckKind::Grpc {
                service: check.text_if("service").cloned().unwrap_or_default(),
                host: check.text_if("host").cloned().unwrap_or_default(),
            }
        }
        (kind, _) => {
            if kind == "http" && check.entry("type").written {
                let text = "with an empty path the check only connects, as with type: tcp";
                faults.notice(check.entry("path").at, &check.path_of("path"), text);
            }
            HealthCheckKind::Tcp
        }
    };
    let port = check.entry("port");
    if matches!(backend.host_if("host"), Some(BackendHost::Unix(_))) && *check.integer("port") != 0 {
        let wrong = Wrong::new("a backend at unix:/path has no port to check").cure("remove the key");
        faults.push(port.at, &check.path_of("port"), wrong);
    }
    HealthCheck {
        kind,
        interval: *check.duration("interval"),
        timeout: *check.duration("timeout"),
        failures: number(check, "failures"),
        successes: number(check, "successes"),
        port: number(check, "port"),
    }
}

fn routes(root: &Section, upstreams: &Upstreams, server: &Server, faults: &mut Faults) -> Vec<Arc<Route>> {
    let entry = root.entry("routing");
    let mut taken: HashMap<(String, String), (String, Position)> = HashMap::new();
    let mut routes = Vec::new();
    for (name, entry) in root.named("routing") {
        let Value::Section(section) = &entry.value else { continue };
        let route = route(&name.text, section, upstreams, server, faults);
        claim(&route, name.at, section, &mut taken, faults);
        routes.push(Arc::new(route));
    }
    if routes.is_empty() && entry.sound {
        no_route(entry, upstreams, faults);
    }
    unused(root, &routes, upstreams, faults);
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    routes
}

fn no_route(entry: &Entry, upstreams: &Upstreams, faults: &mut Faults) {
    let at = if entry.written { entry.at } else { Position::FILE };
    let upstream = upstreams.plans.first().map_or("NAME", |upstream| upstream.name.as_str());
    let wrong = Wrong::new("there is no rule, so every request would get 404");
    faults.push(at, "routing", wrong.cure(format!("add one: routing: {{default: {{upstream: {upstream}}}}}")));
}

fn unused(root: &Section, routes: &[Arc<Route>], upstreams: &Upstreams, faults: &mut Faults) {
    let used: HashSet<UpstreamId> = routes.iter().filter_map(|route| upstream_of(&route.target)).collect();
    let is_used = |name: &str| upstreams.id(name).is_none_or(|id| used.contains(&id));
    for (name, entry) in root.named("backends").iter().filter(|(name, _)| !is_used(&name.text)) {
        let mut path = "backends".to_owned();
        push_name(&mut path, &name.text);
        faults.notice(entry.at, &path, "no rule in routing leads here");
    }
}

fn upstream_of(target: &Target) -> Option<UpstreamId> {
    match target {
        Target::Upstream(id) => Some(*id),
        Target::Redirect { .. } | Target::Respond { .. } => None,
    }
}

/// Two rules for the same host and path would match the same requests.
fn claim(
    route: &Route,
    at: Position,
    section: &Section,
    taken: &mut HashMap<(String, String), (String, Position)>,
    faults: &mut Faults,
) {
    if !section.entry("hosts").sound || !section.entry("path").sound {
        return;
    }
    let any = [String::new()];
    let hosts: &[String] = if route.hosts.is_empty() { &any } else { &route.hosts };
    for host in hosts {
        let key = (host.clone(), route.path.clone());
        if let Some((other, line)) = taken.get(&key).map(|(name, at)| (name, at.on_line())) {
            let host = if host.is_empty() { "any host" } else { host };
            let what = format!("matches the same requests as routing.{other}{line}: {host}, path {}", route.path);
            faults.push(at, &section.path, Wrong::new(what).cure("change hosts or path of one of them"));
        } else {
            taken.insert(key, (route.name.clone(), at));
        }
    }
}

fn route(name: &str, section: &Section, upstreams: &Upstreams, server: &Server, faults: &mut Faults) -> Route {
    let response_timeout = *section.duration("response_timeout");
    let max_body_bytes = *section.size("max_body_bytes");
    Route {
        name: name.to_owned(),
        hosts: values(section.list("hosts"), |value| match value {
            Value::Text(host) => Some(host.clone()),
            _ => None,
        }),
        path: section.text("path").clone(),
        target: target(section, upstreams, faults),
        algorithms: algorithms(section),
        strip_prefix: *section.boolean("strip_prefix"),
        response_timeout: (response_timeout > Duration::ZERO).then_some(response_timeout),
        max_body_bytes: if max_body_bytes > 0 { max_body_bytes } else { server.max_body_bytes },
        allow: nets(section, "allow"),
        deny: nets(section, "deny"),
        request_headers: header_edits(section.section("request_headers"), faults),
        response_headers: header_edits(section.section("response_headers"), faults),
    }
}

fn algorithms(section: &Section) -> [Algorithm; Protocol::COUNT] {
    let named = |name: &str| Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
    let usual = named(section.choice("load_balancer")).unwrap_or(Algorithm::LeastConnectionsWeight);
    let protocols = section.section("protocols");
    Protocol::ALL.map(|protocol| protocols.choice_if(protocol.name()).and_then(|name| named(name)).unwrap_or(usual))
}

/// The three ways to say what a rule does; each rule says exactly one.
const TARGETS: [&str; 3] = ["upstream", "redirect", "respond"];

/// What a rule does; something harmless when that is not clear, which has been noted.
fn target(section: &Section, upstreams: &Upstreams, faults: &mut Faults) -> Target {
    let said: Vec<&str> = TARGETS.into_iter().filter(|name| section.entry(name).written).collect();
    match said.as_slice() {
        [] => {
            let wrong =
                Wrong::new("nothing says what to do with the requests").allowed(format!("one of {}", one_of(&TARGETS)));
            let cure = upstreams.plans.first().map(|upstream| format!("add upstream: {}", upstream.name));
            faults.push(section.at, &section.path, wrong.cure(cure.unwrap_or_default()));
        }
        ["upstream"] => return forward(section, upstreams, faults),
        ["redirect"] => return redirect(section, faults),
        ["respond"] => return respond(section, faults),
        many => {
            let wrong = Wrong::new(format!("{} exclude each other", many.join(" and "))).cure("keep one of them");
            faults.push(section.at, &section.path, wrong);
        }
    }
    Target::Upstream(UpstreamId(0))
}

fn forward(section: &Section, upstreams: &Upstreams, faults: &mut Faults) -> Target {
    let nowhere = Target::Upstream(UpstreamId(0));
    let Some(name) = section.text_if("upstream") else { return nowhere };
    if let Some(id) = upstreams.id(name) {
        return Target::Upstream(id);
    }
    // A name that the file has, though with faults, has been spoken of already.
    if upstreams.names.binary_search(name).is_err() {
        let known = upstreams.names.iter().map(String::as_str);
        let near = if faults.are_many() { String::new() } else { did_you_mean(name, known.clone()) };
        let known: Vec<&str> = known.take(LISTED_NAMES_COUNT_MAX).collect();
        let cure = if known.is_empty() { format!("add backends.{name}") } else { near };
        let wrong = Wrong::new(format!("there is no upstream {} in backends", shown(name)));
        let wrong = wrong.allowed(one_of(&known)).cure(cure);
        faults.push(section.entry("upstream").at, &section.path_of("upstream"), wrong);
    }
    nowhere
}

fn redirect(section: &Section, faults: &mut Faults) -> Target {
    useless_without_upstream(section, "redirect", faults);
    let Some(redirect) = section.section_if("redirect") else { return Target::Upstream(UpstreamId(0)) };
    let Some(location) = redirect.text_if("location").cloned() else { return Target::Upstream(UpstreamId(0)) };
    let at = redirect.entry("location");
    if location.contains(|c: char| !c.is_ascii_graphic()) {
        let wrong = Wrong::new(format!("{} has a space or a character outside ASCII", shown(&location)));
        faults.push(at.at, &redirect.path_of("location"), wrong.cure("percent-encode it"));
    } else if at.sound && !["/", "${"].iter().any(|start| location.starts_with(start)) && !location.contains("://") {
        let wrong = Wrong::new(format!("{} would be taken relative to the request's path", shown(&location)));
        let cure = format!("write https://{location} or /{location}");
        faults.push(at.at, &redirect.path_of("location"), wrong.cure(cure));
    }
    Target::Redirect { status: redirect.choice("status").parse().unwrap_or(302), location }
}

fn respond(section: &Section, faults: &mut Faults) -> Target {
    useless_without_upstream(section, "respond", faults);
    let Some(respond) = section.section_if("respond") else { return Target::Upstream(UpstreamId(0)) };
    let (status, body) = (number(respond, "status"), respond.text("body").clone());
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        let wrong = Wrong::new(format!("an answer with status {status} has no body")).cure("remove the body");
        faults.push(respond.entry("body").at, &respond.path_of("body"), wrong);
    }
    Target::Respond { status, body }
}

fn useless_without_upstream(section: &Section, target: &str, faults: &mut Faults) {
    for name in ["load_balancer", "protocols", "strip_prefix", "response_timeout"] {
        let entry = section.entry(name);
        if entry.written {
            faults.notice(entry.at, &section.path_of(name), format!("has no effect together with {target}"));
        }
    }
}

fn header_edits(section: &Section, faults: &mut Faults) -> HeaderEdits {
    let is_request = section.path.ends_with("request_headers");
    let mut fields = |name: &str| {
        let mut all = Vec::new();
        for (field, entry) in section.named(name) {
            let Value::Text(value) = &entry.value else { continue };
            let mut path = section.path_of(name);
            push_name(&mut path, &field.text);
            own_field(&field.text, field.at, &path, faults);
            all.push((field.text.clone(), value.clone()));
        }
        all
    };
    let (set, add) = (fields("set"), fields("add"));
    let hosts = section.named("add").iter().filter(|(field, _)| is_request && field.text.eq_ignore_ascii_case("host"));
    for (field, _) in hosts {
        let wrong = Wrong::new("a request has one Host field only").cure("use set");
        faults.push(field.at, &section.path_of("add"), wrong);
    }
    let mut remove = Vec::new();
    for entry in section.list("remove") {
        let Value::Text(field) = &entry.value else { continue };
        own_field(field, entry.at, &section.path_of("remove"), faults);
        if is_request && field.eq_ignore_ascii_case("host") {
            let wrong = Wrong::new("a request without Host is not valid").cure("set it to another value instead");
            faults.push(entry.at, &section.path_of("remove"), wrong);
        }
        remove.push(field.to_ascii_lowercase());
    }
    HeaderEdits { set, add, remove }
}

fn own_field(field: &str, at: Position, path: &str, faults: &mut Faults) {
    if is_own_field(field) {
        let wrong =
            Wrong::new(format!("{field} belongs to one connection or frames the message; the proxy makes it itself"));
        faults.push(at, path, wrong.cure("remove it"));
    }
}

fn nets(section: &Section, name: &str) -> Vec<IpNet> {
    values(section.list(name), |value| match value {
        Value::Net(net) => Some(*net),
        _ => None,
    })
}

fn values<T>(entries: &[Entry], pick: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    entries.iter().filter_map(|entry| pick(&entry.value)).collect()
}

/// A whole number whose range in the table fits its type in the plan.
fn number<T: TryFrom<i64>>(section: &Section, name: &str) -> T {
    let value = *section.integer(name);
    T::try_from(value).unwrap_or_else(|_| panic!("the range of {name} in {} is wider than its type", section.path))
}

/// A size whose range in the table fits memory.
fn bytes(section: &Section, name: &str) -> usize {
    usize::try_from(*section.size(name)).unwrap_or(usize::MAX)
}
