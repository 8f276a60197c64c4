//! What a check found: how bad it is, what is wanted, what it costs and the cure.
//!
//! Owns the words' shape, as text and as JSON. Never looks at a machine.

use std::io::{self, Write};

use serde::Serialize;

/// How bad it is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It can't be read here.
    Unknown,
    /// It costs something, or will.
    Warning,
    /// It will not work.
    Fault,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Fault => "FAULT",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: `backlog.accept`.
    pub check: &'static str,
    pub level: Level,
    /// What is so.
    pub found: String,
    /// What should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wanted: String,
    /// What it costs as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cost: String,
    /// Commands to type, or words where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cure: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, found: impl Into<String>) -> Finding {
        Finding { check, level, found: found.into(), wanted: String::new(), cost: String::new(), cure: Vec::new() }
    }

    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(check, Level::Ok, found)
    }

    /// It is not to be seen from here.
    pub fn unknown(check: &'static str, what: &str) -> Finding {
        Finding::new(check, Level::Unknown, format!("{what} can't be read here"))
    }

    /// It could be better.
    pub fn warning(check: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(check, Level::Warning, found)
    }

    /// It won't do.
    pub fn fault(check: &'static str, found: impl Into<String>) -> Finding {
        Finding::new(check, Level::Fault, found)
    }

    /// A fault or a warning.
    pub fn bad(check: &'static str, is_fault: bool, found: impl Into<String>) -> Finding {
        if is_fault { Finding::fault(check, found) } else { Finding::warning(check, found) }
    }

    /// Says what should be.
    pub fn wanted(mut self, wanted: impl Into<String>) -> Finding {
        self.wanted = wanted.into();
        self
    }

    /// Says what it costs.
    pub fn cost(mut self, cost: impl Into<String>) -> Finding {
        self.cost = cost.into();
        self
    }

    /// Says what to do; may be called again.
    pub fn cure(mut self, cure: impl Into<String>) -> Finding {
        self.cure.push(cure.into());
        self
    }
}

/// The worst of all; [`Level::Ok`] of none.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// Prints all as text, and how many of which there are.
///
/// # Errors
/// Those of writing to `out`.
pub fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{:<8} {:<24} {}", finding.level.name(), finding.check, finding.found)?;
        let told = [("wanted", &finding.wanted), ("costs", &finding.cost)];
        for (name, text) in told.into_iter().filter(|(_, text)| !text.is_empty()) {
            writeln!(out, "           {name:<7} {text}")?;
        }
        for (at, cure) in finding.cure.iter().enumerate() {
            writeln!(out, "           {:<7} {cure}", if at == 0 { "cure" } else { "" })?;
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
    write!(out, "\n{faults} fault{}, {warnings} warning{}", plural(faults), plural(warnings))?;
    writeln!(out, ", {} ok, {} unknown", count(Level::Ok), count(Level::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_and_all_are_counted() {
        let findings = [
            Finding::ok("a.b", "fine"),
            Finding::warning("c.d", "so").wanted("thus").cost("much").cure("first").cure("second"),
        ];
        assert_eq!((worst(&findings), worst(&[])), (Level::Warning, Level::Ok));
        let mut out = Vec::new();
        print(&findings, &mut out).unwrap();
        let expected = "ok       a.b                      fine\n\
                        warning  c.d                      so\n           wanted  thus\n           costs   much\n           \
                        cure    first\n                   second\n\n0 faults, 1 warning, 1 ok, 0 unknown\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
