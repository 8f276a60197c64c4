//! Configuration: the YAML as written, the checked immutable plan, and every fault of a file with its line.
//!
//! Text goes through [`tree`] (YAML with positions), `typed` (each value as [`keys`] says it has to be) and `check`
//! (the rules between values) to a [`plan::Plan`]; [`document::Document`] calls them in this order, for files and for
//! what management sends. The way back is [`edit`]: the text of a file changed where its meaning differs. Only
//! [`load`] and [`store`] touch the file system and the environment.

mod change;
mod check;
mod difference;
pub mod document;
pub mod edit;
mod expand;
pub mod fault;
pub mod file;
pub mod json;
pub mod keys;
pub mod load;
pub mod manual;
mod place;
pub mod plan;
mod spell;
pub mod store;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
pub mod tree;
mod typed;
pub mod values;

pub use fault::{ConfigFault, ConfigNotice};
