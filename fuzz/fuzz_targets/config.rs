//! Configuration files: whatever the text, an answer; and a fault at least when it is no.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::config::file::examine;
use speedmimi::config::plan::{Plan, Target};

fuzz_target!(|text: &str| {
    let env = |name: &str| (name.len() % 2 == 0).then(|| name.to_lowercase());
    match examine(text, "fuzz.yaml", env) {
        Ok(checked) => hold_together(&checked.plan),
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.to_string().contains('\n')));
        }
    }
});

/// Everything that a plan refers to is there.
fn hold_together(plan: &Plan) {
    assert!(!plan.routes.is_empty() && !plan.server.listen.is_empty());
    assert!(plan.upstreams.iter().all(|upstream| !upstream.backends.is_empty()));
    for route in &plan.routes {
        assert!(route.path.starts_with('/'));
        match &route.target {
            Target::Upstream(id) => assert!(plan.upstreams.get(id.0 as usize).is_some()),
            Target::Redirect { location, .. } => assert!(!location.is_empty()),
            Target::Respond { status, .. } => assert!((200..=599).contains(status)),
        }
    }
}
