//! Converts records and rows to columns, and back.
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::Cells;
use super::runs::{self, Run};
use crate::export::{Granularity, Provenance, Record};

/// Number of columns for rows that were not migrated. Migrated rows have their original space as an extra column before
/// the last.
const COLUMNS: usize = 20;

/// The filled columns, in the order of [`super::schema::columns`]; `rows` holds the bytes of all numbers.
pub(super) fn cells(records: &[Record], rows: &[u8], migrated: bool) -> Vec<Cells> {
    let level = |record: &Record| match record.level {
        Granularity::Frame => "frame",
        Granularity::Grid => "grid",
        Granularity::Box => "box",
    };
    let maker =
        |record: &Record, of: fn(&Provenance) -> &Arc<str>| record.provenance.as_ref().map(|maker| of(maker).clone());
    let number = |of: fn(&Record) -> u64| numbers(records, |record| Some(of(record).to_le_bytes()));
    let mut all = vec![
        numbers(records, |record| Some(record.schema.to_le_bytes())),
        texts(records, |record| Some(record.camera.clone())),
        number(|record| record.frame),
        texts(records, |record| record.file.clone()),
        numbers(records, |record| Some(record.stamp_ns.to_le_bytes())),
        numbers(records, |record| record.wall_ns.map(i64::to_le_bytes)),
        number(|record| record.segment),
        texts(records, |record| Some(level(record).into())),
        texts(records, |record| Some(record.space.clone())),
        number(|record| record.head),
        texts(records, |record| maker(record, |maker| &maker.encoder)),
        texts(records, |record| maker(record, |maker| &maker.preparation)),
        texts(records, |record| record.learner.as_deref().map(Arc::from)),
        numbers(records, |record| record.novelty.map(f32::to_le_bytes)),
        truths(records),
        numbers(records, |record| {
            let mut sides = [0; 16];
            sides
                .chunks_exact_mut(4)
                .zip(record.window?)
                .for_each(|(to, side)| to.copy_from_slice(&side.to_le_bytes()));
            Some(sides)
        }),
        numbers(records, |record| record.track.map(i64::to_le_bytes)),
        numbers(records, |record| record.class.map(i64::to_le_bytes)),
        numbers(records, |record| record.score.map(f32::to_le_bytes)),
    ];
    if migrated {
        all.push(texts(records, |record| record.migrated_from.clone()));
    }
    all.push(Cells { present: vec![true; records.len()], bytes: rows.to_vec(), ..Cells::default() });
    all
}

/// The records in `cells`, and the bytes of all numbers. `None` if a text value is not valid in a record.
pub(super) fn records(mut cells: Vec<Cells>) -> Option<(Vec<Record>, Vec<u8>)> {
    let migrated = (cells.len() == COLUMNS + 1).then(|| cells.remove(COLUMNS - 1));
    let cells: [Cells; COLUMNS] = cells.try_into().ok()?;
    let [
        schema,
        camera,
        frame,
        file,
        stamp,
        wall,
        segment,
        level,
        space,
        head,
        encoder,
        preparation,
        learner,
        novelty,
        novel,
        sides,
        track,
        class,
        score,
        rows,
    ] = cells;
    let rows_there = rows.present.len();
    let mut schema = back::<4>(&schema);
    let (mut frame, mut stamp, mut wall, mut segment, mut head) =
        (back::<8>(&frame), back::<8>(&stamp), back::<8>(&wall), back::<8>(&segment), back::<8>(&head));
    let (mut camera, mut file, mut level, mut space) = (words(&camera), words(&file), words(&level), words(&space));
    let (mut encoder, mut preparation, mut learner) = (words(&encoder), words(&preparation), words(&learner));
    let (mut track, mut class, mut score) = (back::<8>(&track), back::<8>(&class), back::<4>(&score));
    let (mut novelty, mut sides) = (back::<4>(&novelty), back::<16>(&sides));
    let mut migrated = migrated.as_ref().map(words);
    let mut records = Vec::with_capacity(rows_there);
    for row in 0..rows_there {
        let maker = encoder.next()?.zip(preparation.next()?);
        let side = |all: [u8; 16], at: usize| all[at..at + 4].try_into().ok().map(i32::from_le_bytes);
        let window = sides.next()?;
        records.push(Record {
            schema: u32::from_le_bytes(schema.next()??),
            camera: camera.next()??,
            frame: u64::from_le_bytes(frame.next()??),
            file: file.next()?,
            stamp_ns: i64::from_le_bytes(stamp.next()??),
            wall_ns: wall.next()?.map(i64::from_le_bytes),
            segment: u64::from_le_bytes(segment.next()??),
            level: match &*level.next()?? {
                "frame" => Granularity::Frame,
                "grid" => Granularity::Grid,
                "box" => Granularity::Box,
                _ => return None,
            },
            space: space.next()??,
            head: u64::from_le_bytes(head.next()??),
            provenance: maker.map(|(encoder, preparation)| Provenance { encoder, preparation }),
            learner: learner.next()?.map(|word| Cow::Owned(word.to_string())),
            novelty: novelty.next()?.map(f32::from_le_bytes),
            track: track.next()?.map(i64::from_le_bytes),
            class: class.next()?.map(i64::from_le_bytes),
            score: score.next()?.map(f32::from_le_bytes),
            migrated_from: match &mut migrated {
                Some(migrated) => migrated.next()?,
                None => None,
            },
            novel: novel.bytes.get(row / 8)? >> (row % 8) & 1 == 1,
            window: match window {
                Some(all) => Some([side(all, 0)?, side(all, 4)?, side(all, 8)?, side(all, 12)?]),
                None => None,
            },
        });
    }
    Some((records, rows.bytes))
}

fn numbers<const N: usize>(records: &[Record], of: impl Fn(&Record) -> Option<[u8; N]>) -> Cells {
    let mut cells = Cells::default();
    for value in records.iter().map(of) {
        cells.present.push(value.is_some());
        cells.bytes.extend(value.into_iter().flatten());
    }
    cells
}

fn texts(records: &[Record], of: impl Fn(&Record) -> Option<Arc<str>>) -> Cells {
    let mut cells = Cells::default();
    let mut all: Vec<Run> = Vec::new();
    // Few entries for camera names, but one per row for file names.
    let mut known: HashMap<Arc<str>, u32> = HashMap::new();
    for word in records.iter().map(of) {
        cells.present.push(word.is_some());
        let Some(word) = word else { continue };
        let next = cells.entries.len() as u32;
        let at = *known.entry(word).or_insert_with_key(|word| {
            cells.entries.push(word.clone());
            next
        });
        all.push((at, 1));
    }
    cells.numbers = runs::joined(all);
    cells
}

fn truths(records: &[Record]) -> Cells {
    let mut bytes = vec![0; records.len().div_ceil(8)];
    for (row, record) in records.iter().enumerate() {
        bytes[row / 8] |= u8::from(record.novel) << (row % 8);
    }
    Cells { present: vec![true; records.len()], bytes, ..Cells::default() }
}

fn back<const N: usize>(cells: &Cells) -> impl Iterator<Item = Option<[u8; N]>> {
    let mut values = cells.bytes.chunks_exact(N).filter_map(|value| value.first_chunk().copied());
    cells.present.iter().map(move |there| if *there { values.next() } else { None })
}

fn words(cells: &Cells) -> impl Iterator<Item = Option<Arc<str>>> {
    let mut all =
        cells.numbers.iter().flat_map(|(number, count)| (0..*count).map(|_| cells.entries.get(*number as usize)));
    cells.present.iter().map(move |there| if *there { all.next().flatten().cloned() } else { None })
}
