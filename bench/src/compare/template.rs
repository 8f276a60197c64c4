//! Configurations of the compared programs: files with `{{name}}` where a run differs from the next.
//!
//! Owns filling in. Never writes a file.

use crate::error::{Error, Result};

/// Fills in every `{{name}}`.
///
/// # Errors
/// When the template names a value that there is none of, or ends within a name.
pub fn fill(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) =
            after.split_once("}}").ok_or_else(|| Error::Failed("a template with `{{` and no `}}`".into()))?;
        text.push_str(before);
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => text.push_str(value),
            // The comment that explains the notation.
            None if name == "name" => text.push_str("{{name}}"),
            None => return Err(Error::Failed(format!("a template asks for `{name}`, which is not known"))),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in() {
        let values = [("port", "80".to_owned()), ("dir", "/x".to_owned())];
        assert_eq!(fill("a {{port}}{{dir}} b", &values).unwrap(), "a 80/x b");
        assert!(fill("{{prot}}", &values).is_err());
        assert!(fill("{{port", &values).is_err());
    }
}
