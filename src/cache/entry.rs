use std::sync::Arc;
use std::time::Duration;

use crate::cache::flight::{Flight, Landing};
use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::jitter;
use crate::status::Status;
use crate::token::Token;

/// How long a token that replaced a refused one is not forgotten for a refusal.
const REPLACEMENT_KEPT: Duration = Duration::from_secs(10);
/// How long a failure is remembered after its pause, and a refusal, so that the next one counts.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One grant's token or latest failure, and who is fetching.
pub(super) struct Entry {
    /// Its own, for entries that are over at the same time.
    pub(super) number: u64,
    pub(super) known: Known,
    pub(super) flight: Option<Arc<Flight>>,
}

/// What the last landing left.
#[derive(Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    Token(Held),
    /// The API refused the token, which is forgotten.
    Refused {
        remembered: Span,
    },
    /// In a box, since an entry with a token is not to have room for it.
    Failed(Box<Failure>),
}

pub(super) struct Held {
    token: Token,
    /// How long before the token's end its renewal is due.
    window: Duration,
    /// When the next renewal is due, at the token's end at the latest. A hit compares only this,
    /// since to compare is cheaper than to subtract.
    renew_at: Moment,
    /// How the last renewal failed.
    failure: Option<Box<Error>>,
    arrived: Moment,
    /// For how long from then on a refusal is no reason to forget it.
    kept: Duration,
}

pub(super) struct Failure {
    error: Error,
    /// How many fetches have failed in a row.
    count: u32,
    /// When the API refused the token that the first of them was to replace, if it was for that.
    refused: Option<Moment>,
    /// For how long the error is handed out.
    pause: Span,
    remembered: Span,
}

/// What a caller is to do.
pub(super) enum Decision<'a> {
    Hit(&'a Token),
    Renew(&'a Token),
    Wait(&'a Arc<Flight>),
    Failed(Error),
    Fetch,
}

impl Entry {
    pub(super) fn new(number: u64) -> Self {
        Self { number, known: Known::Nothing, flight: None }
    }

    /// The table of `Authenticator::get_token`, row by row.
    #[inline]
    pub(super) fn decide(&self, now: Moment) -> Decision<'_> {
        match (&self.known, &self.flight) {
            (Known::Token(held), _) if now.is_before(held.renew_at) => Decision::Hit(&held.token),
            (Known::Token(held), flight) if !held.is_over(now) => match flight {
                Some(flight) if !flight.is_abandoned(now) => Decision::Hit(&held.token),
                _ => Decision::Renew(&held.token),
            },
            (_, Some(flight)) if !flight.is_abandoned(now) => Decision::Wait(flight),
            (Known::Failed(failure), _) if !failure.pause.is_over(now) => {
                Decision::Failed(failure.error_at(now))
            }
            _ => Decision::Fetch,
        }
    }

    pub(super) fn start(&mut self, flight: &Arc<Flight>) {
        self.flight = Some(Arc::clone(flight));
        if let Known::Token(held) = &mut self.known {
            // Holds if the flight's leader vanishes without landing it.
            held.postpone(Duration::ZERO, flight.started());
        }
    }

    pub(super) fn status(&self, now: Moment) -> Status {
        let (token_left, last_error, retry_in) = match &self.known {
            Known::Nothing | Known::Refused { .. } => (Duration::ZERO, None, Duration::ZERO),
            Known::Token(held) => {
                let error = held.failure.as_deref();
                let pause = error.map(|_| held.renew_at.since(now)).unwrap_or_default();
                (held.token.lifetime().left(now), error.cloned(), pause)
            }
            Known::Failed(failure) => {
                (Duration::ZERO, Some(failure.error_at(now)), failure.pause.left(now))
            }
        };
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        let is_fetching = self.flight.as_ref().is_some_and(|flight| !flight.is_abandoned(now));
        Status {
            token_left: some(token_left),
            last_error,
            retry_in: some(retry_in).filter(|_| !is_fetching),
            is_fetching,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flight.is_none() && matches!(self.known, Known::Nothing)
    }

    pub(super) fn is_flown_by(&self, flight: &Arc<Flight>) -> bool {
        self.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight))
    }
}

impl Known {
    /// What is known after `flight` has landed.
    pub(super) fn after(
        self,
        landing: &Landing,
        flight: &Flight,
        refresh_before: Duration,
        now: Moment,
    ) -> Self {
        match (landing, self) {
            (Landing::Token(token), before) => {
                let kept = before.kept(token, now);
                Self::Token(Held::new(token.clone(), refresh_before, kept, now))
            }
            (Landing::Failed(error) | Landing::OutOfTime(error), Self::Token(mut held))
                if !held.is_over(now) =>
            {
                held.postpone(error.retry_after().unwrap_or_default(), now);
                held.failure = Some(error.clone());
                Self::Token(held)
            }
            (Landing::Failed(error), before) => Self::Failed(before.failure(error, now)),
            // The endpoint was left alone while its answer did not come: that time counts, so that
            // who waited and has time left may ask.
            (Landing::OutOfTime(error), before) => {
                let has_answered = error.retry_after().is_some();
                let from = if has_answered { now } else { flight.started() };
                Self::Failed(before.failure(error, from))
            }
            (Landing::Gone, before) => before,
        }
    }

    /// For how long `token`, which comes next, is not forgotten for a refusal.
    fn kept(&self, token: &Token, now: Moment) -> Duration {
        match self {
            // What renews a replacement is one for the rest of its time.
            Self::Token(held) => held.kept.saturating_sub(held.age(now)),
            // What was asked for before the refusal may have been revoked together with what was
            // refused, and replaces nothing.
            _ => match self.refused_at() {
                Some(refused) if refused.monotonic <= token.lifetime().start().monotonic => {
                    REPLACEMENT_KEPT
                }
                _ => Duration::ZERO,
            },
        }
    }

    /// When the API refused the token that there was, if that is why there is none.
    fn refused_at(&self) -> Option<Moment> {
        match self {
            Self::Refused { remembered } => Some(remembered.start()),
            Self::Failed(failure) => failure.refused,
            Self::Token(_) | Self::Nothing => None,
        }
    }

    fn failure(&self, error: &Error, from: Moment) -> Box<Failure> {
        let before = if let Self::Failed(failure) = self { failure.count } else { 0 };
        let count = before.saturating_add(1);
        let pause = pause_after(error, count);
        Box::new(Failure {
            error: error.clone(),
            count,
            refused: self.refused_at(),
            pause: Span::new(from, pause),
            remembered: Span::new(from, pause + REMEMBERED),
        })
    }

    /// How long ago `token` arrived, if it is the one that is held and may be forgotten now.
    pub(super) fn age_of(&self, token: &Token, now: Moment) -> Option<Duration> {
        match self {
            Self::Token(held) if held.token.ptr_eq(token) => {
                Some(held.age(now)).filter(|age| *age >= held.kept)
            }
            _ => None,
        }
    }

    /// What is known after the API refused a token.
    pub(super) fn refused(now: Moment) -> Self {
        Self::Refused { remembered: Span::new(now, REMEMBERED) }
    }
}

/// How long an endpoint is left alone after the `count`th failure in a row.
fn pause_after(error: &Error, count: u32) -> Duration {
    let (first, longest) = if error.is_transient() {
        (Duration::from_millis(100), Duration::from_secs(2))
    } else {
        (Duration::from_secs(1), Duration::from_secs(30))
    };
    let pause = match count.checked_sub(2) {
        // One failure is held against nobody.
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(2_u32.saturating_pow(doublings)).min(longest),
    };
    jitter::shortened(pause).max(error.retry_after().unwrap_or_default())
}

impl Held {
    fn new(token: Token, refresh_before: Duration, kept: Duration, now: Moment) -> Self {
        let lifetime = token.lifetime();
        let window = jitter::shortened(lifetime.window(refresh_before));
        let renew_at = lifetime.before_end(window);
        Self { token, window, renew_at, failure: None, arrived: now, kept }
    }

    /// Puts the next renewal off by a tenth of the window or `at_least`.
    fn postpone(&mut self, at_least: Duration, now: Moment) {
        self.renew_at = now.plus(at_least.max(self.window / 10)).or_earlier(self.end());
    }

    fn age(&self, now: Moment) -> Duration {
        self.arrived.until(now.monotonic)
    }

    fn is_over(&self, now: Moment) -> bool {
        self.token.lifetime().is_over(now)
    }

    pub(super) fn end(&self) -> Moment {
        self.token.lifetime().end()
    }
}

impl Failure {
    /// The error, with what is left of its `Retry-After`.
    #[cold]
    fn error_at(&self, now: Moment) -> Error {
        match self.error {
            Error::Unavailable { status, retry_after: Some(_) } => {
                Error::Unavailable { status, retry_after: Some(self.pause.left(now)) }
            }
            ref error => error.clone(),
        }
    }

    pub(super) fn remembered(&self) -> &Span {
        &self.remembered
    }
}
