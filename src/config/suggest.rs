//! The nearest known word to one that is not known.
//!
//! Owns what "near" means. Never guesses when nothing is near.

/// The candidate that was probably meant, if one is near enough: at most a third of the letters differ.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = folded(word);
    let bound = (word.chars().count() / 3).max(1);
    let distance = |candidate: &'c str| (strsim::osa_distance(&word, &folded(candidate)), candidate);
    // A word is not like one that shares no letter with it, however short both are.
    let near = |(distance, candidate): &(usize, &str)| *distance <= bound && *distance < candidate.chars().count();
    candidates.into_iter().map(distance).filter(near).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
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
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("certificate", keys), None);
        assert_eq!(nearest("x", ["a"]), None);
        assert_eq!(nearest("", keys), None);
    }
}
