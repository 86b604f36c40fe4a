//! The figures as Markdown, in lines of at most 100 characters if the names permit.
use std::collections::BTreeMap;
use std::fmt::Write;

use super::continual::After;
use super::dataset::{Accuracy, DataSet};
use super::runs::{Row, Run, Runs, Skipped};
use crate::error::{Error, Result};

/// The mean and, for several figures, the (unbiased) standard deviation.
fn over(figures: &[f64], decimals: usize) -> String {
    let n = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / n;
    if figures.is_empty() || !mean.is_finite() {
        return "-".to_owned();
    }
    if figures.len() == 1 {
        return short(mean, decimals);
    }
    let deviation = (figures.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    format!("{} ± {}", short(mean, decimals), short(deviation, decimals))
}

/// Formats a share without the leading 0, as usual in tables.
fn short(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    match text.strip_prefix("0.") {
        Some(rest) => format!(".{rest}"),
        None => text.replacen("-0.", "-.", 1),
    }
}

/// Lines of a table, the first of which is its header.
struct Table {
    text: String,
}

impl Table {
    fn new(columns: &[&str]) -> Result<Self> {
        let mut table = Self { text: String::new() };
        table.line(columns.iter().map(|column| (*column).to_owned()))?;
        table.line(columns.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" }.to_owned()))?;
        Ok(table)
    }

    fn line(&mut self, cells: impl Iterator<Item = String>) -> Result<()> {
        let cells: Vec<String> = cells.collect();
        writeln!(self.text, "| {} |", cells.join(" | "))
            .map_err(|e| Error::runtime("a line of the table").with_source(e))
    }
}

/// Cells of the label-free measurements, averaged over the rows.
fn label_free(rows: &[&Row]) -> [String; 6] {
    let mean = |of: &dyn Fn(&Row) -> Option<f64>, decimals| {
        let figures: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
        over(&[figures.iter().sum::<f64>() / figures.len() as f64], decimals)
    };
    [
        mean(&|r| Some(r.next_frame), 3),
        mean(&|r| Some(r.auc), 3),
        mean(&|r| r.health.as_ref().map(|h| h.rank), 0),
        mean(&|r| r.health.as_ref().map(|h| h.alignment), 2),
        mean(&|r| r.health.as_ref().map(|h| h.uniformity), 2),
        mean(&|r| r.health.as_ref().map(|h| h.retrieval), 2),
    ]
}

fn accuracies(figures: &[Accuracy]) -> [String; 3] {
    let of = |get: fn(&Accuracy) -> f64| over(&figures.iter().map(get).collect::<Vec<_>>(), 3);
    [of(|a| a.knn1), of(|a| a.knn5), of(|a| a.linear)]
}

/// Rows of runs, grouped by objective in the order tried.
fn by_objective(trials: &[Run]) -> Vec<(&str, Vec<&Run>)> {
    let mut groups: Vec<(&str, Vec<&Run>)> = Vec::new();
    for trial in trials {
        match groups.iter_mut().find(|(name, _)| *name == trial.objective) {
            Some((_, group)) => group.push(trial),
            None => groups.push((&trial.objective, vec![trial])),
        }
    }
    groups
}

/// The names, with counts if they differ.
fn counted(names: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let one = counts.len() == 1;
    let words: Vec<String> =
        counts.into_iter().map(|(name, n)| if one { name } else { format!("{n} x {name}") }).collect();
    words.join(", ")
}

/// The report on one set.
pub(super) fn of_set(set: &DataSet, trials: &Runs) -> Result<String> {
    let size = set.size();
    let mut out = format!(
        "## {}\n\n{} frames in {} segments; {} queries against {} gallery images of {} classes; latents of {}.\n\
         Encoded in {:.0} s; one learner over the whole stream: {} fits, {:.0} s of processor time.\n\n\
         Heads in closed form, the same for every objective and seed:\n\n",
        set.name,
        size["frames"],
        size["segments"],
        size["queries"],
        size["gallery"],
        size["classes"],
        size["latent"],
        set.encode_secs,
        trials.fits,
        trials.whole_secs
    );
    let mut table =
        Table::new(&["head", "1-NN", "5-NN", "linear", "next-frame", "AUC", "rank", "align", "uniform", "TR@1"])?;
    for row in &trials.closed_form {
        let cells = accuracies(&[row.accuracy]).into_iter().chain(label_free(&[row]));
        table.line(std::iter::once(row.label.clone()).chain(cells))?;
    }
    out.push_str(&table.text);
    let groups = by_objective(&trials.trials);
    if trials.trials.iter().any(|trial| !trial.trained.is_empty()) {
        out.push_str("\nHeads with the trained residual (label-free measures: means over the seeds):\n\n");
        let columns =
            ["objective, head", "1-NN", "5-NN", "linear", "next-frame", "AUC", "rank", "align", "uniform", "TR@1"];
        let mut table = Table::new(&columns)?;
        for (objective, group) in &groups {
            let Some(first) = group.first() else { continue };
            for label in first.trained.iter().map(|row| &row.label) {
                let rows: Vec<&Row> =
                    group.iter().flat_map(|trial| &trial.trained).filter(|row| row.label == *label).collect();
                let figures: Vec<Accuracy> = rows.iter().map(|row| row.accuracy).collect();
                let cells = accuracies(&figures).into_iter().chain(label_free(&rows));
                table.line(std::iter::once(format!("{objective}, {label}")).chain(cells))?;
            }
        }
        out.push_str(&table.text);
    }
    out.push_str("\nWhat is exported (adapted), chosen without labels:\n\n");
    let mut table = Table::new(&["objective", "chosen", "1-NN", "5-NN", "linear", "regret", "steps", "s"])?;
    for (objective, group) in &groups {
        let figures: Vec<Accuracy> = group.iter().map(|trial| trial.adapted).collect();
        let of = |get: fn(&Run) -> f64, decimals| over(&group.iter().map(|t| get(t)).collect::<Vec<_>>(), decimals);
        let chosen = counted(group.iter().map(|trial| trial.chosen.clone()));
        let steps = over(&[group.iter().map(|t| t.steps as f64).sum::<f64>() / group.len() as f64], 0);
        let cells = accuracies(&figures).into_iter().chain([of(|t| t.regret, 1), steps, of(|t| t.secs, 0)]);
        table.line([(*objective).to_owned(), chosen].into_iter().chain(cells))?;
    }
    out.push_str(&table.text);
    for Skipped { objective, why } in &trials.left_out {
        out.push_str(&format!("\nLeft out: {objective} ({why}).\n"));
    }
    out.push('\n');
    Ok(out)
}

/// The accuracy on each set after each further set.
pub(super) fn of_sequence(sets: &[DataSet], rows: &[After]) -> Result<String> {
    let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
    let mut out = format!(
        "## In sequence: {}\n\nMean of 1-NN and 5-NN on each set, after the learner has seen so many of them.\n\n",
        names.join(", then ")
    );
    let after: Vec<String> = (1..=sets.len()).map(|seen| format!("after {seen}")).collect();
    let columns: Vec<&str> = ["set", "frozen"].into_iter().chain(after.iter().map(String::as_str)).collect();
    let mut table = Table::new(&columns)?;
    for (number, name) in names.iter().enumerate() {
        let of = |seen: usize| rows.iter().filter(move |row| row.set == number && row.seen == seen);
        let frozen: Vec<f64> = of(number + 1).take(1).map(|row| row.frozen.mean()).collect();
        let stages = (1..=sets.len()).map(|seen| over(&of(seen).map(|row| row.adapted.mean()).collect::<Vec<_>>(), 3));
        table.line([(*name).to_owned(), over(&frozen, 3)].into_iter().chain(stages))?;
    }
    out.push_str(&table.text);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(over(&[0.5], 3), ".500");
        assert_eq!(over(&[-0.25], 2), "-.25");
        assert_eq!(over(&[12.4], 0), "12");
        assert_eq!(over(&[0.4, 0.5, 0.6], 3), ".500 ± .100");
        assert_eq!(over(&[], 3), "-");
        assert_eq!(over(&[f64::NAN], 3), "-");
    }

    #[test]
    fn choices_are_counted_where_they_differ() {
        let count = |names: &[&str]| counted(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(count(&["slow 256", "slow 256"]), "slow 256");
        assert_eq!(count(&["slow 256", "frozen", "slow 256"]), "1 x frozen, 2 x slow 256");
    }
}
