//! The checked, immutable configuration that the proxy runs by.
//!
//! Owns the shape of a plan: every value here has been checked, so nothing downstream checks again. Never reads a
//! file, never holds what changes while running (that is `shared`). Routes, upstreams and backends are each in an
//! `Arc` of their own, so that an exchange can hold what it uses without holding the whole plan.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::balance::Algorithm;
use crate::http::class::Protocol;

/// Index of a route in [`Plan::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// Index of an upstream in [`Plan::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// Everything the proxy runs by.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub server: Arc<Server>,
    pub log: Log,
    /// `None` when `grpc.enabled` is off.
    pub management: Option<Arc<Management>>,
    /// `None` when `ssl.enabled` is off: no listener is one of TLS then.
    pub tls: Option<Arc<Tls>>,
    /// Sorted by name.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Sorted by name.
    pub routes: Vec<Arc<Route>>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    Tcp(SocketAddr),
    /// A Unix stream socket at this path.
    Unix(PathBuf),
}

/// A listener as it is wanted. Another `secure` is another listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// Where.
    pub addr: ListenAddr,
    /// Whether its clients speak TLS.
    pub secure: bool,
}

/// `server.workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as CPUs this process may run on.
    Auto,
    Count(usize),
}

/// `server.cpu_affinity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuAffinity {
    Off,
    /// Worker n on the n-th CPU this process may run on.
    Auto,
    /// Worker n on the n-th CPU of this list (wrapping around).
    List(Vec<usize>),
}

/// `server.steering`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// By a hash of the addresses, evenly over all workers.
    Hash,
    /// To the worker on the CPU that the connection came in on.
    Cpu,
}

/// `server.fd_tables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTables {
    /// Private only when `RLIMIT_NOFILE` can't hold `max_conn`.
    Auto,
    Shared,
    Private,
}

/// The `server` section. Durations are never zero unless the field says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `host:port` first, then `listen`, then `host` with `ssl.port`; no address twice.
    pub listen: Vec<Listen>,
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
    pub tunnel_timeout: Duration,
    /// At least 1.
    pub max_conn: u64,
    /// The header that tells backends the client's address; a valid field name.
    pub real_ip_header: String,
    /// Believed from trusted proxies in place of `X-Forwarded-For`; `None` when empty.
    pub client_ip_header: Option<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub workers: Workers,
    pub cpu_affinity: CpuAffinity,
    /// [`Steering::Cpu`] only with an affinity.
    pub steering: Steering,
    pub fd_tables: FdTables,
    pub park_after: Duration,
    pub normalize: bool,
    /// Within [`crate::limits::HEADER_BYTES_MIN`]..=[`crate::limits::HEADER_BYTES_MAX`].
    pub max_header_bytes: usize,
    /// Within 1..=[`crate::limits::HEADERS_COUNT_MAX`].
    pub max_headers: usize,
    /// 0 = no limit.
    pub max_body_bytes: u64,
    pub backlog: u32,
    /// `None` = the system's.
    pub congestion_control: Option<String>,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Whether connections open with a PROXY header (only believed from `trusted_proxies`).
    pub proxy_protocol: bool,
    /// Reload when the file changes.
    pub watch: bool,
    /// May be zero.
    pub shutdown_delay: Duration,
    pub shutdown_timeout: Duration,
}

/// A named group of backends with what they share.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// In the order of the file; at least one.
    pub backends: Vec<Arc<Backend>>,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub read_timeout: Duration,
    /// Idle connections kept per backend by the whole process; 0 = none.
    pub keepalive: usize,
    pub keepalive_timeout: Duration,
    /// Further tries after the first.
    pub retries: u32,
    /// In bytes; 0 = bodies are never sent again.
    pub retry_buffer: usize,
    pub queue: Queue,
    pub hash_on: HashOn,
    pub sticky: Option<Sticky>,
    pub local_addresses: Vec<IpAddr>,
    pub tls: UpstreamTls,
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPair {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// The `ssl` section, enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is for clients whose name no certificate has.
    pub certificates: Vec<KeyPair>,
    /// The port that plain requests are sent to (`ssl.redirect`); never 0.
    pub redirect_port: Option<u16>,
    pub client_auth: ClientAuth,
    pub min_version: TlsVersion,
}

/// `ssl.client_auth` with `ssl.client_ca_file`, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Off,
    /// Who has no certificate may come in without.
    Request(PathBuf),
    Require(PathBuf),
}

/// `ssl.min_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `upstreams.NAME.tls`; for backends whose [`Scheme::is_secure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A name or an address; `None` = the backend's host.
    pub server_name: Option<String>,
    /// Authorities, PEM; `None` = the system's.
    pub ca_file: Option<PathBuf>,
    pub verify: bool,
    /// The proxy's own certificate.
    pub key_pair: Option<KeyPair>,
}

/// `upstreams.NAME.queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// 0 = no queue.
    pub size: usize,
    pub timeout: Duration,
}

/// What `hash` hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    ClientIp,
    /// Lower-case field name.
    Header(String),
    Cookie(String),
    Uri,
}

/// `upstreams.NAME.sticky` with a cookie name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: String,
    /// `Max-Age` of the cookie; zero = a session cookie.
    pub ttl: Duration,
    /// Signs the cookie; `None` = a key derived from the machine's id and the upstream's name.
    pub secret: Option<Secret>,
}

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddr {
    /// A literal address.
    Ip(SocketAddr),
    /// A name that is resolved again while running, and a port.
    Name(String, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl BackendAddr {
    /// What stands in `Host` for it (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        match self {
            BackendAddr::Ip(addr) => addr.to_string(),
            BackendAddr::Name(name, port) => format!("{name}:{port}"),
            BackendAddr::Unix(_) => "localhost".into(),
        }
    }

    /// The id of a backend of this upstream that has none of its own.
    pub fn id(&self, upstream: &str) -> String {
        match self {
            BackendAddr::Ip(addr) => format!("{upstream}-{}-{}", addr.ip(), addr.port()),
            BackendAddr::Name(name, port) => format!("{upstream}-{name}-{port}"),
            BackendAddr::Unix(path) => format!("{upstream}-unix:{}", path.display()),
        }
    }
}

/// How to speak to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
    H2c,
    H2,
}

impl Scheme {
    /// Whether it is spoken over TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::H2)
    }
}

/// One server behind the proxy. Its identity is (upstream, id, addr, scheme): with any of these changed it is a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique within its upstream.
    pub id: String,
    /// For people; the id when unset.
    pub name: String,
    pub addr: BackendAddr,
    /// 1..=[`crate::limits::WEIGHT_MAX`].
    pub weight: u16,
    pub scheme: Scheme,
    pub active: bool,
    pub backup: bool,
    /// Exchanges and tunnels at once; 0 = no limit.
    pub max_conn: u32,
    pub health_check: Option<HealthCheck>,
}

/// What an active check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
    /// Connecting is enough.
    Tcp,
    /// `GET path`; statuses from `expect.0` to `expect.1` are good. An empty `host` is the backend's own.
    Http { path: String, host: String, expect: (u16, u16) },
    /// A call of `grpc.health.v1.Health/Check` for `service`, over HTTP/2. An empty `host` is the backend's own.
    Grpc { service: String, host: String },
}

/// `health_check` of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// In a row; at least 1.
    pub failures: u32,
    /// In a row; at least 1.
    pub successes: u32,
    /// 0 = the backend's port.
    pub port: u16,
}

/// What a route does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Upstream(UpstreamId),
    /// 301, 302, 303, 307 or 308. `${host}`, `${path}` and `${query}` in `location` stand for the request's.
    Redirect {
        status: u16,
        location: String,
    },
    /// 200..=599.
    Respond {
        status: u16,
        body: String,
    },
}

/// One rule of `routing`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: String,
    /// Lower case, without port; a leading `*.` stands for one label or more; empty = any.
    pub hosts: Vec<String>,
    /// Canonical, begins with `/`; no trailing slash except for `/` itself.
    pub path: String,
    pub target: Target,
    /// By [`Protocol`]; each `load_balancer` unless `protocols` says otherwise.
    pub algorithms: [Algorithm; Protocol::COUNT],
    pub strip_prefix: bool,
    /// `None` = the upstream's.
    pub response_timeout: Option<Duration>,
    /// 0 = no limit (already merged with the server's).
    pub max_body_bytes: u64,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

/// `request_headers` and `response_headers`; names are valid field names as written, values have no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces all fields of that name.
    pub set: Vec<(String, String)>,
    /// Appended beside what is there.
    pub add: Vec<(String, String)>,
    /// Lower case.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A text that never shows itself: not in a message, not in a log, not in a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Holds `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Secret(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The `grpc` section: where management is served, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Management {
    /// A loopback address unless there is a token.
    pub addr: SocketAddr,
    /// Who sends it may do everything; from the file or the environment.
    pub token: Option<Secret>,
    /// Holds the token instead; read when management starts and at every reload.
    pub token_file: Option<PathBuf>,
    /// May only report the load of backends.
    pub report_token: Option<Secret>,
    /// May only read.
    pub read_token: Option<Secret>,
    /// `Host` values that are allowed beside loopback names and the bound address; lower case, a leading `*.` stands
    /// for one label or more.
    pub allowed_hosts: Vec<String>,
    /// Whether changes are written to the file.
    pub persist: bool,
}

/// `log.level`, ordered from quiet to talkative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `log.access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    /// Opened again on SIGUSR1.
    File(PathBuf),
}

/// `log.access_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    Json,
    /// The Combined Log Format of Apache httpd.
    Combined,
}

/// The `log` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub access: AccessLog,
    pub access_format: AccessFormat,
}

impl Upstream {
    /// Whether TLS is spoken to any of its backends.
    pub fn has_secure_backend(&self) -> bool {
        self.backends.iter().any(|backend| backend.scheme.is_secure())
    }
}

impl Plan {
    /// The upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|u| u.name == name)
    }

    /// Backends of all upstreams by (upstream, id).
    pub fn backends(&self) -> BTreeMap<(&str, &str), &Arc<Backend>> {
        self.upstreams.iter().flat_map(|u| u.backends.iter().map(|b| ((u.name.as_str(), b.id.as_str()), b))).collect()
    }
}
