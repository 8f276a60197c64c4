//! Rules of nft(8) that leave the proxy's connections out of connection tracking.
//!
//! Owns the rules and running nft. Never touches a table but its own.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::cli::wanted::Wanted;

/// The table; nobody else's is touched.
const TABLE: &str = "inet speedmimi_notrack";

/// What it costs, for whoever is about to load them.
pub const COST: &str = "rules that look at `ct state`, and NAT, no longer see connections of these ports, other programs' to the \
                        ports of backends included: a firewall that lets answers in by `ct state established` needs \
                        `ct state untracked accept` too";

/// The rules; `None` without a port.
pub fn rules(wanted: &Wanted) -> Option<String> {
    let list = |ports: &mut dyn Iterator<Item = u16>| {
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        ports.dedup();
        ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    };
    let clients = list(&mut wanted.ports.iter().copied());
    let backends = list(&mut wanted.destinations.iter().map(|to| to.port));
    if clients.is_empty() && backends.is_empty() {
        return None;
    }
    let rule = |field: &str, ports: &str| match ports {
        "" => String::new(),
        ports => format!("        tcp {field} {{ {ports} }} notrack\n"),
    };
    let chain = |hook: &str, rules: [String; 2]| {
        format!("    chain {hook} {{\n        type filter hook {hook} priority raw;\n{}    }}\n", rules.concat())
    };
    let inwards = chain("prerouting", [rule("dport", &clients), rule("sport", &backends)]);
    let outwards = chain("output", [rule("sport", &clients), rule("dport", &backends)]);
    Some(format!("table {TABLE} {{\n{inwards}{outwards}}}\n"))
}

/// Loads the rules in place of those that were loaded before, all at once.
///
/// # Errors
/// What nft says.
pub fn load(rules: &str) -> io::Result<()> {
    // An empty table is made first so that there is one to delete.
    nft(&format!("table {TABLE} {{}}\ndelete table {TABLE}\n{rules}"))
}

/// Takes them away again; they need not be there.
///
/// # Errors
/// What nft says.
pub fn unload() -> io::Result<()> {
    nft(&format!("table {TABLE} {{}}\ndelete table {TABLE}\n"))
}

fn nft(input: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // The pipe is dropped at the end of the statement: nft reads to the end.
    let given = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    // One that ended without reading says why.
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => given,
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
