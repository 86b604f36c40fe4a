//! The web server of a verb that runs a pipeline: `/metrics` and `/health`, where `metrics.listen` asks for it.
use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::http::{Answer, Server};
use crate::metrics::Metrics;

/// The key, for messages.
const KEY: &str = "metrics.listen";

/// Figures, and the server that tells them for as long as it is kept. Started before anything that takes long, so that
/// a port in use is told at once and a warm-up can be watched.
pub(super) fn open(config: &Config) -> Result<(Arc<Metrics>, Option<Server>)> {
    let metrics = Arc::new(Metrics::default());
    let Some(listen) = config.metrics.address().map_err(crate::error::Error::config)? else {
        return Ok((metrics, None));
    };
    let figures = metrics.clone();
    let server = Server::start(listen, KEY, Arc::new(move |path: &str| page(&figures, path)))?;
    tracing::info!("figures at http://{}/metrics", server.address());
    if !listen.ip().is_loopback() {
        tracing::warn!("{KEY} = \"{listen}\": everybody who reaches this machine can read the figures");
    }
    Ok((metrics, Some(server)))
}

fn page(metrics: &Metrics, path: &str) -> Option<Answer> {
    match path {
        "/metrics" => {
            Some(Answer { status: 200, kind: "text/plain; version=0.0.4; charset=utf-8", body: metrics.page() })
        }
        "/health" => Some(match metrics.health() {
            Ok(line) => Answer::line(200, &line),
            Err(line) => Answer::line(503, &line),
        }),
        _ => None,
    }
}
