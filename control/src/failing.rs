//! What shards found of endpoints that fail, in words: ejections, readmissions, circuit breakers.

use crate::events::{About, Details, Events, Weight};
use dataplane::cluster::events::{Event, Failed, What};
use dataplane::spec::Snapshot;
use std::sync::Arc;

/// Tells of an event.
pub(crate) fn tell(event: &Event, snapshot: &Snapshot, events: &mut Events) {
    let Some(cluster) = snapshot.cluster(event.cluster) else { return };
    let endpoint = event.endpoint.and_then(|id| cluster.endpoints.get(usize::from(id.0)));
    let subject = match endpoint {
        Some(endpoint) => format!("endpoint {}/{}", cluster.name, endpoint.name),
        None => format!("cluster {}", cluster.name),
    };
    let about = About {
        event: What::NAMES[event.what.kind()],
        cluster: Arc::clone(&cluster.name),
        endpoint: endpoint.map(|endpoint| Arc::clone(&endpoint.name)),
    };
    let weight = match event.what {
        What::Ejected { .. } | What::Opened { .. } | What::OpenedByTrial | What::OpenedBySilence => {
            Weight::Warning
        }
        What::Readmitted | What::ReadmittedByCheck | What::HalfOpened | What::Closed => Weight::Notice,
    };
    events.tell(weight, about, format!("{subject}: {}", line(event.what)), details(event.what));
}

/// What happened, for programs.
fn details(what: What) -> Details {
    match what {
        What::Ejected { why, time, .. } => {
            let (class, failures) = match why {
                Failed::InARow(n) => ("in_a_row", Some(n.into())),
                Failed::Rate(_) => ("rate", None),
            };
            let for_ms = u64::try_from(time.as_millis()).ok();
            Details { class: Some(class), failures, for_ms, ..Details::default() }
        }
        What::Opened { failures } => Details { failures: Some(failures.into()), ..Details::default() },
        _ => Details::default(),
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
