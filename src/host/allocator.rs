//! Settings of the C library's allocator.

/// Blocks of at least this size are returned to the system when they are freed, bytes.
#[cfg(target_env = "gnu")]
const RETURNED_BYTES: libc::c_int = 8 << 20;

/// Returns large blocks of memory (the matrices of a fit) to the system as soon as they are freed. By default glibc starts
/// to keep them, for each thread separately: a hundred unused megabytes on a small board. Does nothing with other C
/// libraries.
#[cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "no safe interface to the allocator's settings"))]
pub fn return_large_blocks() {
    // SAFETY: takes numbers only, and may be called at any time. A refusal changes nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES);
    }
}
