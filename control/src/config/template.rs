//! Texts with variables, `"${host} is moved"`, and strings that stand elsewhere, `{ file = "PATH" }`.
//!
//! `$$` is one dollar sign, so `$${host}` is that text and no variable; a `$` in front of anything else is itself.

use super::disk;
use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::report::nearest;
use super::tree::Item;
use dataplane::spec::{Template, TemplatePart, Variable};
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

/// A string's place, where the string itself would be.
pub(super) static ELSEWHERE: Section = Section {
    path: "route.respond.body, route.respond.headers, cluster.sticky.key, admin.token",
    shared: true,
    doc: "A string, or one of these tables: where the string stands; so for \
          `route.maintenance`, `error_page` and the values of `cluster.health.headers`. It is read when the file is, and again on each \
          reload.",
    keys: &[
        Key::new(
            "file",
            Shape::Free("a path"),
            NextExchange,
            "The whole content of this file, relative to where the process was started.",
        )
        .absent("one of the two"),
        Key::new("env", Shape::Free("a name"), NextExchange, "The value of this environment variable.")
            .absent("one of the two"),
    ],
};

/// The string behind an item, of at most `most` bytes, and whether it stood elsewhere.
pub(super) fn string<'t>(item: &Item<'t>, most: usize) -> Option<Cow<'t, str>> {
    let text = match item.value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None if item.value.is_table() => Cow::Owned(elsewhere(item, most)?),
        None => {
            item.wants("a string, { file = \"PATH\" } or { env = \"NAME\" }");
            return None;
        }
    };
    if text.len() > most {
        item.error(format!("has {} bytes, which is out of range (at most {most})", text.len()));
        return None;
    }
    Some(text)
}

fn elsewhere(item: &Item<'_>, most: usize) -> Option<String> {
    let table = item.table(&ELSEWHERE)?;
    match (table.get("file"), table.get("env")) {
        (Some(file), None) => {
            let path = file.words()?;
            let found = read_file(path, most);
            found.map_err(|what| file.error(format!("{path:?} cannot be read: {what}"))).ok()
        }
        (None, Some(env)) => {
            let name = env.words()?;
            if name.contains(['=', '\0']) {
                env.error(format!("{name:?} is not the name of an environment variable"));
                return None;
            }
            match std::env::var(name) {
                Ok(value) => Some(value),
                Err(std::env::VarError::NotPresent) => {
                    env.error(format!("the environment has no {name:?}"));
                    None
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    env.error(format!("{name:?} is not UTF-8 in the environment"));
                    None
                }
            }
        }
        _ => {
            item.wants("one of `file` and `env`");
            None
        }
    }
}

fn read_file(path: &str, most: usize) -> Result<String, String> {
    let file = disk::open(Path::new(path)).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > most {
        return Err(format!("it has more than {most} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// The template that a text is, or each of its faults and what was probably meant.
pub(super) fn parse(text: &str) -> Result<Template, (String, Option<String>)> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            plain.push('$');
            rest = after;
        } else if let Some(inside) = after.strip_prefix('{') {
            let Some((name, after)) = inside.split_once('}') else {
                return Err((
                    "a \"${\" lacks its \"}\"; write \"$${\" for the characters themselves".into(),
                    None,
                ));
            };
            if !plain.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(TemplatePart::Variable(variable(name)?));
            rest = after;
        } else {
            plain.push('$');
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(TemplatePart::Text(plain.into()));
    }
    Ok(Template(parts))
}

fn variable(name: &str) -> Result<Variable, (String, Option<String>)> {
    if let Some((_, variable)) = Variable::NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*variable);
    }
    let shown: String = name.chars().take(64).collect();
    let meant = nearest(name, Variable::NAMES.iter().map(|(known, _)| *known));
    Err((format!("no variable is called {shown:?}"), meant.map(|name| format!("${{{name}}}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use TemplatePart::{Text, Variable as Var};

    #[test]
    fn dollars_and_variables() {
        let parts = |text: &str| parse(text).unwrap().0;
        assert_eq!(parts(""), []);
        assert_eq!(parts("plain"), [Text("plain".into())]);
        assert_eq!(
            parts("a${host}b${path}"),
            [Text("a".into()), Var(Variable::Host), Text("b".into()), Var(Variable::Path)]
        );
        assert_eq!(parts("5$ $5 $$5 $"), [Text("5$ $5 $5 $".into())]);
        assert_eq!(parts("$${host}"), [Text("${host}".into())]);
        assert_eq!(parts("$$${host}"), [Text("$".into()), Var(Variable::Host)]);
        for (name, variable) in Variable::NAMES {
            let text = format!("${{{name}}}");
            assert_eq!(parts(&text), [Var(*variable)]);
        }
        assert_eq!(parse("${hots}").unwrap_err().1.as_deref(), Some("${host}"));
        parse("${").unwrap_err();
        parse("${}").unwrap_err();
        parse("${ host }").unwrap_err();
    }

    #[test]
    fn files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("body");
        std::fs::write(&path, "12345").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(read_file(path, 5).as_deref(), Ok("12345"));
        assert!(read_file(path, 4).unwrap_err().contains("more than 4 bytes"));
        read_file(dir.path().to_str().unwrap(), 5).unwrap_err();
        read_file("/dev/zero", 5).unwrap_err();
    }
}
