//! Why a run ends: the error of the thread that failed first. Later errors only follow from it.
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// The first error of any thread.
#[derive(Debug, Default)]
pub(super) struct FirstFault(Mutex<Option<Error>>);

/// An error that [`FirstFault`] knows.
#[derive(Debug)]
pub(super) struct Noted;

impl FirstFault {
    /// Keeps the error of `result` if it is the first.
    pub(super) fn note<T>(&self, result: Result<T>) -> std::result::Result<T, Noted> {
        result.map_err(|error| {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            Noted
        })
    }

    /// Takes the first error.
    ///
    /// # Errors
    /// That error, if there was one.
    pub(super) fn result(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_first_error_is_the_reason_whoever_is_asked_first() {
        let first = FirstFault::default();
        assert_eq!(first.note(Ok(7)).unwrap(), 7);
        first.note::<()>(Err(Error::runtime("read-only file system"))).unwrap_err();
        first.note::<()>(Err(Error::runtime("the export thread has ended"))).unwrap_err();
        assert_eq!(first.result().unwrap_err().to_string(), "read-only file system");
    }
}
