//! The routes: what is asked, and what is answered.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::answers::{Answer, NOTE, explained, predicted, segmented};
use super::device::{About, Job, Outcome, Served, Work};
use super::guard::{Access, Clients, guard};
use super::limits::Limits;
use super::measure::Measures;
use super::prepared::{Prepared, prepare};
use super::queue::Queue;
use super::refusal::Refusal;
use super::upload::{receive, title};
use super::{guide, openapi};
use crate::data::Preparation;
use crate::error::Result as CrateResult;
use crate::explain::Explanation;
use crate::train::Said;

const PAGE: &str = include_str!("web/index.html");
const STYLE: &str = include_str!("web/style.css");
const SCRIPT: &str = include_str!("web/app.js");
const ICON: &str = include_str!("web/icon.svg");

/// Paths that need no token, and that other pages may link to: they tell nothing of models or images.
pub(super) const OPEN: [&str; 7] = ["/", "/style.css", "/app.js", "/icon.svg", "/healthz", "/openapi.json", "/docs"];

/// What the routes share.
pub(super) struct App {
    pub served: Served,
    pub limits: Limits,
    pub access: Access,
    pub queue: Arc<Queue<Job>>,
    pub measures: Arc<Measures>,
    pub clients: Clients,
    /// Held by each open connection.
    pub connections: Arc<()>,
    /// As many images are decoded and drawn side by side.
    pub workers: Arc<Semaphore>,
}

/// All routes.
pub(super) fn routes(app: Arc<App>) -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/app.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/icon.svg", file("image/svg+xml", ICON))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .route("/docs", get(|| async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], openapi::page()) }))
        .route("/metrics", get(metrics))
        .route("/v1/model", get(model))
        .route("/v1/predict", post(predict))
        .route("/v1/explain", post(explain))
        .route("/v1/segment", post(segment))
        .method_not_allowed_fallback(|| async {
            let message = "this address does not take this method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message, "see /docs for what there is")
        })
        .fallback(|| async { Refusal::not_found("there is nothing at this address") })
        // Bodies are limited where they are read.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let open = Arc::strong_count(&app.connections) - 1;
    let text = app.measures.text(app.queue.len(), app.clients.count(), open);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn model(State(app): State<Arc<App>>) -> Json<Value> {
    let Served { classifier, explainer, segmenter, device, .. } = &app.served;
    let models = |about: &About| -> Vec<Value> {
        let numbers = about.temperatures.iter().zip(&about.views);
        let all = about.models.iter().zip(numbers);
        let one = |((name, width, height, precision), (temperature, views)): (
            &(String, usize, usize, &str),
            (_, _),
        )| {
            let (temperature, views): (&Option<f64>, &usize) = (temperature, views);
            json!({
                "name": name, "width": width, "height": height, "precision": precision, "temperature": temperature, "views": views,
            })
        };
        all.map(one).collect()
    };
    Json(json!({
        "note": NOTE,
        "version": env!("CARGO_PKG_VERSION"),
        "device": device,
        "predict": classifier.as_ref().map(|about| json!({
            "models": models(about),
            "outputs": about.outputs.name(),
            "classes": about.classes.iter().map(|class| json!({ "class": class, "guide": guide::of(class) })).collect::<Vec<_>>(),
        })),
        "explain": explainer.as_ref().map(|how| json!({ "method": how.method, "layer": how.layer })),
        "segment": segmenter.as_ref().map(|about| json!({ "models": models(about) })),
        "limits": {
            "body_bytes": app.limits.body,
            "pixels": app.limits.pixels,
            "images": app.limits.files,
            "seconds": app.limits.timeout.as_secs_f64(),
        },
    }))
}

async fn predict(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let about = app.classifier()?;
    let prepared = app.prepare(request, about.recipes.clone()).await?;
    let asked = app.ask(prepared, Work::Predict).await?;
    let all = asked.len();
    let said = asked.into_iter().enumerate().map(|(place, (prepared, outcome))| {
        let title = title(&prepared.upload, place, all);
        predicted(&prepared, &outcome.said()?, about, &title)
    });
    Ok(Json(about.answer(said.collect::<Result<_, _>>()?)).into_response())
}

/// What may stand behind the address of `/v1/explain`.
#[derive(Debug, Deserialize)]
struct ExplainQuery {
    /// The class to explain; by default the predicted one.
    class: Option<String>,
}

async fn explain(
    State(app): State<Arc<App>>,
    query: Result<Query<ExplainQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|_| Refusal::bad("what follows the '?' cannot be read", "use ?class=NAME"))?;
    let about = app.classifier()?.clone();
    let explains = app.served.explainer.clone().ok_or_else(|| Refusal::not_found("no model here can be explained"))?;
    let number = |name: &String| {
        let found = about.classes.iter().position(|class| class == name);
        found.ok_or_else(|| Refusal::bad("the model has no such class", "choose one that /v1/model lists"))
    };
    let class = query.class.as_ref().map(number).transpose()?;
    if class.is_some() && explains.method == crate::explain::Method::Rollout.name() {
        return Err(Refusal::bad("attention rollout is the same for all classes", "leave ?class away"));
    }
    let alone = wants_png(request.headers());
    let prepared = app.prepare(request, vec![explains.recipe.clone()]).await?;
    one_if(alone, &prepared)?;
    let asked = app.ask(prepared, Work::Explain(class)).await?;
    let (pixels, all) = (app.limits.pixels, asked.len());
    let draw = move || {
        let drawn = asked.into_iter().enumerate().map(|(place, (prepared, outcome))| {
            let title = title(&prepared.upload, place, all);
            explained(&prepared, &outcome.explained()?, (&about, &explains), (&title, pixels))
        });
        let mut drawn = drawn.collect::<Result<Vec<_>, Refusal>>()?;
        Ok(match drawn.pop() {
            Some(only) if alone => png_response(only.overlay),
            last => {
                let images = drawn.into_iter().chain(last).map(|map| map.answer).collect();
                // One model is explained, also where several answer.
                let temperature = about.temperatures.first().copied().flatten();
                Json(Answer { note: NOTE, temperature, models: 1, views: None, images }).into_response()
            }
        })
    };
    app.work(draw).await
}

async fn segment(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let about = app.served.segmenter.clone().ok_or_else(|| Refusal::not_found("no model here segments"))?;
    let alone = wants_png(request.headers());
    let prepared = app.prepare(request, about.recipes.clone()).await?;
    one_if(alone, &prepared)?;
    let asked = app.ask(prepared, Work::Segment).await?;
    let all = asked.len();
    let draw = move || {
        let drawn = asked.into_iter().enumerate().map(|(place, (prepared, outcome))| {
            let title = title(&prepared.upload, place, all);
            segmented(&prepared, &outcome.said()?, &about, &title)
        });
        let mut drawn = drawn.collect::<Result<Vec<_>, Refusal>>()?;
        Ok(match drawn.pop() {
            Some(only) if alone => png_response(only.mask),
            last => Json(about.answer(drawn.into_iter().chain(last).map(|mask| mask.answer).collect())).into_response(),
        })
    };
    app.work(draw).await
}

impl About {
    /// An answer of these models.
    fn answer<T>(&self, images: Vec<T>) -> Answer<T> {
        let only = self.temperatures.first().copied().flatten().filter(|_| self.temperatures.len() == 1);
        Answer { note: NOTE, temperature: only, models: self.models.len(), views: self.common_views, images }
    }
}

impl Outcome {
    fn said(self) -> Result<Vec<Said>, Refusal> {
        match self {
            Self::Said(said) => Ok(said),
            Self::Explained(_) => Err(Refusal::internal("the device did other work")),
        }
    }

    fn explained(self) -> Result<Explanation, Refusal> {
        match self {
            Self::Explained(explanation) => Ok(explanation),
            Self::Said(_) => Err(Refusal::internal("the device did other work")),
        }
    }
}

impl App {
    fn classifier(&self) -> Result<&About, Refusal> {
        self.served.classifier.as_ref().ok_or_else(|| Refusal::not_found("no model here classifies"))
    }

    /// Does work that takes the processor's time, beside not too much other.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let stopped = |_| Refusal::internal("the server could not do this");
        let permit =
            Arc::clone(&self.workers).acquire_owned().await.map_err(|_| Refusal::busy("the server is stopping"))?;
        let done = tokio::task::spawn_blocking(move || {
            // Goes with the work, also when nobody waits for it any more.
            let _permit = permit;
            work()
        });
        done.await.map_err(stopped)?
    }

    /// Reads the images of a request, and makes them as models want them.
    async fn prepare(&self, request: Request, recipes: Vec<Preparation>) -> Result<Vec<Prepared>, Refusal> {
        let uploads = receive(request, &self.limits).await?;
        let pixels = self.limits.pixels;
        self.work(move || prepare(uploads, &recipes, pixels)).await
    }

    /// Asks the device for work on images, and waits for all answers.
    async fn ask(&self, mut prepared: Vec<Prepared>, work: Work) -> Result<Vec<(Prepared, Outcome)>, Refusal> {
        let asked = prepared.iter_mut().map(|prepared| prepared.job(work));
        let (jobs, answers): (Vec<Job>, Vec<oneshot::Receiver<CrateResult<Outcome>>>) = asked.unzip();
        self.queue.push(jobs)?;
        let all = prepared.len();
        let mut outcomes = vec![];
        for (place, (prepared, answer)) in prepared.into_iter().zip(answers).enumerate() {
            // The device drops what has waited for too long.
            let outcome = answer.await.map_err(|_| Refusal::late())?;
            let outcome = outcome.map_err(|error| Refusal::of(&error, &title(&prepared.upload, place, all)))?;
            outcomes.push((prepared, outcome));
        }
        Ok(outcomes)
    }
}

/// Whether a picture is wanted rather than JSON.
fn wants_png(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut kinds = accepted.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.next().is_some_and(|first| first.eq_ignore_ascii_case("image/png"))
}

/// An answer that is a picture is of one image.
fn one_if(alone: bool, prepared: &[Prepared]) -> Result<(), Refusal> {
    if alone && prepared.len() > 1 {
        return Err(Refusal::bad(
            "a picture is the answer to one image",
            "send one, or ask for Accept: application/json",
        ));
    }
    Ok(())
}

fn png_response(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))], bytes).into_response()
}
