//! `encoder.taps`: which tensors of the encoder are read, and how each becomes one vector.
use std::fmt;
use std::str::FromStr;

/// Name that stands for the output that the card names.
pub const OUTPUT: &str = "output";
/// Most taps of one encoder.
const MOST: usize = 16;
/// Largest power of [`Pooling::Gem`]: values of a few thousand to this power are still finite in f32.
const MOST_POWER: f64 = 10.0;

/// How a tensor of one image becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pooling {
    /// Mean over the cells of `[n, d, h, w]`, or over the tokens of `[n, t, d]`.
    Mean,
    /// `gemP`: `(mean over cells of max(v, 1e-6)^p)^(1/p)` of `[n, d, h, w]`, p from 1 to 10 (generalised mean; Radenovic,
    /// Tolias, Chum 2018, "Fine-tuning CNN image retrieval with no human annotation", equation 3).
    Gem(f64),
    /// Largest value over the cells of `[n, d, h, w]`.
    Max,
    /// Mean over the tokens of `[n, t, d]` without the first, which is the class token.
    Tokens,
    /// The first token of `[n, t, d]`, the class token.
    Cls,
    /// `[n, d]` as it is.
    AsIs,
}

/// A tensor of the encoder and its pooling, written `TENSOR:POOLING`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTap {
    /// Name in the ONNX graph, or [`OUTPUT`].
    pub tensor: String,
    /// How it becomes a vector.
    pub pooling: Pooling,
}

/// A list of taps: `None` where it is empty (the card decides), no taps where it is `["output"]` (the encoder's own
/// output as it is). The error names every mistake.
pub fn parse(list: &[String]) -> Result<Option<Vec<FeatureTap>>, Vec<String>> {
    match list {
        [] => return Ok(None),
        [one] if one == OUTPUT => return Ok(Some(Vec::new())),
        _ => {}
    }
    let (mut taps, mut wrong) = (Vec::<FeatureTap>::new(), Vec::new());
    for text in list {
        match text.parse() {
            Ok(tap) if taps.contains(&tap) => wrong.push(format!("{text:?} is there twice")),
            Ok(tap) => taps.push(tap),
            Err(why) => wrong.push(why),
        }
    }
    if list.len() > MOST {
        wrong.push(format!("{} taps; at most {MOST}", list.len()));
    }
    if wrong.is_empty() { Ok(Some(taps)) } else { Err(wrong) }
}

impl FromStr for FeatureTap {
    type Err = String;

    /// The pooling stands behind the last colon; names of tensors may hold colons too, and without a pooling they are taken
    /// as they are.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == OUTPUT {
            return Ok(Self { tensor: OUTPUT.into(), pooling: Pooling::AsIs });
        }
        match text.rsplit_once(':') {
            Some((tensor, pooling)) if !tensor.is_empty() => match pooling.parse() {
                Ok(pooling) => Ok(Self { tensor: tensor.into(), pooling }),
                Err(_) if is_name(pooling) => Ok(Self { tensor: text.into(), pooling: Pooling::AsIs }),
                Err(why) => Err(format!("{text:?}: {why}")),
            },
            _ => Err(format!("{text:?}: write TENSOR:POOLING, for example \"{OUTPUT}:as-is\" or \"{text}:gem3\"")),
        }
    }
}

/// Whether what stands behind a colon is the end of a name (`StatefulPartitionedCall:0`) rather than a pooling mistyped.
fn is_name(end: &str) -> bool {
    let poolings = ["mean", "max", "tokens", "cls", "as-is", "gem"];
    let near = |pooling: &str| end.starts_with(pooling) || strsim::levenshtein(end, pooling) <= 2;
    // What is no word of a name is a mistake.
    let word = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_graphic());
    word && (end.bytes().all(|byte| byte.is_ascii_digit()) || !poolings.iter().any(|pooling| near(pooling)))
}

impl FeatureTap {
    /// Where a tensor of the graph is called as the whole text, that is the one that is meant: names may end like a pooling.
    pub fn name_longest(&mut self, tensors: &[&str]) {
        let whole = self.to_string();
        if self.tensor != OUTPUT && tensors.contains(&whole.as_str()) {
            *self = Self { tensor: whole, pooling: Pooling::AsIs };
        }
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let power = |digits: &str| digits.parse().ok().filter(|p| (1.0..=MOST_POWER).contains(p));
        Ok(match text {
            "mean" => Self::Mean,
            "max" => Self::Max,
            "tokens" => Self::Tokens,
            "cls" => Self::Cls,
            "as-is" => Self::AsIs,
            _ => match text.strip_prefix("gem").map(power) {
                Some(Some(p)) => Self::Gem(p),
                Some(None) => return Err(format!("{text:?}: gem takes a power from 1 to {MOST_POWER}, as in gem3")),
                None => return Err(format!("{text:?} is no pooling; there are mean, gem3, max, tokens, cls, as-is")),
            },
        })
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => f.write_str("mean"),
            Self::Gem(p) => write!(f, "gem{p}"),
            Self::Max => f.write_str("max"),
            Self::Tokens => f.write_str("tokens"),
            Self::Cls => f.write_str("cls"),
            Self::AsIs => f.write_str("as-is"),
        }
    }
}

impl fmt::Display for FeatureTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tensor, self.pooling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in
            ["output:as-is", "/a/b_0:mean", "x:gem3", "x:gem2.5", "Call:0:max", "Call:0:as-is", "t:tokens", "t:cls"]
        {
            assert_eq!(text.parse::<FeatureTap>().map(|tap| tap.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("output".parse::<FeatureTap>().map(|tap| tap.to_string()), Ok("output:as-is".into()));
        assert_eq!("Call:0".parse::<FeatureTap>(), "Call:0:as-is".parse(), "the end of a name is no pooling");
        assert_eq!("x:gem3.0".parse::<FeatureTap>(), "x:gem3".parse(), "one way to write it counts as the other");
    }

    #[test]
    fn an_empty_list_leaves_it_to_the_card_and_output_alone_is_no_tap() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&texts(&["output"])), Ok(Some(Vec::new())));
        assert_eq!(parse(&texts(&["output", "x:max"])).map(|taps| taps.map(|t| t.len())), Ok(Some(2)));
    }

    #[test]
    fn every_mistake_is_named() {
        let wrong =
            parse(&texts(&["x", ":max", "x:gem", "x:gem0.5", "x:gem11", "x:gemNaN", "Call:meen", "y:max", "y:max"]));
        let wrong = wrong.expect_err("mistakes");
        for (part, at) in [
            ("write TENSOR:POOLING", 0),
            ("write TENSOR:POOLING", 1),
            ("gem takes a power from 1 to 10", 2),
            ("gem takes a power from 1 to 10", 3),
            ("gem takes a power from 1 to 10", 4),
            ("gem takes a power from 1 to 10", 5),
            ("\"meen\" is no pooling", 6),
            ("\"y:max\" is there twice", 7),
        ] {
            assert!(wrong[at].contains(part), "{at}: {wrong:?}");
        }
        let many: Vec<String> = (0..17).map(|i| format!("t{i}:mean")).collect();
        assert_eq!(parse(&many), Err(vec!["17 taps; at most 16".into()]));
    }
}
