//! A Parquet file while it is being written.
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::compact::{Struct, Value};
use super::schema::{self, Column};
use super::{DIM, MAGIC, chunk, records};
use crate::error::{Error, Result};
use crate::export::{Record, RowFormat};
use crate::files;

/// Always consists of complete row groups and a footer: each group overwrites the previous footer and is followed by a
/// new one. So closing needs no disk space, and a group that does not fit leaves the file as it was.
#[derive(Debug)]
pub(in crate::export) struct Sheet {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    columns: Vec<Column>,
    about: Vec<Value>,
    dim: usize,
    migrated: bool,
    rows: u64,
    groups: Vec<Value>,
    /// Offset of the next group: the end of the last one.
    end: u64,
    footer: Vec<u8>,
}

impl Sheet {
    pub(in crate::export) fn create(path: PathBuf, layout: RowFormat, dim: usize, first: &Record) -> Result<Self> {
        let partial = files::partial(&path)?;
        let migrated = first.migrated_from.is_some();
        let columns = schema::columns(layout.column, layout.dtype, dim, migrated);
        let pair = |key: &str, value: &str| Value::Struct(Struct::default().with(1, key.into()).with(2, value.into()));
        let mut about = vec![pair("ARROW:schema", &schema::arrow(&columns)), pair(DIM, &dim.to_string())];
        about.extend(first.common().iter().map(|(key, value)| pair(&format!("afterimage.{key}"), value)));
        let written = files::create_new(&partial).and_then(|mut file| file.write_all(MAGIC).map(|()| file));
        let file = written.map_err(|error| {
            files::remove_leftover(&partial);
            Error::io("cannot write", &path, error)
        })?;
        let (end, footer, groups) = (MAGIC.len() as u64, Vec::new(), Vec::new());
        Ok(Self { path, partial, file, columns, about, dim, migrated, rows: 0, groups, end, footer })
    }

    pub(in crate::export) fn dim(&self) -> usize {
        self.dim
    }

    pub(in crate::export) fn rows(&self) -> u64 {
        self.rows
    }

    pub(in crate::export) fn bytes(&self) -> u64 {
        self.end + self.footer.len() as u64
    }

    /// Appends a row group, or nothing on an error.
    pub(in crate::export) fn append(&mut self, rows: &[u8], of: &[Record]) -> Result<()> {
        if of.is_empty() {
            return Ok(());
        }
        let (mut group, mut chunks) = (Vec::with_capacity(rows.len() + (1 << 16)), Vec::new());
        for (column, cells) in self.columns.iter().zip(records::cells(of, rows, self.migrated)) {
            let begin = self.end + group.len() as u64;
            let said = chunk::write(&mut group, self.end, column, &cells);
            let chunk = Struct::default().with(2, Value::I64(begin as i64)).with(3, Value::Struct(said));
            chunks.push(Value::Struct(chunk));
        }
        let (size, count) = (Value::I64(group.len() as i64), Value::I64(of.len() as i64));
        let said = Struct::default().with(1, Value::List(chunks)).with(2, size.clone()).with(3, count);
        self.groups.push(Value::Struct(said.with(5, Value::I64(self.end as i64)).with(6, size)));
        let end = self.end + group.len() as u64;
        let footer = self.footer(self.rows + of.len() as u64);
        group.extend_from_slice(&footer);
        if let Err(error) = self.write(&group) {
            self.groups.pop();
            self.restore().map_err(|error| self.failed(error))?;
            return Err(self.failed(error));
        }
        (self.end, self.footer) = (end, footer);
        self.rows += of.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(bytes)
    }

    /// Restores the previous groups and their footer, whose space in the file is still allocated.
    fn restore(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes())?;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&self.footer)
    }

    fn footer(&self, rows: u64) -> Vec<u8> {
        let said = Struct::default()
            .with(1, Value::I32(1))
            .with(2, schema::elements(&self.columns))
            .with(3, Value::I64(rows as i64))
            .with(4, Value::List(self.groups.clone()))
            .with(5, Value::List(self.about.clone()))
            .with(6, concat!("afterimage version ", env!("CARGO_PKG_VERSION")).into());
        let mut footer = Vec::new();
        said.write(&mut footer);
        footer.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        footer.extend_from_slice(MAGIC);
        footer
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot write", &self.path, error)
    }

    /// Gives the file its final name, or removes it on an error.
    pub(in crate::export) fn close(self) -> Result<()> {
        let named = self.file.sync_all().and_then(|()| fs::rename(&self.partial, &self.path));
        let closed = named.map_err(|error| self.failed(error)).and_then(|()| files::sync_folder(self.folder()));
        if closed.is_err() {
            files::remove_leftover(&self.path);
            self.discard();
        }
        closed
    }

    fn folder(&self) -> &Path {
        files::folder_of(&self.path)
    }

    pub(in crate::export) fn discard(&self) {
        files::remove_leftover(&self.partial);
    }
}
