//! Fuzz targets for the files of a run folder, and for arbitrary latents.
use std::path::Path;

use ndarray::Array2;

use super::{file, folder, seeds};
use crate::frame::Timestamp;
use crate::head::Scratch;
use crate::learner::Learner;
use crate::pipeline::run_dir::RunManifest;
use crate::pipeline::run_state;
use crate::sampling::Sample;

pub(super) fn head(bytes: &[u8]) -> bool {
    let path = file("head/heads/0001.safetensors", bytes);
    let newest = crate::checkpoint::newest_head(&folder().join("head"), &seeds::owner_of_head());
    let Ok(read) = crate::checkpoint::load_head(&path) else { return false };
    let mut embedding = vec![0.0; read.head.dim_out()];
    read.head.embed(&vec![0.1; read.head.latent_dim()], &mut embedding, &mut Scratch::default());
    if let Some(scatter) = &read.scatter {
        // Numbers that no stream produces may have no fit.
        let _ = scatter.fit(4, 0.2);
    }
    crate::spaces::space_of("encoder", "card", &read.head);
    newest.is_ok()
}

pub(super) fn map(bytes: &[u8]) -> bool {
    let Ok(read) = crate::checkpoint::load_map(&file("map/maps/0002.safetensors", bytes)) else { return false };
    let rows = Array2::from_elem((2, read.map.matrix.nrows()), 0.1f32);
    read.map.apply(rows.view()).is_ok()
}

pub(super) fn state(bytes: &[u8]) -> bool {
    file("state/state.safetensors", bytes);
    let run = folder().join("state");
    run_state::states(&run, None);
    let mut learner = seeds::learner();
    let Ok((Some(_), _)) = run_state::restore(&run, &seeds::owner_of_state(), &mut learner) else { return false };
    // An accepted state must allow further learning and saving.
    let went_on = (0..40).try_for_each(|i| learner.learn(&seeds::sample(100_000 + i)).map(|_| ()));
    let _ = went_on.and_then(|()| learner.finish(100_040).map(|_| ()));
    true
}

pub(super) fn journal(bytes: &[u8]) -> bool {
    use crate::journal::{Journal, for_each, read};
    file("journal/journal.jsonl", bytes);
    let run = folder().join("journal");
    let whole = for_each(&run, |_| ()).is_ok_and(|tally| tally.bad == 0) && read(&run).is_ok();
    if let Ok(mut journal) = Journal::open(&run, 1.0) {
        // A disk that fills meanwhile is not the fault of the bytes.
        let _ = journal.go_on(50, true);
        journal.write("test", serde_json::json!({ "a": 1 })).unwrap();
    }
    whole
}

pub(super) fn run_json(bytes: &[u8]) -> bool {
    file("run/run.json", bytes);
    let Ok(run) = RunManifest::load(&folder().join("run")) else { return false };
    let origin = run.origin();
    origin.shape();
    origin.pooled_dim();
    origin.ranges();
    run.merged();
    run.same_origin(Path::new("run"), &origin).is_ok() && run.config_hash().is_ok()
}

/// Latents with arbitrary bits, 20 bytes per sample: an encoder may return infinities, and a clock may jump.
pub(super) fn latents(bytes: &[u8]) -> bool {
    let mut learner: Learner = seeds::learner_of(4);
    for (i, sample) in bytes.chunks_exact(20).take(300).enumerate() {
        let (numbers, rest) = sample.split_at(16);
        let latent = numbers.chunks_exact(4).map(|four| f32::from_bits(u32::from_le_bytes(four.try_into().unwrap())));
        let near = i64::from(rest[0].cast_signed()) * 10_000_000 + i as i64 * 100_000_000;
        let stamp = match rest[3] {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => 0,
            252 => -near,
            _ => near,
        };
        let sample = Sample {
            camera: u16::from(rest[2] % 3),
            index: i as u64,
            stamp: Timestamp(stamp),
            segment: i as u64 / (1 + u64::from(rest[1] % 30)),
            latent: latent.collect(),
            ..Sample::default()
        };
        if learner.learn(&sample).is_err() {
            return false;
        }
    }
    learner.finish(300).is_ok()
}
