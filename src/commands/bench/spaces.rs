//! `bench spaces`: the effect of promotions on stored embeddings, measured with labels (docs/spaces.md).
//!
//! Real learners process the streams. At each promotion the old head embeds the gallery and the new one the queries. A
//! hit is a neighbour of the query's class. Every rate is the number of hits across the two spaces divided by the
//! number of hits within the new space.
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array2, ArrayView2};
use serde::Serialize;
use serde_json::json;

use super::super::Output;
use super::super::common::LoadedEncoder;
use super::learning::continual::Stream;
use super::learning::dataset::DataSet;
use crate::cli;
use crate::config::Config;
use crate::config::loader::load;
use crate::error::Result;
use crate::learner::{LatentSpec, Learner, Snapshot, SpaceTransition};
use crate::signals;
use crate::spaces::{RetrievalSplit, SpaceMap, apply_map, fitted, hits};

/// Numbers of neighbours evaluated.
const NEIGHBOURS: [usize; 2] = [1, 5];

/// A rate or share with one neighbour and with five.
type Two = [f64; 2];

/// A promotion and its maps.
struct PromotedSpace {
    before: Arc<Snapshot>,
    after: Arc<Snapshot>,
    passage: SpaceTransition,
    /// Regression and rotation, whichever was used.
    maps: Vec<SpaceMap>,
    /// Newest frame that was learned from.
    frame: u64,
}

/// One promotion on one set.
#[derive(Debug, Clone, Serialize)]
struct MapRow {
    from: u64,
    to: u64,
    dims: [usize; 2],
    frame: u64,
    /// The map that was used, and its label-free rate.
    kind: &'static str,
    unlabelled: Option<f64>,
    /// Hits within the new space.
    within: Two,
    as_is: Option<Two>,
    rotation: Option<Two>,
    affine: Two,
    taken: Two,
    /// Rate through the chain of all maps from here to the last head.
    to_last: Two,
}

pub(super) fn run(args: &cli::BenchSpacesArgs, started: Instant) -> Result<Output> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let stop = signals::stop_on_signals()?;
    let mut opened = LoadedEncoder::open(&args.encoder, &config)?;
    let read = |folder| DataSet::read(folder, &mut opened, &config, &stop, started);
    let sets: Vec<DataSet> = args.data.iter().map(|folder| folder.as_path()).map(read).collect::<Result<_>>()?;
    let courses: Vec<&[DataSet]> = if args.in_sequence { vec![&sets] } else { sets.chunks(1).collect() };
    let (mut text, mut found) = (String::new(), Vec::new());
    for course in courses {
        let promotions = learned(course, &opened.origin, &config)?;
        for set in course {
            let steps = measure(set, &promotions)?;
            text += &table(&set.name, &steps);
            let accuracy = promotions.last().map(|last| set.accuracy(&last.after.head)).transpose()?;
            if let Some(accuracy) = &accuracy {
                text += &format!("\nlast head: 1-NN {:.3}, 5-NN {:.3}\n\n", accuracy.knn1, accuracy.knn5);
            }
            found.push(json!({ "name": set.name, "steps": steps, "accuracy": accuracy }));
        }
    }
    let json = json!({ "version": env!("CARGO_PKG_VERSION"), "config": config, "sets": found });
    Ok(Output { text: text.trim_end().to_owned(), json, as_json: args.common.json })
}

/// Runs one learner through the sets of a course, to the end of its stream.
fn learned(course: &[DataSet], origin: &LatentSpec, config: &Config) -> Result<Vec<PromotedSpace>> {
    let mut learner = Learner::new(&config.learner(), origin.clone(), None)?;
    let (mut stream, mut promotions) = (Stream::default(), Vec::new());
    let mut before = learner.exported().clone();
    for set in course {
        for sample in &set.samples {
            let outcome = learner.learn(&stream.moved(sample))?;
            promotions.extend(outcome.and_then(|outcome| promotion(&learner, &mut before, outcome)));
        }
        stream.end(set);
    }
    let outcome = learner.finish(stream.index.saturating_sub(1))?;
    promotions.extend(outcome.and_then(|outcome| promotion(&learner, &mut before, outcome)));
    promotions.into_iter().collect()
}

fn promotion(
    learner: &Learner,
    before: &mut Arc<Snapshot>,
    outcome: crate::learner::FitOutcome,
) -> Option<Result<PromotedSpace>> {
    let passage = outcome.transition?;
    tracing::info!("{}", outcome.report.reason);
    let (old, after) = (std::mem::replace(before, outcome.snapshot.clone()), outcome.snapshot);
    let maps = fitted(&old.head, &after.head, learner.map_references().view());
    Some(maps.map(|maps| PromotedSpace { before: old, after, passage, maps, frame: outcome.report.frame }))
}

/// Measures every promotion on one labelled set.
fn measure(set: &DataSet, promotions: &[PromotedSpace]) -> Result<Vec<MapRow>> {
    let mut steps = Vec::new();
    for (place, promotion) in promotions.iter().enumerate() {
        let (old, new) = (&*promotion.before.head, &*promotion.after.head);
        let within = of(&set.embedded(new, new), None);
        let across = set.embedded(old, new);
        let rate = |gallery: ArrayView2<f32>| over(of(&across, Some(gallery)), within);
        let by = |map: Option<&SpaceMap>| -> Result<Option<Two>> {
            map.map(|map| Ok(rate(map.apply(across.gallery.view())?.view()))).transpose()
        };
        let last = promotions.last().map_or(new, |last| &*last.after.head);
        let to_last = set.embedded(old, last);
        let carried = promotions[place..].iter().try_fold(to_last.gallery.clone(), carried)?;
        let fitted = &promotion.passage.fitted;
        steps.push(MapRow {
            from: promotion.passage.from_head,
            to: promotion.after.number,
            dims: [old.dim_out(), new.dim_out()],
            frame: promotion.frame,
            kind: fitted.map.kind.name(),
            unlabelled: fitted.hits.map(|hits| hits.rate()),
            within,
            as_is: (old.dim_out() == new.dim_out()).then(|| rate(across.gallery.view())),
            affine: by(promotion.maps.first())?.unwrap_or_default(),
            rotation: by(promotion.maps.get(1))?,
            taken: rate(carried_over(promotion, across.gallery.view())?.view()),
            to_last: over(of(&to_last, Some(carried.view())), of(&set.embedded(last, last), None)),
        });
    }
    Ok(steps)
}

fn carried(rows: Array2<f32>, promotion: &PromotedSpace) -> Result<Array2<f32>> {
    carried_over(promotion, rows.view())
}

fn carried_over(promotion: &PromotedSpace, rows: ArrayView2<f32>) -> Result<Array2<f32>> {
    apply_map(&promotion.before.head, &promotion.after.head, &promotion.passage.fitted.map, rows)
}

/// Hits with one and with five neighbours, optionally with another gallery.
fn of(set: &RetrievalSplit, gallery: Option<ArrayView2<f32>>) -> Two {
    let gallery = gallery.unwrap_or_else(|| set.gallery.view());
    NEIGHBOURS.map(|k| hits(gallery, &set.gallery_labels, set.queries.view(), &set.query_labels, k))
}

fn over(across: Two, within: Two) -> Two {
    [0, 1].map(|i| if within[i] > 0.0 { across[i] / within[i] } else { 0.0 })
}

fn table(name: &str, steps: &[MapRow]) -> String {
    let mut text = format!(
        "## {name}\n\nRates with 1 and with 5 neighbours.\n\n| promotion | frame | dimensions | hits within | as they are | rotation | affine | taken | \
         without labels | to the last head |\n|---|---:|---|---|---|---|---|---|---:|---|\n"
    );
    let two = |two: Two| format!("{:.3}, {:.3}", two[0], two[1]);
    let some = |found: Option<Two>| found.map_or_else(|| "—".to_owned(), two);
    for step in steps {
        let MapRow { from, to, dims: [p, q], frame, kind, .. } = step;
        let unlabelled = step.unlabelled.map_or_else(|| "—".to_owned(), |rate| format!("{rate:.3}"));
        text += &format!(
            "| {from} to {to} | {frame} | {p} to {q} | {} | {} | {} | {} | {kind} {} | {unlabelled} | {} |\n",
            two(step.within),
            some(step.as_is),
            some(step.rotation),
            two(step.affine),
            two(step.taken),
            two(step.to_last)
        );
    }
    if steps.is_empty() {
        text += "\nNothing was promoted.\n";
    }
    text + &means(steps)
}

/// Means over the promotions from one learned head to the next.
fn means(steps: &[MapRow]) -> String {
    let learned: Vec<&MapRow> = steps.iter().filter(|step| step.kind != "head").collect();
    let mean = |name: &str, figures: Vec<Two>| {
        if figures.is_empty() {
            return String::new();
        }
        let n = figures.len() as f64;
        let [one, five] = [0, 1].map(|i| figures.iter().map(|two| two[i]).sum::<f64>() / n);
        format!(", {name} {one:.3}, {five:.3}")
    };
    let all = |figure: fn(&MapRow) -> Option<Two>| learned.iter().filter_map(|step| figure(step)).collect::<Vec<_>>();
    let (as_is, rotation) = (mean("as they are", all(|s| s.as_is)), mean("rotation", all(|s| s.rotation)));
    let (affine, taken) = (mean("affine", all(|s| Some(s.affine))), mean("taken", all(|s| Some(s.taken))));
    let to_last = mean("to the last head", all(|s| Some(s.to_last)));
    format!("\nmeans of {} promotions between learned heads{as_is}{rotation}{affine}{taken}{to_last}\n", learned.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_across_over_within() {
        assert_eq!(over([0.4, 0.0], [0.5, 0.0]), [0.8, 0.0]);
    }
}
