use zeroize::Zeroizing;

/// How many characters of a description are quoted.
const QUOTED: usize = 256;
/// So many characters in a row of a private text give it away, or all of them if there are fewer.
const PIECE: usize = 6;
/// A shorter text is part of too many ordinary words to be looked for.
const SHORTEST: usize = 3;
/// The longest word that is taken for one.
const LONGEST_WORD: usize = 20;
/// Three characters take six digits in decimal, and hardly fewer than five in hex.
const MAX_DIGITS: usize = 4;
/// Three bytes take four letters in base64, even if they stand apart.
const MAX_SINGLE_LETTERS: usize = 3;

/// What may be quoted of a text that a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Quote {
    /// The text is empty, or markup.
    Nothing,
    /// The text may be an echo of a private text.
    Withheld,
    Text(String),
}

/// The private texts of a grant, which must not be quoted in any encoding.
///
/// Encodings are not undone. A text is quoted only if it consists of plain words, which encodings
/// almost never produce: they mix in digits, capitals or signs. What is left to look for is a
/// private text that consists of plain words itself, and the rare base64 without a digit.
pub(crate) struct Private<'a>(pub(crate) &'a [&'a str]);

impl Private<'_> {
    /// Quotes an error code, as RFC 6749 section 5.2 has them: lower case and underscores.
    pub(crate) fn code(&self, text: &str) -> Option<String> {
        let is_code = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (is_code && !self.is_near(text)).then(|| text.to_owned())
    }

    /// Quotes the start of a description.
    pub(crate) fn description(&self, text: &str) -> Quote {
        let text = text.trim();
        if text.is_empty() || text.contains('<') {
            return Quote::Nothing;
        }
        let one_line = |char: char| if char.is_ascii_whitespace() { ' ' } else { char };
        let mut quote = Zeroizing::new(String::with_capacity(text.len()));
        quote.extend(text.chars().take(QUOTED).map(one_line));
        if is_plain(&quote) && !self.is_near(&quote) {
            Quote::Text(quote.trim_end().to_owned())
        } else {
            Quote::Withheld
        }
    }

    /// Whether a piece of a private text is in `text`, whatever its case, and whatever white space,
    /// signs or digits were put in between or taken out.
    fn is_near(&self, text: &str) -> bool {
        let views: [fn(char) -> bool; 3] =
            [|char| !char.is_whitespace(), char::is_alphanumeric, char::is_alphabetic];
        views.into_iter().any(|is_seen| {
            let text = view(text.chars(), is_seen);
            self.0.iter().any(|private| {
                let base64 = |skipped| view(base64(private.as_bytes(), skipped), is_seen);
                is_piece_in(&view(private.chars(), is_seen), PIECE, &text)
                    || (0..3).any(|skipped| is_piece_in(&base64(skipped), PIECE * 4 / 3, &text))
            })
        })
    }
}

/// Whether a text consists of words and a few numbers: nothing that an encoding could have made.
fn is_plain(text: &str) -> bool {
    let is_word = |word: &str| {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_lower =
            word.chars().all(char::is_alphabetic) && !word.chars().skip(1).any(char::is_uppercase);
        word.chars().count() <= LONGEST_WORD && (is_number || is_lower)
    };
    let is_between = |char| " .,:;!?'\"()-_/".contains(char);
    let words = || text.split(is_between).filter(|word| !word.is_empty());
    words().all(is_word)
        && words().filter(|word| word.chars().count() == 1).count() <= MAX_SINGLE_LETTERS
        && text.bytes().filter(u8::is_ascii_digit).count() <= MAX_DIGITS
}

/// The characters that count, in lower case, in a buffer that never grows.
fn view(
    chars: impl Iterator<Item = char> + Clone,
    is_seen: fn(char) -> bool,
) -> Zeroizing<Vec<char>> {
    let mut view = Zeroizing::new(Vec::with_capacity(chars.clone().count()));
    let lower = |char: char| char.to_lowercase().next().unwrap_or(char);
    view.extend(chars.filter(|char| is_seen(*char)).map(lower));
    view
}

fn is_piece_in(private: &[char], length: usize, text: &[char]) -> bool {
    let length = length.min(private.len());
    length >= SHORTEST
        && private.windows(length).any(|piece| text.windows(length).any(|part| part == piece))
}

/// RFC 4648 section 4, but for what does not fill a group.
fn base64(bytes: &[u8], skipped: usize) -> impl Iterator<Item = char> + Clone {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (groups, _) = bytes.get(skipped..).unwrap_or_default().as_chunks::<3>();
    groups.iter().flat_map(|&[a, b, c]| {
        let bits = u32::from_be_bytes([0, a, b, c]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t-of-the-ward";
    /// The secret is its start, and every character follows that an encoding treats on its own.
    const PASSWORD: &str = "s3cr3t-of-the-ward: p\"s/s+w%r&d='<\\\u{e9}\u{1f600}>~?";
    const USER: &str = "Jan.deVries@clinic.nl";

    fn private() -> Private<'static> {
        Private(&[SECRET, PASSWORD, USER, ""])
    }

    fn quote(text: &str) -> Quote {
        private().description(text)
    }

    fn is_hidden(quote: &Quote) -> bool {
        !matches!(quote, Quote::Text(_))
    }

    #[track_caller]
    fn assert_quoted(text: &str) {
        assert_eq!(quote(text), Quote::Text(text.to_owned()));
    }

    #[track_caller]
    fn assert_withheld(echo: &str) {
        let [user, basic] = [format!("user '{echo}' is unknown"), format!("Basic {echo}==\n no")];
        for text in [echo, &user, &basic] {
            assert!(is_hidden(&quote(text)), "{text}");
        }
    }

    /// What is quoted where the only private text is `secret`.
    fn quote_beside(secret: &str, text: &str) -> Quote {
        Private(&["", secret, ""]).description(text)
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
            "Account locked until 12:00, d\u{e9}j\u{e0} vu",
            "\u{451}\u{451}\u{451}\u{451}\u{451}\u{451}",
            "e-mail and/or user_name; see 'errors' (404)!",
        ] {
            let quote = Private(&ordinary).description(text);
            assert_eq!(quote, Quote::Text(text.to_owned()));
            assert_quoted(text);
        }
    }

    #[test]
    fn nothing_is_quoted_of_markup_and_blank_texts() {
        for text in [
            "",
            " \r\n",
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
    fn what_can_not_be_printed_on_one_line_is_withheld() {
        for text in ["a\u{1b}[31mb", "d\u{202e}e", "f\u{ad}g", "\u{feff}a", "\u{200b}"] {
            assert!(is_hidden(&quote(text)), "{text:?}");
        }
    }

    #[test]
    fn quotes_are_cut_at_256_characters() {
        assert_eq!(
            quote(&"no user ".repeat(900)),
            Quote::Text("no user ".repeat(32).trim_end().to_owned())
        );
    }

    #[test]
    fn an_echo_across_the_cut_is_found() {
        for before in 230..=256 {
            assert!(is_hidden(&quote(&format!("{}{SECRET}", "\u{e9}".repeat(before)))));
            let echo = base64(&format!("{SECRET}{}", "x".repeat(3000)));
            // Of what is cut off, five characters at most were legible.
            let text = format!("{}{echo}", "?".repeat(before));
            if let Quote::Text(quote) = quote(&text) {
                assert!(quote.trim_start_matches('?').len() < 8, "{quote}");
            }
        }
    }

    #[test]
    fn codes_are_visible_ascii() {
        let longest = "x".repeat(64);
        for code in ["invalid_client", "a", &longest] {
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
        for text in ["the-c", "devri", "clini"] {
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
        assert!(is_hidden(&quote_beside("a b\u{200b}c d e f", "abcdef")));
        assert_withheld("s3cr%E2%80%8B3t-o\\u200bf-th&#8203;e-w&nbsp;ard");
    }

    #[test]
    fn short_texts_are_looked_for_whole() {
        for secret in ["jan", "p4ss", "a+b?c", "\u{e9}\u{e8}\u{ea}"] {
            for (name, encode) in ENCODERS {
                let text = format!("no '{}'!", encode(&secret.to_ascii_uppercase()));
                assert!(is_hidden(&quote_beside(secret, &text)), "{secret} {name}");
            }
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
                assert!(is_hidden(&quote_beside(secret, &text)), "{text}");
            }
        }
    }

    #[test]
    fn forms_are_read_in_both_ways() {
        let secret = "a b+c d+e f";
        for echo in ["a+b%2Bc+d%2Be+f", "a%20b+c%20d+e%20f", "a b c d e f", "a%20b%20c+d+e+f"] {
            assert!(is_hidden(&quote_beside(secret, echo)), "{echo}");
        }
    }

    #[test]
    fn sloppy_escapes_are_found() {
        for echo in ["no\\'one", "no&#39one", "no&#X27;one", "no&APOSone", "no&apos;one"] {
            assert!(is_hidden(&quote_beside("no'one", echo)), "{echo}");
        }
    }

    #[test]
    fn legacy_encodings_are_found() {
        for echo in ["p%E4ssw%F6rd", "70e4737377f67264", "cORzc3f2cmQ", "p\\u00E4ssw\\u00f6rd"] {
            assert!(is_hidden(&quote_beside("p\u{e4}ssw\u{f6}rd", echo)), "{echo}");
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
                        assert!(is_hidden(&quote(&text)), "{outer_name} of {inner_name}");
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
            if piece.chars().filter(|c| !c.is_whitespace()).count() >= PIECE
                && echo.chars().count() <= QUOTED
            {
                let text = echo + &random.words(300);
                let quote = quote_beside(&secret, &text);
                assert!(is_hidden(&quote), "{secret:?}: {piece:?} as {names}in {text:?}");
                searched += 1;
            }
        }
    }

    /// How often an echo is taken for plain words: run it with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn measure_echoes() {
        let words = [
            "correct",
            "horse",
            "battery",
            "staple",
            "winter",
            "amsterdam",
            "hospital",
            "jan",
            "de",
            "vries",
        ];
        let mut random = Random(0x5eed_cafe);
        let pick = |random: &mut Random, alphabet: &str, least: usize, more: usize| -> String {
            let chars = alphabet.chars().collect::<Vec<_>>();
            (0..least + random.below(more)).map(|_| random.one_of(&chars)).collect()
        };
        for (kind, short) in [
            ("base62", false),
            ("lower", false),
            ("letters", false),
            ("hex", false),
            ("words", false),
            ("user", false),
            ("escapes", false),
            ("pin", true),
            ("lower 3-5", true),
            ("base62 6-8", true),
        ] {
            let (mut echoes, mut leaks, mut examples) = (0, 0, Vec::new());
            for _ in 0..20_000 {
                const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
                let base62 = format!("{LOWER}{}0123456789", LOWER.to_uppercase());
                let secret = match kind {
                    "base62" => pick(&mut random, &base62, 12, 30),
                    "base62 6-8" => pick(&mut random, &base62, 6, 3),
                    "lower" => pick(&mut random, LOWER, 6, 12),
                    "lower 3-5" => pick(&mut random, LOWER, 3, 3),
                    "letters" => {
                        pick(&mut random, &format!("{LOWER}{}", LOWER.to_uppercase()), 8, 30)
                    }
                    "hex" => pick(&mut random, "0123456789abcdef", 16, 48),
                    "pin" => pick(&mut random, "0123456789", 4, 3),
                    "words" => (0..2 + random.below(3))
                        .map(|_| random.one_of(&words))
                        .collect::<Vec<_>>()
                        .join([" ", "-", "", "."][random.below(4)]),
                    "user" => format!(
                        "{}.{}@{}.nl",
                        random.one_of(&words),
                        random.one_of(&words),
                        random.one_of(&words)
                    ),
                    _ => random.secret(),
                };
                if !short && secret.chars().count() < PIECE {
                    continue;
                }
                let piece = if short { secret.clone() } else { random.piece(&secret) };
                if !short && piece.chars().filter(|c| !c.is_whitespace()).count() < PIECE {
                    continue;
                }
                let (names, echo) = random.echo(&piece);
                let text = format!("no such user {echo} here");
                if text.chars().count() > QUOTED {
                    continue;
                }
                echoes += 1;
                if let Quote::Text(quote) = quote_beside(&secret, &text) {
                    leaks += 1;
                    if examples.len() < 6 {
                        examples.push(format!("{secret:?} {piece:?} {names} -> {quote:?}"));
                    }
                }
            }
            println!("{kind}: {leaks} of {echoes}\n   {}", examples.join("\n   "));
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
        let private = Private(&["Zo\u{eb}", "jan+x@kp.nl"]);
        for echo in
            ["Zo&euml;", "zo&Euml;", "ZO\u{cb}", "Wm8mZXVtbDs=", "jan&plus;x&commat;kp&period;nl"]
        {
            let text = format!("no user {echo} here");
            assert!(is_hidden(&private.description(&text)), "{text}");
        }
        let harmless = "no user Zo here";
        assert_eq!(private.description(harmless), Quote::Text(harmless.to_owned()));
    }

    #[test]
    fn escape_within_two_other_encodings_is_undone() {
        let private = Private(&["jan+x@kp.nl"]);
        // Base64 of base64 of `jan%2Bx%40kp.nl`, and hex of `jan%252Bx%2540kp.nl`.
        for echo in ["YW1GdUpUSkNlQ1UwTUd0d0xtNXM=", "6a616e253235324278253235343 06b702e6e6c"] {
            assert!(is_hidden(&private.description(echo)), "{echo}");
        }
    }
}
