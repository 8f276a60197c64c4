//! The one table of configuration keys, in the order of the manual.
//!
//! Owns the rows and nothing else; their meaning is in [`super::keys`]. `docs/configuration.md` is written from it.

use std::time::Duration;

use super::keys::{Default, Form, Key, Kind};
use crate::limits;

/// Every key.
pub const KEYS: &[Key] = &[
    section("server", "Where the proxy listens and what it allows its clients."),
    key(
        "server.host",
        Kind::Text(Form::Ip),
        "0.0.0.0",
        "The address to listen on. `0.0.0.0` is every IPv4 address of the machine, `::` every IPv6 address.",
    ),
    key(
        "server.port",
        Kind::Integer(0, 65535),
        "8080",
        "The port to listen on. `0` lets the system choose one, which is printed at start.",
    ),
    key(
        "server.listen",
        Kind::List(Form::Listen),
        "[]",
        "Further addresses to listen on: `\"[::]:8080\"`, `\"127.0.0.1:8090\"`, `\"unix:/run/speedmimi.sock\"`. An \
         address given twice is a fault.",
    ),
    key(
        "server.read_timeout",
        ms(1, HOUR),
        "30s",
        "How long a request head may take as a whole: from accept for the first one of a connection, from its \
         first byte for later ones. Then the longest pause between two reads of a request body. Answered with 408.",
    ),
    key(
        "server.write_timeout",
        ms(1, HOUR),
        "30s",
        "A write to a client that makes no progress for so long ends the connection.",
    ),
    key(
        "server.idle_timeout",
        ms(1, DAY),
        "75s",
        "How long a kept-alive client connection may stay without a request.",
    ),
    key(
        "server.tunnel_timeout",
        ms(1, 7 * DAY),
        "1h",
        "How long a tunnel (after a 101), an event stream or a call of gRPC may stay without a byte in either direction.",
    ),
    key(
        "server.max_conn",
        Kind::Integer(1, 1_000_000_000),
        "10000000",
        "Client connections at once, in all. Above it accepting pauses and clients wait in the backlog. What the \
         system's limits allow is computed at start; the smaller of the two holds.",
    ),
    key(
        "server.real_ip_header",
        Kind::Text(Form::FieldName),
        "X-Real-IP",
        "The header that tells backends the client's address.",
    ),
    key(
        "server.client_ip_header",
        Kind::Text(Form::FieldName),
        "",
        "Believe only this header from trusted proxies, and neither `X-Forwarded-For` nor others; it has to hold \
         one valid address. Empty: the right-most address of `X-Forwarded-For` that is not trusted.",
    ),
    key(
        "server.trusted_proxies",
        Kind::List(Form::Net),
        "[]",
        "Addresses and CIDRs of the proxies in front whose forwarding headers are believed. What other peers send \
         in these headers is replaced.",
    ),
    key(
        "server.workers",
        Kind::Workers,
        "auto",
        "Worker threads. `auto` is one for each CPU that this process may run on.",
    ),
    key(
        "server.cpu_affinity",
        Kind::CpuAffinity,
        "off",
        "Binds each worker to one CPU. `auto`: worker n to the n-th CPU this process may run on; a list: worker n \
         to its n-th entry, wrapping around.",
    ),
    key(
        "server.steering",
        Kind::Choice(&["hash", "cpu"]),
        "hash",
        "Which worker the kernel gives a new connection. `hash`: any, evenly. `cpu`: the one on the CPU that the \
         connection came in on, which spares caches where the network card spreads its queues over the CPUs; needs \
         `server.cpu_affinity`, a queue for each of these CPUs, and Linux 6.2.",
    ),
    key(
        "server.fd_tables",
        Kind::Choice(&["auto", "shared", "private"]),
        "auto",
        "Whether workers have descriptor tables of their own, which lets one process hold more sockets than \
         `RLIMIT_NOFILE` allows for one table. `auto`: only when that limit can't hold `server.max_conn`. With tables of \
         their own, and io_uring (Linux 6.8), parked connections beyond a quarter of a table need no descriptor at all.",
    ),
    key(
        "server.park_after",
        ms(1, HOUR),
        "1s",
        "An idle client connection gives up its task and its buffers after so long and keeps a few dozen bytes. A \
         byte on it brings it back. Where parked connections need no descriptor (`server.fd_tables`), one whose worker's \
         table is half full does so at once.",
    ),
    key(
        "server.normalize",
        Kind::Bool,
        "on",
        "Forward the one canonical path that routes are matched against: dot segments resolved, percent-escapes of \
         unreserved characters decoded, everything else byte for byte. `off` forwards the target as the client sent \
         it.",
    ),
    key(
        "server.max_header_bytes",
        Kind::Size(limits::HEADER_BYTES_MIN as u64, limits::HEADER_BYTES_MAX as u64),
        "16KiB",
        "Largest request head. Larger ones are answered with 431.",
    ),
    key(
        "server.max_headers",
        Kind::Integer(1, limits::HEADERS_COUNT_MAX as i64),
        "100",
        "Header fields of a request at most. More are answered with 431.",
    ),
    key(
        "server.max_body_bytes",
        Kind::Size(0, u64::MAX),
        "0",
        "Largest request body; larger ones are answered with 413. `0` is no limit. Routes may set their own.",
    ),
    key(
        "server.backlog",
        Kind::Integer(1, i32::MAX as i64),
        "65535",
        "Connections that may wait to be accepted, for each listening socket. The system caps it at \
         `net.core.somaxconn`.",
    ),
    key(
        "server.congestion_control",
        Kind::Text(Form::CongestionControl),
        "",
        "The TCP congestion control algorithm of client connections, e.g. `bbr`. Empty is the system's.",
    ),
    key(
        "server.http2",
        Kind::Bool,
        "true",
        "Serve HTTP/2 to clients that begin with its preface (prior knowledge, also in the clear) or choose it with TLS. See http2.md.",
    ),
    key(
        "server.proxy_protocol",
        Kind::Choice(&["off", "accept"]),
        "off",
        "`accept`: connections from `server.trusted_proxies` open with a PROXY header, version 1 or 2, which tells \
         the client's address. Needs `server.trusted_proxies`.",
    ),
    key(
        "server.watch",
        Kind::Bool,
        "false",
        "Reload when the configuration file changes: also by an editor that replaces it, and when a symbolic link on the \
         way to it (as of a Kubernetes volume) points elsewhere.",
    ),
    key(
        "server.shutdown_delay",
        ms(0, HOUR),
        "0s",
        "How long the proxy goes on accepting after SIGTERM, with `/readyz` already failing, so that a load balancer in \
         front can take notice.",
    ),
    key(
        "server.shutdown_timeout",
        ms(1, DAY),
        "30s",
        "How long running exchanges may take to finish when the proxy stops.",
    ),
    section(
        "ssl",
        "TLS for clients. The chapter [TLS](tls.md) tells how certificates are renewed while running, and what is offered.",
    ),
    key("ssl.enabled", Kind::Bool, "false", "Serve TLS."),
    key(
        "ssl.cert_file",
        Kind::Text(Form::File),
        "certs/server.crt",
        "The certificate and those that lead from it to its authority, PEM, in this order. It is also the one for clients \
         that ask for no name, or for one that no certificate has. Files are looked at once a second, and read again \
         when they change.",
    ),
    key("ssl.key_file", Kind::Text(Form::File), "certs/server.key", "Its private key, PEM, not encrypted."),
    key(
        "ssl.port",
        Kind::Integer(0, 65535),
        "0",
        "`0`: TLS on `server.port` and on all of `server.listen`. Else TLS on this port of `server.host`, and plain HTTP on \
         the others.",
    ),
    key("ssl.redirect", Kind::Bool, "false", "With `ssl.port`: plain requests get a 308 to https."),
    key(
        "ssl.certificates",
        Kind::Sections,
        "[]",
        "Further certificates. Which one a client gets is decided by the name that it asks for (SNI): the one with that \
         very name, else the one with a wildcard for it, else `ssl.cert_file`. The names are those in the certificates.",
    ),
    required("ssl.certificates[].cert_file", Kind::Text(Form::File), "Certificate chain, PEM."),
    required("ssl.certificates[].key_file", Kind::Text(Form::File), "Private key, PEM."),
    key(
        "ssl.client_auth",
        Kind::Choice(&["off", "request", "require"]),
        "off",
        "Whether clients are asked for a certificate of an authority in `ssl.client_ca_file`. `request`: who has none may \
         come in without; one that is not valid is refused. `require`: nobody comes in without.",
    ),
    key(
        "ssl.client_ca_file",
        Kind::Text(Form::File),
        "",
        "Authorities that client certificates are checked against, PEM.",
    ),
    key("ssl.min_version", Kind::Choice(&["1.2", "1.3"]), "1.2", "The oldest version of TLS that is served."),
    key(
        "backends",
        Kind::NamedLists,
        "{}",
        "The backends, in a list for each upstream: `backends: {NAME: [{host: …, port: …}]}`. Routes refer to the \
         name. `upstreams.NAME` may say more about the upstream as a whole.",
    ),
    unset(
        "backends.NAME[].id",
        Kind::Text(Form::Name),
        "`UPSTREAM-HOST-PORT`",
        "What the backend is called in logs, metrics and sticky cookies. Unique within its upstream.",
    ),
    unset("backends.NAME[].name", Kind::Text(Form::Line), "the `id`", "A name for people."),
    required(
        "backends.NAME[].host",
        Kind::Text(Form::BackendHost),
        "An address, a name (resolved again while running; all its addresses are used in rotation), or \
         `unix:/path`.",
    ),
    unset("backends.NAME[].port", Kind::Integer(1, 65535), "required, except with `unix:/path`", "The backend's port."),
    key(
        "backends.NAME[].weight",
        Kind::Integer(1, limits::WEIGHT_MAX as i64),
        "100",
        "Its share against the other backends, in the rules that go by weight.",
    )
    .cure("set active: false to take the backend out of use"),
    key(
        "backends.NAME[].scheme",
        Kind::Choice(&["http", "https", "h2c", "h2"]),
        "http",
        "How to speak to it: HTTP/1.1 in the clear or over TLS, HTTP/2 in the clear (`h2c`) or over TLS (`h2`).",
    ),
    key("backends.NAME[].active", Kind::Bool, "true", "`false` takes it out of use: it gets no request."),
    key(
        "backends.NAME[].backup",
        Kind::Bool,
        "false",
        "Used only when no other backend of the upstream is active and healthy.",
    ),
    key(
        "backends.NAME[].max_conn",
        Kind::Integer(i32::MIN as i64, i32::MAX as i64),
        "0",
        "Exchanges and tunnels at once with this backend in this process, exactly. `0` or less is no limit. When \
         all backends are full, requests wait in `upstreams.NAME.queue` or get 503.",
    ),
    unset(
        "backends.NAME[].health_check",
        Kind::OptionalSection,
        "no active check",
        "Asks the backend from time to time whether it is well. Without it a backend is judged only by how it \
         answers requests: after five failures in a row it is left out for 10 s, then longer. `health_check: {}` is \
         a check with the defaults below.",
    ),
    key(
        "backends.NAME[].health_check.type",
        Kind::Choice(&["http", "tcp", "grpc"]),
        "http",
        "`http`: a GET whose status has to be an expected one, over HTTP/2 where the backend's `scheme` says so. `tcp`: \
         connecting is enough. `grpc`: a call of `grpc.health.v1.Health/Check` has to answer `SERVING`; the backend's \
         `scheme` has to be `h2c` or `h2`.",
    ),
    key(
        "backends.NAME[].health_check.path",
        Kind::Text(Form::RequestPath),
        "/health",
        "The path to ask for. Empty: connecting is enough, as with `type: tcp`.",
    ),
    key(
        "backends.NAME[].health_check.service",
        Kind::Text(Form::Line),
        "",
        "The service that a `grpc` check asks for. Empty is the backend as a whole.",
    ),
    key(
        "backends.NAME[].health_check.interval",
        ms(10, DAY),
        "30s",
        "From one check to the next; a little more or less at random.",
    ),
    key("backends.NAME[].health_check.timeout", ms(1, HOUR), "5s", "For the whole check."),
    key(
        "backends.NAME[].health_check.failures",
        Kind::Integer(1, 1000),
        "3",
        "The backend is down after so many failed checks in a row.",
    ),
    key(
        "backends.NAME[].health_check.successes",
        Kind::Integer(1, 1000),
        "2",
        "It is up again after so many good checks in a row.",
    ),
    key(
        "backends.NAME[].health_check.expect",
        Kind::Text(Form::StatusRange),
        "200-399",
        "The statuses that count as good.",
    ),
    key(
        "backends.NAME[].health_check.host",
        Kind::Text(Form::Authority),
        "",
        "The `Host` of the check. Empty is the backend's own.",
    ),
    key(
        "backends.NAME[].health_check.port",
        Kind::Integer(0, 65535),
        "0",
        "The port of the check. `0` is the backend's.",
    ),
    key(
        "upstreams",
        Kind::Named,
        "{}",
        "What the backends of an upstream share, by the names used in `backends`. Optional.",
    ),
    key(
        "upstreams.NAME.connect_timeout",
        ms(1, 5 * MINUTE),
        "3s",
        "For connecting to a backend. Beyond it another one is tried, then 504.",
    ),
    key(
        "upstreams.NAME.response_timeout",
        ms(1, DAY),
        "60s",
        "From the end of the request to the head of the response. Beyond it 504.",
    ),
    key(
        "upstreams.NAME.read_timeout",
        ms(1, DAY),
        "60s",
        "The longest pause between two reads of an answer. Event streams, calls of gRPC and tunnels go by \
         `server.tunnel_timeout`.",
    ),
    key(
        "upstreams.NAME.keepalive",
        Kind::Integer(0, 1_000_000),
        "1024",
        "Idle connections kept for each backend, by the whole process. `0` keeps none.",
    ),
    key(
        "upstreams.NAME.keepalive_timeout",
        ms(1, DAY),
        "60s",
        "How long an idle connection to a backend is kept. Set it below the backend's own.",
    ),
    key(
        "upstreams.NAME.retries",
        Kind::Integer(0, 10),
        "2",
        "Further tries, each on another backend, when nothing was sent yet or when the request may safely be sent \
         again. Retries stay under a fifth of the upstream's requests of the last 10 s, though 100 are always \
         allowed.",
    )
    .cure("set 0 to switch retries off"),
    key(
        "upstreams.NAME.retry_buffer",
        Kind::Size(0, 1 << 20),
        "16KiB",
        "A request body that fits into it whole can be sent again. `0`: requests with a body are never sent again.",
    ),
    section(
        "upstreams.NAME.queue",
        "Where requests wait when all backends are at `max_conn`, first come first served.",
    ),
    key(
        "upstreams.NAME.queue.size",
        Kind::Integer(0, 1_000_000),
        "0",
        "Requests that may wait. `0` is no queue: 503 at once.",
    ),
    key("upstreams.NAME.queue.timeout", ms(1, HOUR), "5s", "How long one may wait; then 503 with `Retry-After`."),
    key(
        "upstreams.NAME.hash_on",
        Kind::Text(Form::HashOn),
        "client_ip",
        "What the rule `hash` goes by: `client_ip`, `header:NAME`, `cookie:NAME` or `uri`.",
    ),
    section(
        "upstreams.NAME.sticky",
        "Keeps a client on the backend that served it first, by a signed cookie, before any balancing rule, as \
         long as that backend is eligible.",
    ),
    key(
        "upstreams.NAME.sticky.cookie",
        Kind::Text(Form::CookieName),
        "",
        "The name of the cookie. Empty switches it off.",
    ),
    key(
        "upstreams.NAME.sticky.ttl",
        ms(0, 365 * DAY),
        "0s",
        "How long the client keeps the cookie. `0s`: until its session ends.",
    ),
    key(
        "upstreams.NAME.sticky.secret",
        Kind::Text(Form::Secret(16)),
        "",
        "Signs the cookie. Empty: derived from the machine's id and the upstream's name. Proxies that serve the \
         same clients need the same secret; `${NAME}` keeps it out of the file.",
    ),
    key(
        "upstreams.NAME.local_addresses",
        Kind::List(Form::Ip),
        "[]",
        "Source addresses to connect from, in rotation. One address has about 64,000 ports to one backend.",
    ),
    section(
        "upstreams.NAME.tls",
        "TLS to the backends with `scheme: https` or `h2`. Files are read again when they change, as those of `ssl`.",
    ),
    key(
        "upstreams.NAME.tls.server_name",
        Kind::Text(Form::ServerName),
        "",
        "The name to ask for and to verify. Empty is the backend's host.",
    ),
    key(
        "upstreams.NAME.tls.ca_file",
        Kind::Text(Form::File),
        "",
        "Authorities to verify against, PEM. Empty is the system's.",
    ),
    key(
        "upstreams.NAME.tls.verify",
        Kind::Bool,
        "true",
        "Verify the backend's certificate. With `false` anybody who can put himself between the proxy and the backend \
         reads and changes everything, and nobody notices. Better: name the backend's own certificate or authority in \
         `ca_file`.",
    ),
    key(
        "upstreams.NAME.tls.cert_file",
        Kind::Text(Form::File),
        "",
        "The proxy's own certificate for backends that ask for one, PEM. Needs `key_file`.",
    ),
    key("upstreams.NAME.tls.key_file", Kind::Text(Form::File), "", "Its private key, PEM, not encrypted."),
    key(
        "routing",
        Kind::Named,
        "{}",
        "The rules that say where a request goes, by name. The most exact host wins (exact, longest wildcard, \
         any), within it the longest path, whatever the order in the file. Two rules that match the same requests \
         are a fault. At least one rule is needed.",
    ),
    key(
        "routing.NAME.hosts",
        Kind::List(Form::HostPattern),
        "[]",
        "The hosts that the rule is for, without ports. `*.example.com` stands for one label or more in front. \
         Empty is any host.",
    ),
    key(
        "routing.NAME.path",
        Kind::Text(Form::RoutePath),
        "/",
        "The path that the rule is for, on whole segments: `/api` is for `/api` and `/api/x`, not for `/apix`. \
         Matched against the canonical path of the request.",
    ),
    unset(
        "routing.NAME.upstream",
        Kind::Text(Form::Name),
        "one of `upstream`, `redirect` and `respond` has to be written",
        "The upstream that requests go to: a name in `backends`.",
    ),
    unset(
        "routing.NAME.redirect",
        Kind::OptionalSection,
        "no redirect",
        "Answers with a redirect in place of forwarding.",
    ),
    key(
        "routing.NAME.redirect.status",
        Kind::Choice(&["301", "302", "303", "307", "308"]),
        "302",
        "The status. 301 and 308 are remembered by browsers; 307 and 308 keep the method.",
    ),
    required(
        "routing.NAME.redirect.location",
        Kind::Text(Form::Location),
        "Where to. `${host}`, `${path}` and `${query}` stand for the request's (`${query}` with its question mark, \
         if it has one): `https://${host}${path}${query}`.",
    ),
    unset(
        "routing.NAME.respond",
        Kind::OptionalSection,
        "no answer of its own",
        "Answers with a fixed text in place of forwarding.",
    ),
    key("routing.NAME.respond.status", Kind::Integer(200, 599), "200", "The status."),
    key("routing.NAME.respond.body", Kind::Text(Form::Block), "", "The body, sent as plain text."),
    key(
        "routing.NAME.load_balancer",
        ALGORITHMS,
        "least_connections_weight",
        "The rule by which a backend is chosen. `ip_hash`: by a hash of the client's address (IPv6: its /64), so that \
         one backend's going moves only its own clients. `least_connections`: the fewest exchanges at once. `weight`: \
         in turn, as often as its weight says. `least_connections_weight`: the smallest (exchanges + 1) / weight. \
         `performance_least_connections_weight`: the same, with less for backends that report load. `round_robin`: in \
         turn. `random_two`: the better of two drawn by weight. `hash`: by a hash of the upstream's `hash_on`.",
    ),
    section(
        "routing.NAME.protocols",
        "Another rule for some kinds of traffic, e.g. `{websocket: ip_hash, sse: ip_hash}`.",
    ),
    unset("routing.NAME.protocols.http", ALGORITHMS, "`load_balancer`", "For plain requests without TLS."),
    unset("routing.NAME.protocols.https", ALGORITHMS, "`load_balancer`", "For plain requests over TLS."),
    unset(
        "routing.NAME.protocols.websocket",
        ALGORITHMS,
        "`load_balancer`",
        "For WebSocket: `Connection: upgrade` with `Upgrade: websocket`.",
    ),
    unset(
        "routing.NAME.protocols.sse",
        ALGORITHMS,
        "`load_balancer`",
        "For event streams: `Accept` has `text/event-stream`.",
    ),
    unset(
        "routing.NAME.protocols.grpc",
        ALGORITHMS,
        "`load_balancer`",
        "For gRPC: a content type of `application/grpc`.",
    ),
    key(
        "routing.NAME.strip_prefix",
        Kind::Bool,
        "false",
        "Forward the path without the rule's `path` in front: with `path: /api`, `/api/x` becomes `/x`.",
    ),
    key(
        "routing.NAME.response_timeout",
        ms(0, DAY),
        "0s",
        "In place of the upstream's `response_timeout`. `0s` is the upstream's.",
    ),
    key(
        "routing.NAME.max_body_bytes",
        Kind::Size(0, u64::MAX),
        "0",
        "In place of `server.max_body_bytes`. `0` is the server's.",
    ),
    key(
        "routing.NAME.allow",
        Kind::List(Form::Net),
        "[]",
        "Addresses and CIDRs of clients that may use the rule. With `deny` the longest match decides; with `allow` \
         alone all others are refused. Refused ones get 403.",
    ),
    key("routing.NAME.deny", Kind::List(Form::Net), "[]", "Addresses and CIDRs of clients that may not."),
    section("routing.NAME.request_headers", "Changes to the header fields of requests, made after the proxy's own."),
    key("routing.NAME.request_headers.set", Kind::Fields, "{}", "Replaces all fields of that name. `Host` too."),
    key("routing.NAME.request_headers.add", Kind::Fields, "{}", "Adds a field beside those that are there."),
    key("routing.NAME.request_headers.remove", Kind::List(Form::FieldName), "[]", "Removes all fields of that name."),
    section("routing.NAME.response_headers", "Changes to the header fields of responses."),
    key("routing.NAME.response_headers.set", Kind::Fields, "{}", "Replaces all fields of that name."),
    key("routing.NAME.response_headers.add", Kind::Fields, "{}", "Adds a field beside those that are there."),
    key("routing.NAME.response_headers.remove", Kind::List(Form::FieldName), "[]", "Removes all fields of that name."),
    section(
        "grpc",
        "Management: REST, gRPC and the dashboard on one port, for operators and never for clients. Anything but a \
         loopback address is refused without a token.",
    ),
    key("grpc.enabled", Kind::Bool, "true", "Serve management."),
    key(
        "grpc.host",
        Kind::Text(Form::Ip),
        "127.0.0.1",
        "The address to listen on. Anything but a loopback address needs a token.",
    ),
    key("grpc.port", Kind::Integer(0, 65535), "9091", "The port to listen on."),
    key(
        "grpc.token",
        Kind::Text(Form::Secret(8)),
        "",
        "Who sends it may do everything. Also from `token_file` or the environment variable `SPEEDMIMI_TOKEN`.",
    ),
    key("grpc.token_file", Kind::Text(Form::File), "", "A file that holds the token."),
    key("grpc.report_token", Kind::Text(Form::Secret(8)), "", "Who sends it may only report the load of backends."),
    key("grpc.read_token", Kind::Text(Form::Secret(8)), "", "Who sends it may only read."),
    key(
        "grpc.allowed_hosts",
        Kind::List(Form::HostPattern),
        "[]",
        "`Host` values that browsers may use, further to loopback names and the bound address.",
    ),
    key("grpc.persist", Kind::Bool, "true", "Changes made through management are written to the configuration file."),
    section("log", "What is logged, and how."),
    key(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "How much the proxy tells about itself.",
    ),
    key("log.format", Kind::Choice(&["text", "json"]), "text", "How it tells it, on standard error."),
    key(
        "log.access",
        Kind::Text(Form::AccessLog),
        "off",
        "Where a line for each request goes: `off`, `stdout` or a file, which is opened again on SIGUSR1.",
    ),
    key(
        "log.access_format",
        Kind::Choice(&["json", "combined"]),
        "json",
        "`json`: one object a line with the fields time, request_id, client, method, host, path, protocol, route, \
         upstream, backend, status, reason, bytes_in, bytes_out, connect_ms, first_byte_ms, total_ms, retries and \
         tls. `combined`: the Combined Log Format.",
    ),
];

impl Key {
    const fn cure(self, cure: &'static str) -> Key {
        Key { cure, ..self }
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Is(default), cure: "", doc }
}

const fn unset(path: &'static str, kind: Kind, meaning: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Unset(meaning), cure: "", doc }
}

const fn required(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Required, cure: "", doc }
}

const fn section(path: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Section, "{}", doc)
}

const fn ms(min: u64, max: u64) -> Kind {
    Kind::Duration(Duration::from_millis(min), Duration::from_millis(max))
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const ALGORITHMS: Kind = Kind::Choice(&[
    "ip_hash",
    "least_connections",
    "weight",
    "least_connections_weight",
    "performance_least_connections_weight",
    "round_robin",
    "random_two",
    "hash",
]);
