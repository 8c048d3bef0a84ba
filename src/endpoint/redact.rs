use zeroize::Zeroizing;

use crate::endpoint::json;

/// The most characters that are quoted of one text.
const LIMIT: usize = 256;

/// What may be quoted of a server's `text`: its first 256 characters, with control characters made
/// spaces and every echo of a `private` text replaced, be it plain, percent-encoded, JSON-escaped
/// or in base64. Nothing of markup.
pub(crate) fn quotable(text: &str, private: &[&str]) -> Option<String> {
    if is_markup(text) {
        return None;
    }
    let plain = private.iter().filter(|text| !text.is_empty()).map(|text| text.as_bytes());
    let encoded = plain.clone().flat_map(base64_cores).collect::<Vec<_>>();
    let mut quote = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let echo = plain.clone().find_map(|needle| spelled(rest, needle)).or_else(|| {
            let end = encoded.iter().find_map(|core| spelled(rest, core))?;
            // The rest of the run holds the secret's last bits.
            Some(rest.len() - rest[end..].trim_start_matches(is_base64).len())
        });
        if let Some(end) = echo {
            quote.push_str("***");
            rest = &rest[end..];
        } else {
            quote.push(if is_unprintable(char) { ' ' } else { char });
            rest = &rest[char.len_utf8()..];
        }
    }
    let quote = quote.trim();
    (!quote.is_empty()).then(|| quote.chars().take(LIMIT).collect())
}

/// Whether a tag, a comment or a declaration starts somewhere.
fn is_markup(text: &str) -> bool {
    let opens = |after: &str| {
        after.starts_with(|char: char| char.is_ascii_alphabetic() || "/!?".contains(char))
    };
    text.split('<').skip(1).any(opens)
}

/// Control characters, and the invisible ones that turn text around or break lines.
fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_base64(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '+' | '/' | '-' | '_' | '=')
}

/// How many bytes at the start of `text` spell `needle`, plainly or with percent or JSON escapes
/// mixed in.
fn spelled(text: &str, needle: &[u8]) -> Option<usize> {
    if text.as_bytes().starts_with(needle) {
        return Some(needle.len());
    }
    let (mut rest, mut left) = (text, needle);
    while !left.is_empty() {
        (rest, left) = [percent_encoded, form_encoded, json_escaped]
            .iter()
            .find_map(|step| step(rest, left))?;
    }
    Some(text.len() - rest.len())
}

/// What is left of both when `text` starts with the next byte of `needle`, spelled this way.
fn percent_encoded<'t, 'n>(text: &'t str, needle: &'n [u8]) -> Option<(&'t str, &'n [u8])> {
    let (digits, rest) = text.strip_prefix('%')?.split_at_checked(2)?;
    Some((rest, needle.strip_prefix(&[u8::from_str_radix(digits, 16).ok()?])?))
}

fn form_encoded<'t, 'n>(text: &'t str, needle: &'n [u8]) -> Option<(&'t str, &'n [u8])> {
    Some((text.strip_prefix('+')?, needle.strip_prefix(b" ")?))
}

fn json_escaped<'t, 'n>(text: &'t str, needle: &'n [u8]) -> Option<(&'t str, &'n [u8])> {
    let (char, length) = json::first_char(text)?;
    Some((&text[length..], needle.strip_prefix(char.encode_utf8(&mut [0; 4]).as_bytes())?))
}

/// What base64 makes of `secret`, whatever stands before and after it: for each of the three ways
/// in which it can lie across groups, and for both alphabets (RFC 4648 sections 4 and 5), the
/// characters that depend on it alone.
fn base64_cores(secret: &[u8]) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let cores = [0, 1, 2].map(|before| {
        let bits = |at: usize| {
            (at..at + 6).fold(0, |value, bit| {
                value << 1 | usize::from(secret[bit / 8] >> (7 - bit % 8) & 1)
            })
        };
        let first = (before * 8_usize).div_ceil(6);
        let end = (before + secret.len()) * 8 / 6;
        let mut core = Zeroizing::new(Vec::with_capacity(end.saturating_sub(first)));
        core.extend((first..end).map(|i| ALPHABET[bits(i * 6 - before * 8)]));
        core
    });
    cores
        .into_iter()
        // Shorter ones stand in ordinary words.
        .filter(|core| core.len() >= 4)
        .flat_map(|core| {
            let mut url_safe = core.clone();
            for byte in url_safe.iter_mut() {
                *byte = match *byte {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => other,
                };
            }
            [core, url_safe]
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With every character class that an encoding treats on its own.
    const SECRET: &str = "p\"s/s+w%r d=\u{e9}~?";

    fn quoted(text: &str) -> Option<String> {
        quotable(text, &[SECRET, "", "jan"])
    }

    #[test]
    fn ordinary_text_is_quoted_as_it_is() {
        assert_eq!(
            quoted(" No such client: 50% + \\ d\u{e9}j\u{e0} vu ").as_deref(),
            Some("No such client: 50% + \\ d\u{e9}j\u{e0} vu")
        );
        assert_eq!(quoted("3 < 4 <").as_deref(), Some("3 < 4 <"));
        assert_eq!(quoted(""), None);
        assert_eq!(quoted(" \r\n"), None);
    }

    #[test]
    fn markup_is_not_quoted() {
        for text in [" <html>x", "not found<br>", "x</p>", "<!-- x -->", "<?xml?>"] {
            assert_eq!(quoted(text), None, "{text}");
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(
            quoted("a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e\u{2028}f").as_deref(),
            Some("a [31mb  c d e f")
        );
    }

    #[test]
    fn long_text_is_cut_at_256_characters() {
        assert_eq!(quoted(&"\u{e9}".repeat(300)), Some("\u{e9}".repeat(256)));
        let echo = format!("{}{SECRET}", "x".repeat(255));
        assert_eq!(quoted(&echo), Some(format!("{}*", "x".repeat(255))));
    }

    #[test]
    fn echoes_are_replaced_however_they_are_encoded() {
        let percent = SECRET.bytes().fold(String::new(), |text, b| text + &format!("%{b:02x}"));
        let unicode = SECRET
            .chars()
            .map(u32::from)
            .fold(String::new(), |text, c| text + &format!("\\u{c:04X}"));
        for echo in [
            SECRET,
            &percent,
            &percent.to_uppercase(),
            &unicode,
            "p%22s%2Fs%2Bw%25r+d%3D%C3%A9~?",
            "p\\\"s\\/s+w%r d=\u{e9}~?",
            "jan",
        ] {
            let text = format!("user '{echo}' is unknown");
            assert_eq!(quoted(&text).as_deref(), Some("user '***' is unknown"), "{text}");
        }
    }

    /// The encodings were made with coreutils' `base64`.
    #[test]
    fn base64_is_found_at_every_alignment() {
        for echo in [
            "cCJzL3MrdyVyIGQ9w6l+Pw==",
            "aWQ6cCJzL3MrdyVyIGQ9w6l+Pw==",
            "YXBwOnAicy9zK3clciBkPcOpfj86eA==",
            "YXBpOjpwInMvcyt3JXIgZD3DqX4/",
            "YXBpOjpwInMvcyt3JXIgZD3DqX4_",
        ] {
            let text = quoted(&format!("Basic {echo} is unknown")).unwrap();
            let (kept, mark) = text.split_once("***").unwrap();
            assert_eq!(mark, " is unknown", "{text}");
            assert!(kept.len() <= "Basic YXBpOjp".len(), "{text}");
        }
    }
}
