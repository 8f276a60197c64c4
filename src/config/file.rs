//! From the text of a configuration file to a plan, or to every fault in it.
//!
//! Owns what a caller gets of a file; the order of the stages is that of [`Document`]. Never touches the file system or
//! the environment: both are handed in.

use super::document::Document;
use super::fault::{ConfigFault, ConfigNotice};
use super::plan::Plan;

/// Where a file is looked for when none is named, in this order.
pub const SEARCHED: [&str; 2] = ["configs/config.yaml", "/etc/speedmimi/config.yaml"];

/// Management's token, where the file has none.
pub const TOKEN_VARIABLE: &str = "SPEEDMIMI_TOKEN";

/// A valid file.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub plan: Plan,
    /// What is probably not meant so, in the order of the file.
    pub notices: Vec<ConfigNotice>,
}

/// The plan of a configuration file. `file_name` is only for messages; `env` gives environment variables.
///
/// # Errors
/// Every fault in the file, in its order; never an empty list.
pub fn read(text: &str, file_name: &str, env: impl Fn(&str) -> Option<String>) -> Result<Plan, Vec<ConfigFault>> {
    examine(text, file_name, env).map(|checked| checked.plan)
}

/// As [`read`], with the notices.
///
/// # Errors
/// Every fault in the file, in its order; never an empty list.
pub fn examine(text: &str, file_name: &str, env: impl Fn(&str) -> Option<String>) -> Result<Checked, Vec<ConfigFault>> {
    let (plan, notices) = Document::from_text(text, file_name, env)?.into_parts();
    Ok(Checked { plan, notices })
}
