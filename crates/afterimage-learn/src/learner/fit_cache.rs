//! Fits that several learners share.
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};

use super::candidates::FitOptions;
use crate::head::{ScatterStats, SfaFit};

/// Fits that are kept: a trial has one or two sets of statistics, each with a few recipes.
const KEPT: usize = 12;

/// Memory of the latest fits, for learners that go through the same stream: their statistics are the same to the bit,
/// whatever they train by gradient steps, and so are the fits. Nothing that is learned depends on it.
#[derive(Debug, Clone, Default)]
pub struct SharedFitCache(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    key: Key,
    fit: Arc<SfaFit>,
}

/// What a fit depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Key {
    /// Of the statistics.
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

    /// Keeps a fit; the oldest goes where there are many.
    pub(super) fn keep(&self, key: Key, fit: &Arc<SfaFit>) {
        if let Ok(mut kept) = self.0.lock() {
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(Entry { key, fit: fit.clone() });
        }
    }
}

/// A number for statistics, to the bit.
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
