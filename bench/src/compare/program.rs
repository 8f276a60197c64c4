//! The compared programs: where they are, how they are configured, started and stopped.
//!
//! Owns what is particular to each of them. Never installs anything.

use super::measure::{Backend, Front};
use super::template;
use crate::children::{Ended, free_address, spawn_pinned, version, wait_until_accepting};
use crate::error::{Error, Result, Trying};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Descriptors that a program needs beside its connections, at most: listeners, logs, HAProxy's pipes.
pub const DESCRIPTORS_RESERVE: usize = 1000;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// SpeedMimi as shipped.
    Speedmimi,
    /// nginx from the distribution.
    Nginx,
    /// The same with buffers for large bodies.
    NginxLargeBuffers,
    /// HAProxy from the distribution.
    Haproxy,
    /// The same, splicing.
    HaproxySplice,
    /// The bare relay, copying.
    Relay,
    /// The bare relay, splicing.
    RelaySplice,
}

impl Program {
    /// All of them, in the order of the table.
    pub const ALL: [Program; 7] = [
        Program::Speedmimi,
        Program::Nginx,
        Program::Haproxy,
        Program::NginxLargeBuffers,
        Program::HaproxySplice,
        Program::Relay,
        Program::RelaySplice,
    ];

    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Program::Speedmimi => "SpeedMimi",
            Program::Nginx => "nginx",
            Program::Haproxy => "HAProxy",
            Program::NginxLargeBuffers => "nginx, large buffers",
            Program::HaproxySplice => "HAProxy, splice",
            Program::Relay => "bare relay",
            Program::RelaySplice => "bare relay, splice",
        }
    }

    /// Whether it adds forwarding fields: what the origin then insists on.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Program::Relay | Program::RelaySplice)
    }

    /// Whether it is a variant for large bodies, measured with those only.
    pub fn is_for_large_bodies(self) -> bool {
        matches!(self, Program::NginxLargeBuffers | Program::HaproxySplice | Program::RelaySplice)
    }

    /// Whether one process of it can hold more descriptors than `RLIMIT_NOFILE`.
    pub fn has_private_tables(self) -> bool {
        self == Program::Speedmimi
    }

    fn cure(self) -> &'static str {
        match self {
            Program::Speedmimi => "build it with `cargo build --release`, or give --speedmimi PATH",
            Program::Nginx | Program::NginxLargeBuffers => "it is in the Debian package nginx",
            Program::Haproxy | Program::HaproxySplice => "it is in the Debian package haproxy",
            Program::Relay | Program::RelaySplice => "it is part of this program",
        }
    }
}

/// A program that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub program: Program,
    /// Its executable; of the relays, this one.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: String,
}

/// Looks for a program.
///
/// # Errors
/// When it is missing, with the cure.
pub fn find(program: Program, speedmimi: Option<&Path>) -> Result<Found> {
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let path = match program {
        Program::Speedmimi => speedmimi.map_or_else(|| own.with_file_name("speedmimi"), Path::to_owned),
        Program::Nginx | Program::NginxLargeBuffers => in_path("nginx").unwrap_or_default(),
        Program::Haproxy | Program::HaproxySplice => in_path("haproxy").unwrap_or_default(),
        Program::Relay | Program::RelaySplice => own,
    };
    if !path.is_file() {
        return Err(Error::Failed(format!("{} is missing: {}", program.name(), program.cure())));
    }
    let version = match program {
        Program::Speedmimi | Program::Relay | Program::RelaySplice => version(&path, "--version"),
        _ => version(&path, "-v"),
    };
    Ok(Found { program, path, version })
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are often where only root's PATH looks.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|d| d.join(name))
        .find(|p| p.is_file())
}

/// What a start needs to know.
pub struct Site<'a> {
    /// The CPU that the program has to itself.
    pub cpu: usize,
    /// What clients speak to it.
    pub front: Front,
    /// What it speaks to its backend.
    pub backend: Backend,
    /// Where the certificate is, as three files.
    pub certs: &'a Path,
    /// Where it finds its backend.
    pub origin: SocketAddr,
    /// A directory for its files, its own.
    pub dir: &'a Path,
    /// Idle backend connections that it may keep.
    pub pool: usize,
    /// Descriptors that one table holds.
    pub descriptors: usize,
}

/// A running program; ended when dropped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process; workers are its children.
    pub pid: u32,
    _child: Ended,
}

/// Starts a program and waits until it accepts connections.
///
/// # Errors
/// When it does not; with what it said.
pub fn start(found: &Found, site: &Site) -> Result<Running> {
    let address = free_address()?;
    let config = config(found.program, address, site)?;
    let file = site.dir.join(config.file);
    fs::create_dir_all(site.dir).trying(|| format!("making {}", site.dir.display()))?;
    fs::write(&file, config.text).trying(|| format!("writing {}", file.display()))?;
    let path = found.path.display().to_string();
    let arguments = arguments(found.program, address, site, &file.display().to_string());
    let log = site.dir.join("said");
    let child = spawn_pinned(site.cpu, [path].into_iter().chain(arguments), &log)?;
    let mut child = Ended(child);
    wait_until_accepting(&mut child, address, found.program.name(), &log)?;
    Ok(Running { address, pid: child.0.id(), _child: child })
}

struct Config {
    file: &'static str,
    text: String,
}

fn config(program: Program, address: SocketAddr, site: &Site) -> Result<Config> {
    let (file, text) = match program {
        Program::Speedmimi => ("speedmimi.yaml", include_str!("../../peers/speedmimi.yaml")),
        Program::Nginx | Program::NginxLargeBuffers => ("nginx.conf", include_str!("../../peers/nginx.conf")),
        Program::Haproxy | Program::HaproxySplice => ("haproxy.cfg", include_str!("../../peers/haproxy.cfg")),
        Program::Relay | Program::RelaySplice => ("none", ""),
    };
    let tuning = match program {
        Program::NginxLargeBuffers => include_str!("../../peers/nginx-large-buffers.conf"),
        Program::HaproxySplice => include_str!("../../peers/haproxy-splice.cfg"),
        _ => "",
    };
    let certs = ("certs", site.certs.display().to_string());
    let tls = match (site.front, program) {
        (Front::Plain | Front::ClearHttp2, _) => "",
        (Front::Tls, Program::Speedmimi) => include_str!("../../peers/speedmimi-tls.yaml"),
        (Front::Tls, Program::Nginx | Program::NginxLargeBuffers) => include_str!("../../peers/nginx-tls.conf"),
        (Front::Tls, Program::Haproxy | Program::HaproxySplice) => include_str!("../../peers/haproxy-tls.cfg"),
        (Front::Tls, Program::Relay | Program::RelaySplice) => "",
    };
    let values = [
        ("tuning", tuning.to_owned()),
        ("tls", template::fill(tls, std::slice::from_ref(&certs))?),
        ("listen", listen(program, site)),
        ("scheme", if site.front == Front::Tls { "https" } else { "http" }.to_owned()),
        ("backend", backend(program, site.backend).to_owned()),
        ("port", address.port().to_string()),
        ("origin", site.origin.to_string()),
        ("origin_port", site.origin.port().to_string()),
        ("dir", site.dir.display().to_string()),
        ("pool", site.pool.to_string()),
        ("descriptors", site.descriptors.to_string()),
        ("slots", (site.descriptors + site.descriptors / 4).to_string()),
        ("half_descriptors", (site.descriptors.saturating_sub(DESCRIPTORS_RESERVE) / 2).to_string()),
    ];
    Ok(Config { file, text: template::fill(text, &values)? })
}

/// What stands behind the address that is listened on.
fn listen(program: Program, site: &Site) -> String {
    match (program, site.front) {
        (Program::Nginx | Program::NginxLargeBuffers, Front::Tls) => "ssl http2".to_owned(),
        (Program::Nginx | Program::NginxLargeBuffers, Front::ClearHttp2) => "http2".to_owned(),
        (Program::Haproxy | Program::HaproxySplice, Front::Tls) => {
            format!("ssl crt {}/both.pem alpn h2,http/1.1", site.certs.display())
        }
        (Program::Haproxy | Program::HaproxySplice, Front::ClearHttp2) => "proto h2".to_owned(),
        _ => String::new(),
    }
}

fn backend(program: Program, backend: Backend) -> &'static str {
    match (program, backend) {
        (Program::Speedmimi, Backend::Http1) => "http",
        (Program::Speedmimi, Backend::ClearHttp2) => "h2c",
        (Program::Haproxy | Program::HaproxySplice, Backend::ClearHttp2) => "proto h2",
        _ => "",
    }
}

fn arguments(program: Program, address: SocketAddr, site: &Site, file: &str) -> Vec<String> {
    let relay = |mode: &str| {
        vec![
            "relay".to_owned(),
            format!("--listen={address}"),
            format!("--to={}", site.origin),
            format!("--mode={mode}"),
        ]
    };
    match program {
        Program::Speedmimi => vec!["run".into(), "--config".into(), file.into()],
        Program::Nginx | Program::NginxLargeBuffers => {
            vec!["-p".into(), site.dir.display().to_string(), "-c".into(), file.into()]
        }
        Program::Haproxy | Program::HaproxySplice => vec!["-db".into(), "-f".into(), file.into()],
        Program::Relay => relay("copy"),
        Program::RelaySplice => relay("splice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_filled() {
        let filled_in = |front, backend| {
            let site = Site {
                cpu: 0,
                front,
                backend,
                certs: Path::new("/certs"),
                origin: SocketAddr::from(([127, 0, 0, 1], 8081)),
                dir: Path::new("/nowhere"),
                pool: 1024,
                descriptors: 20_000,
            };
            for program in Program::ALL {
                let text = config(program, SocketAddr::from(([127, 0, 0, 1], 8080)), &site).unwrap().text;
                assert!(!text.replace("{{name}}", "").contains("{{"), "{}", program.name());
                if program.is_proxy() {
                    assert!(text.contains("8080") && text.contains("8081") && text.contains("1024"), "{text}");
                    assert_eq!(text.contains("/certs/"), front == Front::Tls, "{text}");
                }
            }
        };
        filled_in(Front::Plain, Backend::Http1);
        filled_in(Front::Tls, Backend::Http1);
        filled_in(Front::ClearHttp2, Backend::ClearHttp2);
    }
}
