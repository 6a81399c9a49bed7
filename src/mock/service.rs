//! The HTTP side: the two delete paths, and those to steer by.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Query, Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use compact_str::CompactString;
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Reset;
use super::judge::{Act, Call};
use super::{Fate, Faults, RecordedCall, State};
use crate::config::Api;

/// More than a full call of the longest IDs needs.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A page of `/_mock/deleted`, unless asked otherwise.
const PAGE: usize = 10_000;

pub(super) fn router(state: Arc<State>) -> Router {
    let v1_0 = |state, request| serve(state, request, Some(Api::V1_0));
    let v1_2 = |state, request| serve(state, request, Some(Api::V1_2));
    let unknown = |state, request| serve(state, request, None);
    Router::new()
        .route("/api/serve/video/delete", delete(v1_0).fallback(unknown))
        .route("/serve/api/v1/delete_videos", post(v1_2).fallback(unknown))
        .route("/_mock/faults", get(faults).put(replace_faults).patch(change_faults))
        .route("/_mock/stats", get(stats))
        .route("/_mock/deleted", get(deleted))
        .route("/_mock/calls", get(calls))
        .route("/_mock/reset", post(reset))
        .route("/healthz", get(async || "ok\n"))
        .fallback(unknown)
        .with_state(state)
}

/// Counts a call out, however it ends: the client may go away at any time.
struct Presence(Arc<State>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.book().ledger.leave();
    }
}

/// All is decided and done when the call is read; the latency, from its arrival, only holds the answer back.
async fn serve(Shared(state): Shared<Arc<State>>, request: Request, api: Option<Api>) -> Response {
    let now = Instant::now();
    state.book().ledger.enter(now);
    let _presence = Presence(Arc::clone(&state));
    let (parts, body) = request.into_parts();
    // A call that breaks off is none.
    let Ok(body) = read(body).await else { return carry_out(Act::Reset).await };

    let (act, latency) = {
        let mut book = state.book();
        let book = &mut *book;
        let latency = book.judge.latency();
        let (fate, act, ids) = match (api, body) {
            (None, _) => (Fate::NotFound, status(not_found(&parts)), Vec::new()),
            (Some(_), None) => (Fate::TooLarge, status(StatusCode::PAYLOAD_TOO_LARGE), Vec::new()),
            (Some(api), Some(body)) => {
                let call =
                    Call { api, is_authorized: is_authorized(&state, &parts), ids: ids(api, &parts, &body) };
                let (fate, act) = book.judge.decide(&call, &mut book.ledger, now);
                (fate, act, call.ids.unwrap_or_default())
            }
        };
        let call = recorded(&parts, book.ledger.time_of(now), fate, ids);
        book.ledger.record(call, api.map(limit));
        (act, latency)
    };
    if !latency.is_zero() {
        wait(latency.saturating_sub(now.elapsed())).await;
    }
    carry_out(act).await
}

/// To a tenth of a millisecond, as benchmarks are measured by it; tokio's timers are coarser.
async fn wait(time: Duration) {
    const COARSE: Duration = Duration::from_millis(2);
    let begun = Instant::now();
    if time > COARSE {
        tokio::time::sleep(time - COARSE).await;
    }
    let rest = time.saturating_sub(begun.elapsed());
    // Sleeping can't fail.
    let _ = tokio::task::spawn_blocking(move || std::thread::sleep(rest)).await;
}

/// The whole body, or `None` if it is too long. It is read to its end all the same: closing the connection on a
/// client that still writes would cost it the answer.
async fn read(mut body: Body) -> Result<Option<Vec<u8>>, axum::Error> {
    let mut kept = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        kept = kept.filter(|kept| kept.len() + data.len() <= BODY_BYTES_MAX);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&data);
        }
    }
    Ok(kept)
}

async fn carry_out(act: Act) -> Response {
    match act {
        Act::Answer(reply) => {
            let body = Body::from(reply.body);
            response(reply.status, reply.headers, body)
        }
        Act::Truncate(mut reply) => {
            reply.headers.insert("content-length".to_owned(), reply.body.len().to_string());
            let half = reply.body[..reply.body.len() / 2].to_owned();
            response(reply.status, reply.headers, truncated(half))
        }
        Act::Endless => response(200, BTreeMap::new(), endless()),
        Act::Reset => {
            let mut response = Response::default();
            response.extensions_mut().insert(Reset);
            response
        }
        Act::Hang => std::future::pending().await,
    }
}

fn response(status: u16, headers: BTreeMap<String, String>, body: Body) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response
        .body(body)
        .unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

/// A body that breaks off after `text`.
fn truncated(text: String) -> Body {
    Body::from_stream(stream::unfold(Some(text), async |rest| match rest {
        Some(text) => Some((Ok(text), None)),
        None => {
            // What was sent so far is on its way when we come back.
            tokio::task::yield_now().await;
            Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None))
        }
    }))
}

fn endless() -> Body {
    Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(" ".repeat(1024))))
}

fn status(status: StatusCode) -> Act {
    Act::Answer(super::Reply {
        status: status.as_u16(),
        headers: [].into(),
        body: status.to_string(),
        calls: None,
        applies: false,
    })
}

fn not_found(parts: &Parts) -> StatusCode {
    match parts.uri.path() {
        "/api/serve/video/delete" | "/serve/api/v1/delete_videos" => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::NOT_FOUND,
    }
}

fn is_authorized(state: &State, parts: &Parts) -> bool {
    let sent = parts.headers.get(header::AUTHORIZATION);
    state.token.as_ref().is_none_or(|token| sent.is_some_and(|sent| sent.as_bytes() == token.as_bytes()))
}

fn ids(api: Api, parts: &Parts, body: &[u8]) -> Result<Vec<CompactString>, &'static str> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err("the content type is not application/json");
    }
    let Ok(ids) = serde_json::from_slice::<Vec<CompactString>>(body) else {
        return Err("the body is not a list of strings");
    };
    if ids.is_empty() || ids.iter().any(CompactString::is_empty) {
        return Err("the list or an ID of it is empty");
    }
    if ids.len() > limit(api) {
        return Err("the list is longer than the limit");
    }
    Ok(ids)
}

fn limit(api: Api) -> usize {
    match api {
        Api::V1_0 => 500,
        Api::V1_2 => 100,
    }
}

fn recorded(
    parts: &Parts,
    at: std::time::SystemTime,
    outcome: Fate,
    ids: Vec<CompactString>,
) -> RecordedCall {
    let namespace = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "unique_id")
        .map(|(_, value)| value.into_owned());
    let headers = parts
        .headers
        .iter()
        .filter(|(name, _)| **name != header::AUTHORIZATION)
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    RecordedCall {
        at,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        headers,
        namespace,
        size: ids.len(),
        outcome,
        ids,
    }
}

async fn faults(Shared(state): Shared<Arc<State>>) -> Json<Faults> {
    Json(state.book().judge.faults().clone())
}

async fn replace_faults(Shared(state): Shared<Arc<State>>, Json(faults): Json<Faults>) -> Response {
    if let Err(sentence) = faults.check() {
        return (StatusCode::UNPROCESSABLE_ENTITY, sentence).into_response();
    }
    state.book().judge.set_faults(faults.clone());
    Json(faults).into_response()
}

async fn change_faults(
    shared: Shared<Arc<State>>,
    Json(changes): Json<serde_json::Map<String, Value>>,
) -> Response {
    let merged = serde_json::to_value(shared.book().judge.faults()).and_then(|mut faults| {
        if let Value::Object(members) = &mut faults {
            members.extend(changes);
        }
        serde_json::from_value(faults)
    });
    match merged {
        Ok(faults) => replace_faults(shared, Json(faults)).await,
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}

async fn stats(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.book().ledger.stats()).into_response()
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

async fn deleted(Shared(state): Shared<Arc<State>>, Query(page): Query<Page>) -> Json<Value> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let book = state.book();
    let mut rest =
        book.ledger.deleted().range::<str, _>((Bound::Excluded(page.after.as_str()), Bound::Unbounded));
    let ids: serde_json::Map<_, _> =
        rest.by_ref().take(limit).map(|(id, times)| (id.to_string(), json!(times))).collect();
    let next = rest.next().and(ids.keys().next_back().cloned());
    Json(json!({ "deleted": ids, "next": next }))
}

async fn calls(Shared(state): Shared<Arc<State>>) -> Response {
    let calls: Vec<RecordedCall> = state.book().ledger.calls().cloned().collect();
    Json(calls).into_response()
}

async fn reset(Shared(state): Shared<Arc<State>>) -> StatusCode {
    state.book().ledger.reset(Instant::now());
    StatusCode::NO_CONTENT
}
