//! `ringway upgrade` and what answers it.

use super::api::{Door, ending};
use super::commands::{Where, changed};
use super::{Answer, Ask};
use crate::config::Environment;
use crate::exit::Exit;
use crate::ready;
use axum::extract::State;
use tokio::sync::oneshot;

/// `POST /v1/upgrade`.
pub(super) async fn begin(State(door): State<Door>) -> Answer {
    let (sender, answer) = oneshot::channel();
    door.put(Ask::Upgrade(sender), answer).await.unwrap_or_else(ending)
}

/// `ringway upgrade`. Exit 1 where the process that served still does: the next one did not become ready, or died too soon.
pub fn command(at: &Where, as_json: bool, environment: &Environment) -> Exit {
    match at.ask_json(environment, "POST", "/v1/upgrade", None) {
        Ok(body) if as_json => ready::print(&body.to_string()),
        Ok(body) => {
            let pid = &body["pid"];
            let over = format!("process {pid} has taken over; the one before it finishes what it has\n");
            ready::print((over + &changed(&body)).trim_end());
        }
        Err(exit) => return exit,
    }
    Exit::Clean
}
