use std::iter;

use zeroize::Zeroizing;

use crate::endpoint::json;

/// How many characters of a description are quoted.
const QUOTED: usize = 256;
/// How many of its characters are searched: an echo may be legible only with what follows it.
const SEARCHED: usize = 1024;
/// So many characters in a row of a private text give it away, or all of them if there are fewer.
const PIECE: usize = 6;
/// A shorter text stands in too many ordinary words to be looked for.
const SHORTEST: usize = 3;
/// How many encodings may lie over each other.
const DEPTH: usize = 2;

/// What may be quoted of a text that a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Quote {
    /// It says nothing, or is markup.
    Nothing,
    /// It comes too close to a private text.
    Withheld,
    Text(String),
}

/// The pieces of a grant's private texts: what holds one of them must not be quoted.
///
/// A server's text is searched as it stands and as each decoder reads it, and what those read is
/// decoded again. Every decoder undoes its encoding exactly, so whatever one or two encodings made
/// of a piece is found. Decoding what was never encoded gives noise, in which pieces are as rare as
/// in any noise. Only visible characters count, before decoding and after.
///
/// The pieces are secret too, and a hash table of the standard library could not be wiped. So they
/// lie in one of our own: a piece is a number, and 0 is a free place.
pub(crate) struct Private {
    pieces: Zeroizing<Vec<u64>>,
    shortest: usize,
}

impl Private {
    pub(crate) fn new(texts: &[&str]) -> Self {
        // A piece ends at most at every byte, in two readings, and half of all places stay free.
        let places = 4 * texts.iter().map(|text| text.len()).sum::<usize>();
        let pieces = Zeroizing::new(vec![0; places.next_power_of_two()]);
        let mut private = Self { pieces, shortest: PIECE };
        for text in texts {
            private.insert(text.as_bytes());
            // A server may have taken the text for a form's.
            private.insert(&form(text));
        }
        private
    }

    fn insert(&mut self, text: &[u8]) {
        let length = visible(text).take(PIECE).count();
        if length >= SHORTEST {
            self.shortest = self.shortest.min(length);
            for piece in last_six(text).skip(length - 1) {
                let place = self.place(piece);
                self.pieces[place] = piece;
            }
        }
    }

    /// Where `piece` is, or the free place where it would be.
    fn place(&self, piece: u64) -> usize {
        let last = self.pieces.len() - 1;
        // The multiplier is 2^64 divided by the golden ratio (Fibonacci hashing).
        let hash = piece.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        #[expect(clippy::cast_possible_truncation, reason = "a table has far fewer places")]
        let mut place = hash as usize & last;
        while self.pieces[place] != 0 && self.pieces[place] != piece {
            place = (place + 1) & last;
        }
        place
    }

    /// Quotes an error code: 1 to 64 visible ASCII characters that can't be markup.
    pub(crate) fn code(&self, text: &str) -> Option<String> {
        let is_code = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'<');
        (is_code && !self.is_near(text)).then(|| text.to_owned())
    }

    /// Quotes the start of a description as one printable line.
    pub(crate) fn description(&self, text: &str) -> Quote {
        let text = text.trim_matches(is_invisible);
        if text.is_empty() || is_markup(text) {
            return Quote::Nothing;
        }
        if self.is_near(text) {
            return Quote::Withheld;
        }
        let printable = |char| if is_invisible(char) { ' ' } else { char };
        let quote = text.chars().take(QUOTED).map(printable).collect::<String>();
        Quote::Text(quote.trim_end().to_owned())
    }

    fn is_near(&self, text: &str) -> bool {
        let end = text.char_indices().nth(SEARCHED).map_or(text.len(), |(end, _)| end);
        self.is_in(&text.as_bytes()[..end], Some(DEPTH))
    }

    /// Whether a piece is in `text`, or in what up to `depth` decoders make of it; `None` is no
    /// more.
    fn is_in(&self, text: &[u8], depth: Option<usize>) -> bool {
        let ends_here = |six| {
            (self.shortest..=PIECE).any(|length| {
                let piece = six & mask(length);
                self.pieces[self.place(piece)] == piece
            })
        };
        if last_six(text).any(ends_here) {
            return true;
        }
        // Within the last encoding percent-encoding is undone once more: what is percent-encoded
        // twice, or base64 of a percent-encoded text, often counts as one encoding.
        let decoders = match depth {
            None => return false,
            Some(0) => &DECODERS[..PERCENT],
            Some(_) => &DECODERS[..],
        };
        let view = view(text);
        let deeper = depth.and_then(|depth| depth.checked_sub(1));
        decoders.iter().any(|decode| {
            let decoded = decode(&view);
            // All encodings lengthen: what is as long as before was not encoded.
            decoded.len() < view.len() && self.is_in(&decoded, deeper)
        })
    }
}

/// The six visible characters that end at each one of `text` as one number, fewer at its start.
fn last_six(text: &[u8]) -> impl Iterator<Item = u64> {
    visible(text).scan(0, |six, char| {
        let lower = char.to_lowercase().next().unwrap_or(char);
        let code = u64::from(u32::from(lower));
        // Ten bits tell apart what stands in one text, and are never all zero.
        let digit = if code < 0x200 { code } else { code % 0x200 + 0x200 };
        *six = (*six << 10 | digit) & mask(PIECE);
        Some(*six)
    })
}

fn mask(length: usize) -> u64 {
    (1 << (10 * length)) - 1
}

/// The visible characters of UTF-8 that may have Latin-1 or noise in between.
fn visible(mut text: &[u8]) -> impl Iterator<Item = char> {
    let chars = iter::from_fn(move || {
        let (char, length) = first_char(text)?;
        text = &text[length..];
        Some(char)
    });
    chars.filter(|char| !is_invisible(*char))
}

/// The first character and its length; what is not UTF-8 is taken for Latin-1. In noise this is
/// faster than `utf8_chunks`.
fn first_char(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    if first >= 0xc2 {
        // A longer character starts with as many ones as it has bytes (RFC 3629 section 3).
        let length = first.leading_ones() as usize;
        if let Some(Ok(text)) = text.get(..length).map(str::from_utf8) {
            return Some((text.chars().next()?, length));
        }
    }
    Some((char::from(first), 1))
}

/// The same as a text of its own. A byte of Latin-1 becomes two.
fn view(text: &[u8]) -> Zeroizing<String> {
    let most = text.len() + text.iter().filter(|byte| !byte.is_ascii()).count();
    let mut view = Zeroizing::new(String::with_capacity(most));
    view.extend(visible(text));
    view
}

/// Control characters, white space, and all else that leaves no mark or turns text around.
fn is_invisible(char: char) -> bool {
    matches!(char,
        '\0'..=' ' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{2800}'
        | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a tag, a comment or a declaration starts somewhere.
fn is_markup(text: &str) -> bool {
    let opens = |pair: &[u8]| {
        pair[0] == b'<' && (pair[1].is_ascii_alphabetic() || b"/!?".contains(&pair[1]))
    };
    text.as_bytes().windows(2).any(opens)
}

type Bytes = Zeroizing<Vec<u8>>;

/// How many of them undo percent-encoding: the first.
const PERCENT: usize = 2;
const DECODERS: [fn(&str) -> Bytes; 10] = [
    percent,
    form,
    json,
    html,
    hex::<0>,
    hex::<1>,
    base64::<0>,
    base64::<1>,
    base64::<2>,
    base64::<3>,
];

/// Replaces the escapes that start with `first`: `escape` appends what the one at the start of a
/// text stands for, which is never longer, and says how many bytes it takes.
fn unescaped(text: &str, first: char, escape: fn(&str, &mut Vec<u8>) -> Option<usize>) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some(at) = rest.find(first) {
        bytes.extend(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let length = escape(rest, &mut bytes).unwrap_or_else(|| {
            bytes.extend(&rest.as_bytes()[..1]);
            1
        });
        rest = &rest[length..];
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// RFC 3986 section 2.1.
fn percent(text: &str) -> Bytes {
    unescaped(text, '%', |rest, bytes| {
        let mut digits = rest.chars().skip(1).map(|char| char.to_digit(16));
        bytes.push(u8::try_from(digits.next()?? << 4 | digits.next()??).ok()?);
        Some(3)
    })
}

/// The same with `+` for a space, which is left out as all white space is.
fn form(text: &str) -> Bytes {
    let mut spaceless = Zeroizing::new(String::with_capacity(text.len()));
    spaceless.extend(text.split('+'));
    percent(&spaceless)
}

/// RFC 8259 section 7. A backslash before anything else falls away: other languages have `\'`.
fn json(text: &str) -> Bytes {
    unescaped(text, '\\', |rest, bytes| {
        json::first_char(rest).map_or(Some(1), |(char, length)| {
            bytes.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
            Some(length)
        })
    })
}

/// The names of the characters from U+00A0 to U+00FF.
const LATIN_1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg \
    macr deg plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 \
    iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave \
    Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc \
    Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc \
    euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave \
    uacute ucirc uuml yacute thorn yuml";

/// The character references that escaping makes, with or without their semicolon.
fn html(text: &str) -> Bytes {
    const NAMES: &str = "amp& lt< gt> quot\" apos' plus+ commat@ period. lowbar_ hyphen- dash- \
        colon: semi; comma, sol/ bsol\\ excl! quest? equals= percnt% num# ast* dollar$ lpar( rpar) \
        lsqb[ rsqb] lbrace{ rbrace} verbar| Hat^ grave`";
    unescaped(text, '&', |rest, bytes| {
        let reference = &rest[1..];
        let starts_with = |name: &str| {
            reference.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let ascii = || {
            NAMES.split(' ').find_map(|entry| {
                let (name, char) = entry.split_at(entry.len() - 1);
                starts_with(name).then(|| (char.chars().next(), name))
            })
        };
        let latin = || {
            let named = (0xa0..).zip(LATIN_1.split(' ')).find(|(_, n)| reference.starts_with(n));
            named.map(|(code, name)| (char::from_u32(code), name))
        };
        let (char, after) = if let Some(number) = reference.strip_prefix('#') {
            numbered(number)?
        } else if reference.starts_with(|char: char| char.is_ascii_alphabetic()) {
            let (char, name) = ascii().or_else(latin)?;
            (char?, &reference[name.len()..])
        } else {
            return None;
        };
        bytes.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
        Some(rest.len() - after.strip_prefix(';').unwrap_or(after).len())
    })
}

/// The character whose number `text` starts with, and the text after that.
fn numbered(text: &str) -> Option<(char, &str)> {
    let (digits, radix) = text.strip_prefix(['x', 'X']).map_or((text, 10), |hex| (hex, 16));
    let after = digits.trim_start_matches(|char: char| char.is_digit(radix));
    let number = u32::from_str_radix(&digits[..digits.len() - after.len()], radix).ok()?;
    Some((char::from_u32(number)?, after))
}

/// All hexadecimal digits from one of the two places where a byte can start, whatever stands
/// between them: `0x`, `\x`, `:` and the like do.
fn hex<const SKIPPED: usize>(text: &str) -> Bytes {
    let text = text.as_bytes();
    let is_prefix = |at: &usize| {
        matches!(text[*at..], [b'0', b'x' | b'X', a, b, ..]
            if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    };
    let digits = (0..text.len()).filter(|at| !is_prefix(at));
    packed::<4>(digits.filter_map(|at| char::from(text[at]).to_digit(16)).skip(SKIPPED), text.len())
}

/// All base64 characters (RFC 4648 sections 4 and 5) from one of the four places where a group can
/// start, whatever stands between them: line ends and padding do.
fn base64<const SKIPPED: usize>(text: &str) -> Bytes {
    let digits = text.bytes().map(|byte| BASE64[usize::from(byte)]).filter(|digit| *digit < 64);
    packed::<6>(digits.skip(SKIPPED).map(u32::from), text.len())
}

/// What each byte is as a digit of either alphabet. A table, since noise would mislead branches.
const BASE64: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digit = 0;
    while digit < 64 {
        digits[alphabet[digit as usize] as usize] = digit;
        digit += 1;
    }
    digits[b'-' as usize] = 62;
    digits[b'_' as usize] = 63;
    digits
};

/// The whole bytes that at most `count` digits of so many bits make.
fn packed<const BITS: usize>(digits: impl Iterator<Item = u32>, count: usize) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(count * BITS / 8));
    let (mut buffer, mut bits) = (0, 0);
    for digit in digits {
        buffer = buffer << BITS | digit;
        bits += BITS;
        if bits >= 8 {
            bits -= 8;
            let [.., byte] = (buffer >> bits).to_be_bytes();
            bytes.push(byte);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t-of-the-ward";
    /// The secret is its start, and every character follows that an encoding treats on its own.
    const PASSWORD: &str = "s3cr3t-of-the-ward: p\"s/s+w%r&d='<\\\u{e9}\u{1f600}>~?";
    const USER: &str = "Jan.deVries@clinic.nl";

    fn private() -> Private {
        Private::new(&[SECRET, PASSWORD, USER, ""])
    }

    fn quote(text: &str) -> Quote {
        private().description(text)
    }

    #[track_caller]
    fn assert_quoted(text: &str) {
        assert_eq!(quote(text), Quote::Text(text.to_owned()));
    }

    #[track_caller]
    fn assert_withheld(echo: &str) {
        let [user, basic] = [format!("user '{echo}' is unknown"), format!("Basic {echo}==\n no")];
        for text in [echo, &user, &basic] {
            assert_eq!(quote(text), Quote::Withheld, "{text}");
        }
    }

    /// What is quoted where the only private text is `secret`.
    fn quote_beside(secret: &str, text: &str) -> Quote {
        Private::new(&["", secret, ""]).description(text)
    }

    #[test]
    fn ordinary_texts_are_quoted_as_they_are() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let ordinary = ["s3cr3t", hex, "jan@example.nl", "p4ss", "", "x"];
        for text in [
            "client is disabled",
            "Invalid login",
            "invalid_client",
            "no such client",
            "The user credentials were incorrect.",
            "Client authentication failed (e.g., unknown client, unsupported method)",
            "3 < 4 <, 50% + 1, C:\\new & d\u{e9}j\u{e0} vu, 0x1f600",
            "request 4f1c2e9a-7b1d-4c3e-9f00-a1b2c3d4e5f6 at 2021-12-31T23:59:59.999Z",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0",
            "\u{400}\u{400}\u{400}\u{400}\u{400}\u{400}",
        ] {
            let quote = Private::new(&ordinary).description(text);
            assert_eq!(quote, Quote::Text(text.to_owned()));
            assert_quoted(text);
        }
    }

    #[test]
    fn nothing_is_quoted_of_markup_and_blank_texts() {
        for text in [
            "",
            " \r\n",
            "\u{200b}\u{1}",
            " <html>x",
            "not found<br>",
            "x</p>",
            "<!-- x -->",
            "<?xml?>",
            "<b>s3cr3t-of-the-ward</b>",
            &format!("{}<p>", "x".repeat(2000)),
        ] {
            assert_eq!(quote(text), Quote::Nothing, "{text}");
        }
    }

    #[test]
    fn quotes_are_one_printable_line() {
        assert_eq!(
            quote("\u{feff} a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e\u{2028}f\u{ad}g\u{e0041}h\u{2066} "),
            Quote::Text("a [31mb  c d e f g h".to_owned())
        );
    }

    #[test]
    fn quotes_are_cut_at_256_characters() {
        assert_eq!(quote(&"\u{e9}".repeat(9000)), Quote::Text("\u{e9}".repeat(256)));
        let spaced = format!("{}{}y", " ".repeat(2000), "x ".repeat(128));
        assert_eq!(quote(&spaced), Quote::Text("x ".repeat(128).trim_end().to_owned()));
    }

    #[test]
    fn an_echo_across_the_cut_is_found() {
        for before in 230..=256 {
            assert_eq!(quote(&format!("{}{SECRET}", "\u{e9}".repeat(before))), Quote::Withheld);
            let echo = base64(&format!("{SECRET}{}", "x".repeat(3000)));
            assert_eq!(quote(&format!("{}{echo}", "?".repeat(before))), Quote::Withheld);
        }
        let far = format!("{}{SECRET}", "x".repeat(1024));
        assert_eq!(quote(&far), Quote::Text("x".repeat(256)));
        assert_eq!(quote(&format!("{}{far}", " ".repeat(900))), Quote::Text("x".repeat(256)));
        assert_eq!(quote(&format!("{}x{SECRET}", " ".repeat(1100))), Quote::Withheld);
    }

    #[test]
    fn codes_are_visible_ascii() {
        let longest = "x".repeat(64);
        for code in ["invalid_client", "a", "E-1001:x>y", &longest] {
            assert_eq!(private().code(code).as_deref(), Some(code));
        }
        let too_long = "x".repeat(65);
        for text in ["", "a b", "a<b", "caf\u{e9}", "a\u{7f}", "a\n", &too_long] {
            assert_eq!(private().code(text), None, "{text}");
        }
        for echo in [SECRET, USER, "crt/s3cr3t", "733363723374", "czNjcjN0LW9m", "JAN.dE%76ries"] {
            assert_eq!(private().code(echo), None, "{echo}");
        }
    }

    #[test]
    fn six_characters_in_a_row_are_enough() {
        for text in [
            "S3CR3T-OF-THE-WARD",
            "JAN.DEVRIES@CLINIC.NL",
            "s3cr3t",
            "e-ward: p",
            "...of-the-...",
            "s3cr3t-of-th-ward",
            "xs3cr3t-of-the-wards3cr3t-of-the-war",
            "s/s+w%",
            "<\\\u{e9}\u{1f600}>~",
        ] {
            assert_withheld(text);
        }
        for text in ["s3cr3", "s3cr3.t-of-.the-w", "the-c", "@clin", "S3CR3?T-OF-?"] {
            assert_quoted(text);
        }
    }

    #[test]
    fn invisible_characters_and_white_space_hide_nothing() {
        for between in ["\u{1}", "\0", " ", "\r\n\t", "\u{200b}", "\u{ad}", "\u{a0}", "\u{feff}"] {
            for echo in [SECRET.to_owned(), dense_percent(SECRET), base64(SECRET), hex(SECRET)] {
                let spread = each_char(&echo, |char| format!("{char}{between}"));
                assert_withheld(&spread);
                assert_withheld(&base64(&spread));
            }
        }
        assert_eq!(quote_beside("a b\u{200b}c d e f", "abcdef"), Quote::Withheld);
        assert_withheld("s3cr%E2%80%8B3t-o\\u200bf-th&#8203;e-w&nbsp;ard");
    }

    #[test]
    fn short_texts_are_looked_for_whole() {
        for secret in ["jan", "p4ss", "a+b?c", "\u{e9}\u{e8}\u{ea}"] {
            for (name, encode) in ENCODERS {
                let text = format!("no '{}'!", encode(&secret.to_ascii_uppercase()));
                assert_eq!(quote_beside(secret, &text), Quote::Withheld, "{secret} {name}");
            }
            let mut part = secret.chars();
            part.next_back();
            let text = format!("no '{}'!", part.as_str());
            assert_eq!(quote_beside(secret, &text), Quote::Text(text));
        }
        for ignored in ["", "x", "is", " i\u{200b}s "] {
            let text = "x: it is ignored";
            assert_eq!(quote_beside(ignored, text), Quote::Text(text.to_owned()));
        }
    }

    /// The encodings were made with coreutils' `base64`.
    #[test]
    fn base64_is_found_at_every_alignment_and_wrapped() {
        let secret = "p\"s/s+w%r d=\u{e9}~?";
        for echo in [
            "cCJzL3MrdyVyIGQ9w6l+Pw==",
            "cCJzL3Mr\ndyVyIGQ9\r\nw6l+Pw==",
            "cCJzL3Mr\\ndyVyIGQ9\\nw6l+Pw==",
            "aWQ6cCJzL3MrdyVyIGQ9w6l+Pw==",
            "YXBwOnAicy9zK3clciBkPcOpfj86eA==",
            "YXBpOjpwInMvcyt3JXIgZD3DqX4/",
            "YXBpOjpwInMvcyt3JXIgZD3DqX4_",
        ] {
            for before in ["", "a", "bb", "ccc"] {
                let text = format!("Basic {before}{echo} is unknown");
                assert_eq!(quote_beside(secret, &text), Quote::Withheld, "{text}");
            }
        }
    }

    #[test]
    fn forms_are_read_in_both_ways() {
        let secret = "a b+c d+e f";
        for echo in ["a+b%2Bc+d%2Be+f", "a%20b+c%20d+e%20f", "a b c d e f", "a%20b%20c+d+e+f"] {
            assert_eq!(quote_beside(secret, echo), Quote::Withheld, "{echo}");
        }
    }

    #[test]
    fn sloppy_escapes_are_found() {
        for echo in ["no\\'one", "no&#39one", "no&#X27;one", "no&APOSone", "no&apos;one"] {
            assert_eq!(quote_beside("no'one", echo), Quote::Withheld, "{echo}");
        }
    }

    #[test]
    fn legacy_encodings_are_found() {
        for echo in ["p%E4ssw%F6rd", "70e4737377f67264", "cORzc3f2cmQ", "p\\u00E4ssw\\u00f6rd"] {
            assert_eq!(quote_beside("p\u{e4}ssw\u{f6}rd", echo), Quote::Withheld, "{echo}");
        }
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_withheld(&base64_of(&utf16(SECRET)));
    }

    #[test]
    fn chains_of_two_encodings_are_undone() {
        for private in [SECRET, PASSWORD, USER] {
            for (inner_name, inner) in ENCODERS {
                for (outer_name, outer) in ENCODERS {
                    for before in ["", "x", "id:"] {
                        let echo = outer(&format!("{before}{}", inner(private)));
                        let text = format!("no '{echo}'!");
                        assert_eq!(quote(&text), Quote::Withheld, "{outer_name} of {inner_name}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_chain_makes_six_characters_legible() {
        let mut random = Random(0x5eed);
        let mut searched = 0;
        while searched < 1000 {
            let secret = random.secret();
            let piece = random.piece(&secret);
            let (names, echo) = random.echo(&piece);
            let echo = random.words(30) + &echo;
            if visible(piece.as_bytes()).count() >= PIECE && echo.chars().count() <= SEARCHED {
                let text = echo + &random.words(300);
                let quote = quote_beside(&secret, &text);
                assert_eq!(quote, Quote::Withheld, "{secret:?}: {piece:?} as {names}in {text:?}");
                searched += 1;
            }
        }
    }

    #[test]
    fn no_buffer_grows() {
        for (name, encode) in ENCODERS {
            let text = encode(PASSWORD);
            for decode in DECODERS {
                assert!(decode(&text).capacity() <= text.len(), "{name}");
            }
        }
        assert_eq!(view(SECRET.as_bytes()).capacity(), SECRET.len());
        assert_eq!(view(b"abc\xe9").capacity(), 5);
    }

    /// Xorshift, which makes the same texts each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % end
        }

        fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
            all[self.below(all.len())]
        }

        /// 6 to 23 characters, among them those that make a secret look encoded already.
        fn secret(&mut self) -> String {
            const CHARS: &str = "abCxunmp041%+\\&#; \"/=-\u{e9}\u{20ac}\u{1f600}";
            let chars = CHARS.chars().collect::<Vec<_>>();
            (0..6 + self.below(18)).map(|_| self.one_of(&chars)).collect()
        }

        /// At least six characters in a row.
        fn piece(&mut self, secret: &str) -> String {
            let chars = secret.chars().collect::<Vec<_>>();
            let start = self.below(chars.len() - 5);
            let end = start + 6 + self.below(chars.len() - start - 5);
            chars[start..end].iter().collect()
        }

        /// One or two encodings of `piece`, with words before it and something invisible in it.
        fn echo(&mut self, piece: &str) -> (String, String) {
            const NOISE: [char; 5] = ['\0', '\u{1b}', '\n', ' ', '\u{200b}'];
            let mut names = String::new();
            let mut echo = piece.to_owned();
            if self.below(2) == 0 {
                echo.make_ascii_uppercase();
            }
            for _ in 0..=self.below(2) {
                let (name, encode) = self.one_of(&ENCODERS);
                names = format!("{name} of {names}");
                echo = encode(&(self.words(3) + &echo));
                if self.below(2) == 0 {
                    let places = echo.char_indices().map(|(place, _)| place).collect::<Vec<_>>();
                    echo.insert(self.one_of(&places), self.one_of(&NOISE));
                }
            }
            (names, echo)
        }

        fn words(&mut self, fewer_than: usize) -> String {
            const WORDS: [&str; 8] =
                ["user ", "no ", "such", ": ", "Client, ", "is \u{e9}t\u{e9} ", "(42) ", "\n"];
            (0..self.below(fewer_than)).map(|_| self.one_of(&WORDS)).collect()
        }
    }

    type Encoder = fn(&str) -> String;

    const ENCODERS: [(&str, Encoder); 17] = [
        ("plain", str::to_owned),
        ("percent", sparse_percent),
        ("percent without +", |text| sparse_percent(text).replace("%2B", "+")),
        ("dense percent", dense_percent),
        ("form", |text| sparse_percent(text).replace("%20", "+")),
        ("json", |text| each_char(text, json_escape)),
        ("json units", |text| units(text, "\\u")),
        ("html", |text| each_char(text, html_escape)),
        ("html decimal", |text| each_char(text, |char| format!("&#{};", u32::from(char)))),
        ("html hex", |text| each_char(text, |char| format!("&#x{:X};", u32::from(char)))),
        ("hex", hex),
        ("hex with \\x", |text| each_byte(text, |byte| format!("\\x{byte:02X}"))),
        ("hex with 0x", |text| each_byte(text, |byte| format!("0x{byte:02x}, "))),
        ("hex with :", |text| each_byte(text, |byte| format!(":{byte:02x}"))),
        ("base64", base64),
        ("base64url", |text| base64(text).replace('+', "-").replace('/', "_").replace('=', "")),
        ("wrapped base64", |text| {
            base64(text)
                .as_bytes()
                .chunks(7)
                .map(|line| str::from_utf8(line).unwrap())
                .collect::<Vec<_>>()
                .join("\r\n")
        }),
    ];

    fn each_char(text: &str, encode: impl Fn(char) -> String) -> String {
        text.chars().map(encode).collect()
    }

    fn each_byte(text: &str, encode: impl Fn(u8) -> String) -> String {
        text.bytes().map(encode).collect()
    }

    fn dense_percent(text: &str) -> String {
        each_byte(text, |byte| format!("%{byte:02x}"))
    }

    fn sparse_percent(text: &str) -> String {
        each_byte(text, |byte| match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
    }

    fn json_escape(char: char) -> String {
        match char {
            '"' | '\\' | '/' | '\'' => format!("\\{char}"),
            '\u{80}'.. => units(&char.to_string(), "\\u"),
            char => char.to_string(),
        }
    }

    fn html_escape(char: char) -> String {
        match char {
            '&' => "&amp;".to_owned(),
            '<' => "&LT;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&apos;".to_owned(),
            '/' => "&#47;".to_owned(),
            char => char.to_string(),
        }
    }

    fn units(text: &str, prefix: &str) -> String {
        text.encode_utf16().fold(String::new(), |text, unit| text + prefix + &format!("{unit:04x}"))
    }

    fn hex(text: &str) -> String {
        each_byte(text, |byte| format!("{byte:02x}"))
    }

    fn base64(text: &str) -> String {
        base64_of(text.as_bytes())
    }

    fn base64_of(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |bytes: &[u8]| {
            let byte = |i| usize::from(*bytes.get(i).unwrap_or(&0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            let digit =
                |i| if i > bytes.len() { b'=' } else { ALPHABET[bits >> (18 - 6 * i) & 63] };
            [0, 1, 2, 3].map(|i| char::from(digit(i))).into_iter().collect::<String>()
        };
        bytes.chunks(3).map(group).collect()
    }

    #[test]
    fn names_with_accents_are_found_as_html_writes_them() {
        let chars: Vec<_> = LATIN_1.split(' ').collect();
        assert_eq!((chars.len(), chars[0xeb - 0xa0]), (96, "euml"));
        let private = Private::new(&["Zo\u{eb}", "jan+x@kp.nl"]);
        for echo in
            ["Zo&euml;", "zo&Euml;", "ZO\u{cb}", "Wm8mZXVtbDs=", "jan&plus;x&commat;kp&period;nl"]
        {
            let text = format!("no user {echo} here");
            assert_eq!(private.description(&text), Quote::Withheld, "{text}");
        }
        let harmless = "no user Zo here";
        assert_eq!(private.description(harmless), Quote::Text(harmless.to_owned()));
    }

    #[test]
    fn escape_within_two_other_encodings_is_undone() {
        let private = Private::new(&["jan+x@kp.nl"]);
        // Base64 of base64 of `jan%2Bx%40kp.nl`, and hex of `jan%252Bx%2540kp.nl`.
        for echo in ["YW1GdUpUSkNlQ1UwTUd0d0xtNXM=", "6a616e253235324278253235343 06b702e6e6c"] {
            assert_eq!(private.description(echo), Quote::Withheld, "{echo}");
        }
    }
}
