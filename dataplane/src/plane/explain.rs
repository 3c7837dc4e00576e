//! Where a request would go, by the functions and tables that the shards use, with nothing sent or counted.

use super::Plane;
use crate::cluster::ClusterState;
use crate::cluster::balance::Hint;
use crate::cluster::usable::Usable;
use crate::conn::serve;
use crate::fault::Refusal;
use crate::proto::RequestHead;
use crate::proto::http1::{HeadLimits, Parsed, Scan, parse_request, via_names};
use crate::route::Request;
use crate::spec::{Action, ClusterId, EndpointId, ListenerId, Route};
use crate::sys::clock;
use std::net::IpAddr;
use std::sync::Arc;

/// What would become of a request.
#[derive(Debug)]
pub struct Explained {
    /// The routes in front of the one that takes it, each with the key for which it does not.
    pub passed_over: Vec<(Arc<str>, &'static str)>,
    /// The route that takes it, as it is in force.
    pub route: Option<Arc<Route>>,
    /// That route's switch is on.
    pub in_maintenance: bool,
    /// Where it goes.
    pub cluster: Option<ClusterId>,
    /// The endpoints that picks choose among.
    pub choice: Vec<EndpointId>,
    /// Whom its client sticks to, whether that may be used or not.
    pub sticky: Option<EndpointId>,
    /// Who gets it, where that is no matter of turns or chance.
    pub endpoint: Option<EndpointId>,
    /// Why it is refused before an endpoint is asked.
    pub refusal: Option<Refusal>,
}

impl Explained {
    fn refused(refusal: Refusal) -> Self {
        Self {
            passed_over: Vec::new(),
            route: None,
            in_maintenance: false,
            cluster: None,
            choice: Vec::new(),
            sticky: None,
            endpoint: None,
            refusal: Some(refusal),
        }
    }
}

impl Plane {
    /// What a request would meet whose head, whole and with nothing behind it, comes from `source` at an http listener. None if
    /// there is no such listener, or the head is not whole.
    pub fn explain(
        &self,
        listener: ListenerId,
        source: Option<IpAddr>,
        mut head: Vec<u8>,
    ) -> Option<Explained> {
        let present = self.present.borrow();
        let spec = present.snapshot.listener(listener)?;
        let limits = HeadLimits {
            request_line: spec.limits.request_line,
            header_block: spec.limits.header_block,
            header_fields: spec.limits.header_fields,
        };
        let mut parsed = RequestHead::default();
        match parse_request(&mut head, &mut Scan::default(), &limits, &mut parsed) {
            Ok(Parsed::Complete { .. }) => {}
            Ok(Parsed::Partial) => return None,
            Err(refusal) => return Some(Explained::refused(refusal)),
        }
        if let Some(refusal) = serve::refusal_of(&parsed, spec.limits.request_body) {
            return Some(Explained::refused(refusal));
        }
        let now = clock::now().mono;
        let mut available = vec![0; present.snapshot.clusters.len()];
        for id in present.routes.asks_about() {
            let at = usize::from(id.0);
            let (spec, shared) = (present.snapshot.cluster(*id), present.shared.clusters.get(at));
            if let (Some(spec), Some(Some(shared)), Some(count)) = (spec, shared, available.get_mut(at)) {
                *count = Usable::new(spec, shared, now).count();
            }
        }
        let request = Request { listener, head: &parsed, bytes: &head, source, available: &available };
        let found = present.routes.find(&request);
        let route = found.map(|route| present.shared.in_force(route));
        let passed_over = present.routes.passed_over(&request);
        let mut explained = Explained {
            passed_over: passed_over.into_iter().map(|(route, key)| (Arc::clone(&route.name), key)).collect(),
            in_maintenance: found.zip(route).is_some_and(|(found, route)| !Arc::ptr_eq(found, route)),
            cluster: match route.map(|route| &route.action) {
                None => spec.cluster,
                Some(Action::Forward { cluster, .. }) => Some(*cluster),
                Some(Action::Respond(_) | Action::Redirect(_)) => None,
            },
            route: route.cloned(),
            choice: Vec::new(),
            sticky: None,
            endpoint: None,
            refusal: (route.is_none() && spec.cluster.is_none()).then_some(Refusal::NoRoute),
        };
        let Some(cluster) = explained.cluster.and_then(|id| present.snapshot.cluster(id)) else {
            return Some(explained);
        };
        if via_names(&parsed, &head, &present.snapshot.runtime.node) {
            explained.refusal = Some(Refusal::Loop);
            return Some(explained);
        }
        let hint = Hint { now, ..Hint::of_request(cluster, &parsed, &head, source) };
        if let Some(Some(shared)) = present.shared.clusters.get(usize::from(cluster.id.0)) {
            let mut state = ClusterState::new(Arc::clone(cluster), Arc::clone(shared), 0, 0);
            state.refresh(now);
            let ids = cluster.present().map(|endpoint| endpoint.id);
            explained.choice = ids.filter(|id| state.usable().contains(*id)).collect();
            explained.endpoint = state.foresee(hint);
            if explained.choice.is_empty() {
                let shut = state.usable().reopens().is_some();
                explained.refusal = Some(if shut { Refusal::CircuitOpen } else { Refusal::NoEndpoint });
            }
        }
        explained.sticky = hint.sticky;
        Some(explained)
    }
}
