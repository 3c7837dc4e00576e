//! One check: connects or takes the connection kept from the last one, asks, and judges the answer.

use super::answer::{Answer, End, Progress};
use super::spec::{Check, Http, Kind};
use super::verdict::{Passed, Reason, Verdict};
use super::wire::Wire;
use dataplane::proto::proxy_header;
use dataplane::spec::{Cluster, Endpoint, SendProxy};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Whom to check, and how.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) cluster: Arc<Cluster>,
    /// The endpoint's place in its cluster.
    pub(crate) at: usize,
    pub(crate) check: Arc<Check>,
    /// Chooses the source address where the cluster has several.
    pub(crate) turn: u64,
}

/// How a check went.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    /// Good for the next check.
    pub(super) wire: Option<Wire>,
}

/// What went over the wire, exactly.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// From the start of the check; `None` if it never connected.
    pub(crate) connected_after: Option<Duration>,
    pub(crate) sent: Vec<u8>,
    pub(crate) received: Vec<u8>,
}

impl Task {
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.cluster.endpoints.get(self.at)
    }
}

/// Makes one check on a connection of its own, to be looked at.
pub(crate) async fn probe(task: &Task) -> (Verdict, Duration, Transcript) {
    let mut transcript = Transcript::default();
    let made = make(task, None, Some(&mut transcript)).await;
    (made.verdict, made.took, transcript)
}

/// Makes one check. `kept` is a connection of an earlier one; `transcript` is for those who want to see.
pub(super) async fn make(task: &Task, kept: Option<Wire>, mut transcript: Option<&mut Transcript>) -> Made {
    let began = Instant::now();
    let deadline = began + task.check.timeout;
    let (verdict, wire) = run(task, kept, deadline, began, &mut transcript).await;
    Made { verdict, took: began.elapsed(), wire }
}

async fn run(
    task: &Task,
    kept: Option<Wire>,
    deadline: Instant,
    began: Instant,
    transcript: &mut Option<&mut Transcript>,
) -> (Verdict, Option<Wire>) {
    let Some(endpoint) = task.endpoint() else {
        return (Verdict::NotMade("the endpoint is gone".to_owned()), None);
    };
    if let (Some(wire), Kind::Http(http)) = (kept, &task.check.kind)
        && wire.is_quiet()
        && let Some(outcome) = ask(wire, http, endpoint, deadline, true, transcript).await
    {
        return outcome;
    }
    let connecting = Wire::connect(&task.cluster, &endpoint.address, task.turn);
    let mut wire = match timeout_at(deadline, connecting).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => return (Verdict::of_connect(&error), None),
        Err(_) => return (Verdict::Failed(Reason::Layer4Timeout), None),
    };
    if let Some(transcript) = transcript {
        transcript.connected_after = Some(began.elapsed());
    }
    let header = proxy_line(task.cluster.send_proxy);
    if !header.is_empty() {
        match timeout_at(deadline, send(&mut wire, &header, transcript)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return (Verdict::of_connect(&error), None),
            Err(_) => return (Verdict::Failed(Reason::Layer4Timeout), None),
        }
    }
    match &task.check.kind {
        Kind::Tcp => {
            if header.is_empty() {
                wire.reset();
            }
            (Verdict::Passed(Passed::Layer4), None)
        }
        Kind::Http(http) => {
            let outcome = ask(wire, http, endpoint, deadline, false, transcript).await;
            outcome.unwrap_or_else(|| (Verdict::Failed(Reason::Layer7Timeout), None))
        }
    }
}

/// One request and its answer. `None` where a connection that was `kept` turns out to have ended meanwhile, which says
/// nothing of the endpoint.
async fn ask(
    mut wire: Wire,
    http: &Http,
    endpoint: &Endpoint,
    deadline: Instant,
    kept: bool,
    transcript: &mut Option<&mut Transcript>,
) -> Option<(Verdict, Option<Wire>)> {
    let mut answer = Answer::new(http);
    let request = request(http, endpoint);
    let talk = async {
        send(&mut wire, &request, transcript).await?;
        loop {
            if wire.recv(answer.room()).await? == 0 {
                return Ok(None);
            }
            if let Some(transcript) = transcript {
                transcript.received.extend_from_slice(answer.news());
            }
            if let Progress::Done { keep } = answer.advance() {
                return Ok::<_, io::Error>(Some(keep));
            }
        }
    };
    let (end, keep) = match timeout_at(deadline, talk).await {
        Ok(Ok(Some(keep))) => (End::Done, keep),
        // A reset is an end too: what came before it counts.
        Ok(Ok(None) | Err(_)) if kept && answer.is_empty() => return None,
        Ok(Ok(None) | Err(_)) => (End::Closed, false),
        Err(_) => (End::TimedOut, false),
    };
    Some((answer.judge(end), keep.then_some(wire)))
}

async fn send(wire: &mut Wire, bytes: &[u8], transcript: &mut Option<&mut Transcript>) -> io::Result<()> {
    if let Some(transcript) = transcript {
        transcript.sent.extend_from_slice(bytes);
    }
    wire.send(bytes).await
}

/// What stands before the first byte of our own: that this is no client's connection (LOCAL, `PROXY UNKNOWN`).
fn proxy_line(version: Option<SendProxy>) -> Vec<u8> {
    let version = match version {
        None => return Vec::new(),
        Some(SendProxy::V1) => proxy_header::Version::V1,
        Some(SendProxy::V2) => proxy_header::Version::V2,
    };
    let mut bytes = vec![0; dataplane::limits::PROXY_V1_BYTES];
    let len = proxy_header::write(version, None, &[], &mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

/// The request of a check, byte for byte.
fn request(http: &Http, endpoint: &Endpoint) -> Vec<u8> {
    let host = http.host.as_deref().unwrap_or(&endpoint.authority);
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", http.method, http.path);
    if !http.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        text.push_str(concat!("User-Agent: ringway/", env!("CARGO_PKG_VERSION"), " (check)\r\n"));
    }
    for (name, value) in &http.headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests;
