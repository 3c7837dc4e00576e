//! The dashboard: a page for a browser, built into the program, and the one answer that it asks for each second.
//!
//! The page is a few files that need nothing from elsewhere. Nothing of what it shows is in them: they are for everybody who
//! reaches the address, and what they ask for goes past the guard as any other request does. `dashboard` is the answer,
//! `history` the last minutes, which are counted whether anybody looks or not.

mod dashboard;
mod history;

pub(super) use dashboard::DashboardView;
pub(crate) use history::Pulse;
pub(super) use history::{PointView, Points, count};

use super::api::Door;
use super::objects::LimitView;
use super::{Answer, Question, query};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::LazyLock;

const INDEX: &str = include_str!("index.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Everything else that it consists of: name, kind, text.
const FILES: [(&str, &str, &str); 7] = [
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("main.mjs", SCRIPT, include_str!("main.mjs")),
    ("model.mjs", SCRIPT, include_str!("model.mjs")),
    ("numbers.mjs", SCRIPT, include_str!("numbers.mjs")),
    ("parts.mjs", SCRIPT, include_str!("parts.mjs")),
    ("draw.mjs", SCRIPT, include_str!("draw.mjs")),
];

/// Nothing but what this address serves, nothing that stands in the text as a script or style, no text that becomes markup
/// (trusted types), and nobody who shows the page within another.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Sent with each file. Nothing is stored, so that a browser shows the page of the program that runs now.
const FIELDS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the files are, in 16 digits: a page that finds another in an answer is of another program, and loads itself anew.
static DIGEST: LazyLock<String> = LazyLock::new(|| {
    let texts = FILES.iter().map(|(_, _, text)| *text);
    let all = texts.fold(Sha256::new().chain_update(INDEX), |all, text| all.chain_update(text));
    all.finalize().iter().take(8).fold(String::with_capacity(16), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
});

pub(super) async fn index() -> Response {
    sent("text/html; charset=utf-8", INDEX.replace("DIGEST", &DIGEST))
}

pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, kind, text)) => sent(kind, (*text).to_owned()),
        None => Answer::refused(StatusCode::NOT_FOUND, "the page has no such file").into_response(),
    }
}

fn sent(kind: &'static str, text: String) -> Response {
    let fields = FIELDS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (fields, [(CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// In the names of clusters and endpoints; empty is everybody.
    find: String,
    events_after: u64,
    /// Limits that the API counts itself.
    limits: Vec<LimitView>,
    history: Vec<PointView>,
}

pub(super) async fn dashboard(State(door): State<Door>, RawQuery(query): RawQuery) -> Answer {
    let asked = match read(query.as_deref()) {
        Ok((find, events_after, history_after)) => {
            let history = history::after(&door.points.borrow(), history_after);
            Asked { find, events_after, limits: door.limits(), history }
        }
        Err(why) => return Answer::refused(StatusCode::BAD_REQUEST, &why),
    };
    door.ask(Question::Dashboard(Box::new(asked))).await
}

fn read(text: Option<&str>) -> Result<(String, u64, u64), String> {
    let [find, events, history] = query::read(text, ["find", "events_after", "history_after"])?;
    let number = |text: Option<String>| text.map_or(Ok(0), |text| text.parse::<u64>());
    match (number(events), number(history)) {
        (Ok(events), Ok(history)) => Ok((find.unwrap_or_default().to_lowercase(), events, history)),
        _ => Err("events_after and history_after are whole numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text() {
        for (name, text) in FILES.iter().map(|(name, _, text)| (*name, *text)).chain([("index.html", INDEX)])
        {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for wrong in [
                "http:",
                "https:",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "javascript:",
                "localStorage",
                "document.cookie",
                "@import",
                "url(",
                "DOMParser",
                "createContextualFragment",
            ] {
                assert!(!text.contains(wrong), "{name} has {wrong}");
            }
        }
        // The policy would forbid these, and the page would not work.
        for wrong in [" style=", "<style", "onclick", "onload", "<script>"] {
            assert!(!INDEX.contains(wrong), "{wrong}");
        }
        assert_eq!(INDEX.matches("DIGEST").count(), 1);
        for file in INDEX.split("/page/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(FILES.iter().any(|(name, ..)| *name == file), "{file}");
        }
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        assert_eq!(read(None), Ok((String::new(), 0, 0)));
        assert_eq!(read(Some("find=A%2fB&events_after=7&history_after=12")), Ok(("a/b".to_owned(), 7, 12)));
        for wrong in ["events_after=-1", "history_after=x", "what=1"] {
            assert!(read(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
