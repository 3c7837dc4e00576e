//! The tables of refusals and close reasons.

use super::*;

#[test]
fn rows_stand_in_the_order_of_their_enum() {
    for (i, row) in REFUSALS.iter().enumerate() {
        assert_eq!(row.refusal as usize, i, "{}", row.name);
    }
    for (i, row) in CLOSE_REASONS.iter().enumerate() {
        assert_eq!(row.0 as usize, i, "{}", row.1);
    }
}

/// docs/operations/reading-the-access-log.md has every word of `close`.
#[test]
fn the_manual_has_every_close_word() {
    let mut table = String::from("\n| word | the connection ended because |\n|---|---|\n");
    for (_, word, why) in CLOSE_REASONS {
        table.push_str(&format!("| `{word}` | {why} |\n"));
    }
    table.push('\n');
    hold_in_the_manual("close words", "every_close_word", &table);
}

/// What stands between the marks of `what` in docs/operations/reading-the-access-log.md is `table`; `test` writes it.
pub(super) fn hold_in_the_manual(what: &str, test: &str, table: &str) {
    let begin = format!("<!-- {what}: written by `UPDATE_DOCS=1 cargo test -p dataplane {test}` -->\n");
    let end = format!("<!-- {what}: end -->");
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/reading-the-access-log.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(&*begin).expect("the mark before the table");
    let (there, after) = rest.split_once(&*end).expect("the mark behind the table");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert!(there == table, "the table is stale: UPDATE_DOCS=1 cargo test -p dataplane {test} writes it");
    }
}
