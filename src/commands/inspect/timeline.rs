//! The journal as text.
use serde_json::{Value, json};

use crate::pipeline::run_dir::RunManifest;

/// Lines for people, and the same for scripts.
pub(super) fn tell(info: &RunManifest, events: &[Value]) -> (Vec<String>, Value) {
    let mut text = vec![format!(
        "source     {} ({}); cameras: {}; encoder {} of {} numbers",
        info.sources.join(", "),
        if info.live { "live" } else { "bounded" },
        info.cameras.join(", "),
        info.encoder.display(),
        info.latent_dim
    )];
    let (mut fits, mut states, mut rollbacks) = (Vec::new(), Vec::new(), 0u64);
    for event in events {
        let frame = event["frame"].as_u64().unwrap_or(0);
        match event["event"].as_str().unwrap_or_default() {
            name @ ("start" | "resume" | "replay" | "merge") => text.push(format!("{frame:>9}  {name}")),
            name @ ("fit" | "promotion" | "demotion") => {
                text.push(format!("{frame:>9}  {name}: {}", event["reason"].as_str().unwrap_or("?")));
                text.extend(tried(event));
                fits.push(event.clone());
            }
            "state" => {
                let (from, to) = (event["from"].as_str().unwrap_or("?"), event["to"].as_str().unwrap_or("?"));
                let rate = event["rate"].as_f64().filter(|rate| *rate < 1.0);
                let rate = rate.map(|rate| format!("; rate x {rate:.3}")).unwrap_or_default();
                let reason = event["reason"].as_str().unwrap_or("?");
                if to == "rolled-back" {
                    rollbacks += 1;
                }
                // Every fit begins with warming, so report only unusual states.
                if matches!(to, "rolled-back" | "holding") || from == "rolled-back" {
                    text.push(format!("{frame:>9}  {from} -> {to}: {reason}{rate}"));
                }
                states.push(json!({ "frame": frame, "from": from, "to": to, "reason": reason }));
            }
            // Written by older runs, before guard states existed.
            "rollback" => {
                rollbacks += 1;
                text.push(format!("{frame:>9}  rolled back: {}", event["reason"].as_str().unwrap_or("?")));
            }
            name @ ("fault" | "lines_lost") => {
                text.push(format!("{frame:>9}  {name}: {}", event["reason"].as_str().unwrap_or("?")));
            }
            name @ ("end" | "stop") => {
                let frames = event["frames"].as_u64().unwrap_or(0);
                text.push(format!("{frames:>9}  {name} after {frames} frames"));
            }
            _ => {}
        }
    }
    let checks = events.iter().filter(|event| event["event"] == "health").count();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    let last = fits.last().cloned().unwrap_or(Value::Null);
    let exported = last["exported"].as_u64().unwrap_or(0);
    let why = fits.iter().rev().find(|fit| fit["promoted"].as_u64() == Some(exported)).unwrap_or(&last);
    let why = why["reason"].as_str().unwrap_or("no fit was made: the frozen latents are exported").to_owned();
    text.push(format!(
        "fits       {}; promotions {}, demotions {}, rollbacks {rollbacks}, checks of the residual {checks}",
        fits.len(),
        of("promotion"),
        of("demotion")
    ));
    for (name, key) in [("frozen", "frozen_health"), ("exported", "exported_health")] {
        if let Some(health) = last[key].as_object() {
            let figure = |key: &str| health.get(key).and_then(Value::as_f64).map_or("-".into(), |x| format!("{x:.3}"));
            text.push(format!(
                "health     {name}: TR@1 {}, AUROC {}, rank {}, uniformity {}, alignment {}, spread {}",
                figure("retrieval"),
                figure("auroc"),
                figure("rank"),
                figure("uniformity"),
                figure("alignment"),
                figure("spread")
            ));
        }
    }
    text.push(format!("exported   head {exported}: {why}"));
    let json = json!({
        "sources": info.sources, "live": info.live, "cameras": info.cameras, "fits": fits, "states": states,
        "promotions": of("promotion"), "demotions": of("demotion"), "rollbacks": rollbacks, "checks": checks,
        "exported": exported, "why": why,
        "health": { "frozen": last["frozen_health"], "exported": last["exported_health"] },
        "drift": last["drift"], "forgetting": last["forgetting"],
    });
    (text, json)
}

/// One line for each candidate of a fit.
fn tried(fit: &Value) -> Vec<String> {
    let candidates = fit["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = candidates.iter().map(|candidate| {
        let verdict = |key: &str| {
            let judgement = &candidate[key];
            judgement["passed"].as_bool().map(|passed| {
                if !passed && let Some(reason) = judgement["reason"].as_str() {
                    return format!("fails: {reason}");
                }
                let gain = |side: &str| {
                    let (candidate, reference) = (&judgement[side]["candidate"], &judgement[side]["reference"]);
                    candidate.as_f64().zip(reference.as_f64()).map(|(c, r)| format!(" {side} {:+.4}", c - r))
                };
                let gains: String = ["next_frame", "auc"].into_iter().filter_map(gain).collect();
                let probe = &judgement["probe"]["rank"];
                let probe = probe["candidate"].as_f64().zip(probe["reference"].as_f64());
                let probe = probe.map(|(c, r)| format!(" probe {:+.4}", c - r)).unwrap_or_default();
                format!("{}{gains}{probe}", if passed { "passes" } else { "fails" })
            })
        };
        let against = [("frozen", "against_frozen"), ("exported", "against_exported"), ("slow", "against_slow")];
        let verdicts: Vec<String> = against
            .into_iter()
            .filter_map(|(name, key)| verdict(key).map(|verdict| format!("against {name} {verdict}")))
            .collect();
        let (name, dim) = (candidate["name"].as_str().unwrap_or("?"), candidate["dim"].as_u64().unwrap_or(0));
        let options = candidate["options"].as_str().map(|o| format!(" {o}")).unwrap_or_default();
        format!("             {name}{options} ({dim}): {}", verdicts.join("; "))
    });
    told.collect()
}
