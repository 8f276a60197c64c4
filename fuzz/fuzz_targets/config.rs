//! Configuration files: whatever the text, an answer; and a fault at least when it is no.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speedmimi::config::file::examine;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name.len() % 2 == 0).then(|| name.to_lowercase());
    match examine(text, "fuzz.yaml", env) {
        Ok(checked) => assert!(!checked.plan.routes.is_empty()),
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.to_string().contains('\n')));
        }
    }
});
