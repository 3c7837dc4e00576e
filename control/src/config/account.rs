//! Users and groups of this machine, by a name that /etc/passwd and /etc/group have, or by number.

use super::tree::Item;

pub(super) fn user(item: &Item<'_>) -> Option<u32> {
    found(item, "user", "/etc/passwd")
}

pub(super) fn group(item: &Item<'_>) -> Option<u32> {
    found(item, "group", "/etc/group")
}

fn found(item: &Item<'_>, what: &str, file: &str) -> Option<u32> {
    let wanted = item.words()?;
    let id = number(wanted).or_else(|| of(&std::fs::read_to_string(file).unwrap_or_default(), wanted));
    if id.is_none() {
        item.error(format!("no {what} is called so in {file}; where it stands elsewhere, give its number"));
    }
    id
}

/// Chown(2) takes the last one for none.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// The third field is the number (passwd(5), group(5)).
fn of(file: &str, wanted: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    let mut line = lines.find_map(|mut line| (line.next() == Some(wanted)).then_some(line))?;
    number(line.nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_third_field() {
        let file = "root:x:0:\nproxy:x:13:a,b\nproxying:x:14:\nodd\nbad:x:4294967295:\n";
        let all = ["root", "proxy", "prox", "odd", "bad", "x", ""].map(|name| of(file, name));
        assert_eq!(all, [Some(0), Some(13), None, None, None, None, None]);
        assert_eq!((number("13"), number("-1"), number("4294967295")), (Some(13), None, None));
    }
}
