//! Where management is served and who may come in: what control hands to the server of management.
//!
//! Owns the binding of the port and the reading of the token's file. Never serves a request.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::plan::{Management, Secret};
use crate::listen::{self, BindError};

/// Bytes of a token at least; as for the keys of the configuration.
const TOKEN_BYTES_MIN: usize = 8;
/// Bytes of a token's file at most.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Management from now on: its section of the plan with the token found.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrance {
    /// The section.
    pub conf: Arc<Management>,
    /// Who sends it may do everything; `None`: anybody from this machine may.
    pub token: Option<Secret>,
    /// Where it listens: the real port where port 0 was asked for.
    pub addr: SocketAddr,
}

impl Entrance {
    /// Whether the same tokens allow the same.
    pub fn has_tokens_of(&self, other: &Entrance) -> bool {
        let tokens = |entrance: &Entrance| {
            (entrance.token.clone(), entrance.conf.read_token.clone(), entrance.conf.report_token.clone())
        };
        tokens(self) == tokens(other)
    }
}

/// What the server of management is told.
#[derive(Debug)]
pub enum Opening {
    /// Serve there, and nowhere else.
    At(Entrance, TcpListener),
    /// Go on where you are, by these tokens.
    Same(Entrance),
    /// Serve no more.
    Closed,
}

/// Why management can't be served.
#[derive(Debug)]
pub enum EntranceError {
    /// The address can't be had.
    Bind(BindError),
    /// The token's file can't be used.
    Token(PathBuf, io::Error),
}

impl fmt::Display for EntranceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntranceError::Bind(error) => {
                write!(f, "management: {error}; its keys are grpc.host and grpc.port, grpc.enabled: false goes without")
            }
            EntranceError::Token(path, error) => write!(f, "grpc.token_file: {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for EntranceError {}

/// What has to change for management to be as `conf` says; `now` is how it is.
///
/// # Errors
/// When the address or the token's file can't be had; management stays as it is then.
pub fn prepare(conf: Option<&Arc<Management>>, now: Option<&Entrance>) -> Result<Opening, EntranceError> {
    let Some(conf) = conf else { return Ok(Opening::Closed) };
    let token = match &conf.token_file {
        Some(path) => Some(read_token(path).map_err(|error| EntranceError::Token(path.clone(), error))?),
        None => conf.token.clone(),
    };
    if let Some(now) = now.filter(|now| now.conf.addr == conf.addr) {
        return Ok(Opening::Same(Entrance { conf: conf.clone(), token, addr: now.addr }));
    }
    let listener = listen::open_management(conf.addr).map_err(EntranceError::Bind)?;
    let addr = listener.local_addr().unwrap_or(conf.addr);
    Ok(Opening::At(Entrance { conf: conf.clone(), token, addr }, listener))
}

/// The token in a file: its first line.
///
/// # Errors
/// When it can't be read, is longer than 4096 bytes, or its first line is shorter than 8.
pub fn read_token(path: &Path) -> io::Result<Secret> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        // A pipe would be waited for, a device might never end.
        return Err(invalid("is no regular file; allowed: a file whose first line is the token"));
    }
    if meta.len() > TOKEN_BYTES_MAX {
        return Err(invalid("is longer than 4096 bytes; allowed: one line with the token"));
    }
    let text = std::fs::read_to_string(path)?;
    let token = text.lines().next().unwrap_or("").trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(invalid("its first line has fewer than 8 bytes (openssl rand -hex 32 makes a good one)"));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn management(addr: &str, token_file: Option<PathBuf>) -> Arc<Management> {
        Arc::new(Management {
            addr: addr.parse().unwrap(),
            token: None,
            token_file,
            report_token: None,
            read_token: None,
            allowed_hosts: Vec::new(),
            persist: true,
        })
    }

    #[test]
    fn the_port_is_bound_anew_only_when_it_moves() {
        let conf = management("127.0.0.1:0", None);
        let Ok(Opening::At(entrance, listener)) = prepare(Some(&conf), None) else { panic!() };
        assert_eq!(entrance.addr, listener.local_addr().unwrap());
        assert!(matches!(prepare(Some(&conf), Some(&entrance)), Ok(Opening::Same(same)) if same.addr == entrance.addr));
        // Nobody else's port is taken over.
        let taken = management(&entrance.addr.to_string(), None);
        let error = prepare(Some(&taken), None).unwrap_err().to_string();
        assert!(error.contains("grpc.port"), "{error}");
        assert!(matches!(prepare(None, Some(&entrance)), Ok(Opening::Closed)));
    }

    #[test]
    fn a_token_is_the_first_line_of_its_file() {
        let path = std::env::temp_dir().join(format!("speedmimi-token-{}", std::process::id()));
        let try_with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            prepare(Some(&management("127.0.0.1:0", Some(path.clone()))), None)
        };
        assert!(
            matches!(try_with("0123456789\n\n"), Ok(Opening::At(e, _)) if e.token == Some(Secret::new("0123456789")))
        );
        assert!(try_with("short\n").unwrap_err().to_string().contains("fewer than 8 bytes"));
        assert!(try_with(&"x".repeat(5000)).is_err());
        let device = management("127.0.0.1:0", Some("/dev/zero".into()));
        assert!(prepare(Some(&device), None).unwrap_err().to_string().contains("no regular file"));
        std::fs::remove_file(&path).unwrap();
        assert!(prepare(Some(&management("127.0.0.1:0", Some(path))), None).is_err());
    }
}
