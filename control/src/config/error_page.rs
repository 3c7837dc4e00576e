//! `[[listener.error_page]]` and `[[route.error_page]]`: what refusals of a status are answered with.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::tree::Table;
use super::{failures, reply};
use dataplane::limits;
use dataplane::spec::{ErrorPage, ErrorPages, Statuses, Template};

pub(super) static SECTION: Section = Section {
    path: "listener.error_page, route.error_page",
    shared: true,
    doc: "What is answered where ringway itself refuses a request with one of these statuses: the first page that has the \
          status, of the route that took the request, then of its listener. What origins answer is passed on as it is. The \
          status, `ringway-reason`, `x-request-id` and `Retry-After` stay. docs/recipes/error-pages.md.",
    keys: &[
        Key::new(
            "status",
            Shape::Free("a status from 400 to 599, a range as \"500-599\", or a list of them"),
            NextExchange,
            "Which refusals.",
        )
        .absent("required"),
        Key::new(
            "body",
            Shape::Free("a string, or where it stands"),
            NextExchange,
            "At most 32 KiB, with the variables of `respond`, `${request_id}` and `${reason}` among them. Without a content-type in \
             `headers` it is HTML if it begins with `<`, JSON if with `{`, else plain text.",
        )
        .absent("required"),
        Key::new(
            "headers",
            Shape::Free("a table of names"),
            NextExchange,
            "Fields of the answer, at most 32. Framing and Date are ringway's own.",
        )
        .absent("none"),
    ],
};

/// The pages of a listener or route; `count` is how many the file had before.
pub(super) fn read(table: &Table<'_>, count: &mut usize) -> ErrorPages {
    let tables = table.tables("error_page");
    *count += tables.len();
    if tables.len() > limits::ERROR_PAGES || *count > limits::ERROR_PAGES_MAX {
        let (own, all) = (limits::ERROR_PAGES, limits::ERROR_PAGES_MAX);
        table.error("error_page", format!("there are too many (at most {own} of one, {all} in all)"));
        return ErrorPages::default();
    }
    tables.iter().map(one).collect()
}

fn one(table: &Table<'_>) -> ErrorPage {
    let statuses = table.need("status").map_or_else(Statuses::default, |item| failures::read_statuses(&item));
    let body = table.need("body").and_then(|item| reply::template(&item, limits::ERROR_PAGE_BODY));
    let page = reply::page(body.unwrap_or(Template(Vec::new())), reply::headers(table));
    ErrorPage { statuses, page }
}
