//! The paths of the API, and what is asked of control's loop for each.

use super::connections::{self, ConnId, Listed, Page, Wants};
use super::guard::{Guard, Needs};
use super::objects::LimitView;
use super::openapi;
use super::page::{self, Points};
use super::paths::{self, OPERATIONS};
use super::places::{Place, Places};
use super::{Answer, Ask, Name, PlanAsked, Question, ms};
use crate::health::{Transcript, Verdict, probe};
use crate::metrics::Format;
use crate::reload::Wanted;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, RawQuery, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dataplane::cluster::eligible::Admin;
use dataplane::limits;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// What every request of the API shares.
#[derive(Debug, Clone)]
pub(super) struct Door {
    asks: mpsc::Sender<Ask>,
    guard: watch::Receiver<Guard>,
    probes: Arc<Semaphore>,
    plans: Arc<Semaphore>,
    /// Of the connections to the API.
    places: Arc<Places>,
    /// Lists of connections, one at a time.
    lists: Arc<Semaphore>,
    /// The last minutes.
    pub(super) points: watch::Receiver<Points>,
}

/// All paths.
pub(super) fn router(asks: mpsc::Sender<Ask>, guard: watch::Receiver<Guard>, places: Arc<Places>) -> Router {
    let probes = Arc::new(Semaphore::new(limits::PROBES_AT_ONCE));
    let points = page::count(asks.clone());
    let plans = Arc::new(Semaphore::new(limits::PLANS_AT_ONCE));
    let door = Door { asks, guard, probes, plans, places, lists: Arc::new(Semaphore::new(1)), points };
    let described = OPERATIONS.iter();
    let routes = described.fold(Router::new(), |routes, one| routes.route(one.path, (one.on)()));
    routes
        .fallback(async || Answer::refused(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || {
            Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(from_fn_with_state(door.clone(), admit))
        // `admit` has each operation's own bound.
        .layer(DefaultBodyLimit::disable())
        .with_state(door)
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let fields = [(CONTENT_TYPE, self.kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        (self.status, fields, self.body).into_response()
    }
}

/// Refuses what nobody should ask, and reads the body.
async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    let guard = door.guard.borrow().clone();
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let operation = path.and_then(|path| paths::operation(request.method(), path));
    let needs = operation.map_or_else(|| Needs::of_stranger(request.method()), |operation| operation.needs);
    if let Err(answer) = guard.admit(request.method(), needs, request.headers()) {
        return *answer;
    }
    let (head, body) = request.into_parts();
    let most = operation.map_or(limits::ADMIN_BODY_BYTES, |operation| operation.most);
    let body = tokio::time::timeout(limits::ADMIN_REQUEST_TIMEOUT, to_bytes(body, most));
    let body = match body.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let why = format!("the body is cut off, or longer than {most} bytes");
            return Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, &why).into_response();
        }
        Err(_) => {
            return Answer::refused(StatusCode::REQUEST_TIMEOUT, "the body came too slowly").into_response();
        }
    };
    if let Some(place) = head.extensions.get::<Arc<Place>>() {
        place.run();
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}

impl Door {
    pub(super) async fn ask(&self, question: Question) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.put(Ask::Answer(question, sender), answer).await.unwrap_or_else(ending)
    }

    async fn list(&self, wants: Wants) -> connections::Reply {
        let (sender, answer) = oneshot::channel();
        self.put(Ask::Connections(wants, sender), answer).await.unwrap_or_else(|end| Err(ending(end)))
    }

    /// Has something changed, and says what that did.
    pub(super) async fn change(&self, wanted: Wanted) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.put(Ask::Change(wanted, sender), answer).await.unwrap_or_else(ending)
    }

    /// Limits of the API, which it counts itself.
    pub(super) fn limits(&self) -> Vec<LimitView> {
        let used = |limit, places: &Semaphore, most: usize| {
            let used = most.saturating_sub(places.available_permits());
            LimitView::new(limit, "", used as u64, most as u64)
        };
        let (connections, most) = (self.places.taken() as u64, limits::ADMIN_CONNECTIONS as u64);
        vec![
            LimitView::new("ADMIN_CONNECTIONS", "", connections, most),
            used("PROBES_AT_ONCE", &self.probes, limits::PROBES_AT_ONCE),
            used("PLANS_AT_ONCE", &self.plans, limits::PLANS_AT_ONCE),
        ]
    }

    pub(super) async fn put<T>(&self, ask: Ask, answer: oneshot::Receiver<T>) -> Result<T, Ending> {
        self.asks.send(ask).await.map_err(|_| Ending)?;
        answer.await.map_err(|_| Ending)
    }
}

/// Control's loop answers no more.
#[derive(Debug)]
pub(super) struct Ending;

pub(super) fn ending(_: Ending) -> Answer {
    Answer::refused(StatusCode::SERVICE_UNAVAILABLE, "the process ends")
}

pub(super) async fn live() -> Answer {
    Answer::json(StatusCode::OK, &json!({ "live": true }))
}

/// What the API is.
pub(super) async fn described() -> Answer {
    Answer::json(StatusCode::OK, &openapi::document())
}

pub(super) async fn ready(State(door): State<Door>) -> Answer {
    door.ask(Question::Ready).await
}

pub(super) async fn logs(State(door): State<Door>) -> Answer {
    door.ask(Question::Logs).await
}

pub(super) async fn clusters(State(door): State<Door>) -> Answer {
    door.ask(Question::Clusters).await
}

pub(super) async fn cluster(State(door): State<Door>, Path(name): Path<String>) -> Answer {
    door.ask(Question::Cluster(name)).await
}

pub(super) async fn listeners(State(door): State<Door>) -> Answer {
    door.ask(Question::Listeners).await
}

pub(super) async fn routes(State(door): State<Door>) -> Answer {
    door.ask(Question::Routes).await
}

pub(super) async fn route(State(door): State<Door>, Path(name): Path<String>) -> Answer {
    door.ask(Question::Route(name)).await
}

pub(super) async fn export(State(door): State<Door>) -> Answer {
    door.ask(Question::Export).await
}

pub(super) async fn drift(State(door): State<Door>) -> Answer {
    door.ask(Question::Drift).await
}

pub(super) async fn shards(State(door): State<Door>) -> Answer {
    door.ask(Question::Shards).await
}

/// Every limit that is counted, and how near it is.
pub(super) async fn limits_used(State(door): State<Door>) -> Answer {
    door.ask(Question::Limits(door.limits())).await
}

/// A page of the connections, from shard to shard.
pub(super) async fn connections(State(door): State<Door>, RawQuery(query): RawQuery) -> Answer {
    let mut page = match Page::read(query.as_deref()) {
        Ok(page) => page,
        Err(why) => return Answer::refused(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(_turn) = door.lists.acquire().await else { return ending(Ending) };
    let mut rows = Vec::new();
    let next = loop {
        let listed = match door.list(Wants::Page(page.clone())).await {
            Ok(listed) => listed,
            Err(answer) => return answer,
        };
        page.most = page.most.saturating_sub(listed.rows.len());
        rows.extend(listed.rows);
        match listed.next {
            Some(from) => page.from = from,
            None => (page.shard, page.from) = (page.shard + 1, 0),
        }
        if page.shard >= listed.shards {
            break None;
        }
        if page.most == 0 {
            break Some(format!("{}.{}", page.shard, page.from));
        }
    };
    Answer::json(StatusCode::OK, &json!({ "connections": rows, "next": next }))
}

pub(super) async fn connection(door: State<Door>, id: Path<String>) -> Answer {
    one(&door, &id, Wants::Show).await
}

pub(super) async fn kill(door: State<Door>, id: Path<String>) -> Answer {
    one(&door, &id, Wants::Kill).await
}

async fn one(door: &Door, id: &str, wants: fn(ConnId) -> Wants) -> Answer {
    let Some(id) = ConnId::parse(id) else {
        return Answer::refused(StatusCode::BAD_REQUEST, "a connection is named as SHARD.SLOT.LIFE");
    };
    match door.list(wants(id)).await {
        Ok(Listed { rows, .. }) => match rows.first() {
            Some(row) => Answer::json(StatusCode::OK, row),
            None => connections::gone(id),
        },
        Err(answer) => answer,
    }
}

pub(super) async fn events(State(door): State<Door>) -> Answer {
    door.ask(Question::Events).await
}

pub(super) async fn reload(State(door): State<Door>) -> Answer {
    let (sender, answer) = oneshot::channel();
    door.put(Ask::Reload(sender), answer).await.unwrap_or_else(ending)
}

pub(super) async fn plan(State(door): State<Door>, body: Bytes) -> Answer {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        name: String,
        text: String,
    }
    let Ok(Asked { name, text }) = serde_json::from_slice(&body) else {
        let why = "wants {\"name\": \"FILE\", \"text\": \"what stands in it\"}";
        return Answer::refused(StatusCode::BAD_REQUEST, why);
    };
    let place = tokio::time::timeout(limits::CONFIG_READ, Arc::clone(&door.plans).acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        let why = format!("{} plans take long and have not ended (PLANS_AT_ONCE)", limits::PLANS_AT_ONCE);
        return Answer::refused(StatusCode::TOO_MANY_REQUESTS, &why);
    };
    let (sender, answer) = oneshot::channel();
    let asked = PlanAsked { name, text, place };
    door.put(Ask::Plan(asked, sender), answer).await.unwrap_or_else(ending)
}

pub(super) async fn metrics(State(door): State<Door>, headers: HeaderMap) -> Answer {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    door.ask(Question::Metrics(Format::accepted(accept))).await
}

/// Says where a request would go.
pub(super) async fn explain(State(door): State<Door>, body: Bytes) -> Answer {
    match serde_json::from_slice(&body) {
        Ok(asked) => door.ask(Question::Explain(asked)).await,
        Err(error) => Answer::refused(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

type Names = Path<(String, String)>;

fn name(Path((cluster, endpoint)): Names) -> Name {
    Name { cluster, endpoint }
}

pub(super) async fn endpoint(State(door): State<Door>, names: Names) -> Answer {
    door.ask(Question::Endpoint(name(names))).await
}

pub(super) async fn set_state(State(door): State<Door>, names: Names, body: Bytes) -> Answer {
    let wanted = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let wanted = wanted.as_ref().and_then(|body| body.as_object()).filter(|body| body.len() == 1);
    let wanted = wanted.and_then(|body| body.get("state")?.as_str());
    let wanted = wanted.and_then(|word| Admin::ALL.into_iter().find(|state| state.name() == word));
    let Some(state) = wanted else {
        let why = "wants {\"state\": \"ready\"}, \"drain\" or \"maint\"";
        return Answer::refused(StatusCode::BAD_REQUEST, why);
    };
    door.ask(Question::SetState(name(names), state)).await
}

/// Makes one check and shows its bytes.
pub(super) async fn probe_one(State(door): State<Door>, names: Names) -> Answer {
    let (sender, answer) = oneshot::channel();
    let task = match door.put(Ask::Probe(name(names), sender), answer).await {
        Ok(Ok(task)) => task,
        Ok(Err(unknown)) => return Answer::refused(StatusCode::NOT_FOUND, &unknown),
        Err(end) => return ending(end),
    };
    let Ok(_place) = door.probes.try_acquire() else {
        let why = format!("{} probes are on their way", limits::PROBES_AT_ONCE);
        return Answer::refused(StatusCode::TOO_MANY_REQUESTS, &why);
    };
    let (verdict, took, transcript) = probe(&task).await;
    Answer::json(StatusCode::OK, &shown(&verdict, took, &transcript))
}

/// What a probe shows. Bytes are text in which `\`, quotes and what is not printable ASCII are escaped as in Rust, so that
/// they can be had back exactly.
pub(super) fn shown(verdict: &Verdict, took: Duration, transcript: &Transcript) -> serde_json::Value {
    json!({
        "passed": verdict.has_passed(),
        "class": verdict.class(),
        "verdict": verdict.to_string(),
        "took_ms": ms(took),
        "connected_ms": transcript.connected_after.map(ms),
        "sent": transcript.sent.escape_ascii().to_string(),
        "received": transcript.received.escape_ascii().to_string(),
    })
}
