//! A cache of fits that several learners share.
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};

use super::candidates::FitOptions;
use crate::head::{ScatterStats, SfaFit};

/// Number of cached fits: a trial has one or two sets of statistics, each with a few sets of options.
const KEPT: usize = 12;

/// Caches the latest fits for learners that read the same stream. Their statistics are bit-identical whatever they
/// train by gradient steps, and so are the fits. The cache never affects what is learned.
#[derive(Debug, Clone, Default)]
pub struct SharedFitCache(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    key: Key,
    fit: Arc<SfaFit>,
}

/// Everything that a fit depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Key {
    /// Fingerprint of the statistics.
    pub(super) fingerprint: u64,
    pub(super) recipe: FitOptions,
    pub(super) keep: usize,
    pub(super) view_weight: f64,
}

impl SharedFitCache {
    pub(super) fn find(&self, key: Key) -> Option<Arc<SfaFit>> {
        let kept = self.0.lock().ok()?;
        kept.iter().find(|entry| entry.key == key).map(|entry| entry.fit.clone())
    }

    /// Adds a fit and drops the oldest if the cache is full.
    pub(super) fn keep(&self, key: Key, fit: &Arc<SfaFit>) {
        if let Ok(mut kept) = self.0.lock() {
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(Entry { key, fit: fit.clone() });
        }
    }
}

/// A hash of the statistics, exact to the bit.
pub(super) fn fingerprint(scatter: &ScatterStats) -> u64 {
    let parts = scatter.parts();
    let mut hasher = DefaultHasher::new();
    for count in [parts.frames, parts.pairs, parts.views] {
        hasher.write_u64(count);
    }
    for numbers in [parts.sum, parts.total, parts.within, parts.view] {
        numbers.iter().for_each(|x| hasher.write_u64(x.to_bits()));
    }
    hasher.finish()
}
