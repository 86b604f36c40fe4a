//! The web server of a command that runs a pipeline: serves `/metrics` and `/health` if `metrics.listen` is set.
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::Server;
use crate::metrics::{self, Metrics};

/// The configuration key, for messages.
const KEY: &str = "metrics.listen";

/// Returns the metrics, and the server that serves them for as long as it is kept. Open it before anything slow, so
/// that a port in use is reported at once and a slow start can be watched.
pub(super) fn open(config: &Config) -> Result<(Arc<Metrics>, Option<Server>)> {
    let metrics = Arc::new(Metrics::default());
    let Some(listen) = config.metrics.address().map_err(Error::config)? else {
        return Ok((metrics, None));
    };
    let server = Server::start(listen, KEY, routes(metrics.clone()))?;
    tracing::info!("serving metrics on http://{}/metrics", server.address());
    if !listen.ip().is_loopback() {
        tracing::warn!("{KEY} = \"{listen}\": everyone who can reach this machine can read the metrics");
    }
    Ok((metrics, Some(server)))
}

fn routes(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(page))
        .route("/health", get(health))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; try /metrics or /health\n") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n") })
        .with_state(metrics)
}

async fn page(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.page())
}

async fn health(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.health() {
        Ok(line) => (StatusCode::OK, format!("{line}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
