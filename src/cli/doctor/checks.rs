//! The list of checks.
//!
//! Owns their order. Each is a pure function of a snapshot and of what is wanted; its name tells its area first.

use super::finding::Finding;
use super::{memory, network, processors, room};
use crate::cli::snapshot::Snapshot;
use crate::cli::wanted::Wanted;

/// One check.
pub type Check = fn(&Snapshot, &Wanted) -> Finding;

/// All of a machine, in the order in which they are told.
pub const ALL: &[Check] = &[
    room::kernel,
    room::descriptors,
    room::descriptors_ceiling,
    room::files,
    network::accept_queue,
    network::handshake_queue,
    network::listen_drops,
    network::packet_queue,
    network::local_ports,
    network::reserved_ports,
    network::port_reuse,
    network::time_wait,
    network::options,
    network::socket_buffers,
    network::buffer_memory,
    network::orphans,
    network::conntrack,
    network::hash_table,
    network::congestion_control,
    processors::nodes,
    processors::interrupts,
    processors::steering,
    processors::steered,
    processors::sending,
    processors::clock,
    processors::quota,
    processors::throttling,
    memory::connections,
    memory::huge_pages,
    memory::swap,
    memory::overcommit,
    room::threads,
];

/// Makes all of them.
pub fn all(snapshot: &Snapshot, wanted: &Wanted) -> Vec<Finding> {
    ALL.iter().map(|check| check(snapshot, wanted)).collect()
}
