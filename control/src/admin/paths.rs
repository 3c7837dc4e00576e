//! Every path of the API, once: what is asked there, what answers it, and what its description says. The router and
//! the OpenAPI document (`openapi`) are made of this table, so that neither knows a path that the other does not.

use super::api::{self, Door};
use super::change;
use super::drain::paths as drain;
use super::guard::Needs;
use super::page;
use super::upgrade;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};
use dataplane::limits;

/// What a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// An object of this schema.
    Object(&'static str),
}

/// What is answered with 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// An object of this schema.
    Object(&'static str),
    /// An object with a list of these under a key.
    List(&'static str, &'static str),
    /// Text of a kind.
    Text(&'static str),
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Its name in the description.
    pub(super) id: &'static str,
    pub(super) doc: &'static str,
    /// What may stand behind the "?", each with what it is.
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) body: Body,
    /// Bytes of a body.
    pub(super) most: usize,
    pub(super) needs: Needs,
    pub(super) answer: Answered,
    /// Statuses other than 200 that are its own; the others are everybody's.
    pub(super) refusals: &'static [u16],
    pub(super) on: fn() -> MethodRouter<Door>,
}

const fn reads(
    path: &'static str,
    id: &'static str,
    doc: &'static str,
    answer: Answered,
    on: fn() -> MethodRouter<Door>,
) -> Operation {
    Operation {
        method: "get",
        path,
        id,
        doc,
        query: &[],
        body: Body::None,
        most: limits::ADMIN_BODY_BYTES,
        needs: Needs::Reading,
        answer,
        refusals: &[],
        on,
    }
}

const fn changes(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    doc: &'static str,
    body: Body,
    on: fn() -> MethodRouter<Door>,
) -> Operation {
    let (answer, refusals) = (Object("Changed"), &[404, 409, 422, 500, 503]);
    let (most, needs) = (limits::ADMIN_BODY_BYTES, Needs::Token);
    Operation { method, path, id, doc, query: &[], body, most, needs, answer, refusals, on }
}

use Answered::{List, Object, Text};

const CLUSTER: &str = "/v1/clusters/{cluster}";
const ENDPOINT: &str = "/v1/clusters/{cluster}/endpoints/{endpoint}";
const ROUTE: &str = "/v1/routes/{route}";

/// What answers at the path of a row.
pub(super) fn operation(method: &Method, path: &str) -> Option<&'static Operation> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    OPERATIONS.iter().find(|one| one.path == path && one.method.eq_ignore_ascii_case(method.as_str()))
}

/// All of them.
pub(super) static OPERATIONS: &[Operation] = &[
    Operation {
        needs: Needs::Nothing,
        ..reads("/live", "live", "Answers while the process runs.", Object("Live"), || get(api::live))
    },
    Operation {
        needs: Needs::Nothing,
        refusals: &[503],
        ..reads(
            "/ready",
            "ready",
            "Answers while new connections are taken; 503 while it drains.",
            Object("Ready"),
            || get(api::ready),
        )
    },
    reads("/metrics", "metrics", "Everything that is counted, for Prometheus.", Text("text/plain"), || {
        get(api::metrics)
    }),
    Operation {
        needs: Needs::Nothing,
        ..reads("/", "page", "The dashboard, for a browser.", Text("text/html"), || get(page::index))
    },
    Operation {
        needs: Needs::Nothing,
        refusals: &[404],
        ..reads("/page/{file}", "pageFile", "A file of the dashboard.", Text("text/*"), || get(page::file))
    },
    Operation {
        query: &[
            (
                "find",
                "Clusters and endpoints with this in their names, and those that something stands against.",
            ),
            ("events_after", "Only events of higher numbers."),
            ("history_after", "Only seconds that ended later, in milliseconds since the start."),
        ],
        ..reads(
            "/v1/dashboard",
            "dashboard",
            "What the dashboard shows, in one answer.",
            Object("DashboardView"),
            || get(page::dashboard),
        )
    },
    reads("/v1/openapi.json", "openapi", "This description.", Object("Any"), || get(api::described)),
    reads("/v1/clusters", "clusters", "Every cluster with its endpoints.", Object("Clusters"), || {
        get(api::clusters)
    }),
    Operation {
        refusals: &[404],
        ..reads(CLUSTER, "cluster", "One cluster.", Object("ClusterView"), || get(api::cluster))
    },
    Operation {
        most: limits::ADMIN_OBJECT_BYTES,
        ..changes(
            "put",
            CLUSTER,
            "putCluster",
            "Puts a cluster there at run time, or another in its place.",
            Body::Object("Cluster"),
            || put(change::put_cluster),
        )
    },
    changes("delete", CLUSTER, "endCluster", "Takes a cluster away.", Body::None, || {
        delete(change::end_cluster)
    }),
    Operation {
        refusals: &[404],
        ..reads(ENDPOINT, "endpoint", "One endpoint.", Object("EndpointView"), || get(api::endpoint))
    },
    Operation {
        most: limits::ADMIN_OBJECT_BYTES,
        ..changes(
            "put",
            ENDPOINT,
            "putEndpoint",
            "Puts an endpoint there at run time, or another in its place.",
            Body::Object("Endpoint"),
            || put(change::put_endpoint),
        )
    },
    changes("delete", ENDPOINT, "endEndpoint", "Takes an endpoint away.", Body::None, || {
        delete(change::end_endpoint)
    }),
    changes(
        "put",
        "/v1/clusters/{cluster}/endpoints/{endpoint}/weight",
        "weigh",
        "Gives an endpoint another weight; all else of it stays.",
        Body::Object("Weight"),
        || put(change::put_weight),
    ),
    Operation {
        method: "put",
        path: "/v1/clusters/{cluster}/endpoints/{endpoint}/state",
        id: "setState",
        doc: "Says what an endpoint is to do, until the process ends.",
        query: &[],
        body: Body::Object("State"),
        most: limits::ADMIN_BODY_BYTES,
        needs: Needs::Token,
        answer: Object("EndpointView"),
        refusals: &[404],
        on: || put(api::set_state),
    },
    Operation {
        method: "post",
        path: "/v1/clusters/{cluster}/endpoints/{endpoint}/probe",
        id: "probe",
        doc: "Makes one check of an endpoint, and shows its bytes.",
        query: &[],
        body: Body::None,
        most: limits::ADMIN_BODY_BYTES,
        needs: Needs::Token,
        answer: Object("Probe"),
        refusals: &[404, 429],
        on: || post(api::probe_one),
    },
    reads("/v1/listeners", "listeners", "Every listener.", List("listeners", "ListenerView"), || {
        get(api::listeners)
    }),
    reads(
        "/v1/routes",
        "routes",
        "Every route, in the order in which requests try them.",
        List("routes", "RouteView"),
        || get(api::routes),
    ),
    Operation {
        refusals: &[404],
        ..reads(ROUTE, "route", "One route.", Object("RouteView"), || get(api::route))
    },
    Operation {
        query: &[(
            "before",
            "The route in front of which it stands, or goes. A new one stands at the end otherwise.",
        )],
        most: limits::ADMIN_OBJECT_BYTES,
        ..changes(
            "put",
            ROUTE,
            "putRoute",
            "Puts a route there at run time, or another in its place.",
            Body::Object("Route"),
            || put(change::put_route),
        )
    },
    changes("delete", ROUTE, "endRoute", "Takes a route away.", Body::None, || delete(change::end_route)),
    Operation {
        needs: Needs::Token,
        ..reads(
            "/v1/export",
            "export",
            "The configuration that runs, as a file. May hold secrets.",
            Text("application/toml"),
            || get(api::export),
        )
    },
    reads(
        "/v1/drift",
        "drift",
        "What was changed at run time and is not in the file.",
        Object("Drift"),
        || get(api::drift),
    ),
    changes("delete", "/v1/drift", "forget", "Goes back to what the file says.", Body::None, || {
        delete(change::forget)
    }),
    reads("/v1/shards", "shards", "Every shard.", List("shards", "ShardView"), || get(api::shards)),
    reads(
        "/v1/limits",
        "limits",
        "Every limit that is counted, the nearest to its bound first.",
        List("limits", "LimitView"),
        || get(api::limits_used),
    ),
    Operation {
        query: &[
            ("listener", "Those of a listener."),
            ("cluster", "Those that go to a cluster now."),
            ("endpoint", "Those that go to an endpoint of the cluster now."),
            ("source", "Those of clients at an address, or in a network as 10.0.0.0/8."),
            ("limit", "How many at most, 1 to 1000; 100 without it."),
            ("after", "Those behind the page that said this as its `next`."),
        ],
        refusals: &[404, 503],
        ..reads(
            "/v1/connections",
            "connections",
            "Connections of clients, a page at a time.",
            Object("Connections"),
            || get(api::connections),
        )
    },
    Operation {
        refusals: &[404, 503],
        ..reads("/v1/connections/{id}", "connection", "One connection.", Object("ConnectionView"), || {
            get(api::connection)
        })
    },
    Operation {
        method: "delete",
        needs: Needs::Token,
        refusals: &[404, 503],
        ..reads(
            "/v1/connections/{id}",
            "kill",
            "Closes one connection at once.",
            Object("ConnectionView"),
            || delete(api::kill),
        )
    },
    changes("post", "/v1/reload", "reload", "Has the process read its file anew.", Body::None, || {
        post(api::reload)
    }),
    Operation {
        answer: Object("Upgraded"),
        ..changes(
            "post",
            "/v1/upgrade",
            "upgrade",
            "Has the program's file take the place of the process.",
            Body::None,
            || post(upgrade::begin),
        )
    },
    reads("/v1/drain", "drains", "What drains.", Object("Drains"), || get(drain::show)),
    Operation {
        answer: Object("Drains"),
        ..changes(
            "post",
            "/v1/drain",
            "drain",
            "Sends connections away, or calls that off.",
            Body::Object("Drain"),
            || post(drain::begin),
        )
    },
    Operation {
        // Not that it changes anything: it reads the files that the text names, and says what the running file has.
        needs: Needs::Token,
        most: limits::ADMIN_PLAN_BYTES,
        answer: Object("Planned"),
        refusals: &[409, 422, 429, 500],
        ..changes(
            "post",
            "/v1/plan",
            "plan",
            "What a reload to a text would change; changes nothing.",
            Body::Object("Text"),
            || post(api::plan),
        )
    },
    reads(
        "/v1/events",
        "events",
        "The last events of endpoints and clusters.",
        List("events", "Any"),
        || get(api::events),
    ),
    reads("/v1/logs", "logs", "What the logs lost.", List("logs", "Any"), || get(api::logs)),
    Operation {
        method: "post",
        body: Body::Object("Asked"),
        ..reads(
            "/v1/explain",
            "explain",
            "Where a request, or a connection to a tcp listener, would go; nothing is sent.",
            Object("ExplainedView"),
            || post(api::explain),
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(wanted: impl Fn(&Operation) -> bool) -> Vec<String> {
        let rows = OPERATIONS.iter().filter(|one| wanted(one));
        rows.map(|one| format!("{} {}", one.method, one.path)).collect()
    }

    #[test]
    fn only_what_changes_nothing_is_read_without_the_token() {
        let open = paths(|one| one.needs == Needs::Nothing);
        assert_eq!(open, ["get /live", "get /ready", "get /", "get /page/{file}"]);
        assert_eq!(paths(|one| one.needs == Needs::Token && one.method == "get"), ["get /v1/export"]);
        assert_eq!(paths(|one| one.needs != Needs::Token && one.method != "get"), ["post /v1/explain"]);
    }

    #[test]
    fn what_is_put_may_be_long() {
        let long = paths(|one| one.most == limits::ADMIN_OBJECT_BYTES);
        assert_eq!(long, [CLUSTER, ENDPOINT, ROUTE].map(|path| format!("put {path}")));
        assert_eq!(paths(|one| one.most == limits::ADMIN_PLAN_BYTES), ["post /v1/plan"]);
        for one in OPERATIONS {
            let method = Method::from_bytes(one.method.to_uppercase().as_bytes()).unwrap();
            assert_eq!(operation(&method, one.path).map(|found| found.id), Some(one.id));
        }
        assert_eq!(operation(&Method::HEAD, "/ready").map(|found| found.id), Some("ready"));
        assert!(operation(&Method::POST, "/ready").is_none() && operation(&Method::GET, "/none").is_none());
    }
}
