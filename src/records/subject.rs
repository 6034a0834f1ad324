//! Base words as JSON: one word as a string, several as a list.

use serde_json::{Value, json};

/// The words as records and settings hold them.
pub fn to_value(words: &[String]) -> Value {
    match words {
        [word] => json!(word),
        words => json!(words),
    }
}

/// The words in a value; values of other types contain no words.
pub fn words_of(value: &Value) -> Vec<String> {
    let words = match value {
        Value::Array(words) => words.as_slice(),
        word => std::slice::from_ref(word),
    };
    let words = words.iter().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_from_their_value() {
        for words in [&["cat"][..], &["cat", "hut"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(words_of(&to_value(&words)), words);
        }
        assert_eq!(to_value(&["cat".to_owned()]), json!("cat"));
        assert!(words_of(&json!(7)).is_empty());
    }
}
