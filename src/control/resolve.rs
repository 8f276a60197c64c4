//! Names of backends, resolved again and again while the proxy runs.
//!
//! Owns the interval. Never on a worker: resolving blocks, opens files and starts threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::plan::BackendAddr;
use crate::shared::backend::BackendState;

/// How often a name is looked up. The system's resolver does not tell how long an answer holds.
const INTERVAL: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long one look-up may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Looks `addr` up for as long as the task lives. When it fails the last addresses stay.
pub async fn keep_resolving(addr: BackendAddr, backend: Arc<BackendState>) {
    let BackendAddr::Name(name, port) = addr else { return };
    let mut has_failed = false;
    loop {
        match look_up(&name, port).await {
            Ok(addresses) => {
                if has_failed {
                    tracing::info!(%name, "resolved again");
                }
                has_failed = false;
                backend.set_addresses(addresses);
            }
            Err(problem) => {
                if !has_failed {
                    tracing::warn!(%name, problem, "cannot be resolved; the last addresses stay in use");
                }
                has_failed = true;
            }
        }
        tokio::time::sleep(if has_failed { RETRY_INTERVAL } else { INTERVAL }).await;
    }
}

/// The addresses of a name, sorted, so that an unchanged answer in another order is no change.
///
/// # Errors
/// What the resolver says, in words.
pub async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Err(_) => Err("the resolver did not answer in 5 s".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(found)) => {
            let mut addresses: Vec<SocketAddr> = found.collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses) }
        }
    }
}
