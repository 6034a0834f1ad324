//! Files mapped into memory for the life of the process.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use memmap2::Mmap;

use crate::error::model;

/// The address ranges of all mapped files.
static MAPPED: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

/// Maps a file for the life of the process.
///
/// # Errors
/// When the file cannot be read, or is empty.
pub(super) fn map_file(path: &Path) -> Result<&'static [u8]> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("opening {shown}"))?;
    if file.metadata().map(|m| m.len()).unwrap_or(0) == 0 {
        return Err(model(format!(
            "{shown}: the file is empty, expected safetensors"
        )));
    }
    // SAFETY: the mapping is private and only read. Truncating the file while it is mapped would
    // cause a fault; checkpoints are written once under their final name.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.with_context(|| format!("mapping {shown}"))?;
    let bytes: &'static [u8] = Box::leak(Box::new(map));
    let mut mapped = MAPPED.lock().expect("nobody panics with it");
    mapped.push(addresses(bytes));
    Ok(bytes)
}

/// Removes bytes that have been read, and the rest of their pages, from the process's memory.
/// Reading them again loads them from the file. Bytes that do not belong to a mapped file stay.
pub(super) fn let_go(bytes: &[u8]) {
    let (own, page) = (addresses(bytes), rustix::param::page_size());
    let holds = |whole: &Range<usize>| whole.start <= own.start && own.end <= whole.end;
    let is_mapped = {
        let mapped = MAPPED.lock().expect("nobody panics with it");
        mapped.iter().any(holds)
    };
    if bytes.is_empty() || !is_mapped {
        return;
    }
    let start = own.start / page * page;
    // SAFETY: these are whole pages of a private mapping that was never written to, so they have
    // the content of the file before and after the call.
    #[allow(unsafe_code)]
    unsafe {
        // The call is advice: if it is not followed, the pages stay.
        libc::madvise(start as *mut _, own.end - start, libc::MADV_DONTNEED);
    }
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of the mapping at this address that are in memory, as Linux reports.
    #[cfg(target_os = "linux")]
    fn resident(bytes: &[u8]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        let own = format!("{:x}-", bytes.as_ptr() as usize);
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&own));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:"));
        let kilobytes = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
        kilobytes.expect("it is told").parse().expect("a number")
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_let_go_are_read_again() {
        let path = std::env::temp_dir().join(format!("oneactor-mapped-{}", std::process::id()));
        let written: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &written).expect("there is room");
        let bytes = map_file(&path).expect("just written");
        std::fs::remove_file(&path).expect("just written");
        assert_eq!(bytes, written);
        assert_eq!(resident(bytes), 1024);
        let page = rustix::param::page_size();
        let_go(&bytes[page + 1000..]);
        assert_eq!(resident(bytes), page / 1024, "the first page stays");
        assert_eq!(bytes, written);
    }

    #[test]
    fn what_is_no_mapped_file_stays() {
        let bytes = vec![7; 100_000];
        let_go(&bytes);
        assert!(bytes.iter().all(|&byte| byte == 7));
    }
}
