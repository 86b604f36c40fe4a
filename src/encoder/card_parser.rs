//! Parses a model card, reports all its mistakes at once, and explains what to do if it is missing.
use std::path::Path;

use toml::{Table, Value};

use super::model_card::{
    ChannelOrder, MAX_MODEL_BYTES, ModelCard, OutputKind, ReferenceModel, ResizeMode, TensorLayout,
};
use super::onnx_signature::ModelSignature;
use super::preset::{self, Preset};
use super::validate;
use crate::config::size::{MAX_SIDE, MIN_SIDE};
use crate::config::taps::{self, FeatureTap};
use crate::config::{EXPOSURES, Size};
use crate::error::{Error, Result};
use crate::files::read_bounded;

/// Keys of a card.
const KEYS: &str = "name kind layout input output taps size multiple_of preset channels mean std fit exposure cell_first cell_step source licence sha256 reference reference_sha256";

/// Parses the text of a card; `what` names it in errors.
pub(super) fn parse(text: &str, what: &str) -> Result<ModelCard> {
    let table: Table = toml::from_str(text)
        .map_err(|e| Error::config(format!("model card {what} is not TOML: {}", e.to_string().trim())))?;
    let mut read = CardReader { table, mistakes: Vec::new() };
    let preset = read.preset();
    let card = ModelCard {
        name: read.text("name"),
        kind: read.choice(
            "kind",
            &[("vector", OutputKind::Vector), ("grid", OutputKind::Grid)],
            Some(OutputKind::Vector),
        ),
        input: read.text("input"),
        output: read.text("output"),
        taps: read.taps(),
        layout: read.choice(
            "layout",
            &[("hwd", TensorLayout::Hwd), ("dhw", TensorLayout::Dhw)],
            Some(TensorLayout::Dhw),
        ),
        size: read.size(),
        multiple_of: read.pixels("multiple_of", 1, Some(1)),
        channels: read.choice(
            "channels",
            &[("rgb", ChannelOrder::Rgb), ("bgr", ChannelOrder::Bgr)],
            preset.map(|preset| preset.channels),
        ),
        mean: match preset {
            Some(preset) => preset.mean,
            None => read.triple(
                "mean",
                |v| v.abs() <= 1000.0,
                "must be three numbers from -1000 to 1000, of pixels of 0 to 1",
            ),
        },
        std: match preset {
            Some(preset) => preset.std,
            None => read.triple("std", |v| (1e-6..=1000.0).contains(&v), "must be three numbers from 1e-6 to 1000"),
        },
        fit: read.choice(
            "fit",
            &[("stretch", ResizeMode::Stretch), ("crop", ResizeMode::Crop)],
            Some(ResizeMode::Stretch),
        ),
        exposure: read.exposure(),
        cells: read.cells(),
        motion_crop: None,
        source: read.text("source"),
        licence: read.text("licence"),
        sha256: read.digest("sha256"),
        reference: read.reference(),
    };
    if card.kind == OutputKind::Grid && !card.taps.is_empty() {
        read.mistakes.push("taps: a latent that is a grid has none; say kind = \"vector\", or leave them out".into());
    }
    if card.kind == OutputKind::Grid && !read.table.contains_key("layout") {
        read.mistakes.push("layout is missing: a grid needs \"hwd\" ([n, h, w, d]) or \"dhw\" ([n, d, h, w])".into());
    }
    if read.mistakes.is_empty() && card.size.sides().iter().any(|side| !side.is_multiple_of(card.multiple_of)) {
        read.mistakes.push(format!(
            "size = {}: must be a multiple of multiple_of = {}",
            card.size.written(),
            card.multiple_of
        ));
    }
    let unknown = read.table.keys().filter(|k| !KEYS.split(' ').any(|known| known == k.as_str()));
    let unknown: Vec<String> =
        unknown.map(|k| format!("{k}: unknown key; a card has {}", KEYS.replace(' ', ", "))).collect();
    read.mistakes.extend(unknown);
    match read.mistakes.as_slice() {
        [] => Ok(card),
        [one] => Err(Error::config(format!("model card {what}: {one}"))),
        all => Err(Error::config(format!("model card {what}: {} mistakes\n  {}", all.len(), all.join("\n  ")))),
    }
}

/// Explains what to do when there is no card, after any problem with the model itself.
pub(super) fn missing(model: &Path, path: &Path) -> Error {
    let looked = read_bounded(model, MAX_MODEL_BYTES).and_then(|bytes| {
        let outline = ModelSignature::read(&bytes, &model.display().to_string())?;
        validate::whole(&outline, model).map(|()| outline)
    });
    let outline = match looked {
        Ok(outline) => outline,
        Err(error) => return error,
    };
    Error::config(format!(
        "{model} has no model card: {} is not there. `afterimage card {model}` tries the model and writes one. The model has {}",
        path.display(),
        outline.describe(),
        model = model.display(),
    ))
}

/// Takes validated values out of a table and records every mistake.
struct CardReader {
    table: Table,
    mistakes: Vec<String>,
}

impl CardReader {
    /// Records that `key` must be what `must` describes, together with its current value.
    fn mistake(&mut self, key: &str, must: &str) {
        self.mistakes.push(match self.table.get(key) {
            None => format!("{key} is missing: {must}"),
            Some(value) => format!("{key} = {value}: {must}"),
        });
    }

    fn text(&mut self, key: &str) -> String {
        match self.table.get(key).and_then(Value::as_str) {
            Some(s) if !s.is_empty() && !s.contains('\0') => s.to_string(),
            _ => {
                self.mistake(key, "must be a text that is not empty");
                String::new()
            }
        }
    }

    fn pixels(&mut self, key: &str, least: u32, default: Option<u32>) -> u32 {
        if let (None, Some(value)) = (self.table.get(key), default) {
            return value;
        }
        let value = self.table.get(key).and_then(Value::as_integer).and_then(|v| u32::try_from(v).ok());
        match value.filter(|v| (least..=MAX_SIDE).contains(v)) {
            Some(value) => value,
            None => {
                self.mistake(key, &format!("must be a whole number from {least} to {MAX_SIDE}"));
                least
            }
        }
    }

    /// The preset that the card names instead of `mean` and `std`.
    fn preset(&mut self) -> Option<Preset> {
        let value = self.table.get("preset")?;
        let found = value.as_str().and_then(preset::named);
        if found.is_none() {
            self.mistake("preset", &format!("must be one of {}", preset::names()));
        }
        for key in ["mean", "std"] {
            if self.table.contains_key(key) {
                self.mistake(key, "comes with the preset already; leave one of the two out");
            }
        }
        Some(found.unwrap_or(preset::IMAGENET))
    }

    fn size(&mut self) -> Size {
        let size = match self.table.get("size") {
            Some(Value::Array(list)) => Size::of_list(list),
            Some(Value::Integer(side)) => u32::try_from(*side).ok().map(Size::square),
            _ => None,
        };
        size.filter(|size| size.is_allowed()).unwrap_or_else(|| {
            let must = format!(
                "must be a whole number of pixels (a square), or [height, width], each from {MIN_SIDE} to {MAX_SIDE}"
            );
            self.mistake("size", &must);
            Size::square(MIN_SIDE)
        })
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T); 2], default: Option<T>) -> T {
        if let (None, Some(value)) = (self.table.get(key), default) {
            return value;
        }
        let found = self.table.get(key).and_then(Value::as_str);
        match choices.iter().find(|(name, _)| Some(*name) == found) {
            Some((_, value)) => *value,
            None => {
                let [(one, value), (two, _)] = choices;
                self.mistake(key, &format!("must be \"{one}\" or \"{two}\""));
                *value
            }
        }
    }

    fn taps(&mut self) -> Vec<FeatureTap> {
        let Some(value) = self.table.get("taps") else { return Vec::new() };
        let texts: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        match texts.map(|texts| taps::parse(&texts)) {
            Some(Ok(taps)) => taps.unwrap_or_default(),
            Some(Err(wrong)) => {
                self.mistakes.extend(wrong.into_iter().map(|why| format!("taps has {why}")));
                Vec::new()
            }
            None => {
                self.mistake("taps", "must be a list of texts, each \"TENSOR:POOLING\"");
                Vec::new()
            }
        }
    }

    fn triple(&mut self, key: &str, fits: impl Fn(f64) -> bool, must: &str) -> [f32; 3] {
        let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
        let values: Option<Vec<f64>> =
            self.table.get(key).and_then(Value::as_array).and_then(|a| a.iter().map(number).collect());
        match values.as_deref() {
            Some(&[a, b, c]) if [a, b, c].into_iter().all(fits) => [a as f32, b as f32, c as f32],
            _ => {
                self.mistake(key, must);
                [1.0; 3]
            }
        }
    }

    fn exposure(&mut self) -> Option<f32> {
        let value = self.table.get("exposure")?;
        let level = value.as_float().or_else(|| value.as_integer().map(|i| i as f64)).map(|v| v as f32);
        if !level.is_some_and(|level| EXPOSURES.contains(&level)) {
            let (least, most) = (EXPOSURES.start(), EXPOSURES.end());
            self.mistake("exposure", &format!("must be a number from {least} to {most}, or be left out"));
        }
        level
    }

    /// Both keys must be present, or neither.
    fn cells(&mut self) -> Option<[f64; 2]> {
        let keys = ["cell_first", "cell_step"];
        if !keys.iter().any(|key| self.table.contains_key(*key)) {
            return None;
        }
        let [first, step] = keys.map(|key| {
            let value = self.table.get(key).and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)));
            let value = value.filter(|v| (0.5..=f64::from(MAX_SIDE)).contains(v));
            if value.is_none() {
                self.mistake(
                    key,
                    &format!("must be a number from 0.5 to {MAX_SIDE} (pixels), as both keys or neither"),
                );
            }
            value
        });
        Some([first?, step?])
    }

    fn reference(&mut self) -> Option<ReferenceModel> {
        if !["reference", "reference_sha256"].iter().any(|key| self.table.contains_key(*key)) {
            return None;
        }
        let (file, sha256) = (self.text("reference"), self.digest("reference_sha256"));
        if file.contains('/') {
            self.mistake("reference", "must be the name of an ONNX file in the folder of the card");
        }
        Some(ReferenceModel { file, sha256 })
    }

    fn digest(&mut self, key: &str) -> String {
        let hex = |s: &&str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match self.table.get(key).and_then(Value::as_str).filter(hex) {
            Some(s) => s.to_string(),
            None => {
                self.mistake(key, "must be the 64 lower-case hexadecimal digits that `sha256sum` prints for the model");
                String::new()
            }
        }
    }
}
