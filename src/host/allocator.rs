//! Settings of the C library's allocator.

/// Blocks of at least this many bytes go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const RETURNED_BYTES: libc::c_int = 8 << 20;

/// Makes the allocator return large blocks (the matrices of a fit) to the system as soon as they are freed. By default
/// glibc starts to keep them, separately for each thread: a hundred unused megabytes on a small board. Does nothing
/// with other C libraries.
#[cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "no safe interface to the allocator's settings"))]
pub fn return_large_blocks() {
    // SAFETY: takes only numbers and may be called at any time. If the allocator refuses, nothing changes.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES);
    }
}
