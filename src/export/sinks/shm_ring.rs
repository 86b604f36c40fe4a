//! A ring buffer in shared memory for readers on the same machine. There can be any number of them, and the writer does
//! not know about them.
//!
//! The file (in `/dev/shm`, so that it never touches a disk) has a header of 64 bytes and `slots` slots. Numbers are
//! little-endian, aligned, and written in this order, so that a reader can tell whether its copy is complete:
//!
//! | bytes of the file | type | what |
//! |---|---|---|
//! | 0..8 | text | `AFRING01` |
//! | 8..12 | u32 | bytes per slot, including its 16-byte header |
//! | 12..16 | u32 | number of slots |
//! | 16..24 | u64 | messages written so far |
//! | 24..32 | u64 | 1 once the writer has ended: look for a new file of this name |
//!
//! | bytes of slot `n % slots` | type | what |
//! |---|---|---|
//! | 0..8 | u64 | `2 n + 1` while message `n` is being written, `2 n + 2` when it is complete |
//! | 8..12 | u32 | length of the message |
//! | 16.. | | the message |
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{Mmap, MmapMut};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::files;

const MAGIC: [u8; 8] = *b"AFRING01";
const HEADER_BYTES: usize = 64;
const SLOT_HEAD_BYTES: usize = 16;
const WRITTEN: usize = 16;
const CLOSED: usize = 24;

/// Counters of the ring writer.
#[derive(Debug, Default)]
pub struct RingCounts {
    /// Messages written to a slot.
    pub written: AtomicU64,
    /// Messages too long for a slot.
    pub too_long: AtomicU64,
}

/// The only writer of a ring.
#[derive(Debug)]
pub struct RingWriter {
    map: MmapMut,
    path: PathBuf,
    /// Locked while open, so that no other process takes over the ring.
    file: File,
    slot_bytes: usize,
    slots: usize,
    written: u64,
    counts: Arc<RingCounts>,
}

impl RingWriter {
    /// Creates the file under a temporary name, then renames it. Replaces a ring left behind by a killed program, and
    /// marks that one as closed for readers that still have it open.
    /// # Errors
    /// Another process writes the ring; something else has the name; there is no room; or another I/O error, with the
    /// path.
    pub fn create(path: &Path, slot_bytes: usize, slots: usize) -> Result<Self> {
        let slot_bytes = slot_bytes.next_multiple_of(64).max(64);
        let mut header = [0; HEADER_BYTES];
        header[0..8].copy_from_slice(&MAGIC);
        let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        header[8..12].copy_from_slice(&word(slot_bytes));
        header[12..16].copy_from_slice(&word(slots));
        let failed = |error| Error::io("cannot make the ring", path, error);
        let mut new = files::temporary(path).map_err(failed)?;
        let make = |file: &mut File| {
            file.set_permissions(Permissions::from_mode(0o640))?;
            // Write the whole file instead of only extending it: a page without memory behind it would kill the process
            // later.
            file.write_all(&header)?;
            let zeros = vec![0; slot_bytes];
            (0..slots).try_for_each(|_| file.write_all(&zeros))
        };
        make(new.as_file_mut()).map_err(failed)?;
        files::lock(new.as_file(), path)?;
        let file = put(new, path)?;
        let map = map(&file).map_err(failed)?;
        Ok(Self { map, path: path.to_owned(), file, slot_bytes, slots, written: 0, counts: Arc::default() })
    }

    /// Writes the next message over the oldest one. Never blocks. Counts a message that is longer than a slot and skips
    /// its number.
    pub fn push(&mut self, message: &[u8]) {
        let n = self.written;
        let at = HEADER_BYTES + (n % self.slots as u64) as usize * self.slot_bytes;
        self.written += 1;
        if message.len() > self.slot_bytes - SLOT_HEAD_BYTES {
            if self.too_long() == 0 {
                tracing::warn!(
                    "a message of {} bytes does not fit the slots of the ring {}; raise stream.ring_slot_kilobytes",
                    message.len(),
                    self.path.display()
                );
            }
            self.counts.too_long.fetch_add(1, Ordering::Relaxed);
        } else {
            self.number(at).store(2 * n + 1, Ordering::Relaxed);
            fence(Ordering::Release);
            let body = &mut self.map[at + 8..];
            body[..4].copy_from_slice(&(message.len() as u32).to_le_bytes());
            body[8..8 + message.len()].copy_from_slice(message);
            self.number(at).store(2 * n + 2, Ordering::Release);
            self.counts.written.fetch_add(1, Ordering::Relaxed);
        }
        self.number(WRITTEN).store(self.written, Ordering::Release);
    }

    /// Messages too long for a slot.
    pub fn too_long(&self) -> u64 {
        self.counts.too_long.load(Ordering::Relaxed)
    }

    /// The counters, shared with the writer.
    pub fn counts(&self) -> &Arc<RingCounts> {
        &self.counts
    }

    fn number(&self, at: usize) -> &AtomicU64 {
        number(&self.map, at)
    }

    /// Ends the writer as SIGKILL would: releases the lock and does nothing else.
    #[cfg(test)]
    pub(super) fn killed(self) {
        self.file.unlock().ok();
        std::mem::forget(self);
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.number(CLOSED).store(1, Ordering::Release);
        // Leave a ring alone that another process has put there since.
        if is_at(&self.file, &self.path) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Attempts to create a ring while other processes do the same.
const ATTEMPTS: usize = 8;

/// Gives the new file its name, replacing a ring that has no writer any more.
fn put(mut new: NamedTempFile, path: &Path) -> Result<File> {
    let failed = |error| Error::io("cannot make the ring", path, error);
    for _ in 0..ATTEMPTS {
        let old = match files::open_to_write(path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match new.persist_noclobber(path) {
                Ok(file) => return Ok(file),
                Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                    new = refused.file;
                    continue;
                }
                Err(refused) => return Err(failed(refused.error)),
            },
            Err(error) => return Err(failed(error)),
        };
        let ring = map(&old).ok().filter(|old| old.len() >= HEADER_BYTES && old[0..8] == MAGIC);
        let Some(ring) = ring else {
            return Err(Error::runtime(format!(
                "stream.ring = {:?}: there is something else at that path; remove it, or take another",
                path.display().to_string()
            )));
        };
        files::lock(&old, path).map_err(|error| Error::runtime("stream.ring is taken").with_source(error))?;
        // The old file is locked and still has the name: other processes are refused until the new one, also locked,
        // replaces it.
        if is_at(&old, path) {
            let file = new.persist(path).map_err(|refused| failed(refused.error))?;
            number(&ring, CLOSED).store(1, Ordering::Release);
            return Ok(file);
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Whether the open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |meta: io::Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
    let own = of(file.metadata());
    own.is_some() && own == of(std::fs::symlink_metadata(path))
}

#[allow(unsafe_code, reason = "memory that other processes read too")]
fn map(file: &std::fs::File) -> std::io::Result<MmapMut> {
    // SAFETY: only this process writes the file, which is never truncated; others read it and expect it to change.
    unsafe { MmapMut::map_mut(file) }
}

/// The number at byte `at` (in bounds, and a multiple of 8) of shared memory, which another process may change.
#[allow(unsafe_code, reason = "memory that other processes read too")]
fn number(map: &[u8], at: usize) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= map.len(), "a number inside the ring");
    // SAFETY: `at` is inside the map and aligned (maps begin on a page), and everyone who shares the number accesses it
    // atomically. Read-only maps are only loaded from.
    unsafe { AtomicU64::from_ptr(map.as_ptr().add(at).cast_mut().cast()) }
}

/// The result of one read.
#[derive(Debug, Clone, PartialEq)]
pub enum RingRead {
    /// The next message, in the layout of the socket without the leading length, and the number of messages lost before
    /// it.
    Message(Vec<u8>, u64),
    /// There is no new message.
    Nothing,
    /// The writer has ended, and every message has been read.
    Closed,
}

/// A reader of a ring, one of any number.
#[derive(Debug)]
pub struct RingReader {
    map: Mmap,
    slot_bytes: usize,
    slots: u64,
    next: u64,
}

impl RingReader {
    /// Opens the ring, to read messages written from now on.
    /// # Errors
    /// There is no such file, or it is not a ring.
    #[allow(unsafe_code, reason = "memory that another process writes")]
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("cannot read the ring", path, error);
        let file = std::fs::File::open(path).map_err(failed)?;
        // SAFETY: the writer never truncates the file, and whatever it may change is checked after copying.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let no_ring = || Error::runtime(format!("{} is no ring of embeddings", path.display()));
        if map.len() < HEADER_BYTES || map[0..8] != MAGIC {
            return Err(no_ring());
        }
        let word = |at: usize| u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        let (slot_bytes, slots) = (word(8) as usize, u64::from(word(12)));
        if slot_bytes < 64 || slot_bytes % 64 != 0 || slots == 0 {
            return Err(no_ring());
        }
        if HEADER_BYTES as u64 + slot_bytes as u64 * slots != map.len() as u64 {
            return Err(no_ring());
        }
        let next = number(&map, WRITTEN).load(Ordering::Acquire);
        Ok(Self { map, slot_bytes, slots, next })
    }

    /// The next complete message. Never blocks.
    pub fn read(&mut self) -> RingRead {
        let closed = number(&self.map, CLOSED).load(Ordering::Acquire) != 0;
        let written = number(&self.map, WRITTEN).load(Ordering::Acquire);
        let mut lost = 0;
        while self.next < written {
            let oldest = written.saturating_sub(self.slots);
            lost += oldest.saturating_sub(self.next);
            let n = self.next.max(oldest);
            self.next = n + 1;
            if let Some(message) = self.copy(n) {
                return RingRead::Message(message, lost);
            }
            lost += 1;
        }
        if closed { RingRead::Closed } else { RingRead::Nothing }
    }

    /// A copy of message `n`; `None` if the writer overwrote it before or during the copy, or if it never fitted a
    /// slot.
    fn copy(&self, n: u64) -> Option<Vec<u8>> {
        let at = HEADER_BYTES + (n % self.slots) as usize * self.slot_bytes;
        let state = number(&self.map, at);
        if state.load(Ordering::Acquire) != 2 * n + 2 {
            return None;
        }
        let slot = &self.map[at + 8..at + self.slot_bytes];
        let length = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]) as usize;
        let message = slot[8..(8 + length).min(slot.len())].to_vec();
        fence(Ordering::Acquire);
        (state.load(Ordering::Relaxed) == 2 * n + 2).then_some(message)
    }
}
