//! The difference of two texts of a configuration, short and without its secrets.
//!
//! Owns what a person is shown of a file that somebody else changed. Never tells the value of a secret, even of one in
//! a text that is no YAML any more.

use super::keys::KEYS;

/// Unchanged lines around what differs.
const AROUND_LINES_COUNT: usize = 3;
/// Lines that are shown of each side at most.
const SHOWN_LINES_COUNT_MAX: usize = 20;
/// Characters that are shown of a line.
const SHOWN_CHARS_MAX: usize = 160;

/// From the first line that differs to the last one, as one hunk of a unified diff; empty when only secrets differ or
/// nothing does.
pub fn short_difference(old: &str, new: &str) -> String {
    let (old, new) = (masked(old), masked(new));
    let same = |(one, other): &(&String, &String)| one == other;
    let front = old.iter().zip(&new).take_while(same).count();
    let rest = old.len().min(new.len()) - front;
    let back = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(same).count();
    if front == old.len() && front == new.len() {
        return String::new();
    }
    let start = front.saturating_sub(AROUND_LINES_COUNT);
    let after = back.min(AROUND_LINES_COUNT);
    let (old_end, new_end) = (old.len() - back, new.len() - back);
    let range = |end: usize| format!("{},{}", start + usize::from(end + after > start), end + after - start);
    let mut out = format!("@@ -{} +{} @@\n", range(old_end), range(new_end));
    push(&mut out, ' ', &old[start..front]);
    push(&mut out, '-', &old[front..old_end]);
    push(&mut out, '+', &new[front..new_end]);
    push(&mut out, ' ', &old[old_end..old_end + after]);
    out
}

fn push(out: &mut String, mark: char, lines: &[String]) {
    for line in lines.iter().take(SHOWN_LINES_COUNT_MAX) {
        out.push(mark);
        out.extend(line.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() && c != '\t' { ' ' } else { c }));
        out.push('\n');
    }
    if lines.len() > SHOWN_LINES_COUNT_MAX {
        out.push_str(&format!("{mark}… {} more lines\n", lines.len() - SHOWN_LINES_COUNT_MAX));
    }
}

/// The lines without what stands behind the key of a secret, on its line and on deeper ones that follow.
fn masked(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut below: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if below.is_some_and(|of| line.trim().is_empty() || indent > of) {
            lines.push(format!("{}…", &line[..indent]));
            continue;
        }
        let secret = behind_secret(line);
        below = secret.map(|_| indent);
        lines.push(secret.map_or_else(|| line.to_owned(), |at| format!("{} …", &line[..at])));
    }
    lines
}

/// Behind the colon of the first key of a secret in a line.
fn behind_secret(line: &str) -> Option<usize> {
    let secrets = KEYS.iter().filter(|key| key.is_secret());
    let found = secrets.flat_map(|key| line.match_indices(key.name()).map(|(at, name)| at + name.len()));
    let colon = |at: usize| {
        let rest = line[at..].trim_start_matches(['"', '\'', ' ', '\t']);
        rest.starts_with(':').then(|| line.len() - rest.len() + 1)
    };
    found.filter_map(colon).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_one_hunk() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        assert_eq!(short_difference(old, old), "");
        let new = "a\nb\nc\nd\nE\nE\nf\ng\nh\n";
        assert_eq!(short_difference(old, new), "@@ -2,7 +2,8 @@\n b\n c\n d\n-e\n+E\n+E\n f\n g\n h\n");
        assert_eq!(short_difference("", "a\n"), "@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(short_difference("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(short_difference("a\na\n", "a\n"), "@@ -1,2 +1,1 @@\n a\n-a\n");
        let long = "x\n".repeat(1000);
        assert!(short_difference(&long, "").ends_with("-x\n-… 980 more lines\n"));
    }

    #[test]
    fn secrets_are_not_told() {
        for old in [
            "grpc: {port: 1, token: hunter22, host: hunter22}",
            "grpc:\n  token: hunter22",
            "grpc:\n  \"token\" : hunter22",
            "grpc:\n  token: |\n    hunter22\n\n    hunter22\n  port: 1",
            "    secret:\n      hunter22",
            "# report_token: hunter22",
            "grpc: {read_token: \"hunter22",
        ] {
            let told = short_difference(old, "x");
            assert!(!told.contains("hunter22") && told.contains('…'), "{told}");
        }
        assert_eq!(short_difference("token: a\n", "token: b\n"), "");
    }
}
