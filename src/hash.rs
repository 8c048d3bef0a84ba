use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A keyed hash for short strings that costs a few multiplications, where `SipHash` would be a third of a lookup.
///
/// The keys are random, so that nobody can choose names that collide; should somebody find some, a bounded cache keeps
/// the harm small.
pub(crate) struct FoldedMultiply(u64, u64);

impl Default for FoldedMultiply {
    fn default() -> Self {
        let random = || RandomState::new().hash_one(());
        Self(random(), random())
    }
}

impl BuildHasher for FoldedMultiply {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { key: self.0, state: self.1 }
    }
}

pub(crate) struct Folding {
    key: u64,
    state: u64,
}

impl Folding {
    fn fold(&mut self, [low, high]: [u64; 2]) {
        self.state = folded_multiply(low ^ self.state, high ^ self.key);
    }
}

/// Both halves of the product, so that every bit of the input reaches many of the output.
fn folded_multiply(a: u64, b: u64) -> u64 {
    let [low, high] = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[expect(clippy::cast_possible_truncation)]
fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// The last 16 bytes; of fewer all, some of them twice.
fn ends(bytes: &[u8]) -> [u64; 2] {
    if let Some(last) = bytes.last_chunk() {
        halves(u128::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [first, last].map(|word| u64::from_le_bytes(*word))
    } else {
        [bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0]
    }
}

impl Hasher for Folding {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.as_chunks().0 {
            self.fold(halves(u128::from_le_bytes(*chunk)));
        }
        self.fold(ends(bytes));
        // Tells ends that overlap from ends that don't.
        self.state ^= bytes.len() as u64;
    }

    /// What ends a string, whose length is in the state already.
    fn write_u8(&mut self, byte: u8) {
        self.state ^= u64::from(byte);
    }

    fn finish(&self) -> u64 {
        // Once more: what is in few bits of a short name is not spread by one multiplication alone.
        folded_multiply(self.state, self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let build = FoldedMultiply::default();
        let mut seen = HashSet::new();
        for length in 0..50 {
            let zeros = "\0".repeat(length);
            assert!(seen.insert(build.hash_one(&zeros)), "{length} zeros");
            for i in 0..length {
                let (head, tail) = zeros.split_at(i);
                let text = format!("{head}\u{1}{}", &tail[1..]);
                assert!(seen.insert(build.hash_one(&text)), "{text:?}");
            }
        }
    }

    #[test]
    fn keys_differ_from_one_to_the_next() {
        assert_ne!(
            FoldedMultiply::default().hash_one("a"),
            FoldedMultiply::default().hash_one("a")
        );
    }

    #[test]
    fn low_and_high_bits_are_spread() {
        let build = FoldedMultiply::default();
        let hashes: Vec<u64> = (0..4096).map(|i| build.hash_one(format!("client-{i}"))).collect();
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
