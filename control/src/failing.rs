//! What shards found of endpoints that fail, told in the process log: ejections, readmissions, circuit breakers.

use dataplane::cluster::events::{Event, Failed, What};
use dataplane::plane::Plane;
use dataplane::spec::Snapshot;

/// Reads what happened, and remembers how much of it was lost.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    lost: u64,
}

impl Failing {
    /// Called at each tick.
    pub(crate) fn tick(&mut self, plane: &Plane, snapshot: &Snapshot) {
        plane.events(|event| tell(&event, snapshot));
        let lost = plane.lost_events();
        if lost > self.lost {
            tracing::warn!(lost = lost - self.lost, "events of endpoints were lost: too many at once");
            self.lost = lost;
        }
    }
}

fn tell(event: &Event, snapshot: &Snapshot) {
    let Some(cluster) = snapshot.cluster(event.cluster) else { return };
    let endpoint = event.endpoint.and_then(|id| cluster.endpoints.get(usize::from(id.0)));
    let subject = match endpoint {
        Some(endpoint) => format!("endpoint {}/{}", cluster.name, endpoint.name),
        None => format!("cluster {}", cluster.name),
    };
    let line = format!("{subject}: {}", line(event.what));
    let (cluster, endpoint) = (&*cluster.name, endpoint.map(|endpoint| &*endpoint.name));
    let name = What::NAMES[event.what.kind()];
    match event.what {
        What::Ejected { .. } | What::Opened { .. } | What::OpenedByTrial | What::OpenedBySilence => {
            tracing::warn!(event = name, cluster, endpoint, "{line}");
        }
        What::Readmitted | What::ReadmittedByCheck | What::HalfOpened | What::Closed => {
            tracing::info!(event = name, cluster, endpoint, "{line}");
        }
    }
}

/// What happened, in words.
fn line(what: What) -> String {
    match what {
        What::Ejected { why, time, times } => {
            let why = match why {
                Failed::InARow(n) => format!("{n} failures in a row"),
                Failed::Rate(n) => format!("{}.{:02} % of its requests failed", n / 100, n % 100),
            };
            let again = if times > 1 { format!(", ejection {times}") } else { String::new() };
            format!("ejected for {} ms after {why}{again}", time.as_millis())
        }
        What::Readmitted => "readmitted, its time is over".to_owned(),
        What::ReadmittedByCheck => "readmitted, a check was good".to_owned(),
        What::Opened { failures } => format!("its circuit breaker opened after {failures} failures in a row"),
        What::OpenedByTrial => "its circuit breaker opened again, the trial failed".to_owned(),
        What::OpenedBySilence => {
            "its circuit breaker opened again, nothing was heard of the trial in time".to_owned()
        }
        What::HalfOpened => "its circuit breaker is half-open, one request tries".to_owned(),
        What::Closed => "its circuit breaker closed, the trial went well".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_happened_is_said_with_its_numbers() {
        let time = Duration::from_secs(30);
        let ejected = |why, times| line(What::Ejected { why, time, times });
        assert_eq!(ejected(Failed::InARow(5), 1), "ejected for 30000 ms after 5 failures in a row");
        assert_eq!(
            ejected(Failed::Rate(2_505), 3),
            "ejected for 30000 ms after 25.05 % of its requests failed, ejection 3"
        );
        assert_eq!(
            line(What::Opened { failures: 7 }),
            "its circuit breaker opened after 7 failures in a row"
        );
    }
}
