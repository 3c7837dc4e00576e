//! What a reload to another text would change: made beside the control thread, as nothing of it needs that.

use super::Running;
use super::told::{unprocessable, wrong};
use crate::admin::{Answer, PlanAsked};
use crate::config::{self, Environment};
use crate::reload::{Changes, Present, Read, Refused};
use axum::http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::oneshot;

/// All that a plan is made of beside a text.
struct Runs {
    present: Present,
    /// The file, without what was changed at run time, and that.
    file: Arc<str>,
    changes: Changes,
    environment: Environment,
    /// The number that the swap would have.
    swap: u64,
}

impl Running<'_> {
    /// Somebody wants to know what a reload to a text would change.
    pub(super) fn plan(&self, asked: PlanAsked, asker: oneshot::Sender<Answer>) {
        let reloads = &self.reloads;
        let runs = Runs {
            present: reloads.present.clone(),
            file: Arc::clone(&reloads.file),
            changes: reloads.changes.clone(),
            environment: reloads.environment.clone(),
            swap: self.plane.swaps() + 1,
        };
        let PlanAsked { name, text, place } = asked;
        let begun = reloads.reader.begin(name.clone(), move || {
            let answer = runs.plan(&name, &text);
            drop(place);
            answer
        });
        tokio::spawn(async move {
            let made = match begun {
                Ok(mut reading) => reading.end().await,
                Err(unread) => Err(unread),
            };
            // Who asked may be gone.
            let _ = asker.send(made.unwrap_or_else(|unread| {
                tracing::warn!("plan: {}", unread.why());
                Answer::refused(unread.status(), unread.why())
            }));
        });
    }
}

impl Runs {
    fn plan(&self, name: &str, text: &str) -> Answer {
        let file = config::parse(text, name, &self.environment).map_err(Refused::Wrong);
        let follow = |file| self.changes.follow(file, &self.file, name, &self.environment);
        let Read { loaded, changes, ended, .. } = match file.and_then(follow) {
            Ok(read) => read,
            Err(refused) => {
                let (why, report) = wrong(&refused);
                return unprocessable(&why, report);
            }
        };
        match self.present.plan(&loaded, self.swap) {
            Ok(plan) => {
                let (drift, waits) = (changes.names(), plan.waits());
                let body =
                    json!({ "changes": plan.to_json(), "waits": waits, "drift": drift, "ended": ended });
                Answer::json(StatusCode::OK, &body)
            }
            Err(why) => Answer::refused(StatusCode::CONFLICT, &why),
        }
    }
}
