//! Any message translated between HTTP/2 and HTTP/1.1, in either direction: see the checks.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/translate.rs"]
mod checks;

fuzz_target!(|input: &[u8]| checks::any(input));
