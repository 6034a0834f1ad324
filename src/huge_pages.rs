//! Memory of large tensors on the CPU.

/// libtorch's switch, which it reads at the first tensor.
const SWITCH: &str = "THP_MEM_ALLOC_ENABLE";

/// Asks libtorch to take huge pages for tensors of 2 MB and more, where Linux gives them on request. A
/// large tensor is new memory each time, and to fault it in by small pages costs more than an addition:
/// a twelfth of the time of decoding a picture of 512×512. What the user has set stays.
///
/// To be called first of all, while there is one thread.
pub fn ask_for_huge_pages() {
    if std::env::var_os(SWITCH).is_none() {
        // SAFETY: no other thread reads or writes the environment yet.
        #[allow(unsafe_code, reason = "libtorch has no other switch for this")]
        unsafe {
            std::env::set_var(SWITCH, "1");
        }
    }
}
