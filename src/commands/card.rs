//! `card`: writes a working model card, derived from the graph and tested on pictures, or says in one line why there
//! can be none.
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tracing::subscriber::NoSubscriber;

use super::Output;
use crate::cli;
use crate::config::{Config, Size, loader::load};
use crate::encoder::{CardDraft, CardRequest, Encoder, draft, runtime};
use crate::error::{Error, Result};
use crate::files;

pub(super) fn run(args: &cli::CardArgs) -> Result<Output> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let path = args.encoder.with_extension("toml");
    let there = path.exists();
    let wish = CardRequest { preset: args.preset.clone(), size: args.size, output: args.output.clone() };
    // Problems of the model come first.
    let drafts = draft(&args.encoder, &wish)?;
    if there && !args.force {
        return Err(Error::usage(format!(
            "{} is there already; `afterimage check --encoder {}` tries it, --force writes over it",
            path.display(),
            args.encoder.display()
        )));
    }
    let (draft, encoder) = first_that_runs(&drafts, &args.encoder, &config)?;
    files::replace(&path, |out| out.write_all(draft.text.as_bytes()))?;
    let mut lines = vec![format!(
        "{}: written; {} pixels to {} values on {}, {:.1} ms",
        path.display(),
        draft.card.size,
        encoder.dim(),
        encoder.provider(),
        encoder.first_millis()
    )];
    lines.extend(draft.why.iter().map(|why| format!("  {why}")));
    lines.extend(encoder.doubts().iter().map(|doubt| format!("warning: {doubt}")));
    lines.push(format!("next: afterimage embed --source FOLDER --encoder {} --out OUT", args.encoder.display()));
    let json = json!({
        "card": path.display().to_string(), "input": draft.card.input, "output": draft.card.output,
        "size": draft.card.size, "dim": encoder.dim(), "provider": encoder.provider(),
        "why": draft.why, "doubts": encoder.doubts(), "sha256": draft.card.sha256,
    });
    Ok(Output { text: lines.join("\n"), json, as_json: args.common.json })
}

/// The first draft whose card passes, with its encoder.
fn first_that_runs<'a>(drafts: &'a [CardDraft], model: &Path, config: &Config) -> Result<(&'a CardDraft, Encoder)> {
    let runtime = runtime::load(&config.encoder.onnxruntime)?;
    let mut first: Option<Error> = None;
    let mut sizes: Vec<Size> = Vec::new();
    for draft in drafts {
        let card = draft.card.clone().with(&config.encoder)?.prepared(&config.preprocess)?;
        if !sizes.contains(&card.size) {
            sizes.push(card.size);
        }
        // ONNX Runtime's messages about a size that does not fit would only confuse; the final problem is returned.
        let opened = tracing::subscriber::with_default(NoSubscriber::default(), || {
            Encoder::open(&runtime, model, &card, &config.encoder)
        });
        match opened {
            Ok(encoder) => return Ok((draft, encoder)),
            Err(error) => {
                tracing::debug!("{}: {}", draft.why.join(", "), error.chain());
                first = first.or(Some(error));
            }
        }
    }
    let error = first.ok_or_else(|| Error::runtime("no card to try"))?;
    if sizes.len() < 2 {
        return Err(error);
    }
    let tried: Vec<String> = sizes.iter().map(|size| size.written()).collect();
    Err(Error::check_failed(format!(
        "no card was written: sizes {} were tried; give the one that the model was trained with: --size N, or --size H,W",
        tried.join(", ")
    ))
    .with_source(error))
}
