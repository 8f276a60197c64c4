//! From the text of a configuration file to a plan, or to every fault in it.
//!
//! Owns the order of the stages. Never touches the file system or the environment: both are handed in.

use super::fault::{ConfigFault, ConfigNotice, Faults};
use super::plan::Plan;
use super::{check, tree, typed};

/// Where a file is looked for when none is named, in this order.
pub const SEARCHED: [&str; 2] = ["configs/config.yaml", "/etc/speedmimi/config.yaml"];

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
    let mut faults = Faults::new(file_name);
    let plan = tree::parse(text, &mut faults).map(|root| {
        let typed = typed::Reader { env: &env, faults: &mut faults }.root(&root);
        check::plan(&typed, &mut faults)
    });
    let notices = faults.finish()?;
    match plan {
        Some(plan) => Ok(Checked { plan, notices }),
        None => unreachable!("a text without a tree has a fault"),
    }
}
