//! `[learn.objective.name]`: one objective, or a weighted sum of several.
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strsim::levenshtein;

use super::{CpcEmbedding, ScheduleKind, Training};

crate::choices! {
    /// An objective of the gradient steps.
    pub enum Objective {
        /// SimCLR: the other pairs of the batch are negatives.
        NtXent = "nt-xent",
        /// Momentum contrast: the negatives are keys of a slower head in a queue.
        Moco = "moco",
        /// Instance discrimination: an augmented view of the same frame is the positive.
        Instance = "instance",
        /// Rows of a grid, or moments, predict the following ones.
        Cpc = "cpc",
        /// Decoupled contrastive loss.
        Dcl = "dcl",
        /// Variance, invariance, covariance: no negatives.
        VicReg = "vicreg",
        /// Cross-correlation towards the identity: no negatives.
        BarlowTwins = "barlow-twins",
        /// Predicts the output of a slower head for the partner: no negatives.
        Byol = "byol",
        /// Predicts the partner: no negatives.
        SimSiam = "simsiam",
        /// Contrastive loss with the segment as the label.
        SupCon = "supcon",
    }
}

/// With fewer negatives per row than this, a loss teaches nothing but noise; the same holds for batch statistics over
/// fewer rows.
const LEAST_NEGATIVES: usize = 16;

/// The largest weight of a term.
const MOST_WEIGHT: f64 = 1e6;

/// One term of the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Weight of the term, above 0.
    pub weight: f64,
    /// Objective of the term.
    pub objective: Objective,
}

/// A weighted sum of objectives, written as text such as `dcl + 0.1 vicreg`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectiveSum(Vec<Term>);

impl ObjectiveSum {
    /// The terms: at least one, and each objective at most once.
    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    /// Whether `objective` is a term.
    pub fn has(&self, objective: Objective) -> bool {
        self.0.iter().any(|term| term.objective == objective)
    }
}

impl From<Objective> for ObjectiveSum {
    fn from(objective: Objective) -> Self {
        Self(vec![Term { weight: 1.0, objective }])
    }
}

impl fmt::Display for ObjectiveSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Term { weight, objective }) in self.0.iter().enumerate() {
            let plus = if i > 0 { " + " } else { "" };
            match *weight {
                1.0 => write!(f, "{plus}{}", objective.as_str())?,
                weight => write!(f, "{plus}{weight} {}", objective.as_str())?,
            }
        }
        Ok(())
    }
}

impl FromStr for ObjectiveSum {
    type Err = Vec<String>;
    fn from_str(text: &str) -> Result<Self, Vec<String>> {
        parse(text).map(Self)
    }
}

impl TryFrom<String> for ObjectiveSum {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|wrong: Vec<String>| wrong.join(", and "))
    }
}

impl From<ObjectiveSum> for String {
    fn from(sum: ObjectiveSum) -> Self {
        sum.to_string()
    }
}

impl JsonSchema for ObjectiveSum {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ObjectiveSum".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["nt-xent", "dcl + 0.1 vicreg"] })
    }
}

/// What the residual MLP is trained for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ObjectiveSettings {
    /// One objective or a weighted sum, such as "dcl + 0.1 vicreg": "nt-xent", "instance", "moco", "cpc", "dcl", "vicreg",
    /// "barlow-twins", "byol", "simsiam", "supcon".
    pub name: ObjectiveSum,
    /// Pairs in a batch, each of another segment where there are enough.
    pub batch_pairs: usize,
    /// Temperature of the contrastive objectives.
    pub temperature: f64,
    /// Momentum of the slower head of moco and byol, per step.
    pub momentum: f64,
    /// What the queue of moco holds: "latents" (projected anew, never stale) or "keys" (as they once were).
    pub queue: QueueKind,
    /// Entries of the queue of moco.
    pub queue_len: usize,
    /// Weight of relational distillation, which keeps the angles within a batch near those of the exported head; 0: none.
    pub relational_weight: f64,
}

crate::choices! {
    /// What the queue of moco holds.
    pub enum QueueKind {
        /// Latents that are projected anew.
        Latents = "latents",
        /// Keys as they once were.
        Keys = "keys",
    }
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            name: Objective::NtXent.into(),
            batch_pairs: 64,
            temperature: 0.1,
            momentum: 0.996,
            queue: QueueKind::Latents,
            queue_len: 4096,
            relational_weight: 0.0,
        }
    }
}

/// Parses `text` into terms: names joined by `+`, each preceded by its weight unless that is 1, such as `dcl + 0.1
/// vicreg`.
///
/// # Errors
/// Every mistake, one line each.
fn parse(text: &str) -> Result<Vec<Term>, Vec<String>> {
    let (mut terms, mut wrong): (Vec<Term>, Vec<String>) = Default::default();
    for part in text.split('+').map(str::trim) {
        match term(part) {
            Ok(term) if terms.iter().any(|other| other.objective == term.objective) => {
                wrong.push(format!("{} twice: write it once, with the sum of the weights", term.objective.as_str()));
            }
            Ok(term) => terms.push(term),
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() { Ok(terms) } else { Err(wrong) }
}

fn term(part: &str) -> Result<Term, String> {
    let words: Vec<&str> =
        part.split(|c: char| c.is_whitespace() || c == '*').filter(|word| !word.is_empty()).collect();
    let (weight, name) = match words.as_slice() {
        [name] => (1.0, name),
        [weight, name] => {
            let number = weight.parse().ok().filter(|number| *number > 0.0 && *number <= MOST_WEIGHT);
            let number = number.ok_or_else(|| {
                format!("the weight {weight:?} of {name}: must be a number above 0, at most {MOST_WEIGHT}")
            })?;
            (number, name)
        }
        _ => {
            return Err(format!(
                "{part:?}, which is no term: write names with + between them, as \"dcl + 0.1 vicreg\""
            ));
        }
    };
    name.parse().map(|objective| Term { weight, objective }).map_err(|_| unknown(name))
}

fn unknown(name: &str) -> String {
    let nearest = Objective::WORDS.iter().map(|known| (levenshtein(name, known), *known)).min();
    match nearest {
        Some((d, known)) if d <= 3 => format!("{name:?}, which is no objective; did you mean {known}?"),
        _ => format!("{name:?}, which is no objective; known: {}", Objective::WORDS.join(", ")),
    }
}

/// Settings in `learn` that do not fit together, one line each.
pub fn check(learn: &Training) -> Vec<String> {
    let mut problems: Vec<String> =
        learn.objective.name.terms().iter().filter_map(|term| unfit(term.objective, learn)).collect();
    if learn.optimizer.schedule == ScheduleKind::Cosine
        && learn.optimizer.schedule_steps <= learn.optimizer.warmup_steps
    {
        problems.push(format!(
            "learn.optimizer.schedule_steps = {}: a cosine needs more steps than learn.optimizer.warmup_steps = {}",
            learn.optimizer.schedule_steps, learn.optimizer.warmup_steps
        ));
    }
    problems
}

/// Why `objective` cannot work with these settings, if it cannot.
fn unfit(objective: Objective, learn: &Training) -> Option<String> {
    let (name, pairs) = (objective.as_str(), learn.objective.batch_pairs);
    match objective {
        Objective::Instance if learn.augmentation.share <= 0.0 => Some(format!(
            "learn.augmentation.share = {}: no frame would get an augmented view, and {name} learns from nothing else; set the share of \
             frames that get one, for example learn.augmentation.share = 0.5",
            learn.augmentation.share
        )),
        Objective::NtXent | Objective::Instance | Objective::Dcl | Objective::SupCon => {
            let negatives = (2 * pairs).saturating_sub(2);
            (negatives < LEAST_NEGATIVES).then(|| {
                format!(
                    "learn.objective.batch_pairs = {pairs}: too small for {name}, whose rows would have {negatives} negatives; at \
                     least {} pairs, or the objective moco, which has a queue",
                    LEAST_NEGATIVES / 2 + 1
                )
            })
        }
        Objective::VicReg | Objective::BarlowTwins => (pairs < LEAST_NEGATIVES).then(|| {
            format!(
                "learn.objective.batch_pairs = {pairs}: too small for {name}, which needs statistics over the batch; at least \
                 {LEAST_NEGATIVES} pairs"
            )
        }),
        Objective::Moco => (learn.objective.queue_len < pairs).then(|| {
            format!(
                "learn.objective.queue_len = {}: smaller than a batch (learn.objective.batch_pairs = {pairs}), so that {name} would lose \
                 keys before they are used",
                learn.objective.queue_len
            )
        }),
        Objective::Cpc => (learn.optimizer.ema > 0.0 && learn.cpc.embedding == CpcEmbedding::Context).then(|| {
            format!(
                "learn.optimizer.ema = {}: averages the residual only, and learn.cpc.embedding = \"context\" would put the last \
                 context network on it; take \"projected\", or learn.optimizer.ema = 0",
                learn.optimizer.ema
            )
        }),
        Objective::Byol | Objective::SimSiam => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::OptimizerSettings;
    use super::*;

    #[test]
    fn names_and_weights_are_read() {
        let terms = parse("dcl + 0.1 vicreg+2*simsiam").expect("parses");
        let found: Vec<(f64, &str)> = terms.iter().map(|t| (t.weight, t.objective.as_str())).collect();
        assert_eq!(found, [(1.0, "dcl"), (0.1, "vicreg"), (2.0, "simsiam")]);
        let words = "nt-xent moco instance cpc dcl vicreg barlow-twins byol simsiam supcon";
        assert_eq!(Objective::WORDS.join(" "), words);
        for objective in Objective::ALL {
            assert_eq!(parse(objective.as_str()), Ok(vec![Term { weight: 1.0, objective }]));
        }
    }

    #[test]
    fn every_mistake_is_named() {
        let wrong = parse("nt_xent + -1 dcl + x moco + + dcl + dcl + 1 2 byol + wizardry").expect_err("refused");
        for part in [
            "\"nt_xent\", which is no objective; did you mean nt-xent?",
            "the weight \"-1\" of dcl: must be a number above 0",
            "the weight \"x\" of moco",
            "\"\", which is no term",
            "dcl twice",
            "\"1 2 byol\", which is no term",
            "\"wizardry\", which is no objective; known: nt-xent, moco",
        ] {
            assert!(wrong.iter().any(|line| line.contains(part)), "missing {part:?} in {wrong:#?}");
        }
        assert_eq!(wrong.len(), 7);
        assert!(parse("").is_err() && parse("inf dcl").is_err() && parse("nan dcl").is_err());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let problems = |objective: &str, pairs, queue_len| {
            let name = objective.parse().expect("parses");
            let objective = ObjectiveSettings { name, batch_pairs: pairs, queue_len, ..ObjectiveSettings::default() };
            check(&Training { objective, ..Training::default() }).join("\n")
        };
        assert!(problems("dcl", 8, 4096).contains("rows would have 14 negatives; at least 9 pairs"));
        assert!(problems("byol + nt-xent", 2, 4096).contains("learn.objective.batch_pairs = 2: too small for nt-xent"));
        assert!(problems("nt-xent + instance", 64, 1).contains("learn.augmentation.share = 0: no frame would get"));
        assert!(problems("vicreg", 15, 4096).contains("at least 16 pairs"));
        assert!(problems("moco", 64, 63).contains("learn.objective.queue_len = 63: smaller than a batch"));
        assert_eq!(problems("nt-xent + moco + supcon", 9, 9), "");
        assert_eq!(problems("byol + simsiam", 2, 1), "");
        let optimizer =
            OptimizerSettings { schedule: ScheduleKind::Cosine, schedule_steps: 50, ..OptimizerSettings::default() };
        let cosine = Training { optimizer, ..Training::default() };
        assert!(check(&cosine).join("").contains("learn.optimizer.schedule_steps = 50: a cosine needs more steps"));
    }
}
