use std::sync::Arc;
use std::time::Duration;

use apache_logformat::RequestId;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router, middleware};
use http::{HeaderMap, Method, StatusCode, header};
use maud::Markup;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Code, Link, Problem, Store, Target, page};

/// The shortener's routes over a store.
///
/// `is_draining` tells whether the process is about to end; `/healthz` then
/// answers 503, so that a load balancer looks elsewhere.
pub fn router(store: Store, is_draining: impl Fn() -> bool + Send + Sync + 'static) -> Router {
    let is_draining = Arc::new(is_draining);
    let healthz = async move || match is_draining() {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    Router::new()
        .route("/", get(home))
        .route("/links", post(create))
        .route("/{code}", get(follow))
        .route("/{code}/stats", get(stats))
        .route("/healthz", get(healthz))
        .with_state(store)
}

/// Routes to try the service with: `/sleep?ms=N` answers after N
/// milliseconds, `/report?steps=N` runs a deliberately slow query.
pub fn debug_router(store: Store) -> Router {
    Router::new()
        .route("/sleep", get(sleep))
        .route("/report", get(report))
        .with_state(store)
}

/// Gives every route of `router` the answers that axum leaves bare: a limit
/// on bodies, a sentence for unknown paths and wrong methods, a page instead of
/// JSON where a browser asks, and the request's id in either.
pub fn with_problems(router: Router) -> Router {
    router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this address does not take this method",
            )
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(tell_problems))
}

async fn home(
    State(store): State<Store>,
    created: Result<Query<Created>, QueryRejection>,
) -> Result<Markup, Problem> {
    let Query(Created { created }) = created?;
    let created = created.as_deref().and_then(Code::parse);
    Ok(page::home(&store.newest(NEWEST).await?, created.as_ref()))
}

#[derive(Deserialize)]
struct Created {
    created: Option<String>,
}

async fn create(
    State(store): State<Store>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let NewLink { url } = NewLink::from_request(request).await?;
    let target = Target::parse(&url.unwrap_or_default())?;
    let link = store.insert(&target).await?;
    if wants_html(&headers) {
        return Ok(Redirect::to(&format!("/?created={}", link.code)).into_response());
    }
    let location = [(header::LOCATION, format!("/{}", link.code))];
    Ok((StatusCode::CREATED, location, Json(as_json(&link))).into_response())
}

#[derive(Deserialize)]
struct NewLink {
    url: Option<String>,
}

impl NewLink {
    async fn from_request(request: Request) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match &*media_type.to_ascii_lowercase() {
            "application/json" => match Json::from_request(request, &()).await {
                Ok(Json(new)) => Ok(new),
                // The extractor's 422 would read like a refused URL.
                Err(JsonRejection::JsonDataError(error)) => {
                    Err(Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
                }
                Err(rejection) => Err(rejection.into()),
            },
            "application/x-www-form-urlencoded" => {
                let Form(new) = Form::from_request(request, &()).await?;
                Ok(new)
            }
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send the url as application/json or application/x-www-form-urlencoded",
            )),
        }
    }
}

async fn follow(
    State(store): State<Store>,
    Path(code): Path<String>,
    method: Method,
) -> Result<Response, Problem> {
    let link = find(&store, &code).await?;
    // The visitor is sent on even when the hit cannot be counted.
    if method == Method::GET
        && let Err(error) = store.count_hit(&link.code).await
    {
        tracing::error!(error = &error as &dyn std::error::Error, code = %link.code, "a hit was not counted");
    }
    let headers = [
        (header::LOCATION, link.url),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

async fn stats(
    State(store): State<Store>,
    Path(code): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(as_json(&find(&store, &code).await?)))
}

async fn find(store: &Store, code: &str) -> Result<Link, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "no link has this code");
    let code = Code::parse(code).ok_or_else(unknown)?;
    store.find(&code).await?.ok_or_else(unknown)
}

async fn sleep(query: Result<Query<Sleep>, QueryRejection>) -> Result<String, Problem> {
    let Query(Sleep { ms }) = query?;
    if ms > LONGEST_SLEEP_MS {
        let message = format!("ms is {ms}: at most {LONGEST_SLEEP_MS} are slept");
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(format!("slept {ms} ms\n"))
}

#[derive(Deserialize)]
struct Sleep {
    ms: u64,
}

async fn report(
    State(store): State<Store>,
    query: Result<Query<Report>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Report { steps }) = query?;
    let links = store.report(steps.unwrap_or(DEFAULT_STEPS)).await?;
    Ok(Json(json!({ "links": links })))
}

#[derive(Deserialize)]
struct Report {
    steps: Option<u32>,
}

/// Answers a [`Problem`] in the form that was asked for, with the request's id.
async fn tell_problems(request: Request, next: middleware::Next) -> Response {
    let html = wants_html(request.headers());
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>() else {
        return response;
    };
    let id = id
        .as_ref()
        .and_then(|id| str::from_utf8(id.as_bytes()).ok());
    let mut answer = problem.answer(html, id);
    for (name, value) in response.headers() {
        if !(name == header::CONTENT_TYPE || name == header::CONTENT_LENGTH) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// Browsers name `text/html`; programs ask for JSON, for anything, or not at
/// all.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn as_json(link: &Link) -> Value {
    json!({
        "code": link.code.as_str(),
        "url": link.url,
        "hits": link.hits,
        "created_at": link.created_at,
    })
}

/// How many links the page shows.
const NEWEST: u32 = 20;

/// In bytes; a URL has at most 2,048.
const LARGEST_BODY: usize = 16 * 1024;

const LONGEST_SLEEP_MS: u64 = 60_000;

/// About half a second of SQLite's time.
const DEFAULT_STEPS: u32 = 3_000_000;
