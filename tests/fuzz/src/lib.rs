//! Functions that several targets need.

/// The bytes with an unlimited lifetime, as the bytes of a mapped file have it.
///
/// # Safety
/// Nothing made from the result may outlive the input.
pub unsafe fn forever(bytes: &[u8]) -> &'static [u8] {
    // SAFETY: the caller promises this.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}

/// The most bytes of values in a file that [`safetensors`] makes. Nothing writes to them, so they
/// cost no memory.
const MOST: usize = 16 << 20;

/// A safetensors file with a tensor of zeros for each line `KEY SIZE …` of a text; the text after a
/// NUL becomes the metadata `lora_adapter_metadata`. A mutation of a key or a size so leaves the
/// file whole. `None` if the file would be too large.
pub fn safetensors(text: &str, dtype: &str, width: usize) -> Option<Vec<u8>> {
    let (lines, metadata) = text.split_once('\0').unwrap_or((text, ""));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let table = serde_json::json!({"lora_adapter_metadata": metadata});
        header.insert("__metadata__".to_owned(), table);
    }
    let mut end = 0usize;
    for line in lines.lines() {
        let mut words = line.split(' ');
        let key = words.next()?;
        let shape: Vec<usize> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        if header.contains_key(key) {
            continue;
        }
        // A size of 0 allows any other size beside it.
        let values = if shape.contains(&0) { 0 } else { shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side))? };
        let bytes = values.checked_mul(width)?;
        let tensor = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [end, end.checked_add(bytes)?],
        });
        end += bytes;
        if end > MOST {
            return None;
        }
        header.insert(key.to_owned(), tensor);
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = vec![0; 8 + json.len() + end];
    bytes[..8].copy_from_slice(&(json.len() as u64).to_le_bytes());
    bytes[8..8 + json.len()].copy_from_slice(&json);
    Some(bytes)
}
