//! Writes docs/config.md from the key tables. A test fails when the file is stale.

use super::keys::{Key, ReloadEffect, Section, Shape};
use super::{
    access_log, admin, available, balance, cluster, drain, endpoint, error_page, failures, health, listener,
    matching, process, reply, retry, route, sticky, template, traces,
};
use std::fmt::Write;

/// Every section, in the manual's order.
pub fn sections() -> &'static [&'static Section] {
    static ALL: &[&Section] = &[
        &process::ROOT,
        &process::RUNTIME,
        &drain::SECTION,
        &drain::SHUTDOWN,
        &drain::DEPLOY,
        &drain::REBALANCE,
        &admin::SECTION,
        &process::LOG,
        &access_log::SECTION,
        &traces::SECTION,
        &listener::SECTION,
        &listener::LIMITS,
        &listener::TIMEOUTS,
        &listener::FORWARDED,
        &listener::PROXY_PROTOCOL,
        &route::SECTION,
        &matching::SECTION,
        &matching::FIELD,
        &available::SECTION,
        &reply::RESPOND,
        &reply::MAINTENANCE,
        &template::ELSEWHERE,
        &reply::REDIRECT,
        &route::TIMEOUTS,
        &error_page::SECTION,
        &cluster::SECTION,
        &endpoint::ENDPOINT,
        &cluster::TIMEOUTS,
        &cluster::POOL,
        &balance::SECTION,
        &sticky::SECTION,
        &health::SECTION,
        &health::EXPECT_BODY,
        &failures::OUTLIER,
        &failures::CIRCUIT_BREAKER,
        &retry::SECTION,
    ];
    ALL
}

/// The objects that can be put at run time: what each is called, and its keys.
pub(crate) fn body_sections() -> [(&'static str, &'static Section); 3] {
    [("Cluster", &cluster::SECTION), ("Endpoint", &endpoint::ENDPOINT), ("Route", &route::SECTION)]
}

/// docs/config.md.
pub fn manual() -> String {
    let mut out = String::from(HEAD);
    for effect in ReloadEffect::ALL {
        line(&mut out, format_args!("- *{}*: {}", effect.name(), effect.meaning()));
    }
    for section in sections() {
        let title =
            if section.path.is_empty() { "The whole file".to_owned() } else { format!("`{}`", section.path) };
        line(&mut out, format_args!("\n## {title}\n\n{}\n", section.doc));
        line(
            &mut out,
            format_args!("| key | value | default | range | on reload | what |\n|---|---|---|---|---|---|"),
        );
        for key in section.keys {
            row(&mut out, key);
        }
    }
    out
}

const HEAD: &str = "<!-- Written from the key tables in control/src/config by `UPDATE_DOCS=1 cargo test -p control`. -->

# Configuration

Every key, with its default, its range, and what changing it does to what is established when the file is reloaded.
`ringway check -c FILE` names every problem of a file with line and column. Keys marked *later* are known and refused:
their feature is not in this version.

";

fn row(out: &mut String, key: &Key) {
    let later = if key.built { "" } else { " *later*" };
    let (value, default, range) =
        (cell(&value(key.shape)), cell(&code(&key.default_text())), key.shape.range());
    let (name, effect, doc) = (key.name, key.effect.name(), cell(key.doc));
    line(out, format_args!("| `{name}`{later} | {value} | {default} | {range} | {effect} | {doc} |"));
}

fn value(shape: Shape) -> String {
    match shape {
        Shape::Table(section) | Shape::Tables(section) if section.keys.is_empty() => "reserved".to_owned(),
        Shape::Table(section) => format!("table `{}`", section.path),
        Shape::Tables(section) => format!("tables `[[{}]]`", section.path),
        Shape::Word(words, later) => {
            let all = words.iter().map(|w| format!("`{w:?}`"));
            let later = later.iter().map(|w| format!("`{w:?}` *later*"));
            all.chain(later).collect::<Vec<_>>().join(", ")
        }
        other => other.wants(),
    }
}

/// Values in code, words about them not.
fn code(text: &str) -> String {
    let is_value = text.starts_with('"') || text.parse::<f64>().is_ok() || text == "false";
    if is_value && !text.contains(',') { format!("`{text}`") } else { text.to_owned() }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
