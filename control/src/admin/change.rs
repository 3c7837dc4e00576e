//! Clusters, endpoints and routes that are put or taken away at run time: a body of JSON has the keys that the file has.

use super::api::Door;
use super::{Answer, query};
use crate::config::{Node, connectable};
use crate::reload::{Edit, Target, Wanted};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;

type Pair = Path<(String, String)>;

pub(super) async fn put_cluster(State(door): State<Door>, Path(name): Path<String>, body: Bytes) -> Answer {
    let to = object(&body).and_then(|to| called(to, &name));
    change(&door, Target::Cluster(name), to.map(Some), None).await
}

pub(super) async fn end_cluster(State(door): State<Door>, Path(name): Path<String>) -> Answer {
    change(&door, Target::Cluster(name), Ok(None), None).await
}

pub(super) async fn put_endpoint(State(door): State<Door>, Path(names): Pair, body: Bytes) -> Answer {
    let to = object(&body).and_then(|to| endpoint(to, &names.1));
    change(&door, Target::Endpoint(names.0, names.1), to.map(Some), None).await
}

pub(super) async fn end_endpoint(State(door): State<Door>, Path(names): Pair) -> Answer {
    change(&door, Target::Endpoint(names.0, names.1), Ok(None), None).await
}

/// Another weight, and all else of the endpoint as it is.
pub(super) async fn put_weight(State(door): State<Door>, Path(names): Pair, body: Bytes) -> Answer {
    let wanted = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let alone = wanted.as_ref().and_then(|body| body.as_object()).is_some_and(|keys| keys.len() == 1);
    match wanted.filter(|_| alone).and_then(|body| body.get("weight")?.as_u64()) {
        Some(weight) => door.change(Wanted::Weight(Target::Endpoint(names.0, names.1), weight)).await,
        None => Answer::refused(StatusCode::BAD_REQUEST, "wants {\"weight\": N}"),
    }
}

/// `?before=NAME` says in front of which route a new one stands, or one that is there goes.
pub(super) async fn put_route(
    State(door): State<Door>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Answer {
    let before = match query::read(query.as_deref(), ["before"]) {
        Ok([before]) => before,
        Err(why) => return Answer::refused(StatusCode::BAD_REQUEST, &why),
    };
    let to = object(&body).and_then(|to| called(to, &name));
    change(&door, Target::Route(name), to.map(Some), before).await
}

pub(super) async fn end_route(State(door): State<Door>, Path(name): Path<String>) -> Answer {
    change(&door, Target::Route(name), Ok(None), None).await
}

/// Back to what the file says.
pub(super) async fn forget(State(door): State<Door>) -> Answer {
    door.change(Wanted::Forget).await
}

async fn change(
    door: &Door,
    target: Target,
    to: Result<Option<Node>, String>,
    before: Option<String>,
) -> Answer {
    match to {
        Ok(to) => door.change(Wanted::Edit(Edit { target, to, before })).await,
        Err(why) => Answer::refused(StatusCode::BAD_REQUEST, &why),
    }
}

/// The keys of a body.
fn object(body: &[u8]) -> Result<Vec<(String, Node)>, String> {
    let value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    match Node::of_json(&value)? {
        Node::Table(keys) => Ok(keys),
        _ => Err("the body is an object with the keys that the file has".to_owned()),
    }
}

/// The object under its name, which its path says.
fn called(mut keys: Vec<(String, Node)>, name: &str) -> Result<Node, String> {
    match keys.iter().find(|(key, _)| key == "name") {
        Some((_, Node::Text(text))) if text == name => {}
        Some(_) => return Err(format!("`name` is another than that of the path, {name:?}")),
        None => keys.insert(0, ("name".to_owned(), Node::Text(name.to_owned()))),
    }
    Ok(Node::Table(keys))
}

/// An endpoint. One without a name of its own is called by its address.
fn endpoint(mut keys: Vec<(String, Node)>, name: &str) -> Result<Node, String> {
    let has = |keys: &[(String, Node)], key: &str| keys.iter().any(|(there, _)| there == key);
    if !has(&keys, "address") && connectable(name).is_ok() {
        keys.insert(0, ("address".to_owned(), Node::Text(name.to_owned())));
    }
    let node = Node::Table(keys);
    match node {
        node if node.endpoint_name().as_deref() == Some(name) => Ok(node),
        Node::Table(keys) => called(keys, name),
        node => Ok(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_called_by_its_path() {
        let written = |body: &str, name: &str| {
            let node = object(body.as_bytes()).and_then(|keys| endpoint(keys, name))?;
            Ok::<_, String>(
                Node::Table(vec![("e".to_owned(), Node::List(vec![Node::Text(String::new()), node]))])
                    .write(),
            )
        };
        let line = |body, name| written(body, name).unwrap().lines().nth(2).unwrap().trim().to_owned();
        assert_eq!(line("{}", "127.0.0.1:1"), "{ address = \"127.0.0.1:1\" },");
        assert_eq!(line("{\"address\": \"127.0.0.1:1\"}", "127.0.0.1:1"), "{ address = \"127.0.0.1:1\" },");
        assert_eq!(
            line("{\"address\": \"127.0.0.1:1\"}", "one"),
            "{ name = \"one\", address = \"127.0.0.1:1\" },"
        );
        for wrong in
            ["", "[]", "3", "{\"name\": \"two\", \"address\": \"127.0.0.1:1\"}", "{\"weight\": null}"]
        {
            assert!(written(wrong, "one").is_err(), "{wrong}");
        }
    }
}
