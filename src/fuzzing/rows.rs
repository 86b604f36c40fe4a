//! Fuzz targets for exported rows: one file at a time, with the records of the seed.
use std::path::Path;

use super::file;
use crate::export::{Reader, RowFileReader};

pub(super) fn npy(bytes: &[u8]) -> bool {
    let _ = crate::export::npy::parse(bytes, bytes.len() as u64);
    beside("npy/0000.jsonl", "jsonl");
    read(&file("npy/0000.npy", bytes))
}

pub(super) fn safetensors(bytes: &[u8]) -> bool {
    beside("safetensors/0000.jsonl", "jsonl");
    read(&file("safetensors/0000.safetensors", bytes))
}

pub(super) fn parquet(bytes: &[u8]) -> bool {
    read(&file("parquet/0000.parquet", bytes))
}

pub(super) fn jsonl(bytes: &[u8]) -> bool {
    file("jsonl/0000.jsonl", bytes);
    read(&beside("jsonl/0000.npy", "npy"))
}

/// A valid file to go with the one under test, written once.
fn beside(name: &str, seed: &str) -> std::path::PathBuf {
    let path = super::folder().join(name);
    if path.exists() { path } else { file(name, &super::seeds(seed)[0]) }
}

/// Reads all rows in every possible way. Returns whether all could be read.
fn read(path: &Path) -> bool {
    let all = |reader: crate::error::Result<Reader>| {
        reader.is_ok_and(|reader| {
            reader.layout();
            reader.rows();
            reader.into_iter().all(|row| row.is_ok())
        })
    };
    let whole = path.parent().is_some_and(|folder| all(Reader::open(folder))) && all(Reader::file(path));
    let Ok(stored) = RowFileReader::open(path) else { return false };
    let dim = stored.dim();
    let rows = stored.for_each_row(|_, row| {
        assert_eq!(row.len(), dim, "a row of another length");
        Ok(())
    });
    let last = stored.rows().saturating_sub(1);
    let records = stored.records(&[0, 1, last.max(2)]).is_ok() && stored.records(&[0]).is_ok();
    stored.row(last / 2).is_ok() && rows.is_ok() && records && whole
}
