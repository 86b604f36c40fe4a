//! The heads that every fit tries, as text: `slow dim=192 views=no`.
use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strsim::levenshtein;

use super::RANGES;

crate::choices! {
    /// What a candidate head consists of.
    pub enum HeadKind {
        /// The slow head, in closed form.
        Slow = "slow",
        /// The slow head with the residual trained on it.
        SlowMlp = "slow+mlp",
        /// The mean of the slow head and the residual.
        Mean = "mean",
        /// The frozen latent, concatenated with the slow head.
        FrozenSlow = "frozen+slow",
    }
}

/// The options of a slow head.
const OPTIONS: [&str; 4] = ["dim", "shrinkage", "views", "part"];

/// One entry of `head.candidates`: a kind and, if it needs a slow head, the options of its fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeadSpec {
    /// What the head consists of.
    pub kind: HeadKind,
    /// Dimensions; `None` means `head.dim`.
    pub dim: Option<usize>,
    /// Shrinkage; `None` means `head.shrinkage`.
    pub shrinkage: Option<f64>,
    /// Whether augmented views, if there are any, count in the within-pair scatter.
    pub views: bool,
    /// Use only this part of a latent with several parts, counted from 1; `None` means the whole latent.
    pub part: Option<usize>,
}

impl HeadKind {
    /// Whether it uses the trained residual, which is based on the slow head with `head.dim` and `head.shrinkage`.
    pub fn trained(self) -> bool {
        matches!(self, HeadKind::SlowMlp | HeadKind::Mean)
    }
}

impl HeadSpec {
    /// Creates an entry without options.
    pub fn new(kind: HeadKind) -> Self {
        Self { kind, dim: None, shrinkage: None, views: true, part: None }
    }

    /// Parses `kind option=value ...`.
    ///
    /// # Errors
    /// Every mistake in `text`.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut problems = Vec::new();
        let kind = name.parse().ok();
        if kind.is_none() {
            problems.push(format!("no candidate is called {name:?}; {}", nearest(name, HeadKind::WORDS)));
        }
        let kind = kind.unwrap_or(HeadKind::Slow);
        let mut candidate = Self { kind, dim: None, shrinkage: None, views: true, part: None };
        let mut seen = Vec::new();
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if seen.contains(&key) {
                problems.push(format!("{key} is said twice"));
            }
            seen.push(key);
            let taken = match key {
                "dim" => whole("head.dim", value).map(|x| candidate.dim = Some(x)),
                "shrinkage" => number("head.shrinkage", value).map(|x| candidate.shrinkage = Some(x)),
                "views" => match value {
                    "yes" => Ok(()),
                    "no" => {
                        candidate.views = false;
                        Ok(())
                    }
                    _ => Err("must be yes or no".to_owned()),
                },
                "part" => match value.parse() {
                    Ok(part) if part > 0 => {
                        candidate.part = Some(part);
                        Ok(())
                    }
                    _ => Err("must be the number of a part of the latent, counted from 1".to_owned()),
                },
                _ => Err(format!("no such option; {}", nearest(key, &OPTIONS))),
            };
            problems.extend(taken.err().map(|why| format!("{word}: {why}")));
        }
        if kind.trained() && !seen.is_empty() {
            let name = kind.as_str();
            problems
                .push(format!("{name} takes no options: it has the size and shrinkage of head.dim, head.shrinkage"));
        }
        if problems.is_empty() { Ok(candidate) } else { Err(problems) }
    }
}

impl fmt::Display for HeadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(dim) = self.dim {
            write!(f, " dim={dim}")?;
        }
        if let Some(shrinkage) = self.shrinkage {
            write!(f, " shrinkage={shrinkage}")?;
        }
        if !self.views {
            f.write_str(" views=no")?;
        }
        self.part.map_or(Ok(()), |part| write!(f, " part={part}"))
    }
}

impl TryFrom<String> for HeadSpec {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|problems| format!("{text:?}: {}", problems.join("; ")))
    }
}

impl From<HeadSpec> for String {
    fn from(spec: HeadSpec) -> Self {
        spec.to_string()
    }
}

impl JsonSchema for HeadSpec {
    fn schema_name() -> Cow<'static, str> {
        "HeadSpec".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["slow", "slow dim=192", "slow+mlp", "mean", "frozen+slow"] })
    }
}

/// Appends all mistakes in `head.candidates` to `problems`.
pub fn check(texts: &[String], problems: &mut Vec<String>) {
    if texts.is_empty() {
        let names = HeadKind::WORDS.join(", ");
        problems.push(format!("head.candidates = []: name at least one of {names}"));
    }
    for text in texts {
        let mistakes = HeadSpec::parse(text).err().unwrap_or_default();
        problems.extend(mistakes.into_iter().map(|why| format!("head.candidates has {text:?}: {why}")));
    }
}

/// Parses a number and checks it against the range of the configuration key `key`.
fn number(key: &str, value: &str) -> Result<f64, String> {
    let (least, most) = RANGES.iter().find(|(known, _, _)| *known == key).map_or((0.0, 0.0), |r| (r.1, r.2));
    match value.parse::<f64>() {
        Ok(x) if x >= least && x <= most => Ok(x),
        _ => Err(format!("must be from {least} to {most}")),
    }
}

fn whole(key: &str, value: &str) -> Result<usize, String> {
    let number = number(key, value)?;
    value.parse().map_err(|_| format!("must be a whole number, found {number}"))
}

fn nearest(word: &str, known: &[&str]) -> String {
    match known.iter().map(|k| (levenshtein(word, k), k)).min() {
        Some((d, k)) if d <= 2 && !word.is_empty() => format!("did you mean {k}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        HeadSpec::parse(text).expect_err("must be refused").join("\n")
    }

    #[test]
    fn kinds_and_options_are_read() {
        let plain = HeadSpec { kind: HeadKind::Slow, dim: None, shrinkage: None, views: true, part: None };
        assert_eq!(HeadSpec::parse("slow"), Ok(plain));
        assert_eq!(HeadSpec::parse(" mean "), Ok(HeadSpec { kind: HeadKind::Mean, ..plain }));
        let all = HeadSpec { dim: Some(64), shrinkage: Some(0.5), views: false, part: Some(2), ..plain };
        assert_eq!(HeadSpec::parse("slow dim=64 shrinkage=0.5 views=no part=2"), Ok(all));
        assert_eq!(all.to_string(), "slow dim=64 shrinkage=0.5 views=no part=2");
        let beside = HeadSpec { kind: HeadKind::FrozenSlow, dim: Some(32), ..plain };
        assert_eq!(HeadSpec::parse("frozen+slow views=yes dim=32"), Ok(beside));
        assert_eq!(HeadKind::WORDS, ["slow", "slow+mlp", "mean", "frozen+slow"]);
        for kind in HeadKind::ALL {
            assert_eq!(HeadSpec::parse(kind.as_str()), Ok(HeadSpec { kind, ..plain }));
        }
    }

    #[test]
    fn every_mistake_is_named() {
        assert!(mistakes("").contains("known are slow, slow+mlp, mean, frozen+slow"));
        assert!(mistakes("slwo").contains("did you mean slow?"));
        let all = mistakes("slow dim=0 shrinkage=2 views=perhaps part=0 width=3 dims=4 dim=5");
        for part in [
            "dim=0: must be from 1 to 4096",
            "shrinkage=2: must be from 0.001 to 1",
            "views=perhaps: must be yes or no",
            "part=0: must be the number of a part",
            "width=3: no such option; known are dim, shrinkage, views, part",
            "dims=4: no such option; did you mean dim?",
            "dim is said twice",
        ] {
            assert!(all.contains(part), "missing {part:?} in\n{all}");
        }
        assert!(mistakes("slow dim=1.5").contains("a whole number"));
        assert!(mistakes("slow dim").contains("from 1 to 4096"));
        assert!(mistakes("slow+mlp dim=8").contains("takes no options"));
        let mut problems = Vec::new();
        check(&["slow".into(), "fast".into(), "slow x=1".into()], &mut problems);
        assert_eq!(problems.len(), 2);
        check(&[], &mut problems);
        assert!(problems[2].contains("at least one of"));
    }
}
