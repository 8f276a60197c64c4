//! What is wrong with a configuration file, told so that whoever reads it can act: where, which key, what is wrong,
//! what is allowed, what to do.
//!
//! Owns the shape and the words around a fault; what is a fault is decided by the stages that read. Never stops at the
//! first: a [`Faults`] collects them all.

use std::fmt;

/// Faults that are kept of one file; beyond it they are only counted.
pub const FAULTS_COUNT_MAX: usize = 1000;
/// Faults that come with suggestions which are costly to find.
const SUGGESTING_FAULTS_COUNT_MAX: usize = 100;
/// How much of a value is repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A place in a file. Lines and columns count from 1 (columns in characters); 0 means the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The file as a whole.
    pub const FILE: Position = Position { line: 0, column: 0 };

    /// ` on line N`, or nothing where there are no lines.
    pub fn on_line(self) -> String {
        if self.line > 0 { format!(" on line {}", self.line) } else { String::new() }
    }
}

/// One thing wrong with a configuration file; the file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file as it was named; empty when the value came from none.
    pub file: String,
    /// From 1; 0 = the file as a whole.
    pub line: usize,
    /// From 1, in characters; 0 = the file as a whole.
    pub column: usize,
    /// E.g. `backends.api[2].weight`; empty when no key is to blame.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub allowed: String,
    /// What to do; may be empty.
    pub cure: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, self.column, &self.key)?;
        write_wrong(f, &self.problem, &self.allowed, &self.cure)
    }
}

fn write_wrong(f: &mut fmt::Formatter<'_>, problem: &str, allowed: &str, cure: &str) -> fmt::Result {
    f.write_str(problem)?;
    if !allowed.is_empty() && !problem.contains(allowed) {
        write!(f, "; allowed: {allowed}")?;
    }
    if cure.is_empty() { Ok(()) } else { write!(f, " ({cure})") }
}

impl std::error::Error for ConfigFault {}

/// Something in a valid file that is probably not what was meant; the file is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigNotice {
    /// The file as it was named.
    pub file: String,
    /// From 1; 0 = the file as a whole.
    pub line: usize,
    /// From 1, in characters; 0 = the file as a whole.
    pub column: usize,
    /// E.g. `server.park_after`; empty when no key is to blame.
    pub key: String,
    /// What is odd, and what to do.
    pub text: String,
}

impl fmt::Display for ConfigNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, self.column, &self.key)?;
        f.write_str(&self.text)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, file: &str, line: usize, column: usize, key: &str) -> fmt::Result {
    if !file.is_empty() {
        f.write_str(file)?;
        if line > 0 {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
    }
    if key.is_empty() { Ok(()) } else { write!(f, "{key}: ") }
}

/// What is wrong with one value, before it is known where the value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub allowed: String,
    /// What to do; may be empty.
    pub cure: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_wrong(f, &self.problem, &self.allowed, &self.cure)
    }
}

impl Wrong {
    /// A problem; [`Wrong::allowed`] and [`Wrong::cure`] may follow.
    pub fn new(problem: impl Into<String>) -> Self {
        Wrong { problem: problem.into(), ..Wrong::default() }
    }

    /// Says what would be right.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = allowed.into();
        self
    }

    /// Says what to do.
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }
}

/// Everything that one reading of a file finds.
#[derive(Debug, Default)]
pub struct Faults {
    file: String,
    faults: Vec<ConfigFault>,
    notices: Vec<ConfigNotice>,
    beyond: usize,
}

impl Faults {
    /// An empty collection for the file of that name.
    pub fn new(file: &str) -> Self {
        Faults { file: file.to_owned(), ..Faults::default() }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many faults there are so far.
    pub fn len(&self) -> usize {
        self.faults.len() + self.beyond
    }

    /// Whether there are so many that costly suggestions are no longer worth their time.
    pub fn are_many(&self) -> bool {
        self.faults.len() >= SUGGESTING_FAULTS_COUNT_MAX
    }

    /// Notes a fault of the value of `key` at `at`.
    pub fn push(&mut self, at: Position, key: &str, wrong: Wrong) {
        if self.faults.len() == FAULTS_COUNT_MAX {
            self.beyond += 1;
            return;
        }
        self.faults.push(ConfigFault {
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            key: key.to_owned(),
            problem: wrong.problem,
            allowed: wrong.allowed,
            cure: wrong.cure,
        });
    }

    /// Notes something odd.
    pub fn notice(&mut self, at: Position, key: &str, text: impl Into<String>) {
        if self.notices.len() < FAULTS_COUNT_MAX {
            let (file, key) = (self.file.clone(), key.to_owned());
            self.notices.push(ConfigNotice { file, line: at.line, column: at.column, key, text: text.into() });
        }
    }

    /// The notices when nothing is wrong, else the faults; both in the order of the file.
    pub fn finish(mut self) -> Result<Vec<ConfigNotice>, Vec<ConfigFault>> {
        if self.faults.is_empty() {
            self.notices.sort_by_key(|notice| (notice.line, notice.column));
            return Ok(self.notices);
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        if self.beyond > 0 {
            let problem = format!("{} more faults are not shown", self.beyond);
            let (file, none) = (self.file, String::new());
            let (key, allowed, cure) = (none.clone(), none.clone(), none);
            self.faults.push(ConfigFault { file, line: 0, column: 0, key, problem, allowed, cure });
        }
        Err(self.faults)
    }
}

/// A value as it is repeated in a message: quoted unless it is a plain word, cut when long, control characters escaped.
pub fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:/*%".contains(c);
    if !text.is_empty() && text.len() <= SHOWN_CHARS_MAX && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        cut.push('…');
    }
    format!("\"{cut}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_quoted_cut_and_without_control_characters() {
        assert_eq!(shown("-1"), "-1");
        assert_eq!(shown(""), "\"\"");
        assert_eq!(shown("a b"), "\"a b\"");
        assert_eq!(shown("\u{1b}[2J"), "\"\\u{1b}[2J\"");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 63);
    }

    #[test]
    fn faults_beyond_the_bound_are_counted_only() {
        let mut faults = Faults::new("f");
        for line in 0..FAULTS_COUNT_MAX + 7 {
            faults.push(Position { line, column: 1 }, "k", Wrong::new("p"));
        }
        let all = faults.finish().unwrap_err();
        assert_eq!(all.len(), FAULTS_COUNT_MAX + 1);
        assert_eq!(all.last().map(ToString::to_string), Some("f: 7 more faults are not shown".to_owned()));
    }
}
