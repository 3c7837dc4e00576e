//! What stands behind the "?" of a path: names and values, percent-encoded (RFC 3986 2.1), as our paths take them.

/// Reads a query whose names are all among `known`, none of them twice. An empty value is one that is not there.
///
/// # Errors
/// What is wrong with it, for who asked.
pub(super) fn read<const N: usize>(
    query: Option<&str>,
    known: [&'static str; N],
) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(at) = known.iter().position(|known| *known == name) else {
            return Err(format!("{name:?} is not asked for here: {}", known.join(", ")));
        };
        let value =
            decoded(value).ok_or_else(|| format!("the value of {name} is not percent-encoded UTF-8"))?;
        if values[at].replace(value).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(values.map(|value| value.filter(|value| !value.is_empty())))
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (char::from(rest.next()?), char::from(rest.next()?));
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_values_decoded() {
        let asked = |query| read(Some(query), ["a", "b"]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(None, ["a"]), Ok([None]));
        assert_eq!(asked("b=%2f+x&a=1"), Ok([some("1"), some("/ x")]));
        assert_eq!(asked("a=&&b"), Ok([None, None]));
        for wrong in ["c=1", "a=1&a=2", "a=%2", "a=%zz", "a=%ff", "a=1&A=1"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
