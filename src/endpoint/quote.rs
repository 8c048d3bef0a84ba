use std::net::IpAddr;

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
pub(super) enum Quote {
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
pub(super) struct Private<'a>(pub(super) [&'a str; 3]);

impl Private<'_> {
    /// Quotes an error code, as RFC 6749 section 5.2 has them: lower case and underscores.
    pub(super) fn code(&self, text: &str) -> Option<String> {
        let is_code = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (is_code && !self.is_near(text)).then(|| text.to_owned())
    }

    /// Quotes the start of a description.
    pub(super) fn description(&self, text: &str) -> Quote {
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

    /// Whether an error may name a host: an IP address, or words.
    pub(super) fn is_host_quotable(&self, host: &str) -> bool {
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        !self.is_near(host) && (is_address || is_plain(host))
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
