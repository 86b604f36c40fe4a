//! One journal for several threads.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::Journal;
use crate::error::Result;

/// The open journal of a run, for all threads that write to it.
#[derive(Debug, Clone)]
pub struct SharedJournal(Arc<Mutex<Journal>>);

impl SharedJournal {
    /// Shares `journal` between threads.
    pub fn new(journal: Journal) -> Self {
        Self(Arc::new(Mutex::new(journal)))
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // A thread that panicked left only complete lines: lines are appended one by one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Journal::write`].
    ///
    /// # Errors
    /// Those of [`Journal::write`].
    pub fn write(&self, event: &str, fields: Value) -> Result<()> {
        self.lock().write(event, fields)
    }

    /// [`Journal::sync`], but other threads can write meanwhile: a slow disk delays only the caller.
    ///
    /// # Errors
    /// Those of [`Journal::sync`].
    pub fn sync(&self) -> Result<()> {
        let flushed = self.lock().flush_to_system()?;
        flushed.sync()
    }

    /// See [`Journal::waiting`].
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// See [`Journal::lost`].
    pub fn lost(&self) -> u64 {
        self.lock().lost()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::journal::read;

    #[test]
    fn lines_of_all_threads_are_whole_and_in_the_order_of_each() {
        let folder = tempfile::tempdir().unwrap();
        let journal = SharedJournal::new(Journal::open(folder.path(), 64.0).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let journal = journal.clone();
                scope.spawn(move || {
                    for number in 0..100 {
                        journal.write("line", json!({ "thread": thread, "number": number })).unwrap();
                        if number % 10 == 0 {
                            journal.sync().unwrap();
                        }
                    }
                });
            }
        });
        let lines = read(folder.path()).unwrap();
        assert_eq!((lines.len(), journal.waiting(), journal.lost()), (400, 0, 0));
        for thread in 0..4 {
            let numbers = lines.iter().filter(|line| line["thread"] == thread).map(|line| line["number"].as_u64());
            assert!(numbers.eq((0..100).map(Some)), "thread {thread}");
        }
    }
}
