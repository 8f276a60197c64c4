//! Active health checks: one small request at a time to each backend that asks for them.
//!
//! Owns the check's connection and request; the verdict over a row of results is `health::verdict`'s. Never on a worker.

mod http2;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::balance::rng::Rng;
use crate::clock;
use crate::config::plan::{self, BackendAddr, HealthCheck, HealthCheckKind, Scheme};
use crate::health::schedule;
use crate::health::verdict::{Change, Verdict};
use crate::http::head::FieldTable;
use crate::http::parse::{Asked, HeadEnd, HeadLimits, parse_response};
use crate::limits::INTERIM_COUNT_MAX;
use crate::shared::backend::{BackendState, Mark};
use crate::tls::Connector;

/// Largest answer head that a check reads, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What a check calls itself.
const USER_AGENT: &str = "speedmimi-health-check";

/// The name of an upstream, one of its backends, and how TLS is spoken to that.
pub type Probed = (String, Arc<plan::Backend>, Option<Arc<Connector>>);

/// Checks `backend` for as long as the task lives, and marks it down and up.
pub async fn keep_probing(of: Probed, check: HealthCheck, backend: Arc<BackendState>) {
    let (upstream, conf, connector) = of;
    let mut rng = Rng::new(fastrand::u64(..));
    let mut verdict = Verdict::new(check.failures, check.successes);
    if backend.is(Mark::CheckDown) {
        // Taken over from an earlier configuration: it stays down until it is seen to be up.
        for _ in 0..check.failures {
            verdict.observe(clock::now_ms(), false);
        }
    }
    let interval = check.interval.as_millis() as u64;
    let mut next = schedule::first_ms(clock::now_ms(), interval, &mut rng);
    loop {
        tokio::time::sleep(Duration::from_millis(next.saturating_sub(clock::now_ms()))).await;
        let began = clock::now_ms();
        let result =
            match tokio::time::timeout(check.timeout, probe((&conf, connector.as_deref()), &check, &backend)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer in {:?}", check.timeout)),
            };
        let now = clock::now_ms();
        match verdict.observe(now, result.is_ok()) {
            Some(Change::Down) => {
                let problem = result.err().unwrap_or_default();
                tracing::warn!(%upstream, backend = %conf.id, problem, "down by its health check");
                backend.set_mark(Mark::CheckDown, true, now);
            }
            Some(Change::Up) => {
                tracing::info!(%upstream, backend = %conf.id, "up by its health check");
                backend.set_mark(Mark::CheckDown, false, now);
            }
            None => {}
        }
        next = schedule::next_ms(began, now, interval, &mut rng);
    }
}

async fn probe(
    of: (&plan::Backend, Option<&Connector>),
    check: &HealthCheck,
    backend: &BackendState,
) -> Result<(), String> {
    let conf = of.0;
    let failed = |error: io::Error| error.to_string();
    match &conf.addr {
        BackendAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            speak(stream, of, check).await
        }
        BackendAddr::Ip(_) | BackendAddr::Name(..) => {
            let addresses = backend.addresses().clone();
            let mut addresses: Vec<SocketAddr> = addresses.to_vec();
            if check.port != 0 {
                addresses.iter_mut().for_each(|addr| addr.set_port(check.port));
            }
            if addresses.is_empty() {
                return Err("its name has no address".into());
            }
            // All addresses are one backend: it is up while one of them answers.
            let stream = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
            speak(stream, of, check).await
        }
    }
}

/// Asks over a connection, and over TLS where the backend is one of TLS.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (conf, connector): (&plan::Backend, Option<&Connector>),
    check: &HealthCheck,
) -> Result<(), String> {
    let is_secure = matches!(conf.scheme, Scheme::Https | Scheme::H2) && check.kind != HealthCheckKind::Tcp;
    if !is_secure {
        return ask(stream, conf, check).await;
    }
    let connector = connector.ok_or("TLS to it is not set up")?;
    let name = connector.server_name(&conf.addr).ok_or("its host can't be the name of a certificate")?;
    let secure = TlsConnector::from(connector.config(conf.scheme).clone()).connect(name, stream).await;
    ask(secure.map_err(|error| format!("TLS: {error}"))?, conf, check).await
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    conf: &plan::Backend,
    check: &HealthCheck,
) -> Result<(), String> {
    let scheme = if conf.scheme == Scheme::H2 { "https" } else { "http" };
    if matches!(conf.scheme, Scheme::H2c | Scheme::H2) && check.kind != HealthCheckKind::Tcp {
        return http2::ask(stream, &conf.addr.authority(), scheme, check).await;
    }
    let HealthCheckKind::Http { path, host, expect } = &check.kind else { return Ok(()) };
    let host = if host.is_empty() { conf.addr.authority() } else { host.clone() };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    judge(read_status(&mut stream).await?, *expect)
}

/// Whether a status is an expected one.
fn judge(status: u16, expect: (u16, u16)) -> Result<(), String> {
    if (expect.0..=expect.1).contains(&status) {
        return Ok(());
    }
    Err(format!("status {status} is outside {}-{}", expect.0, expect.1))
}

async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, String> {
    let (mut bytes, mut end, mut fields) = (Vec::new(), HeadEnd::default(), FieldTable::default());
    let mut interims = 0;
    loop {
        let n = stream.read_buf(&mut bytes).await.map_err(|e| e.to_string())?;
        // One read may bring an interim answer and the final one behind it.
        while let Some((status, used)) = parse_status(&bytes, &mut end, &mut fields)? {
            if status >= 200 {
                return Ok(status);
            }
            bytes.drain(..used);
            end = HeadEnd::default();
            interims += 1;
            if interims > INTERIM_COUNT_MAX {
                return Err("too many interim answers".into());
            }
        }
        if n == 0 {
            return Err("the connection was closed before a whole answer".into());
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err("the answer's head is larger than 16 KiB".into());
        }
    }
}

/// The status of the head that `bytes` begin with and the head's length, once it is whole.
fn parse_status(bytes: &[u8], end: &mut HeadEnd, fields: &mut FieldTable) -> Result<Option<(u16, usize)>, String> {
    let asked = Asked { head: false, upgrade: false };
    let parsed = parse_response(bytes, end, asked, &HeadLimits::RESPONSE, fields);
    Ok(parsed.map_err(|fault| fault.detail.to_owned())?.map(|(head, used)| (head.status(), used)))
}
