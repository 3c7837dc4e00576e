//! `respond` and `redirect`: answers of our own.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::matching::is_token;
use super::template;
use super::tree::{Item, Table};
use dataplane::limits;
use dataplane::spec::{BodyForm, Page, Redirect, Reply, Template, TemplatePart, Variable};
use std::sync::Arc;

pub(super) static RESPOND: Section = Section {
    path: "route.respond",
    shared: false,
    doc: "An answer of our own. `body` and the values of `headers` may use variables: `${remote_addr}`, \
          `${remote_port}`, `${server_addr}`, `${server_port}`, `${host}`, `${method}`, `${path}`, `${query}`, \
          `${path_and_query}`, `${scheme}`, `${request_id}`, `${node}`, `${listener}`, `${route}`, `${status}`, `${reason}` (of a \
          refusal; else empty). In a body of HTML or JSON, by its content-type, they are escaped as it needs. `$$` is one dollar sign; \
          a `$` in front of anything else is itself.",
    keys: &[
        Key::new("status", Shape::Count(limits::RESPOND_STATUS, None), NextExchange, "The status."),
        Key::new(
            "body",
            Shape::Free("a string, or where it stands"),
            NextExchange,
            "The body, at most 128 KiB.",
        )
        .absent("empty"),
        Key::new(
            "headers",
            Shape::Free("a table of names"),
            NextExchange,
            "Fields of the answer, at most 32. Framing and Date are ringway's own.",
        )
        .absent("none"),
    ],
};

pub(super) static MAINTENANCE: Section = Section {
    path: "route.maintenance",
    shared: false,
    doc: "What a route answers while its `maintenance_file` exists. As `[route.respond]`, with other defaults.",
    keys: &[
        Key::new("status", Shape::Count(limits::MAINTENANCE_STATUS, None), NextExchange, "The status."),
        Key::new(
            "body",
            Shape::Free("a string, or where it stands"),
            NextExchange,
            "The body, at most 128 KiB.",
        )
        .absent("\"maintaining\\n\""),
        Key::new(
            "headers",
            Shape::Free("a table of names"),
            NextExchange,
            "Fields of the answer, at most 32.",
        )
        .absent("none"),
    ],
};

pub(super) static REDIRECT: Section = Section {
    path: "route.redirect",
    shared: false,
    doc: "A redirect. `to` may use the variables of `respond`.",
    keys: &[
        Key::new(
            "status",
            Shape::Count(limits::REDIRECT_STATUS, None),
            NextExchange,
            "301, 302, 303, 307 or 308.",
        ),
        Key::new(
            "to",
            Shape::Free("a URL"),
            NextExchange,
            "The Location: `\"https://new.example.com${path}\"` or `\"/new\"`.",
        )
        .absent("required"),
    ],
};

/// Fields that only our encoder writes (threats H01, H02, H05).
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn respond(table: &Table<'_>) -> Reply {
    let status = u16::try_from(table.count("status")).unwrap_or(200);
    let body = table.get("body");
    let text = body.and_then(|item| template(&item, limits::RESPOND_BODY));
    if let (Some(item), 204 | 205 | 304) = (body, status)
        && text.as_ref().is_none_or(|text| !text.0.is_empty())
    {
        item.error(format!("an answer of status {status} has no body"));
    }
    Reply { status, page: page(text.unwrap_or(Template(Vec::new())), headers(table)) }
}

/// What an answer says besides its status. Without a content-type the body's first character tells what it is: HTML begins
/// with `<`, JSON with `{`.
pub(super) fn page(body: Template, headers: Vec<(Arc<str>, Template)>) -> Page {
    let first = |template: &Template| match template.0.first() {
        Some(TemplatePart::Text(text)) => text.trim_start().to_ascii_lowercase(),
        Some(TemplatePart::Variable(_)) | None => String::new(),
    };
    let said = headers.iter().find(|(name, _)| &**name == "content-type").map(|(_, value)| first(value));
    let is = |kinds: &[&str], begin: &str| match &said {
        Some(said) => kinds.iter().any(|kind| said.starts_with(kind)),
        None => first(&body).starts_with(begin),
    };
    let form = if is(&["text/html", "application/xhtml", "image/svg", "text/xml", "application/xml"], "<") {
        BodyForm::Html
    } else if is(&["application/json", "application/problem+json"], "{") {
        BodyForm::Json
    } else {
        BodyForm::Plain
    };
    Page { body, form, headers }
}

/// The answer of a route in maintenance.
pub(super) fn maintenance(table: &Table<'_>) -> Reply {
    let reply = respond(table);
    if table.get("body").is_some() || matches!(reply.status, 204 | 205 | 304) {
        return reply;
    }
    let body = Template(vec![TemplatePart::Text("maintaining\n".into())]);
    Reply { page: Page { body, ..reply.page }, ..reply }
}

pub(super) fn template(item: &Item<'_>, most: usize) -> Option<Template> {
    let text = template::string(item, most)?;
    template::parse(&text).map_err(|(what, nearest)| item.error_near(what, nearest)).ok()
}

pub(super) fn headers(table: &Table<'_>) -> Vec<(Arc<str>, Template)> {
    let Some(item) = table.get("headers") else { return Vec::new() };
    let entries = item.entries().unwrap_or_default();
    if entries.len() > limits::RESPOND_FIELDS {
        item.error(format!("has more than {} fields", limits::RESPOND_FIELDS));
        return Vec::new();
    }
    let mut headers: Vec<(Arc<str>, Template)> = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    for (name, place, value) in entries {
        let lower = name.to_ascii_lowercase();
        if !is_token(name) {
            place.error(format!("{name:?} is not a field's name"));
        } else if OURS.contains(&lower.as_str()) {
            place.error(format!("{name:?} is ringway's own to write"));
        } else if headers.iter().any(|(known, _)| **known == *lower) {
            place.error(format!("{name:?} stands twice"));
        }
        let Some(text) = template::string(&value, limits::RESPOND_FIELD_BYTES) else { continue };
        if !check_value(&value, &text) {
            continue;
        }
        bytes += name.len() + text.len() + ": \r\n".len();
        match template::parse(&text) {
            Ok(template) => headers.push((lower.into(), template)),
            Err((what, nearest)) => value.error_near(what, nearest),
        }
    }
    if bytes > limits::RESPOND_FIELD_BYTES {
        let most = limits::RESPOND_FIELD_BYTES;
        item.error(format!("has {bytes} bytes of fields, which is out of range (at most {most})"));
    }
    headers
}

/// Whether a text can be a field's value: no control character but a tab, no space at its ends (RFC 9110 section 5.5).
pub(super) fn check_value(item: &Item<'_>, text: &str) -> bool {
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
        item.error(format!("{c:?} cannot stand in a field's value"));
        return false;
    }
    if text.trim() != text {
        item.error_near("a field's value has no space at its ends", Some(format!("{:?}", text.trim())));
        return false;
    }
    true
}

pub(super) fn redirect(table: &Table<'_>) -> Redirect {
    let status = table.count("status");
    if let Some(item) = table.get("status")
        && !matches!(status, 301 | 302 | 303 | 307 | 308)
    {
        item.error(format!("{status} is not a redirect: 301, 302, 303, 307 or 308"));
    }
    let to = table.need("to").and_then(|item| target(&item));
    let status = u16::try_from(status).unwrap_or(308);
    Redirect { status, to: to.unwrap_or(Template(Vec::new())) }
}

fn target(item: &Item<'_>) -> Option<Template> {
    let text = item.words()?;
    if text.len() > limits::REDIRECT_BYTES {
        item.error(format!(
            "has {} bytes, which is out of range (at most {})",
            text.len(),
            limits::REDIRECT_BYTES
        ));
        return None;
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        item.error(format!("{c:?} cannot stand in a URL; percent-encode it"));
        return None;
    }
    let template = template::parse(text).map_err(|(what, nearest)| item.error_near(what, nearest)).ok()?;
    let begins_well = match template.0.first() {
        Some(TemplatePart::Text(text)) => {
            text.starts_with("http://") || text.starts_with("https://") || text.starts_with('/')
        }
        Some(TemplatePart::Variable(variable)) => {
            matches!(variable, Variable::Scheme | Variable::Path | Variable::PathAndQuery)
        }
        None => false,
    };
    if !begins_well {
        item.error(format!("{text:?} must begin with http://, https://, ${{scheme}}://, or \"/\""));
    }
    Some(template)
}
