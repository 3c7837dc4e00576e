//! The description of the API (OpenAPI 3.1), made of the table of paths, of the structures that are answered, and of the keys of the
//! configuration, which are those of a body.

use super::connections::ConnectionView;
use super::explain::ExplainedView;
use super::guard::Needs;
use super::objects::{LimitView, ListenerView, RouteView, ShardView};
use super::page::DashboardView;
use super::paths::{Answered, Body, OPERATIONS, Operation};
use super::view::ClusterView;
use crate::config::{Section, Shape, body_sections};
use dataplane::spec::Reason;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringway admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the running process knows and can be told. What changes something needs Content-Type: application/json, \
                            and the token where the configuration has one. See docs/operations/admin.md.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://127.0.0.1:9901" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn described(operation: &Operation) -> Value {
    let names = operation.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let of_query = operation.query.iter().map(|(name, doc)| {
        json!({ "name": name, "in": "query", "description": doc, "schema": { "type": "string" } })
    });
    let parameters: Vec<Value> = in_path.chain(of_query).collect();
    let content = match operation.answer {
        Answered::Object(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        Answered::List(key, schema) => {
            let list = json!({ "type": "array", "items": reference(schema) });
            let properties = json!({ key: list });
            let schema = json!({ "type": "object", "required": [key], "properties": properties });
            json!({ "application/json": { "schema": schema } })
        }
        Answered::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": "The answer.", "content": content }));
    let refusal = |why: &str| json!({ "description": why, "content": { "application/json": { "schema": reference("Refused") } } });
    for status in [400, 401, 413, 415, 421].iter().chain(operation.refusals) {
        let why = axum::http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        responses.insert(status.to_string(), refusal(why.unwrap_or("Refused")));
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.doc,
        "parameters": parameters,
        "responses": responses,
    });
    // Reading needs it where the configuration says so, and without one in the configuration nothing does.
    let token = json!({ "token": [] });
    described["security"] = match operation.needs {
        Needs::Nothing => json!([]),
        Needs::Reading => json!([{}, token]),
        Needs::Token => json!([token]),
    };
    if let Body::Object(schema) = operation.body {
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(schema) } } });
    }
    described
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The structures that are answered, and those within them.
fn of_structures(all: &mut Map<String, Value>) {
    fn add<T: ToSchema>(all: &mut Map<String, Value>) {
        let mut found = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            all.insert(name, serde_json::to_value(schema).unwrap_or_default());
        }
    }
    add::<ClusterView<'_>>(all);
    add::<ListenerView<'_>>(all);
    add::<RouteView<'_>>(all);
    add::<ShardView>(all);
    add::<LimitView>(all);
    add::<ConnectionView<'_>>(all);
    add::<ExplainedView<'_>>(all);
    add::<DashboardView<'_>>(all);
}

/// What drains, and how far it is.
fn drains() -> Value {
    let (text, count) = (json!({ "type": "string" }), json!({ "type": "integer" }));
    let one = json!({
        "name": text, "phase": text, "reason": text, "left_s": { "type": "number" }, "connections": count,
        "requests": count, "tunnels": count, "running": count, "links": count,
    });
    let list = json!({ "type": "array", "items": object(&["name", "phase"], &one) });
    let mut of_node = one;
    of_node["by_signal"] = json!({ "type": "boolean" });
    let node = json!({ "type": ["object", "null"], "properties": of_node });
    let all = json!({ "node": node, "listeners": list, "clusters": list, "endpoints": list });
    object(&["node", "listeners", "clusters", "endpoints"], &all)
}

/// What is to drain: one of the four, the node where none is said.
fn drain() -> Value {
    let (text, flag) = (json!({ "type": "string" }), json!({ "type": "boolean" }));
    let reasons = json!({ "type": "string", "enum": Reason::ALL.map(Reason::name) });
    let asked = json!({
        "node": flag, "listener": text, "cluster": text, "endpoint": text, "reason": reasons, "window": text,
        "abort": flag,
    });
    object(&[], &asked)
}

fn schemas() -> Value {
    let mut all = Map::new();
    of_structures(&mut all);
    of_sections(&mut all);
    let (text, texts) =
        (json!({ "type": "string" }), json!({ "type": "array", "items": { "type": "string" } }));
    let keys = json!({ "key": text, "before": text, "after": text, "effect": text });
    let change = json!({
        "kind": text, "name": text, "change": text, "effect": text,
        "keys": { "type": "array", "items": object(&["key"], &keys) },
    });
    let changes = json!({ "type": "array", "items": object(&["kind", "name", "change"], &change) });
    let planned = json!({ "changes": changes, "waits": texts, "drift": texts, "ended": texts });
    let mut changed = planned.clone();
    changed["listeners"] = json!({ "type": "array", "items": object(&["name", "address"], &json!({ "name": text, "address": text })) });
    changed["warnings"] = json!({ "type": "array" });
    changed["forgotten"] = texts.clone();
    changed["took_ms"] = json!({ "type": "object", "additionalProperties": { "type": "number" } });
    let state = json!({ "state": { "type": "string", "enum": ["ready", "drain", "maint"] } });
    let clusters = json!({
        "short": text, "waits": texts, "drift": texts, "drain": reference("Drains"),
        "clusters": { "type": "array", "items": reference("ClusterView") },
    });
    let probe = json!({
        "passed": { "type": "boolean" }, "class": text, "verdict": text, "took_ms": { "type": "number" },
        "connected_ms": { "type": ["number", "null"] }, "sent": text, "received": text,
    });
    let drift = json!({
        "changes": { "type": "array", "items": object(&["kind", "name", "change"], &json!({ "kind": text, "name": text, "change": text })) },
        "states": { "type": "array", "items": object(&["endpoint", "state"], &json!({ "endpoint": text, "state": text, "gone": { "type": "boolean" } })) },
    });
    let connections = json!({
        "connections": { "type": "array", "items": reference("ConnectionView") },
        "next": { "type": ["string", "null"] },
    });
    let asked = json!({
        "method": text, "url": text, "headers": texts, "source": text, "listener": text, "sni": text, "alpn": texts,
    });
    let (flag, count) = (json!({ "type": "boolean" }), json!({ "type": "integer" }));
    let upgraded =
        json!({ "pid": count, "moved": count, "finishing": count, "drift": texts, "ended": texts });
    for (name, schema) in [
        ("Any", json!({ "type": "object" })),
        ("Live", object(&["live"], &json!({ "live": flag }))),
        ("Ready", object(&["ready", "draining"], &json!({ "ready": flag, "draining": flag }))),
        ("Refused", object(&["error"], &json!({ "error": text, "problems": { "type": "array" } }))),
        ("Planned", object(&["changes", "waits"], &planned)),
        ("Changed", object(&["changes", "waits", "drift", "took_ms"], &changed)),
        ("Upgraded", object(&["pid", "moved", "finishing", "drift", "ended"], &upgraded)),
        ("Drains", drains()),
        ("Drain", drain()),
        ("Weight", object(&["weight"], &json!({ "weight": count }))),
        ("State", object(&["state"], &state)),
        ("Text", object(&["name", "text"], &json!({ "name": text, "text": text }))),
        ("Clusters", object(&["clusters"], &clusters)),
        ("Probe", object(&["passed", "verdict"], &probe)),
        ("Drift", object(&["changes", "states"], &drift)),
        ("Connections", object(&["connections", "next"], &connections)),
        ("Asked", object(&[], &asked)),
    ] {
        all.insert(name.to_owned(), schema);
    }
    Value::Object(all)
}

/// The objects that a body may be, and the tables within them, of which some hold themselves.
fn of_sections(all: &mut Map<String, Value>) {
    let mut open: Vec<&'static Section> = body_sections().into_iter().map(|(_, section)| section).collect();
    while let Some(section) = open.pop() {
        let name = name_of(section);
        if all.contains_key(&name) {
            continue;
        }
        all.insert(name, of_section(section));
        open.extend(section.keys.iter().filter(|key| key.built).filter_map(|key| match key.shape {
            Shape::Table(inner) | Shape::Tables(inner) => Some(inner),
            _ => None,
        }));
    }
}

/// What the schema of a table is called.
fn name_of(section: &'static Section) -> String {
    let of_body = body_sections().into_iter().find(|(_, body)| std::ptr::eq(*body, section));
    let path = || section.path.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    of_body.map_or_else(|| format!("Config.{}", path()), |(name, _)| name.to_owned())
}

/// The keys of a table of the configuration.
fn of_section(section: &'static Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys.iter().filter(|key| key.built) {
        let mut schema = of_shape(key.shape);
        schema["description"] = json!(key.doc);
        properties.insert(key.name.to_owned(), schema);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn of_shape(shape: Shape) -> Value {
    match shape {
        // A string, a list or a table, as the text of the key says.
        Shape::Free(form) => json!({ "title": form }),
        Shape::Word(words, _) => json!({ "type": "string", "enum": words }),
        Shape::Duration(..) => json!({ "type": "string", "title": "a duration, as 10s" }),
        Shape::Size(..) => json!({ "type": "string", "title": "a size, as 64KiB" }),
        Shape::Count(_, None) => json!({ "type": "integer" }),
        Shape::Count(_, Some((word, _))) => {
            json!({ "type": ["integer", "string"], "title": format!("a whole number, or {word:?}") })
        }
        Shape::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Table(section) => reference(&name_of(section)),
        Shape::Tables(section) => json!({ "type": "array", "items": reference(&name_of(section)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every reference in a value.
    fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_description_holds_together() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 15, "{found:?}");
        for reference in &found {
            let name = reference.strip_prefix("#/components/schemas/").expect("a schema of ours");
            assert!(document["components"]["schemas"][name].is_object(), "{name} is described nowhere");
        }
        let mut ids = BTreeSet::new();
        for operation in OPERATIONS {
            assert!(ids.insert(operation.id), "{} names two", operation.id);
            assert!(operation.doc.ends_with('.') && operation.path.starts_with('/'), "{}", operation.path);
            let described = &document["paths"][operation.path][operation.method];
            assert_eq!(described["operationId"], operation.id, "{} stands there twice", operation.path);
            let parameters = described["parameters"].as_array().unwrap().iter();
            let in_path = parameters.filter(|one| one["in"] == "path" && one["required"] == true).count();
            assert_eq!(in_path, operation.path.matches('{').count());
            assert_eq!(operation.body != Body::None, described["requestBody"].is_object());
        }
        let endpoint = &document["components"]["schemas"]["Endpoint"]["properties"];
        assert!(endpoint["weight"]["description"].is_string() && endpoint["address"].is_object());
        assert!(document["components"]["schemas"]["EndpointView"]["properties"]["eligible"].is_object());
    }

    #[test]
    fn the_description_in_the_documents_is_this_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let fresh = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == fresh, "docs/openapi.json is stale: UPDATE_DOCS=1 cargo test -p control writes it");
    }
}
