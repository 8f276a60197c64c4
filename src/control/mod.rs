//! The control plane: one thread with a runtime of its own and everything that is not on a request's way.

pub mod access_log;
pub mod board;
pub mod certificates;
pub mod change;
pub mod entrance;
pub mod explain;
pub mod figures;
pub mod history;
pub mod machine;
pub mod metrics;
pub mod probe;
pub mod registry;
pub mod resolve;
pub mod source;
pub mod thread;
pub mod verb;
pub mod watch;

#[cfg(test)]
mod tests;
