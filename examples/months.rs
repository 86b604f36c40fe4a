//! A month of latents through the learner, without camera or encoder: `months FOLDER DAYS`. Ten samples a second of simulated
//! time, a fit a day, and every day the state saved, read again into a new learner, and gone on from. Prints a line a day.
//! `tools/campaign` looks at them: memory and state must stay level.
use std::error::Error;
use std::path::Path;

use afterimage::checkpoint::Owner;
use afterimage::config::{Config, loader};
use afterimage::frame::Timestamp;
use afterimage::learner::{LatentSpec, Learner};
use afterimage::pipeline::run_dir::StreamPosition;
use afterimage::pipeline::run_state;
use afterimage::sampling::Sample;

const DIM: usize = 8;
const PER_DAY: u64 = 10 * 86_400;
/// Samples of one scene: a minute.
const SCENE: u64 = 600;
const NANOS: i64 = 100_000_000;

fn config() -> Result<Config, Box<dyn Error>> {
    let refit = format!("learn.refit_max_frames={PER_DAY}");
    let overrides = [
        "head.dim=4",
        "head.hidden=4",
        "head.candidates=['slow']",
        "learn.sampling.still_distance=0",
        "learn.first_fit_frames=1000",
        "learn.replay.megabytes=1",
        "learn.replay.policy=reservoir",
        "learn.optimizer.frames_per_step=0",
        &refit,
    ];
    Ok(loader::load(None, &overrides.map(str::to_owned))?)
}

fn origin() -> LatentSpec {
    LatentSpec { dim: DIM, ..LatentSpec::default() }
}

fn learner(config: &Config) -> Result<Learner, Box<dyn Error>> {
    Ok(Learner::new(&config.learner(), origin(), None)?)
}

/// A scene that repeats every seven days, with something that moves in it.
fn sample(i: u64) -> Sample {
    let (scene, within) = (i / SCENE % 10_080, i % SCENE);
    let mut latent: Vec<f32> = (0..DIM as u64)
        .map(|k| {
            ((scene * 7 + k * 3) as f32).sin()
                + 0.2 * ((within as f32) * 0.01 + k as f32).cos()
                + 0.02 * ((i * (k + 3) % 997) as f32).sin()
        })
        .collect();
    let norm = latent.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
    latent.iter_mut().for_each(|x| *x /= norm);
    Sample { index: i, stamp: Timestamp(i as i64 * NANOS), segment: i / SCENE, latent, ..Sample::default() }
}

/// Megabytes in memory.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (folder, days) =
        (args.next().ok_or("months FOLDER DAYS")?, args.next().ok_or("months FOLDER DAYS")?.parse::<u64>()?);
    let (folder, config) = (Path::new(&folder), config()?);
    let (mut now, mut fits, owner) = (learner(&config)?, 0, Owner::new(&origin(), "months"));
    for day in 0..days {
        for i in day * PER_DAY..(day + 1) * PER_DAY {
            fits += u64::from(now.learn(&sample(i))?.is_some());
            now.take_events();
        }
        let place = StreamPosition { next_index: (day + 1) * PER_DAY, ..StreamPosition::default() };
        run_state::store(folder, &owner, &mut now, place.clone(), None)?;
        let mut next = learner(&config)?;
        let (restored, warnings) = run_state::restore(folder, &owner, &mut next)?;
        if restored.map(|restored| restored.place) != Some(place) || !warnings.is_empty() {
            return Err(format!("day {day}: the state does not come back: {warnings:?}").into());
        }
        now = next;
        let state_bytes = std::fs::metadata(folder.join("state.safetensors"))?.len();
        println!(
            "{{\"day\": {}, \"samples\": {}, \"fits\": {fits}, \"resident_mb\": {:.1}, \"state_bytes\": {state_bytes}}}",
            day + 1,
            (day + 1) * PER_DAY,
            resident()?
        );
    }
    Ok(())
}
