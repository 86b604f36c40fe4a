//! Stores whatever grows with the stream as arrays, one column per field: the checkpoint's header holds only names and
//! shapes.
use crate::error::Result;
use crate::gate::{HoldoutBlock, HoldoutState};
use crate::sampling::{BlockBuilderState, OpenBlockState, ReplayBlockState, ReplayState, ViewBufferState};
use crate::state_dict::{LoadedTensors, Scalar, StateDict};

/// Placeholder for "none" in a column of block numbers; a second column marks which entries are none.
const NONE: u64 = 0;

/// Adds a column for each of `fields` under `prefix`.
macro_rules! put {
    ($contents:expr, $prefix:expr, $rows:expr, $($name:literal: $field:expr),* $(,)?) => {
        $($contents.list(format!("{}.{}", $prefix, $name), $rows.iter().map($field).collect());)*
    };
}

/// Moves the replay buffer's blocks, neighbours, free rows and frames with views out of `state`.
pub(super) fn put_replay(contents: &mut StateDict<'_>, state: &mut ReplayState) {
    put_stored(contents, "replay.fresh", &std::mem::take(&mut state.fresh));
    put_stored(contents, "replay.long", &std::mem::take(&mut state.long));
    let nearest = std::mem::take(&mut state.nearest);
    put!(contents, "replay.nearest", nearest,
        "cosines": |n| n.0, "of": |n| n.1.unwrap_or(NONE), "known": |n| u8::from(n.1.is_some()));
    contents.list("replay.free", std::mem::take(&mut state.free));
    let frames = std::mem::take(&mut state.viewed.frames);
    put!(contents, "replay.viewed", frames,
        "blocks": |f| f.0, "cameras": |f| f.1, "segments": |f| f.2, "stamps": |f| f.3);
}

/// The inverse of [`put_replay`].
pub(super) fn take_replay(stored: &mut LoadedTensors, state: &mut ReplayState) -> Result<()> {
    state.fresh = take_stored(stored, "replay.fresh")?;
    state.long = take_stored(stored, "replay.long")?;
    let cosines: Vec<u32> = stored.take_list("replay.nearest.cosines")?;
    let of: Vec<u64> = column(stored, "replay.nearest", "of", cosines.len())?;
    let known: Vec<u8> = column(stored, "replay.nearest", "known", cosines.len())?;
    let of = of.into_iter().zip(known).map(|(of, known)| (known > 0).then_some(of));
    state.nearest = cosines.into_iter().zip(of).collect();
    state.free = stored.take_list("replay.free")?;
    let prefix = "replay.viewed";
    let blocks: Vec<u64> = stored.take_list("replay.viewed.blocks")?;
    let n = blocks.len();
    let (cameras, segments) = (column(stored, prefix, "cameras", n)?, column(stored, prefix, "segments", n)?);
    let stamps: Vec<i64> = column(stored, prefix, "stamps", n)?;
    let rows = blocks.into_iter().zip(cameras).zip(segments).zip(stamps);
    let frames = rows.map(|(((block, camera), segment), stamp)| (block, camera, segment, stamp)).collect();
    state.viewed = ViewBufferState { frames, next: state.viewed.next };
    Ok(())
}

fn put_stored(contents: &mut StateDict<'_>, prefix: &str, blocks: &[ReplayBlockState]) {
    put!(contents, prefix, blocks,
        "priorities": |b| b.priority, "numbers": |b| b.number, "cameras": |b| b.camera, "segments": |b| b.segment,
        "uses": |b| b.uses.0, "turns": |b| b.uses.1, "lengths": |b| b.slots.len() as u32);
    let stamps = blocks.iter().flat_map(|b| b.stamps.iter().copied());
    contents.list(format!("{prefix}.stamps"), stamps.collect());
    contents.list(format!("{prefix}.slots"), blocks.iter().flat_map(|b| b.slots.iter().copied()).collect());
}

fn take_stored(stored: &mut LoadedTensors, prefix: &str) -> Result<Vec<ReplayBlockState>> {
    let lengths: Vec<u32> = stored.take_list(&format!("{prefix}.lengths"))?;
    let n = lengths.len();
    let (priorities, numbers): (Vec<u64>, Vec<u64>) =
        (column(stored, prefix, "priorities", n)?, column(stored, prefix, "numbers", n)?);
    let (cameras, segments): (Vec<u16>, Vec<u64>) =
        (column(stored, prefix, "cameras", n)?, column(stored, prefix, "segments", n)?);
    let (uses, turns): (Vec<u32>, Vec<u32>) = (column(stored, prefix, "uses", n)?, column(stored, prefix, "turns", n)?);
    let (stamps, slots) = (parts(stored, prefix, "stamps", &lengths)?, parts(stored, prefix, "slots", &lengths)?);
    let block = |(i, (stamps, slots))| ReplayBlockState {
        priority: priorities[i],
        number: numbers[i],
        camera: cameras[i],
        segment: segments[i],
        uses: (uses[i], turns[i]),
        stamps,
        slots,
    };
    Ok(stamps.into_iter().zip(slots).enumerate().map(block).collect())
}

/// Moves the held-out blocks out of `state`.
pub(super) fn put_held(contents: &mut StateDict<'_>, prefix: &str, state: &mut HoldoutState) {
    let blocks = std::mem::take(&mut state.blocks);
    put!(contents, prefix, blocks,
        "cameras": |b| b.camera, "numbers": |b| b.number, "segments": |b| b.segment,
        "lengths": |b| b.stamps.len() as u32);
    contents.list(format!("{prefix}.index"), blocks.iter().flat_map(|b| b.index.iter().copied()).collect());
    contents.list(format!("{prefix}.stamps"), blocks.iter().flat_map(|b| b.stamps.iter().copied()).collect());
}

/// The inverse of [`put_held`].
pub(super) fn take_held(stored: &mut LoadedTensors, prefix: &str, state: &mut HoldoutState) -> Result<()> {
    let lengths: Vec<u32> = stored.take_list(&format!("{prefix}.lengths"))?;
    let n = lengths.len();
    let cameras: Vec<u16> = column(stored, prefix, "cameras", n)?;
    let (numbers, segments): (Vec<u64>, Vec<u64>) =
        (column(stored, prefix, "numbers", n)?, column(stored, prefix, "segments", n)?);
    let (index, stamps) = (parts(stored, prefix, "index", &lengths)?, parts(stored, prefix, "stamps", &lengths)?);
    let block = |(i, (index, stamps))| HoldoutBlock {
        camera: cameras[i],
        number: numbers[i],
        segment: segments[i],
        index,
        stamps,
    };
    state.blocks = index.into_iter().zip(stamps).enumerate().map(block).collect();
    Ok(())
}

/// Moves the frames of the open blocks out of `state`; the number of frames in each block comes first.
pub(super) fn put_open(contents: &mut StateDict<'_>, state: &mut BlockBuilderState) {
    let (mut lengths, mut viewed) = (Vec::new(), Vec::new());
    let (mut index, mut stamps, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for open in open(state) {
        lengths.push(open.index.len() as u32);
        viewed.push(open.views.len() as u32);
        index.append(&mut open.index);
        stamps.append(&mut open.stamps);
        views.append(&mut open.views);
    }
    contents.list("open.lengths", lengths);
    contents.list("open.viewed", viewed);
    contents.list("open.index", index);
    contents.list("open.stamps", stamps);
    contents.list("open.views", views);
}

/// The inverse of [`put_open`].
pub(super) fn take_open(stored: &mut LoadedTensors, state: &mut BlockBuilderState) -> Result<()> {
    let blocks = open(state).count();
    let lengths: Vec<u32> = column(stored, "open", "lengths", blocks)?;
    let viewed: Vec<u32> = column(stored, "open", "viewed", blocks)?;
    let index = parts(stored, "open", "index", &lengths)?;
    let stamps = parts(stored, "open", "stamps", &lengths)?;
    let views = parts(stored, "open", "views", &viewed)?;
    for (open, ((index, stamps), views)) in open(state).zip(index.into_iter().zip(stamps).zip(views)) {
        (open.index, open.stamps, open.views) = (index, stamps, views);
    }
    Ok(())
}

fn open(state: &mut BlockBuilderState) -> impl Iterator<Item = &mut OpenBlockState> {
    state.cameras.iter_mut().flat_map(|(_, _, before, open)| before.iter_mut().chain(open))
}

/// The column `prefix.name`, which must have `n` rows.
fn column<T: Scalar>(stored: &mut LoadedTensors, prefix: &str, name: &str, n: usize) -> Result<Vec<T>> {
    stored.take(&format!("{prefix}.{name}"), &[n])
}

/// The list `prefix.name`, split into parts of these lengths, which must add up to the whole.
fn parts<T: Scalar>(stored: &mut LoadedTensors, prefix: &str, name: &str, lengths: &[u32]) -> Result<Vec<Vec<T>>> {
    let total = lengths.iter().map(|&n| n as usize).sum();
    let all: Vec<T> = column(stored, prefix, name, total)?;
    let mut rest = all.as_slice();
    let part = |&n: &u32| {
        let (part, others) = rest.split_at(n as usize);
        rest = others;
        part.to_vec()
    };
    Ok(lengths.iter().map(part).collect())
}
