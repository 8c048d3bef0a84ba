use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

/// A keyed hash of a few strings, by which entries are found.
///
/// The pieces of a string are multiplied independently of each other, which the processor does at
/// the same time; `SipHash` would be a third of a lookup. Every key is random, and that of each
/// place another one: nobody can choose names that collide, nor swap pieces between places.
pub(super) struct Keys {
    length: [u64; 2],
    pieces: [[u64; 2]; 4],
}

impl Keys {
    pub(super) fn random() -> Self {
        let pair = || [(); 2].map(|()| RandomState::new().hash_one(()));
        Self { length: pair(), pieces: [(); 4].map(|()| pair()) }
    }

    #[inline]
    pub(super) fn hash_of(&self, texts: &impl Hash) -> u64 {
        let mut hasher = Folding { keys: self, state: 0 };
        texts.hash(&mut hasher);
        hasher.finish()
    }
}

struct Folding<'k> {
    keys: &'k Keys,
    state: u64,
}

impl Folding<'_> {
    /// Adds up to 64 bytes, and the length of the whole string; no choice of the bytes cancels the
    /// length out, since that is multiplied too.
    ///
    /// All is multiplied as it comes in, so that no product has to wait for another. Pieces overlap
    /// where the length is no multiple of theirs.
    #[expect(clippy::inline_always, reason = "two calls less are 2 % of a lookup")]
    #[inline(always)]
    fn add(&mut self, bytes: &[u8], length: u64) {
        let [first, second, third, fourth] = self.keys.pieces;
        let sum = if let (Some(head), Some(tail)) =
            (bytes.first_chunk::<32>(), bytes.last_chunk::<32>())
        {
            let ([a, b], [c, d]) = (quarters(head), quarters(tail));
            let tail = product(c, third).wrapping_add(product(d, fourth));
            product(a, first).wrapping_add(product(b, second)).wrapping_add(tail)
        } else if let (Some(head), Some(tail)) =
            (bytes.first_chunk::<16>(), bytes.last_chunk::<16>())
        {
            product(halves_of(*head), first).wrapping_add(product(halves_of(*tail), second))
        } else if let (Some(head), Some(tail)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
        {
            product([u64::from_le_bytes(*head), u64::from_le_bytes(*tail)], first)
        } else {
            product([few(bytes), 0], first)
        };
        let length = product([length, 0], self.keys.length);
        self.state = self.state.rotate_left(23).wrapping_add(sum).wrapping_add(length);
    }

    /// Returns up to 64 bytes that are left to be added.
    #[cold]
    fn add_all_but_the_last<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while bytes.len() > 64 {
            let (block, after) = bytes.split_at(64);
            self.add(block, 64);
            // There are only so many ways to turn the state.
            self.state = product([self.state, 0], self.keys.length);
            bytes = after;
        }
        bytes
    }
}

/// Both halves of the product, so that every bit of the input reaches many of the output.
#[inline]
fn product([a, b]: [u64; 2], [key, other]: [u64; 2]) -> u64 {
    let [low, high] = halves(u128::from(a ^ key) * u128::from(b ^ other));
    low ^ high
}

#[inline]
fn quarters(bytes: &[u8; 32]) -> [[u64; 2]; 2] {
    let (pieces, _) = bytes.as_chunks();
    [halves_of(pieces[0]), halves_of(pieces[1])]
}

#[inline]
fn halves_of(piece: [u8; 16]) -> [u64; 2] {
    halves(u128::from_le_bytes(piece))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are what is asked for")]
fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// All of fewer than 8 bytes.
#[inline(never)]
fn few(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl Hasher for Folding<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let rest = if bytes.len() > 64 { self.add_all_but_the_last(bytes) } else { bytes };
        self.add(rest, bytes.len() as u64);
    }

    /// Ends a string, whose length is in the state already.
    #[inline]
    fn write_u8(&mut self, _: u8) {}

    #[inline]
    fn finish(&self) -> u64 {
        // Once more: what is in few bits of a name is not spread by one multiplication alone.
        product([self.state, 0], self.keys.pieces[0])
    }
}

/// The hash of what is a hash already: itself.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a `u64` is written as one")
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let (keys, mut seen) = (Keys::random(), HashSet::new());
        for length in 0..200 {
            let zeros = "\0".repeat(length);
            assert!(seen.insert(keys.hash_of(&zeros)), "{length} zeros");
            for i in 0..length {
                let (head, tail) = zeros.split_at(i);
                let text = format!("{head}\u{1}{}", &tail[1..]);
                assert!(seen.insert(keys.hash_of(&text)), "{text:?}");
            }
        }
    }

    #[test]
    fn length_of_one_text_is_not_cancelled_by_the_next() {
        let (keys, mut seen) = (Keys::random(), HashSet::new());
        for length in 0..20 {
            for byte in 0..128 {
                let texts = ["\0".repeat(length), char::from(byte).to_string()];
                assert!(seen.insert(keys.hash_of(&texts)), "{texts:?}");
            }
        }
    }

    #[test]
    fn places_are_told_apart() {
        let (keys, mut seen) = (Keys::random(), HashSet::new());
        let pieces = ["a", "b", "c", "d", "e"].map(|letter| letter.repeat(16));
        for i in 0..pieces.len() {
            for j in 0..pieces.len() {
                let mut swapped = pieces.clone();
                swapped.swap(i, j);
                if i < j {
                    assert!(seen.insert(keys.hash_of(&swapped.concat())), "{i} {j}");
                    assert!(seen.insert(keys.hash_of(&swapped)), "{i} {j}");
                }
            }
        }
    }

    #[test]
    fn places_of_a_long_text_are_told_apart() {
        let keys = Keys::random();
        let blocks: Vec<_> = (0..130).map(|i| format!("{i:064}")).collect();
        let mut seen = HashSet::from([keys.hash_of(&blocks.concat())]);
        for i in 1..130 {
            let mut swapped = blocks.clone();
            swapped.swap(0, i);
            assert!(seen.insert(keys.hash_of(&swapped.concat())), "{i}");
        }
    }

    #[test]
    fn keys_differ_from_one_to_the_next() {
        assert_ne!(Keys::random().hash_of(&"a"), Keys::random().hash_of(&"a"));
    }

    #[test]
    fn low_and_high_bits_are_spread() {
        let keys = Keys::random();
        let hashes: Vec<u64> = (0..4096).map(|i| keys.hash_of(&format!("client-{i}"))).collect();
        // 256 values are expected to be taken by 16 each.
        for shift in [0, 56] {
            let mut counts = [0; 256];
            for hash in &hashes {
                counts[usize::from((hash >> shift).to_le_bytes()[0])] += 1;
            }
            assert!(counts.iter().all(|n| (1..48).contains(n)), "{counts:?}");
        }
    }
}
