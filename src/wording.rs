//! Parts of sentences that messages share.

/// A number with its noun: `counted(1, "pass", "passes")` is "1 pass", `counted(2, "pass", "passes")` "2 passes".
pub fn counted(number: usize, one: &str, several: &str) -> String {
    let noun = if number == 1 { one } else { several };
    format!("{number} {noun}")
}

/// The most characters of a prompt that a message quotes.
const MOST_QUOTED: usize = 80;

/// The beginning of a prompt for a message: at most 80 characters, with `…` if the prompt is longer.
pub fn excerpt(prompt: &str) -> String {
    match prompt.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", prompt[..end].trim_end()),
        None => prompt.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_their_nouns_and_long_prompts_are_cut() {
        assert_eq!(counted(1, "pass", "passes"), "1 pass");
        assert_eq!(counted(0, "pass", "passes"), "0 passes");
        assert_eq!(excerpt("a cat"), "a cat");
        assert_eq!(excerpt(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(excerpt(&"é".repeat(81)), "é".repeat(80) + "…");
    }
}
