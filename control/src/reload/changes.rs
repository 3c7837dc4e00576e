//! What was changed at run time, beside the file: clusters, endpoints and routes that were put or taken away.
//!
//! The configuration that runs is the file's text with the changes put into it, and is read as any file is. A change lasts as long
//! as the file says of its object what it said when the change was made: once that is another, the file holds again.

use crate::config::{Environment, Loaded, Node, Report, load, parse};
use dataplane::limits;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An object that can be changed at run time, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Cluster(String),
    /// Of a cluster.
    Endpoint(String, String),
    Route(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Endpoint(cluster, name) => write!(f, "endpoint {cluster}/{name}"),
            Self::Route(name) => write!(f, "route {name}"),
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edit {
    pub(crate) target: Target,
    /// What it is from now on; none is taken away.
    pub(crate) to: Option<Node>,
    /// Of a route that is new: the one in front of which it stands; at the end where there is none.
    pub(crate) before: Option<String>,
}

/// All changes that last, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    edits: Vec<Edit>,
}

/// Changes and the file that they were made to: what the next process of an upgrade is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) file: Arc<str>,
    pub(crate) changes: Changes,
}

/// What is wanted of the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Edit(Edit),
    /// Another weight of an endpoint, and all else of it as it is.
    Weight(Target, u64),
    /// The file alone.
    Forget,
}

/// A file with the changes in it.
#[derive(Debug)]
pub(crate) struct Read {
    /// Of both together.
    pub(crate) loaded: Loaded,
    /// Of the file alone.
    pub(crate) file: Arc<str>,
    pub(crate) changes: Changes,
    /// Changes that end, because the file is another where they were.
    pub(crate) ended: Vec<String>,
    /// The file alone is wanted: what was said of endpoints that are gone is over too.
    pub(crate) forgets: bool,
}

/// Why nothing was read.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The file is wrong, or would be.
    Wrong(Report),
    /// There is no such object, in words.
    Unknown(String),
    /// The file is right, and with the changes it would not be; which they are.
    Clash(Report, Vec<String>),
}

impl Edit {
    /// The object as a configuration has it.
    fn written<'n>(&self, root: &'n Node) -> Option<&'n Node> {
        match &self.target {
            Target::Cluster(name) => named(root.list("cluster"), name),
            Target::Route(name) => named(root.list("route"), name),
            Target::Endpoint(cluster, name) => {
                let endpoints = named(root.list("cluster"), cluster)?.list("endpoints");
                endpoints.iter().find(|one| one.endpoint_name().as_ref() == Some(name))
            }
        }
    }

    fn apply(&self, root: &mut Node) {
        let unnamed = |node: &Node| node.name().map(str::to_owned);
        match &self.target {
            Target::Cluster(name) => put(root.list_mut("cluster"), name, self, unnamed),
            Target::Route(name) => put(root.list_mut("route"), name, self, unnamed),
            Target::Endpoint(cluster, name) => {
                let clusters = root.list_mut("cluster").into_iter().flatten();
                for cluster in clusters.filter(|one| one.name() == Some(cluster)) {
                    put(cluster.list_mut("endpoints"), name, self, Node::endpoint_name);
                }
            }
        }
    }

    /// Whether it is about what `other` replaces.
    fn is_within(&self, other: &Target) -> bool {
        match (&self.target, other) {
            (one, other) if one == other => true,
            (Target::Endpoint(cluster, _), Target::Cluster(name)) => cluster == name,
            _ => false,
        }
    }
}

fn named<'n>(list: &'n [Node], name: &str) -> Option<&'n Node> {
    list.iter().find(|one| one.name() == Some(name))
}

fn put(list: Option<&mut Vec<Node>>, name: &str, edit: &Edit, name_of: impl Fn(&Node) -> Option<String>) {
    let Some(list) = list else { return };
    let at = |name: &str, list: &[Node]| list.iter().position(|one| name_of(one).as_deref() == Some(name));
    let there = at(name, list);
    let moves = edit.before.as_deref().is_some_and(|before| before != name);
    match (there, &edit.to) {
        (Some(at), None) => _ = list.remove(at),
        (Some(at), Some(to)) if !moves => list[at] = to.clone(),
        (there, Some(to)) => {
            if let Some(at) = there {
                list.remove(at);
            }
            let before = edit.before.as_deref().and_then(|before| at(before, list));
            list.insert(before.unwrap_or(list.len()), to.clone());
        }
        (None, None) => {}
    }
}

const HEAD: &str =
    "# Written by ringway: a file, and what was changed at run time. Comments of the file are not kept.\n";

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// The objects that are changed, with what became of each, as compared with the file.
    pub(crate) fn told(&self, file: &str) -> Vec<(&Target, &'static str)> {
        let root = Node::of_text(file);
        let what = |edit: &Edit| match (root.as_ref().and_then(|root| edit.written(root)), &edit.to) {
            (_, None) => "gone",
            (None, Some(_)) => "new",
            (Some(_), Some(_)) => "changed",
        };
        self.edits.iter().map(|edit| (&edit.target, what(edit))).collect()
    }

    /// Their names, for people.
    pub(crate) fn names(&self) -> Vec<String> {
        self.edits.iter().map(|edit| edit.target.to_string()).collect()
    }

    /// The text of `file` with the changes.
    fn onto(&self, file: &str) -> Arc<str> {
        match Node::of_text(file).filter(|_| !self.is_empty()) {
            Some(mut root) => {
                self.edits.iter().for_each(|edit| edit.apply(&mut root));
                format!("{HEAD}{}", root.write()).into()
            }
            None => file.into(),
        }
    }

    /// Those that last when `now` follows the file `before`, and the names of the others.
    fn following(&self, before: &str, now: &str) -> (Self, Vec<String>) {
        if self.is_empty() {
            return (Self::default(), Vec::new());
        }
        let (before, now) = (Node::of_text(before), Node::of_text(now));
        let lasts = |edit: &&Edit| match (&before, &now) {
            (Some(before), Some(now)) => edit.written(before) == edit.written(now),
            _ => false,
        };
        let (last, over): (Vec<_>, Vec<_>) = self.edits.iter().partition(lasts);
        let edits = last.into_iter().cloned().collect();
        (Self { edits }, over.into_iter().map(|edit| edit.target.to_string()).collect())
    }

    /// With one more, of the file that runs.
    fn with(&self, edit: &Edit, file: &str) -> Result<Self, Refused> {
        let unknown = |what: String| Err(Refused::Unknown(what));
        let (Some(root), Some(now)) = (Node::of_text(file), Node::of_text(&self.onto(file))) else {
            return unknown("the file that runs is no TOML".to_owned());
        };
        if let Target::Endpoint(cluster, _) = &edit.target
            && named(now.list("cluster"), cluster).is_none()
        {
            return unknown(format!("no cluster is called {cluster:?}"));
        }
        if let Some(before) =
            edit.before.as_deref().filter(|before| named(now.list("route"), before).is_none())
        {
            return unknown(format!("no route of that name stands in the configuration: {before:?}"));
        }
        if edit.to.is_none() && edit.written(&now).is_none() {
            return unknown(format!("the configuration has no {}", edit.target));
        }
        let mut edit = edit.clone();
        if edit.to.is_some()
            && edit.before.is_none()
            && let Some(last) = self.edits.iter().find(|one| one.target == edit.target)
        {
            edit.before.clone_from(&last.before);
        }
        let mut edits = self.edits.clone();
        edits.retain(|one| !one.is_within(&edit.target));
        let mut without = Self { edits };
        let mut plain = root;
        without.edits.iter().for_each(|one| one.apply(&mut plain));
        // What is as the file says is no change.
        let moves = edit.to.is_some() && edit.before.is_some();
        if moves || edit.written(&plain) != edit.to.as_ref() {
            without.edits.push(edit);
        }
        if without.edits.len() > limits::CHANGES_MAX {
            let most = limits::CHANGES_MAX;
            return unknown(format!(
                "more than {most} changes at run time (CHANGES_MAX): write them into the file"
            ));
        }
        Ok(without)
    }

    /// The edit that gives an endpoint of the configuration that runs another weight.
    fn weighing(&self, target: &Target, weight: u64, file: &str) -> Result<Edit, Refused> {
        let edit = Edit { target: target.clone(), to: None, before: None };
        let (root, now) = (Node::of_text(file), Node::of_text(&self.onto(file)));
        let Some(found) = now.as_ref().and_then(|now| edit.written(now)) else {
            return Err(Refused::Unknown(format!(
                "the configuration has no {target}: one that is found by name or in a file has its weight from there"
            )));
        };
        let to = found.weighing(weight);
        // Where the file says the same in its own words, these hold, and nothing is changed any more.
        let plain = root.as_ref().and_then(|root| edit.written(root));
        let plain =
            plain.filter(|node| node.weight() == Some(weight) && node.weighing(weight) == to).cloned();
        Ok(Edit { to: plain.or(Some(to)), ..edit })
    }

    /// Reads a file anew, and puts the changes in it that last. `before` is the file that they were made to.
    pub(crate) fn reload(
        &self,
        path: &Path,
        before: &str,
        environment: &Environment,
    ) -> Result<Read, Refused> {
        let loaded = load(path, environment).map_err(Refused::Wrong)?;
        self.follow(loaded, before, &path.display().to_string(), environment)
    }

    /// The same of a file that is read already.
    pub(crate) fn follow(
        &self,
        loaded: Loaded,
        before: &str,
        name: &str,
        environment: &Environment,
    ) -> Result<Read, Refused> {
        let file = Arc::clone(&loaded.text);
        let (changes, ended) = self.following(before, &file);
        if changes.is_empty() {
            return Ok(Read { loaded, file, changes, ended, forgets: false });
        }
        let name = format!("{name} with what was changed at run time");
        let both = parse(&changes.onto(&file), &name, environment);
        let loaded = both.map_err(|report| Refused::Clash(report, changes.names()))?;
        Ok(Read { loaded, file, changes, ended, forgets: false })
    }

    /// The file that runs, with one change more or none at all.
    pub(crate) fn change(
        &self,
        wanted: &Wanted,
        file: &Arc<str>,
        environment: &Environment,
    ) -> Result<Read, Refused> {
        let changes = match wanted {
            Wanted::Edit(edit) => self.with(edit, file)?,
            Wanted::Weight(target, weight) => self.with(&self.weighing(target, *weight, file)?, file)?,
            Wanted::Forget => Self::default(),
        };
        let text = changes.onto(file);
        let loaded =
            parse(&text, "the configuration with this change", environment).map_err(Refused::Wrong)?;
        let forgets = *wanted == Wanted::Forget;
        Ok(Read { loaded, file: Arc::clone(file), changes, ended: Vec::new(), forgets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "# ours\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"one\"\ncluster = \"app\"\n\
        [[cluster]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n";

    fn edit(target: Target, to: Option<serde_json::Value>) -> Edit {
        Edit { target, to: to.map(|to| Node::of_json(&to).unwrap()), before: None }
    }
    fn route(name: &str) -> Edit {
        edit(
            Target::Route(name.to_owned()),
            Some(json!({ "name": name, "cluster": "app", "match": { "path": format!("/{name}") } })),
        )
    }
    fn endpoint(name: &str, weight: Option<u64>) -> Edit {
        let to = weight.map(|weight| json!({ "address": name, "weight": weight }));
        edit(Target::Endpoint("app".to_owned(), name.to_owned()), to)
    }
    fn with(changes: &Changes, edit: &Edit) -> Changes {
        changes.with(edit, FILE).unwrap()
    }
    fn names(text: &str, kind: &str) -> Vec<String> {
        Node::of_text(text).unwrap().list(kind).iter().map(|one| one.name().unwrap().to_owned()).collect()
    }

    #[test]
    fn changes_are_put_into_the_file_in_their_places() {
        let none = Changes::default();
        assert_eq!(&*none.onto(FILE), FILE, "with its comments");
        let two = with(&none, &route("two"));
        let three = with(&two, &Edit { before: Some("one".to_owned()), ..route("three") });
        assert_eq!(names(&three.onto(FILE), "route"), ["three", "one", "two"]);
        // Put once more, it stays where it was put.
        assert_eq!(names(&with(&three, &route("three")).onto(FILE), "route"), ["three", "one", "two"]);
        let gone = with(&three, &edit(Target::Route("one".to_owned()), None));
        assert_eq!(names(&gone.onto(FILE), "route"), ["three", "two"]);
        let told: Vec<_> =
            gone.told(FILE).into_iter().map(|(target, what)| format!("{target} {what}")).collect();
        assert_eq!(told, ["route two new", "route three new", "route one gone"]);
        let weighted = with(&none, &endpoint("127.0.0.1:2", Some(5)));
        let text = weighted.onto(FILE);
        assert!(
            text.contains("{ address = \"127.0.0.1:2\", weight = 5 }") && text.starts_with("# Written"),
            "{text}"
        );
    }

    #[test]
    fn what_is_as_the_file_says_is_no_change() {
        let gone = with(&Changes::default(), &endpoint("127.0.0.1:2", None));
        assert_eq!(gone.names(), ["endpoint app/127.0.0.1:2"]);
        let back =
            Edit { to: Some(Node::of_json(&json!("127.0.0.1:2")).unwrap()), ..endpoint("127.0.0.1:2", None) };
        assert!(with(&gone, &back).is_empty());
        let new = with(&Changes::default(), &route("two"));
        assert!(with(&new, &edit(Target::Route("two".to_owned()), None)).is_empty());
        // A cluster as a whole takes the place of what was said of its endpoints.
        let whole = edit(
            Target::Cluster("app".to_owned()),
            Some(json!({ "name": "app", "endpoints": ["127.0.0.1:9"] })),
        );
        assert_eq!(with(&gone, &whole).names(), ["cluster app"]);
    }

    #[test]
    fn a_change_lasts_while_the_file_says_of_its_object_what_it_said() {
        let changes = with(&with(&Changes::default(), &endpoint("127.0.0.1:2", Some(5))), &route("two"));
        let lasts = |file: &str| changes.following(FILE, file).0.names();
        let both = ["endpoint app/127.0.0.1:2", "route two"];
        assert_eq!(lasts(FILE), both);
        assert_eq!(lasts(&FILE.replace("name = \"app\"", "name = \"app\"\nbalance = \"random\"")), both);
        assert_eq!(lasts(&FILE.replace("\"127.0.0.1:1\"", "\"127.0.0.1:3\"")), both);
        let touched = FILE.replace("\"127.0.0.1:2\"", "{ address = \"127.0.0.1:2\", weight = 9 }");
        assert_eq!(changes.following(FILE, &touched).1, ["endpoint app/127.0.0.1:2"]);
        let also_there = format!("{FILE}[[route]]\nname = \"two\"\nrespond = {{ status = 200 }}\n");
        assert_eq!(changes.following(FILE, &also_there).1, ["route two"]);
    }

    #[test]
    fn a_weight_is_changed_alone_and_back() {
        let target = Target::Endpoint("app".to_owned(), "127.0.0.1:2".to_owned());
        let weigh = |changes: &Changes, weight, file: &str| {
            changes.with(&changes.weighing(&target, weight, file).unwrap(), file).unwrap()
        };
        let five = weigh(&Changes::default(), 5, FILE);
        assert!(five.onto(FILE).contains("{ address = \"127.0.0.1:2\", weight = 5 }"), "{}", five.onto(FILE));
        assert!(weigh(&five, 1, FILE).is_empty());
        let long = "{ name = \"127.0.0.1:2\", weight = 7, address = \"127.0.0.1:3\", max_requests = 9 }";
        let file = FILE.replace("\"127.0.0.1:2\"", long);
        let none = weigh(&Changes::default(), 0, &file);
        assert!(none.onto(&file).contains(&long.replace("weight = 7", "weight = 0")), "{}", none.onto(&file));
        assert!(weigh(&none, 7, &file).is_empty());
        let gone = with(&Changes::default(), &endpoint("127.0.0.1:2", None));
        assert!(matches!(gone.weighing(&target, 1, FILE), Err(Refused::Unknown(_))));
    }

    #[test]
    fn what_is_not_there_is_told() {
        let none = Changes::default();
        for wrong in [
            edit(Target::Cluster("x".to_owned()), None),
            edit(Target::Route("x".to_owned()), None),
            endpoint("127.0.0.1:3", None),
            edit(Target::Endpoint("x".to_owned(), "y".to_owned()), Some(json!({}))),
            Edit { before: Some("x".to_owned()), ..route("two") },
        ] {
            assert!(matches!(none.with(&wrong, FILE), Err(Refused::Unknown(_))), "{wrong:?}");
        }
    }
}
