//! The nearest known word to one that is not known.
//!
//! Owns what "near" means. Never guesses when nothing is near.

/// Candidates that are looked at.
const CANDIDATES_COUNT_MAX: usize = 1000;

/// The candidate that was probably meant, if one is near enough: at most a third of the letters differ, or one is the
/// beginning of the other.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = folded(word);
    let bound = (word.chars().count() / 3).max(1);
    let near = |candidate: &'c str| {
        let distance = distance(&word, &folded(candidate));
        // A word is not like one that shares no letter with it, however short both are.
        (distance <= bound && distance < candidate.chars().count()).then_some((distance, candidate))
    };
    let nearest =
        candidates.into_iter().take(CANDIDATES_COUNT_MAX).filter_map(near).min_by_key(|(distance, _)| *distance);
    nearest.map(|(_, candidate)| candidate)
}

fn distance(word: &str, candidate: &str) -> usize {
    let begins = |long: &str, short: &str| short.len() >= 3 && long.starts_with(short);
    if word != candidate && (begins(word, candidate) || begins(candidate, word)) {
        return 1;
    }
    strsim::osa_distance(word, candidate)
}

/// Case and `-` against `_` make no difference.
fn folded(word: &str) -> String {
    word.chars().take(64).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// `did you mean X?`, or nothing.
pub fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map(|near| format!("did you mean {near}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_leaves_strangers_alone() {
        let keys = ["read_timeout", "write_timeout", "port", "host", "path"];
        assert_eq!(nearest("read_timout", keys), Some("read_timeout"));
        assert_eq!(nearest("Read-Timeout", keys), Some("read_timeout"));
        assert_eq!(nearest("read", keys), Some("read_timeout"));
        assert_eq!(nearest("paths", keys), Some("path"));
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("certificate", keys), None);
        assert_eq!(nearest("x", ["a"]), None);
        assert_eq!(nearest("", keys), None);
    }
}
