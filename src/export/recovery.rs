//! Recovers the complete rows of a file that was open when its run was killed.
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::npy::{self, Shape};
use super::reader::{MAX_TEXT_BYTES, parse};
use super::{Format, RECORDS, Record, next_number, safetensors};
use crate::error::{Error, Result};
use crate::files;

/// What was recovered from the open file of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Complete rows, which now have their own file.
    pub rows: u64,
    /// Why files could not be used, one line each.
    pub lost: Vec<String>,
}

/// Completes the file that a run had open in `folder`, keeping its complete rows, and names each row `column`. Such a
/// file is written front to back without syncing, so after a power loss its end may be missing or zero. A Parquet file
/// cannot be read without its end and is reported as lost. [`super::discard_from`] removes what is left. Does nothing
/// if the folder does not exist.
///
/// # Errors
/// The I/O error, with the path.
pub fn recover(folder: &Path, column: &'static str) -> Result<Recovered> {
    let mut found = Recovered::default();
    if !folder.is_dir() {
        return Ok(found);
    }
    let number = next_number(folder)?;
    for format in Format::ALL {
        let path = folder.join(files::numbered_name(number, format.end()));
        let partial = files::partial(&path)?;
        let Some(file) = there(&partial)? else { continue };
        if format == Format::Parquet {
            let bytes = file.metadata().map_err(|error| Error::io("cannot read", &partial, error))?.len();
            found.lost.push(format!(
                "{}: {bytes} bytes of rows that the run had not closed when it was killed are lost: Parquet has its index at \
                 its end. export.format = \"npy\" keeps such rows, a smaller export.rotate_megabytes loses fewer",
                path.display()
            ));
            continue;
        }
        let open = OpenFile { rows_partial: partial, rows: path.clone(), records: path.with_extension(RECORDS) };
        match open.close(file, format, column)? {
            Some(rows) => found.rows += rows,
            None => {
                found.lost.push(format!("{}: the rows that it held are lost, its header is damaged", path.display()))
            }
        }
    }
    Ok(found)
}

/// A pair of files that was being written.
struct OpenFile {
    rows_partial: PathBuf,
    rows: PathBuf,
    records: PathBuf,
}

impl OpenFile {
    /// Truncates both files after the last row that is complete in both and gives them their names, as
    /// `SidecarFile::close` does. Returns the number of rows, or `None` if the header is damaged.
    fn close(&self, mut file: File, format: Format, column: &'static str) -> Result<Option<u64>> {
        let failed = |error| Error::io("cannot recover the rows of", &self.rows, error);
        // The run was killed between the two renames: the records already have their final name.
        let partial = files::partial(&self.records)?;
        let records = if partial.exists() { partial } else { self.records.clone() };
        let Some(records_file) = there(&records)? else { return Ok(Some(0)) };
        let Some((shape, begin)) = self.heading(&mut file, format)? else { return Ok(None) };
        let (first, ends) = lines(&records_file).map_err(failed)?;
        file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let rows = whole_rows(&file, shape.dim * shape.dtype.bytes(), ends.len()).map_err(failed)?;
        let (Some(first), Some(end)) = (first, rows.checked_sub(1).and_then(|last| ends.get(last))) else {
            return Ok(Some(0));
        };
        let shape = Shape { rows: rows as u64, ..shape };
        let header = match format {
            Format::Safetensors => safetensors::Heading::new(column, &first).bytes(shape),
            Format::Npy | Format::Parquet => npy::header(shape).to_vec(),
        };
        if header.len() as u64 != begin {
            return Ok(None);
        }
        records_file.set_len(*end).map_err(failed)?;
        file.set_len(begin + shape.rows * (shape.dim * shape.dtype.bytes()) as u64).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(&header).map_err(failed)?;
        records_file.sync_all().map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&records, &self.records).map_err(failed)?;
        fs::rename(&self.rows_partial, &self.rows).map_err(failed)?;
        files::sync_folder(files::folder_of(&self.rows))?;
        Ok(Some(shape.rows))
    }

    /// The shape in the header, whether or not the number of rows was filled in, and the offset of the rows; `None` if
    /// the header is damaged.
    fn heading(&self, file: &mut File, format: Format) -> Result<Option<(Shape, u64)>> {
        let failed = |error| Error::io("cannot recover the rows of", &self.rows, error);
        let size = file.metadata().map_err(failed)?.len();
        let mut start = Vec::new();
        Read::take(&mut *file, MAX_TEXT_BYTES).read_to_end(&mut start).map_err(failed)?;
        let unfilled = match format {
            Format::Safetensors => {
                start.first_chunk().map_or(0, |length| u64::from_le_bytes(*length).saturating_add(8))
            }
            Format::Npy | Format::Parquet => npy::HEADER_BYTES as u64,
        };
        Ok(parse(&self.rows, &start, unfilled).or_else(|_| parse(&self.rows, &start, size)).ok())
    }
}

/// Opens the file at `path`; `None` if there is none. Failing to open it is an error: otherwise it would count as a
/// leftover and be removed with its rows.
fn there(path: &Path) -> Result<Option<File>> {
    match files::open_to_write(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link, a pipe or a folder is not one of our files.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(Error::unreadable(path, error)),
    }
}

/// The first complete record, and the end offset of each complete record from the start of the file.
fn lines(file: &File) -> io::Result<(Option<Record>, Vec<u64>)> {
    let mut lines = BufReader::new(file);
    let (mut first, mut ends, mut line, mut end) = (None, Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        end += lines.by_ref().take(MAX_TEXT_BYTES).read_until(b'\n', &mut line)? as u64;
        let Ok(record) = serde_json::from_slice::<Record>(&line) else { break };
        if !line.ends_with(b"\n") {
            break;
        }
        first.get_or_insert(record);
        ends.push(end);
    }
    Ok((first, ends))
}

/// Counts the complete rows of `bytes` bytes each, up to `most`. A power loss leaves zeros: no embedding is all zeros,
/// and a last row that ends with a zero may be incomplete.
fn whole_rows(file: &File, bytes: usize, most: usize) -> io::Result<usize> {
    let mut rows = BufReader::new(file);
    let mut row = vec![0; bytes];
    let (mut whole, mut sure) = (0, 0);
    while whole < most {
        match rows.read_exact(&mut row) {
            Ok(()) if row.iter().all(|byte| *byte == 0) => break,
            Ok(()) => whole += 1,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        if row.iter().rev().take(2).any(|byte| *byte != 0) {
            sure = whole;
        }
    }
    Ok(sure)
}
