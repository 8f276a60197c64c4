//! Changes written into configuration files: what is rewritten means what was asked for, and nothing else of the text is
//! touched.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use speedmimi::config::document::{Document, merge_patch};
use speedmimi::config::edit::rewrite;

// A text and a merge patch (RFC 7396) of what it means, with a NUL between them.
fuzz_target!(|input: &str| {
    let Some((text, patch)) = input.split_once('\0') else { return };
    let Ok(patch) = serde_json::from_str::<Value>(patch) else { return };
    let env = |name: &str| (name.len() % 2 == 0).then(|| name.to_lowercase());
    let Ok(present) = Document::from_text(text, "fuzz.yaml", env) else { return };
    // What is in use can be asked for again, and is written as it stands.
    assert_eq!(rewrite(text, &present, env).as_deref(), Ok(text));
    let mut wanted = present.shown();
    merge_patch(&mut wanted, &patch);
    let Ok(wanted) = Document::from_value(&wanted, &present, env) else { return };
    let Ok(changed) = rewrite(text, &wanted, env) else { return };
    let back = Document::from_text(&changed, "fuzz.yaml", env).expect("what was written can be read");
    assert!(back.means_the_same(&wanted));
    assert_eq!(rewrite(&changed, &wanted, env).as_deref(), Ok(changed.as_str()), "it is written already");
    // A comment goes only with what it is about: where nothing is taken out, all stay.
    if !takes_out(&patch) {
        let comments = |text: &str| text.lines().filter(|line| line.trim_start().starts_with('#')).count();
        assert!(comments(&changed) >= comments(text), "{text}\n----\n{changed}");
    }
});

/// Whether something that is written may be gone after the patch.
fn takes_out(patch: &Value) -> bool {
    match patch {
        Value::Object(map) => map.values().any(takes_out),
        Value::Null | Value::Array(_) | Value::String(_) => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}
