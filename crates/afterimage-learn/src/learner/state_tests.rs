use super::*;
use crate::config::LearnerConfig;
use crate::learner::LatentSpec;
use crate::learner::tests::{DIM, Stream, config, origin, run};
use crate::sampling::Sample;
use crate::state_dict::test_files::{load, save};

/// More bytes than any of these states has.
const MAX: u64 = 1 << 28;
/// Maximum size of a header in bytes, whatever has been seen: it holds only names and shapes.
const HEADER: u64 = 1 << 14;

fn saved(learner: &mut Learner, change: impl Fn(&mut StateDict<'_>)) -> (tempfile::NamedTempFile, u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    learner
        .save(u64::MAX, Vec::new(), |contents| {
            change(contents);
            save(file.path(), &contents.meta, &contents.tensors, MAX).map(drop)
        })
        .unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (file, header)
}

/// Latents of two values, blocks of two frames and many cameras: the most bookkeeping per megabyte of replay.
fn brim(config: &LearnerConfig, samples: u64) -> Learner {
    let mut learner = Learner::new(config, LatentSpec { dim: 2, ..origin() }, None).unwrap();
    let cameras = 500;
    for index in 0..samples {
        let (camera, turn) = ((index % cameras) as u16, index / cameras);
        let angle = (index as f32 * 0.7).sin() * 3.0;
        let segment = turn / 2 * cameras + u64::from(camera);
        let stamp = Timestamp(index as i64 * 200_000 + i64::MAX / 4);
        let latent = vec![angle.cos(), angle.sin()];
        let view = vec![-angle.sin(), angle.cos()];
        learner.learn(&Sample { camera, index, stamp, segment, latent, view }).unwrap();
    }
    learner
}

#[test]
fn a_header_does_not_grow_with_the_stream() {
    let full = [
        "learn.replay.megabytes=8",
        "learn.replay.policy='reservoir'",
        "learn.objective.name='nt-xent + instance'",
        "learn.augmentation.share=0.5",
        "learn.optimizer.frames_per_step=0",
        "learn.first_fit_frames=1000000",
        "learn.sampling.still_distance=0",
        "promotion.max_frames=20000",
    ];
    let config = config(&full);
    let mut learner = brim(&config, 90_000);
    assert!(learner.data.replay.len() > 20_000, "{}", learner.data.replay.len());
    let (file, header) = saved(&mut learner, |_| {});
    assert!(header < HEADER, "{header}");
    let before = saved(&mut brim(&config, 1000), |_| {}).1;
    // Three numbers per list, each with a few more digits.
    assert!(header < before + 1024, "names and shapes, whose digits grow: {before} to {header}");
    let mut other = Learner::new(&config, LatentSpec { dim: 2, ..origin() }, None).unwrap();
    other.restore(&mut load(file.path(), MAX).unwrap()).unwrap();
    let again = saved(&mut other, |_| {}).0;
    assert!(std::fs::read(file.path()).unwrap() == std::fs::read(again.path()).unwrap(), "as it was");
}

/// Sets a number deep inside the small part of a state.
fn set(small: &mut serde_json::Value, path: &str, to: u64) {
    *small.pointer_mut(path).unwrap_or_else(|| panic!("there is no {path}")) = to.into();
}

#[test]
fn parts_for_latents_of_another_length_are_refused() {
    let mut learner = Learner::new(&config(&[]), origin(), None).unwrap();
    run(&mut learner, &mut Stream::new(3), 1500);
    let (whole, _) = saved(&mut learner, |_| {});
    let small: serde_json::Value = load(whole.path(), MAX).unwrap().take_json("learner").unwrap();
    let refused = |what: &str, change: &dyn Fn(&mut StateDict<'_>), learner: &mut Learner| {
        let (file, _) = saved(learner, change);
        let mut other = Learner::new(&config(&[]), origin(), None).unwrap();
        let error = other.restore(&mut load(file.path(), MAX).unwrap());
        let error = error.expect_err(what).chain();
        // It continues to learn as before.
        run(&mut other, &mut Stream::new(3), 600);
        error
    };
    for path in ["/replay/dim", "/held/dim", "/reference/dim", "/blocks/cameras/0/3/dim"] {
        for to in [0, 1, DIM as u64 - 1, DIM as u64 + 1, u64::MAX] {
            let mut other = small.clone();
            set(&mut other, path, to);
            let change = |contents: &mut StateDict<'_>| {
                contents.tensors.retain(|(name, _)| name != "learner");
                contents.json("learner", &other).unwrap();
            };
            let error = refused(path, &change, &mut learner);
            assert!(error.contains("latents of") || error.contains("do not fit"), "{path} = {to}: {error}");
        }
    }
    // A frozen gate head of another length: the checksum is valid, but the next fit would panic.
    for dim in [0, 1, DIM - 1, DIM + 1, 1 << 40] {
        let change = move |contents: &mut StateDict<'_>| contents.text("holdout_head.identity", dim);
        let error = refused("holdout_head", &change, &mut learner);
        assert!(error.contains("latents of"), "{dim}: {error}");
    }
    // Every list, one entry shorter or of another type.
    let names: Vec<String> = {
        let mut names = Vec::new();
        saved(&mut learner, |_| {});
        learner
            .save(u64::MAX, Vec::new(), |contents| {
                names = contents.tensors.iter().map(|(name, _)| name.clone()).collect();
                Ok(())
            })
            .unwrap();
        names
    };
    for name in names.iter().filter(|name| *name != "learner") {
        let change = |contents: &mut StateDict<'_>| {
            contents.tensors.retain(|(other, _)| other != name);
            contents.list(name.clone(), vec![0.5f64]);
        };
        refused(name, &change, &mut learner);
    }
}
