//! Holds the manual of keys and the shipped configuration to the table of keys.
//!
//! `SPEEDMIMI_BLESS=1 cargo test --test manual` writes the manual anew.

use std::path::Path;

use speedmimi::config::{file, manual};

#[test]
fn the_manual_is_what_the_table_of_keys_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let generated = manual::manual();
    if std::env::var_os("SPEEDMIMI_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(generated.lines()).position(|(written, generated)| written != generated);
    let differs = differs.unwrap_or(written.lines().count().min(generated.lines().count())) + 1;
    assert!(
        written == generated,
        "docs/configuration.md differs from the table of keys from line {differs} on; \
         run SPEEDMIMI_BLESS=1 cargo test --test manual and commit the file"
    );
}

#[test]
fn every_example_in_the_manual_is_valid() {
    let manual = manual::manual();
    let mut examples = 0;
    for block in manual.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap();
        file::read(yaml, "example", |_| None).unwrap_or_else(|faults| panic!("{faults:?}\n{yaml}"));
        examples += 1;
    }
    assert!(examples > 0);
}

#[test]
fn every_reason_has_its_row_in_the_manual() {
    use speedmimi::error::Reason;
    let page = include_str!("../docs/requests.md");
    for reason in Reason::ALL {
        let status = if reason.is_answered() { reason.status().to_string() } else { "– (499 in the log)".to_owned() };
        let row =
            format!("| `{}` | {status} | `{}` | {} |", reason.code(), reason.proxy_status_type(), reason.detail());
        assert!(page.contains(&row), "docs/requests.md lacks the row\n{row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 6).count();
    assert_eq!(rows, Reason::COUNT, "docs/requests.md has rows of reasons that are gone");
}
