use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::aead::NONCE_LEN;

use crate::clock::Moment;

/// The number of tokens whose ends are remembered.
const CAPACITY: usize = 4096;

/// When the tokens that this process saved or loaded end for this process, by the nonces of their
/// sealed bytes. A refused token ends at once. Loading a token again never prolongs it, whatever
/// the clocks say.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<VecDeque<([u8; NONCE_LEN], Moment)>>);

impl Ledger {
    /// Records the end of a token, unless an earlier one is known. Returns the earlier of the two.
    pub(super) fn record(&self, sealed: &[u8], end: Moment) -> Moment {
        let Some(nonce) = sealed.first_chunk() else { return end };
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = ends.iter_mut().find(|(known, _)| known == nonce) {
            *known = known.or_earlier(end);
            return *known;
        }
        if ends.len() == CAPACITY {
            ends.pop_front();
        }
        ends.push_back((*nonce, end));
        end
    }

    /// The time until the recorded end of a token; `Duration::MAX` for an unknown token.
    pub(super) fn remaining(&self, sealed: &[u8], now: Moment) -> Duration {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.iter().find(|(nonce, _)| sealed.starts_with(nonce));
        known.map_or(Duration::MAX, |(_, end)| end.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_4096_tokens_are_remembered() {
        let (ledger, now) = (Ledger::default(), Moment::now());
        let sealed = |n: u64| [&n.to_be_bytes()[..], b"rest of the nonce"].concat();
        for n in 0..=4096 {
            ledger.record(&sealed(n), now);
        }
        assert_eq!(ledger.remaining(&sealed(0), now), Duration::MAX);
        assert!((1..=4096).all(|n| ledger.remaining(&sealed(n), now).is_zero()));
    }
}
