//! Configuration: the YAML as written, the checked immutable plan, and every fault of a file with its line.

pub mod plan;
