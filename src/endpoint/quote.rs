use zeroize::Zeroizing;

/// The words of error texts. The names of letters and digits are left out, because a secret can be
/// spelled with them.
const WORDS: &str = include_str!("words.txt");
/// How many characters of a description are quoted.
const QUOTED: usize = 256;
/// Replaces a description that must not be quoted.
pub(super) const WITHHELD: &str =
    "withheld: the server's words are not plain, or too close to a secret or user name";
/// This many characters in a row of a private text give it away.
const PIECE: usize = 6;
/// A shorter private text is ignored, because ordinary words contain it.
const SHORTEST: usize = 3;
/// Nothing is quoted beside a longer private text, in bytes. This bounds the time of the search.
const LONGEST: usize = 256;
/// Morse code needs more signs in a row.
const MOST_SIGNS_IN_A_ROW: usize = 4;
/// Three characters take six digits in decimal, and hardly fewer than five in hexadecimal.
const MOST_DIGITS: usize = 4;
const MOST_SINGLE_LETTERS: usize = 3;

/// The private texts of a grant: client secret, password and user name ("" if there is none).
///
/// A code or description is quoted only if it consists of words that error texts use, because no
/// encoding of a secret does. The search then finds private texts that consist of such words
/// themselves, or that are spelled by them. Two alternatives were rejected. Undoing encodings
/// always misses some of them. Rules for the look of a word let simple ciphers and pronounceable
/// codes through.
pub(super) struct Private<'a>(pub(super) [&'a str; 3]);

impl Private<'_> {
    /// Quotes an error code of lower-case words and underscores, as RFC 6749 section 5.2 has them.
    pub(super) fn code(&self, text: &str) -> Option<String> {
        let is_code = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (is_code && is_plain(text) && !self.is_shown_in(text)).then(|| text.to_owned())
    }

    /// Quotes the first words of a description, or returns [`WITHHELD`]; `None` for a blank text
    /// and for markup.
    pub(super) fn description(&self, text: &str) -> Option<String> {
        if text.trim().is_empty() || text.contains('<') {
            return None;
        }
        let mut quote = Zeroizing::new(String::with_capacity(QUOTED));
        for word in text.split_whitespace() {
            if quote.len() + word.len() >= QUOTED {
                break;
            }
            let space = if quote.is_empty() { "" } else { " " };
            quote.extend([space, word]);
        }
        let is_quotable = is_plain(&quote) && !self.is_shown_in(&quote);
        Some(if is_quotable { quote.to_string() } else { WITHHELD.to_owned() })
    }

    /// Whether a text shows a piece of a private text, in upper or lower case. The piece may have
    /// white space, signs or digits in between, or be spelled by the first letters of words.
    pub(super) fn is_shown_in(&self, text: &str) -> bool {
        let kinds: [fn(&char) -> bool; 3] =
            [char::is_ascii_alphanumeric, char::is_ascii_alphabetic, char::is_ascii_digit];
        let first_letters = || words(text).filter_map(|word| word.chars().next());
        self.0.iter().any(|private| {
            let shows = |kind: &fn(&char) -> bool| {
                let private_view = view(private.chars(), kind);
                // A character of another kind may be the sixth one.
                let length = PIECE - usize::from(private_view.len() < private.chars().count());
                is_piece_in(&private_view, length, &view(text.chars(), kind))
                    || is_piece_in(&private_view, length, &view(first_letters(), kind))
            };
            private.len() > LONGEST || kinds.iter().any(shows)
        })
    }
}

/// Whether a text consists of known words and a few digits.
fn is_plain(text: &str) -> bool {
    let is_known = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_digit())
            || WORDS.split_whitespace().any(|known| known.eq_ignore_ascii_case(word))
    };
    let is_repeated = |(i, word): &(usize, &str)| words(text).take(*i).any(|other| other == *word);
    let count = words(text).count();
    count > 0
        && text.chars().all(|char| char.is_ascii_alphanumeric() || " .,:;!?'\"`()-_/".contains(char))
        && text
            .split(|char: char| char.is_ascii_alphanumeric())
            .all(|signs| signs.len() <= MOST_SIGNS_IN_A_ROW)
        && words(text).all(is_known)
        && words(text).filter(|word| word.len() == 1).count() <= MOST_SINGLE_LETTERS
        && text.bytes().filter(u8::is_ascii_digit).count() <= MOST_DIGITS
        // Binary code can be written with two words.
        && words(text).enumerate().filter(is_repeated).count() * 2 <= count
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// The characters of one kind, in lower case. The buffer has its final size from the start, because
/// growing would leave an unwiped copy.
fn view(chars: impl Iterator<Item = char>, kind: impl Fn(&char) -> bool) -> Zeroizing<Vec<char>> {
    let mut view = Zeroizing::new(Vec::with_capacity(QUOTED));
    view.extend(chars.filter(kind).map(|char| char.to_ascii_lowercase()).take(QUOTED));
    view
}

/// Whether a text holds so many characters in a row of a private text, or all of a shorter one,
/// forwards or backwards.
fn is_piece_in(private: &[char], length: usize, text: &[char]) -> bool {
    let length = length.min(private.len());
    let is_same = |piece: &[char], part: &[char]| piece == part || piece.iter().rev().eq(part);
    length >= SHORTEST
        && private
            .windows(length)
            .any(|piece| text.windows(length).any(|part| is_same(piece, part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t-of-the-ward";
    /// Words that error texts use.
    const PASSWORD: &str = "secret.user7code";
    const USER: &str = "Jan.deVries@clinic.nl";
    const LONG: &str = "The request is missing a required parameter, includes an unsupported value \
        or is otherwise malformed. Client authentication failed due to unknown client, no \
        authentication included, or a method that we do not accept here. Please do contact your \
        administrator or try again tomorrow.";

    fn quote(text: &str) -> String {
        Private([SECRET, PASSWORD, USER]).description(text).unwrap_or_default()
    }

    /// The quote where `private` is the only private text.
    fn quote_beside(private: &str, text: &str) -> String {
        Private(["", private, ""]).description(text).unwrap_or_default()
    }

    #[test]
    fn ordinary_texts_are_quoted_as_they_are() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for text in [
            "client is disabled",
            "Invalid login",
            "invalid_client",
            "no such client",
            "maintenance",
            "The user credentials were incorrect.",
            "Client authentication failed (e.g., unknown client, unsupported method)",
            "Account locked until 12:00",
            "Rate limit exceeded, retry in 60 seconds",
            "e-mail and/or user_name; see 'errors' (404)!",
            "Ongeldige gebruikersnaam of wachtwoord",
            "Missing parameter: `grant_type`",
            "The OAuth client was not found.",
            "Bad credentials",
            "JSON body expected",
        ] {
            assert_eq!(Private(["", "", ""]).description(text).as_deref(), Some(text));
            assert_eq!(
                Private([hex, "p4ss", "jan@example.nl"]).description(text).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn nothing_is_quoted_of_markup_and_blank_texts() {
        let long = format!("{LONG}<p>");
        for text in ["", " \r\n", " <html>x", "not found<br>", "<b>secret</b>", &long] {
            assert_eq!(quote(text), "", "{text}");
        }
    }

    #[test]
    fn texts_that_are_not_plain_are_withheld() {
        for text in [
            "a\u{1b}[31mb",
            "d\u{202e}e",
            "no\u{ad}",
            "d\u{e9}j\u{e0} vu",
            "a\0",
            "c2VjcmV0",
            "s3cret",
            "wachtkamer",
            "alfa tango zulu",
            "een acht nul",
            "a i s t",
            "12 345",
            "is it ....a",
            "no yes yes no no yes",
            "no no no the the the",
            "client=a",
            "{a}",
            "50%",
            "a@b",
            "...",
        ] {
            assert_eq!(quote_beside("", text), WITHHELD, "{text:?}");
        }
        for text in ["a i s", "12 34", "is it ...a", "No such client"] {
            assert_eq!(quote_beside("", text), text);
        }
        assert_eq!(quote_beside("", " no\tsuch\r\n\r\nclient "), "no such client");
    }

    #[test]
    fn quotes_end_before_256_characters() {
        let quote = quote_beside("", LONG);
        assert!(LONG.starts_with(&quote) && (241..256).contains(&quote.len()), "{quote}");
        assert_eq!(quote_beside("", &"x".repeat(2000)), WITHHELD);
    }

    #[test]
    fn codes_are_lower_case_words() {
        let code = |text| Private([SECRET, PASSWORD, USER]).code(text);
        let longest = "unsupported_token_endpoint_authentication_method_for_that_client".to_owned();
        assert_eq!(longest.len(), 64);
        for text in ["invalid_client", "slow_down", "unsupported_grant_type", "a", &longest] {
            assert_eq!(code(text).as_deref(), Some(text));
        }
        let too_long = format!("{longest}_");
        for text in ["", "_", "a b", "a<b", "caf\u{e9}", "a1", "A", "a\n", &too_long] {
            assert_eq!(code(text), None, "{text}");
        }
        for echo in ["secret", "user_code", "jan_devries", "jvagremb", "mfrggzdf"] {
            assert_eq!(code(echo), None, "{echo}");
        }
    }

    #[test]
    fn six_characters_in_a_row_are_enough() {
        for text in [
            "secret",
            "SECRET",
            "no SECRET, user",
            "is it user code",
            "user 1 code",
            "user-code",
            "of the war",
        ] {
            assert_eq!(quote(text), WITHHELD, "{text}");
        }
        for text in ["user name", "code", "the user"] {
            assert_eq!(quote(text), text);
        }
        for private in ["cl ie\u{200b}nt", "c-l1i2e3nt", "client\n", "tneilc"] {
            assert_eq!(quote_beside(private, "no such client"), WITHHELD, "{private}");
        }
    }

    #[test]
    fn words_spell_nothing_with_their_first_letters() {
        for text in ["was it not the error request", "request error that no issue was"] {
            assert_eq!(quote_beside("", text), text);
            assert_eq!(quote_beside("winter", text), WITHHELD);
        }
    }

    #[test]
    fn short_private_texts_are_looked_for_whole() {
        for (private, text) in [
            ("not", "NOT found"),
            ("not", "no token"),
            ("ton", "not found"),
            ("p4in", "p 4 in"),
            ("4711", "47-11 is not known"),
            ("4711", "47 client 11"),
            ("no\u{eb}t", "not found"),
        ] {
            assert_eq!(quote_beside(private, text), WITHHELD, "{private}");
        }
        for ignored in ["", "x", "is"] {
            let text = "it is ignored".replace("ignored", "locked");
            assert_eq!(quote_beside(ignored, &text), text);
        }
    }

    #[test]
    fn nothing_is_quoted_beside_very_long_private_texts() {
        let text = "client is disabled";
        let [longest, longer] =
            [LONGEST, LONGEST + 1].map(|length| "q8".repeat(length)[..length].to_owned());
        assert_eq!(quote_beside(&longest, text), text);
        assert_eq!(quote_beside(&longer, text), WITHHELD);

        let secrets = ["k7", "z9", "p2"].map(|text| text.repeat(1 << 19));
        let private = Private([&secrets[0], &secrets[1], &secrets[2]]);
        assert_eq!(private.description(text).as_deref(), Some(WITHHELD));
        assert_eq!(private.description(""), None);
        assert_eq!(private.code("invalid_client"), None);
    }

    /// A quoted text that holds the whole echo of a piece can be decoded to that piece.
    #[test]
    fn no_form_makes_six_characters_legible() {
        let mut random = Random(0x5eed);
        for (name, form) in FORMS {
            for _ in 0..40 {
                let secret = random.secret();
                let length = PIECE + random.below(secret.len() - PIECE + 1);
                let start = random.below(secret.len() - length + 1);
                let echo = form(&secret[start..start + length]);
                let before = ["", "no such user ", "Invalid client secret: ", "user '"];
                let text = format!("{}{echo} here", before[random.below(before.len())]);
                let quote = quote_beside(&secret, &text);
                if quote != WITHHELD {
                    assert!(!quote.contains(echo.trim()), "{secret} as {name}: {quote}");
                }
            }
        }
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

        fn text(&mut self, chars: &str, length: usize) -> String {
            (0..length).map(|_| char::from(chars.as_bytes()[self.below(chars.len())])).collect()
        }

        fn secret(&mut self) -> String {
            const WORDS: [&str; 8] =
                ["correct", "horse", "battery", "staple", "winter", "zomer", "geheim", "hospital"];
            let length = 6 + self.below(20);
            let mut word = || WORDS[self.below(WORDS.len())];
            let words = [word(), word(), word()];
            match self.below(6) {
                0 => self.text("abcdefghijklmnopqrstuvwxyz", length),
                1 => self.text("0123456789abcdef", length),
                2 => self.text("0123456789", length),
                3 => words.concat(),
                4 => format!("{}@{}.nl", words[0], words[1]),
                _ => self.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", length),
            }
        }
    }

    type Form = fn(&str) -> String;

    const FORMS: &[(&str, Form)] = &[
        ("plain", str::to_owned),
        ("upper case", str::to_uppercase),
        ("lower case", str::to_lowercase),
        ("reversed", reversed),
        ("rot13", |t| moved(t, 13)),
        ("Caesar", |t| moved(t, 3)),
        ("rot13 reversed", |t| moved(&reversed(t), 13)),
        ("atbash", |t| {
            each(t, "", |b| char::from(if b.is_ascii_lowercase() { 219 - b } else { b }))
        }),
        ("leet", |t| t.replace('e', "3").replace('a', "4").replace('i', "1").replace('o', "0")),
        ("leet with signs", |t| t.replace('i', "!").replace('c', "(").replace('l', "!")),
        ("percent", |t| each(t, "", |b| format!("%{b:02X}"))),
        ("double percent", |t| each(t, "", |b| format!("%25{b:02X}"))),
        ("HTML named", |t| {
            t.replace('@', "&commat;").replace('.', "&period;").replace('e', "&#101;")
        }),
        ("HTML decimal", |t| each(t, "", |b| format!("&#{b};"))),
        ("HTML hex", |t| each(t, "", |b| format!("&#x{b:x};"))),
        ("JSON", |t| each(t, "", |b| format!("\\u{b:04x}"))),
        ("JSON without backslash", |t| each(t, " ", |b| format!("u{b:04x}"))),
        ("hex", |t| each(t, "", |b| format!("{b:02x}"))),
        ("hex spaced", |t| each(t, " ", |b| format!("{b:02x}"))),
        ("hex with colons", |t| each(t, ":", |b| format!("{b:02X}"))),
        ("hex with \\x", |t| each(t, "", |b| format!("\\x{b:02x}"))),
        ("hex with 0x", |t| each(t, ", ", |b| format!("0x{b:02x}"))),
        ("octal", |t| each(t, " ", |b| format!("{b:03o}"))),
        ("decimal", |t| each(t, " ", |b| b.to_string())),
        ("decimal with commas", |t| each(t, ",", |b| b.to_string())),
        ("decimal with hyphens", |t| each(t, "-", |b| b.to_string())),
        ("decimal run", |t| each(t, "", |b| format!("{b:03}"))),
        ("buffer", |t| {
            format!("{{\"type\":\"Buffer\",\"data\":[{}]}}", each(t, ",", |b| b.to_string()))
        }),
        ("binary", |t| each(t, " ", |b| format!("{b:08b}"))),
        ("binary with letters", |t| binary(t).replace('0', "a").replace('1', "b")),
        ("binary with words", |t| binary(t).replace('0', "no ").replace('1', "yes ")),
        ("base16 with letters", |t| base(t, b"abcdefghijklmnop")),
        ("modhex", |t| base(t, b"cbdefghijklnrtuv")),
        ("base32", |t| base(t, BASE32).to_uppercase()),
        ("base32 in lower case", |t| base(t, BASE32)),
        ("base32 in pieces", |t| pieces(&base(t, BASE32), 4, " ")),
        ("base32 reversed", |t| reversed(&base(t, BASE32))),
        ("base32 of hex", |t| base(&each(t, "", |b| format!("{b:02x}")), BASE32)),
        ("z-base-32", |t| base(t, b"ybndrfg8ejkmcpqxot1uwisza345h769")),
        ("base64", |t| base(t, BASE64) + "="),
        ("base64 in pairs", |t| pieces(&base(t, BASE64), 2, " ")),
        ("base64 in pieces", |t| pieces(&base(t, BASE64), 4, " ")),
        ("base64 of base64", |t| base(&base(t, BASE64), BASE64)),
        ("uuencode", |t| each(&base(t, BASE64), "", |b| char::from(b' ' + (b % 64)))),
        ("quoted-printable", |t| each(t, "", |b| format!("={b:02X}"))),
        ("UTF-16", |t| each(t, "", |b| format!("{}\0", char::from(b)))),
        ("full width", |t| each(t, "", |b| char::from_u32(0xfee0 + u32::from(b)).unwrap())),
        ("soft hyphens", |t| pieces(t, 1, "\u{ad}")),
        ("zero-width", |t| pieces(t, 2, "\u{200b}")),
        ("one character per word", |t| pieces(t, 1, " ")),
        ("one character per line", |t| pieces(t, 1, "\r\n")),
        ("CSV", |t| pieces(t, 1, ", ")),
        ("CSV of pairs", |t| pieces(t, 2, ",")),
        ("pairs", |t| pieces(t, 2, " ")),
        ("triples", |t| pieces(t, 3, "-")),
        ("split words", |t| pieces(t, 4, " ")),
        ("pieces in quotes", |t| pieces(t, 3, "' '")),
        ("pieces in brackets", |t| pieces(t, 4, ") (")),
        ("digits between", |t| pieces(t, 3, " 1 ")),
        ("words between", |t| pieces(t, 3, " client ")),
        ("words between characters", |t| pieces(t, 1, " is ")),
        ("words between pieces", |t| pieces(t, 4, " and ")),
        ("every other character", |t| pieces(t, 1, "a")),
        ("every third character", |t| pieces(t, 1, "ab")),
        ("doubled", |t| each(t, "", |b| char::from(b).to_string().repeat(2))),
        ("first letters", |t| each(t, " ", carrier)),
        ("first letters backwards", |t| each(&reversed(t), " ", carrier)),
        ("last letters", |t| {
            each(t, " ", |b| {
                format!("{}{}", if b.is_ascii_alphanumeric() { "ou" } else { "" }, char::from(b))
            })
        }),
        ("spelling alphabet", |t| each(t, " ", spelled)),
        ("spelling alphabet, hex", |t| each(&each(t, "", |b| format!("{b:02x}")), " ", spelled)),
        ("spelled digits", |t| {
            each(
                t,
                " ",
                |b| if b.is_ascii_digit() { spelled(b) } else { char::from(b).to_string() },
            )
        }),
        ("Morse code", |t| {
            each(t, " ", |b| binary(&char::from(b).to_string()).replace('0', ".").replace('1', "-"))
        }),
        ("Morse code in words", |t| binary(t).replace('0', "dit ").replace('1', "dah ")),
    ];

    const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// RFC 4648 without padding.
    fn base(text: &str, alphabet: &[u8]) -> String {
        let bits = alphabet.len().ilog2() as usize;
        let byte = |i: usize| u16::from(*text.as_bytes().get(i).unwrap_or(&0));
        let symbol = |start: usize| {
            let two = byte(start / 8) << 8 | byte(start / 8 + 1);
            char::from(alphabet[usize::from(two >> (16 - bits - start % 8)) % alphabet.len()])
        };
        (0..text.len() * 8).step_by(bits).map(symbol).collect()
    }

    fn each<T: ToString>(text: &str, between: &str, encode: impl Fn(u8) -> T) -> String {
        text.bytes().map(|byte| encode(byte).to_string()).collect::<Vec<_>>().join(between)
    }

    fn pieces(text: &str, length: usize, between: &str) -> String {
        let pieces = text.as_bytes().chunks(length).map(|piece| str::from_utf8(piece).unwrap());
        pieces.collect::<Vec<_>>().join(between)
    }

    fn reversed(text: &str) -> String {
        text.chars().rev().collect()
    }

    fn moved(text: &str, distance: u8) -> String {
        each(text, "", |byte| {
            let moved = |first: u8| first + (byte - first + distance) % 26;
            char::from(match byte {
                b'a'..=b'z' => moved(b'a'),
                b'A'..=b'Z' => moved(b'A'),
                _ => byte,
            })
        })
    }

    fn binary(text: &str) -> String {
        each(text, " ", |byte| format!("{byte:08b}"))
    }

    /// A word that starts with a character, or spells it.
    fn carrier(byte: u8) -> String {
        let words = "and but client does error for grant has is just known login must not or \
            password query request server the user value with xeno your zone";
        word(words, byte)
    }

    fn spelled(byte: u8) -> String {
        let words = "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike \
            november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu";
        word(words, byte)
    }

    fn word(words: &str, byte: u8) -> String {
        let place = match byte.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => words.split(' ').nth(usize::from(letter - b'a')),
            digit @ b'0'..=b'9' => "zero one two three four five six seven eight nine"
                .split(' ')
                .nth(usize::from(digit - b'0')),
            _ => None,
        };
        place.map_or_else(|| char::from(byte).to_string(), str::to_owned)
    }
}
