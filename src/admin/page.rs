//! What the admin server shows.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::pulse::{Beat, Pulse};
use super::{Limits, Question, Readiness};
use crate::metrics::Metrics;
use crate::text::{harmless, harmless_json};

struct Sources {
    metrics: Arc<Metrics>,
    readiness: watch::Receiver<Readiness>,
    questions: mpsc::Sender<Question>,
    pulse: Pulse,
    limits: Limits,
}

/// All pages; other paths are 404, other methods than GET and HEAD 405.
pub(super) fn router(
    metrics: Arc<Metrics>,
    readiness: watch::Receiver<Readiness>,
    questions: mpsc::Sender<Question>,
    limits: Limits,
) -> Router {
    let pulse = Pulse::new(questions.clone());
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .route("/status", get(show_status))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "not found: there are /metrics, /healthz, /readyz and /status\n")
        })
        .with_state(Arc::new(Sources { metrics, readiness, questions, pulse, limits }))
}

async fn show_metrics(State(sources): State<Arc<Sources>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], sources.metrics.encode()).into_response()
}

async fn show_health(State(sources): State<Arc<Sources>>) -> Response {
    let Limits { answer, stuck, .. } = sources.limits;
    match sources.pulse.feel(answer).await {
        Beat::Turns => "ok\n".into_response(),
        Beat::Silent(silence) if silence < stuck => {
            format!("ok, though the event loop has not turned for {silence:.1?}\n").into_response()
        }
        Beat::Silent(silence) => unavailable(format!("the event loop has not turned for {silence:.1?}\n")),
        Beat::Ended => unavailable("the event loop has ended\n".into()),
    }
}

async fn show_readiness(State(sources): State<Arc<Sources>>) -> Response {
    match &*sources.readiness.borrow() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => unavailable(format!("not ready: {}\n", harmless(reason))),
    }
}

async fn show_status(State(sources): State<Arc<Sources>>) -> Response {
    let (reply, answer) = oneshot::channel();
    let status = async {
        sources.questions.send(Question::Status(reply)).await.ok()?;
        answer.await.ok()
    };
    match timeout(sources.limits.answer, status).await {
        Ok(Some(status)) => {
            let json = serde_json::to_string_pretty(&status).expect("a status has no keys but strings");
            let json = harmless_json(&json).into_owned() + "\n";
            ([(CONTENT_TYPE, "application/json")], json).into_response()
        }
        Ok(None) => unavailable("the event loop has ended\n".into()),
        Err(_) => {
            unavailable(format!("the event loop has not answered within {:?}\n", sources.limits.answer))
        }
    }
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
