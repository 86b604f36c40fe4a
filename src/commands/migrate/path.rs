//! The spaces of a run and the paths between them.
use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{MAPS, SpaceMapCheckpoint, head_path, load_own_head, load_own_map, map_path};
use crate::error::{Error, Result};
use crate::files;
use crate::head::Head;
use crate::pipeline::run_dir::RunManifest;
use crate::spaces::space_of;
use crate::spaces::{MapKind, SpaceMap, apply_map, maps_exactly};

/// A space of a run: its head, and the head's number.
pub(super) struct SpaceNode {
    pub(super) head: Head,
    pub(super) number: u64,
}

/// A map from one space to another.
struct Edge {
    from: String,
    to: String,
    map: SpaceMap,
    /// Expected share of hits that it keeps; `None` if it was not measured.
    rate: Option<f64>,
}

/// All spaces of a run, and the maps between them.
pub(super) struct SpaceGraph {
    pub(super) all: BTreeMap<String, SpaceNode>,
    /// The space of the newest head.
    pub(super) latest: String,
    steps: Vec<Edge>,
    /// Unreadable files, reported if a path is missing.
    damaged: Vec<String>,
}

/// A chain of maps.
pub(super) struct MigrationPath<'a> {
    steps: Vec<&'a Edge>,
    /// Expected share of hits that are kept: the product over the maps (none counts for more than 1). `None` if a map
    /// was not measured.
    pub(super) rate: Option<f64>,
}

impl SpaceGraph {
    /// Reads the heads and maps of a run.
    ///
    /// # Errors
    /// The folders cannot be read.
    pub(super) fn read(run: &Path, info: &RunManifest) -> Result<Self> {
        let frozen = Head::Identity { dim: info.origin().pooled_dim() };
        let mut latest = space_of(&info.encoder_sha256, &info.card_hash, &frozen);
        let mut all = BTreeMap::from([(latest.clone(), SpaceNode { head: frozen, number: 0 })]);
        let (owner, mut damaged) = (info.owner(), Vec::new());
        for number in files::numbered(&files::names_in(&run.join("heads"))?, "safetensors") {
            match load_own_head(&head_path(run, number), &owner) {
                Ok(file) => {
                    latest.clone_from(&file.space);
                    // If the frozen latents replaced a head, their space is the initial one.
                    all.entry(file.space).or_insert(SpaceNode { head: file.head, number });
                }
                Err(error) => damaged.push(error.chain()),
            }
        }
        let mut steps = Vec::new();
        for number in files::numbered(&files::names_in(&run.join(MAPS))?, "safetensors") {
            match load_own_map(&map_path(run, number), &owner) {
                Ok(file) if file.map.kind == MapKind::Head => {}
                Ok(SpaceMapCheckpoint { from, to, map, hits, .. }) => {
                    steps.push(Edge { from, to, map, rate: hits.map(|hits| hits.rate()) });
                }
                Err(error) => damaged.push(error.chain()),
            }
        }
        // If embeddings contain the frozen latents, every head on these is itself a lossless map.
        for (from, old) in &all {
            for (to, _) in all.iter().filter(|(to, new)| *to != from && maps_exactly(&old.head, &new.head)) {
                let map = SpaceMap { kind: MapKind::Head, matrix: Default::default(), offset: Default::default() };
                steps.push(Edge { from: from.clone(), to: to.clone(), map, rate: Some(1.0) });
            }
        }
        Ok(Self { all, latest, steps, damaged })
    }

    /// The path that is expected to keep the most hits. A map that was not measured counts as keeping half.
    ///
    /// # Errors
    /// There is no path; the error says which maps could not be read.
    pub(super) fn route(&self, from: &str, to: &str) -> Result<MigrationPath<'_>> {
        let mut best: BTreeMap<&str, (f64, Option<&Edge>)> = BTreeMap::from([(from, (1.0, None))]);
        // As many iterations as there are spaces: no path is longer.
        for _ in 0..self.all.len() {
            for step in self.steps.iter().filter(|step| self.all.contains_key(&step.to) && step.from != step.to) {
                let Some((rate, _)) = best.get(step.from.as_str()) else { continue };
                let rate = rate * step.rate.map_or(0.5, |rate| rate.min(1.0));
                if best.get(step.to.as_str()).is_none_or(|(before, _)| rate > *before) {
                    best.insert(&step.to, (rate, Some(step)));
                }
            }
        }
        let (mut steps, mut at) = (Vec::new(), to);
        while at != from {
            let Some((_, Some(step))) = best.get(at).filter(|_| steps.len() < self.all.len()) else {
                return Err(self.no_way(from, to));
            };
            steps.push(*step);
            at = &step.from;
        }
        steps.reverse();
        let rate = steps.iter().try_fold(1.0, |product, step| Some(product * step.rate?.min(1.0)));
        Ok(MigrationPath { steps, rate })
    }

    fn no_way(&self, from: &str, to: &str) -> Error {
        let why = if self.damaged.is_empty() {
            "maps lead from each space to the next one, and never back but to the frozen latents".to_owned()
        } else {
            format!("of its maps and heads these cannot be read: {}", self.damaged.join("; "))
        };
        Error::check_failed(format!(
            "no way from space {from} to space {to} in this run: {why}. Embed the frames again with `afterimage embed --run \
             RUN`, or put the missing file back from a copy"
        ))
    }

    /// A space by its name, or the newest.
    ///
    /// # Errors
    /// The run has no space of this name.
    pub(super) fn named(&self, name: &str) -> Result<&str> {
        if name == "latest" {
            return Ok(&self.latest);
        }
        let known = self.all.get_key_value(name).map(|(space, _)| space.as_str());
        known.ok_or_else(|| Error::usage(format!("--to {name}: the run has no such space; {}", self.told())))
    }

    /// Lists all spaces as text.
    pub(super) fn told(&self) -> String {
        let mut heads: Vec<(u64, &String)> = self.all.iter().map(|(space, of)| (of.number, space)).collect();
        heads.sort_unstable();
        let one = |(number, space): &(u64, &String)| match number {
            0 => format!("{space} (frozen)"),
            number => format!("{space} (head {number})"),
        };
        let damaged =
            if self.damaged.is_empty() { String::new() } else { format!("; unreadable: {}", self.damaged.join("; ")) };
        format!("it has {}{damaged}", heads.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

impl MigrationPath<'_> {
    /// Number of maps in the path.
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Maps rows `[n, p]` of the first space to the last.
    ///
    /// # Errors
    /// The rows do not have the length of the first space.
    pub(super) fn carry(&self, spaces: &SpaceGraph, rows: ndarray::Array2<f32>) -> Result<ndarray::Array2<f32>> {
        let of = |space: &str| {
            let found = spaces.all.get(space).map(|space| &space.head);
            found.ok_or_else(|| Error::runtime(format!("space {space} has no head")))
        };
        self.steps.iter().try_fold(rows, |rows, step| apply_map(of(&step.from)?, of(&step.to)?, &step.map, rows.view()))
    }
}
