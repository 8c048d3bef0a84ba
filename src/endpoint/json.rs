use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The value of one name in an object.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Missing,
    /// The value as it is written in the text, quotes and escapes included.
    Once(&'a str),
    Repeated,
}

/// Finds `names` in the JSON object that `text` holds. Returns `None` if `text` is anything else.
///
/// Copies nothing, because `serde_json` would unescape strings into a buffer that is not wiped, and
/// quote strings in its errors. So values are borrowed as they are written, and errors are dropped
/// unread.
pub(crate) fn object<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Option<[Found<'a>; N]> {
    // Checked here, because serde_json's error would quote any other value.
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let found = json.deserialize_map(Names(names)).ok()?;
    json.end().ok()?;
    Some(found)
}

struct Names<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Names<'_, N> {
    type Value = [Found<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [Found::Missing; N];
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let place = |key: Zeroizing<String>| self.0.iter().position(|name| *name == *key);
            if let Some(i) = string(key.get()).and_then(place) {
                found[i] = match found[i] {
                    Found::Missing => Found::Once(value.get()),
                    Found::Once(_) | Found::Repeated => Found::Repeated,
                };
            }
        }
        Ok(found)
    }
}

/// Unescapes a JSON value that is a string, into a buffer that never grows; `None` for anything
/// else.
pub(crate) fn string(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    // An escape is never shorter than its character.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((char, length)) = first_char(rest) {
        text.push(char);
        rest = &rest[length..];
    }
    rest.is_empty().then_some(text)
}

/// The first character of a JSON string's content and how many bytes spell it; `None` at the end
/// and for half an escape (RFC 8259 section 7).
fn first_char(text: &str) -> Option<(char, usize)> {
    if !text.starts_with('\\') {
        return text.chars().next().map(|char| (char, char.len_utf8()));
    }
    // An escape is `\n`, `\u000a`, or two `\u` for one character. Each is unescaped on its own, so
    // that serde_json's buffer, which is not wiped, holds one character at most.
    [2, 6, 12].into_iter().find_map(|length| {
        let quoted = Zeroizing::new(["\"", text.get(..length)?, "\""].concat());
        Some((serde_json::from_str(&quoted).ok()?, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(raw: &str) -> Option<String> {
        string(raw).map(|text| text.to_string())
    }

    /// <https://www.rfc-editor.org/rfc/rfc8259#section-7>
    #[test]
    fn strings_are_unescaped() {
        let text = r#""a\/b\u003d\"\\\b\f\n\r\té\u00E9\ud83d\ude00""#;
        assert_eq!(unescaped(text).as_deref(), Some("a/b=\"\\\u{8}\u{c}\n\r\té\u{e9}\u{1f600}"));
        assert_eq!(unescaped(r#""""#).as_deref(), Some(""));
    }

    #[test]
    fn invalid_strings_and_other_values_are_none() {
        for raw in [
            "1",
            "null",
            "[]",
            "\"",
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            r#""\u+041""#,
            r#""\u12""#,
            r#""\x""#,
            r#""\""#,
        ] {
            assert_eq!(unescaped(raw), None, "{raw}");
        }
    }

    #[test]
    fn names_are_found_however_they_are_spelled() {
        let [plain, escaped, twice, missing] =
            object(r#" {"a":1,"b\u0063":"x","d":1,"d":2,"e":[{}]} "#, ["a", "bc", "d", "f"])
                .unwrap();
        assert!(matches!(plain, Found::Once("1")));
        assert!(matches!(escaped, Found::Once("\"x\"")));
        assert!(matches!(twice, Found::Repeated));
        assert!(matches!(missing, Found::Missing));
    }

    #[test]
    fn only_whole_objects_hold_fields() {
        let bomb = format!("{{\"a\":{}", "[".repeat(16_000));
        for text in
            ["", "[]", "\"{}\"", "{", "{}{}", "{\"a\":}", "{\"a\":1}x", "{\"a\":\"\n\"}", &bomb]
        {
            assert!(object(text, ["a"]).is_none(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(8_000), "]".repeat(8_000));
        assert!(object(&deep, ["a"]).is_some(), "nesting costs no stack");
    }
}
