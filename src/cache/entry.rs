use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_off;
use crate::cache::flight::{Flight, Landing};
use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::jitter;
use crate::status::Status;
use crate::token::Token;

/// How long `invalidate` ignores a token that replaced a refused one.
const REPLACEMENT_KEPT: Duration = Duration::from_secs(10);
/// How long a failure is remembered after its pause, so that the next one counts.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The longest that a renewal is postponed because too many others are running.
const RENEWAL_QUEUE: Duration = Duration::from_secs(1);
/// The window of a refused token that stays in use: a tenth of it passes between two attempts to
/// replace the token.
const LAST_RESORT_WINDOW: Duration = Duration::from_secs(20);

/// The token or the latest failure of one grant, and the flight that is running.
#[derive(Default)]
pub(super) struct Entry {
    /// Distinguishes tokens, and failures, that end at the same time.
    pub(super) number: u64,
    pub(super) known: Known,
    pub(super) flight: Option<Arc<Flight>>,
}

/// The result of the last landing or refusal.
#[derive(Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    Token(Cached),
    /// Boxed, so that an entry with a token has no room for it.
    Failed(Box<Failure>),
}

pub(super) struct Cached {
    token: Token,
    /// How long before the token's end its renewal is due.
    window: Duration,
    /// When the next renewal is due, at the token's end at the latest. A hit compares only this
    /// moment, because comparing is cheaper than subtracting.
    renew_at: Moment,
    /// Why the last renewal failed.
    failure: Option<Box<Error>>,
    /// `invalidate` ignores the token until this moment.
    kept_until: Instant,
    standing: Standing,
}

#[derive(Clone, Copy)]
enum Standing {
    /// Not refused. `early_refusals` counts the tokens before this one that were refused early, in
    /// a row.
    Accepted { early_refusals: u32 },
    /// Counts as missing.
    Refused(Refusal),
    /// Refused, but in use because the attempt to replace the token failed for a transient reason.
    LastResort(Refusal),
}

/// A refusal of a token by the API.
#[derive(Clone, Copy)]
struct Refusal {
    at: Instant,
    /// How many tokens in a row were refused before their renewal was due, up to this one.
    early_refusals: u32,
}

pub(super) struct Failure {
    error: Error,
    /// The number of fetches that failed in a row.
    count: u32,
    /// The refusal of the token that these fetches were to replace.
    refusal: Option<Refusal>,
    /// While this lasts, callers get the error at once.
    pause: Span,
}

/// The next step of `get_token` for a caller.
pub(super) enum Decision<'a> {
    Hit(&'a Token),
    Renew(&'a Token),
    Wait(&'a Arc<Flight>),
    Failed(Error),
    Fetch,
}

impl Entry {
    /// Implements the table of `Authenticator::get_token`, row by row.
    #[inline]
    pub(super) fn decide(&self, now: Moment) -> Decision<'_> {
        match (&self.known, &self.flight) {
            (Known::Token(cached), _) if now.is_before(cached.renew_at) => {
                Decision::Hit(&cached.token)
            }
            (Known::Token(cached), flight) if cached.is_valid(now) => match flight {
                Some(flight) if !flight.is_abandoned(now) => Decision::Hit(&cached.token),
                _ => Decision::Renew(&cached.token),
            },
            (_, Some(flight)) if !flight.is_abandoned(now) => Decision::Wait(flight),
            (Known::Failed(failure), _) if !failure.pause.has_ended(now) => {
                Decision::Failed(failure.error_at(now))
            }
            _ => Decision::Fetch,
        }
    }

    pub(super) fn start(&mut self, flight: &Arc<Flight>) {
        self.flight = Some(Arc::clone(flight));
        if let Known::Token(cached) = &mut self.known
            && cached.is_valid(flight.started)
        {
            // If the leader ends without an outcome, the next renewal is due after this pause.
            cached.postpone_renewal(cached.window / 10, flight.started);
        }
    }

    /// Makes the renewal due again a little later, because too many others are running.
    pub(super) fn postpone_renewal(&mut self, now: Moment) {
        if let Known::Token(cached) = &mut self.known {
            cached.postpone_renewal(jitter::part_of(RENEWAL_QUEUE), now);
        }
    }

    /// Makes `token` count as missing, if it is the cached one and may be dropped. Returns how many
    /// tokens in a row were refused before their renewal was due.
    pub(super) fn refuse(&mut self, token: &Token, now: Moment) -> Option<u32> {
        let Known::Token(cached) = &mut self.known else { return None };
        let Standing::Accepted { early_refusals } = cached.standing else { return None };
        // While a renewal is running, a refusal costs no other token request.
        let is_kept = now.monotonic < cached.kept_until && self.flight.is_none();
        if is_kept || !cached.token.is_same(token) {
            return None;
        }
        let is_early = now.is_before(cached.token.lifetime().before_end(cached.window));
        let early_refusals = if is_early { early_refusals.saturating_add(1) } else { 0 };
        cached.standing = Standing::Refused(Refusal { at: now.monotonic, early_refusals });
        // No clock reads earlier than this, so no caller gets a hit.
        cached.renew_at = cached.token.lifetime().start;
        Some(early_refusals)
    }

    pub(super) fn status(&self, now: Moment) -> Status {
        let remaining = self.known.valid_token(now).map(|token| token.lifetime().remaining(now));
        let (last_error, pause) = match &self.known {
            Known::Nothing => (None, Duration::ZERO),
            Known::Token(cached) => {
                (cached.failure.as_deref().cloned(), cached.renew_at.since(now))
            }
            Known::Failed(failure) => (Some(failure.error_at(now)), failure.pause.remaining(now)),
        };
        let fetching = self.flight.as_ref().is_some_and(|flight| !flight.is_abandoned(now));
        let is_paused = last_error.is_some() && !pause.is_zero() && !fetching;
        Status { remaining, last_error, retry_in: is_paused.then_some(pause), fetching }
    }
}

impl Known {
    /// Applies the landing of `flight`.
    pub(super) fn after(
        self,
        landing: &Landing,
        flight: &Flight,
        renew_before: Duration,
        now: Moment,
    ) -> Self {
        match (landing, self) {
            (Landing::Token(token), before) => {
                Self::Token(Cached::new(token.clone(), &before, renew_before, now))
            }
            (Landing::Failed(error) | Landing::OutOfTime(error), Self::Token(mut cached))
                if cached.outlasts(error, now) =>
            {
                cached.fail(error, now);
                Self::Token(cached)
            }
            (Landing::Failed(error), before) => Self::Failed(before.failure(error, now)),
            // The pause starts with the request, because the endpoint got no other request while
            // its answer did not come. So a waiter with time left may ask at once.
            (Landing::OutOfTime(error), before) => {
                let from = if error.retry_after().is_some() { now } else { flight.started };
                Self::Failed(before.failure(error, from))
            }
            (Landing::Gone, before) => before,
        }
    }

    /// The token that callers get, if there is one.
    pub(super) fn valid_token(&self, now: Moment) -> Option<&Token> {
        let Self::Token(cached) = self else { return None };
        cached.is_valid(now).then_some(&cached.token)
    }

    /// The token, also a refused one, unless it has expired.
    pub(super) fn unexpired_token(&self, now: Moment) -> Option<&Token> {
        let Self::Token(cached) = self else { return None };
        Some(&cached.token).filter(|token| !token.lifetime().has_ended(now))
    }

    /// The refusal of the last token, if the API refused it.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Token(Cached {
                standing: Standing::Refused(r) | Standing::LastResort(r),
                ..
            }) => Some(*r),
            Self::Failed(failure) => failure.refusal,
            _ => None,
        }
    }

    fn failure(&self, error: &Error, from: Moment) -> Box<Failure> {
        let before = if let Self::Failed(failure) = self { failure.count } else { 0 };
        let count = before.saturating_add(1);
        let pause = Span::new(from, back_off::after_failure(count, error));
        Box::new(Failure { error: error.clone(), count, refusal: self.refusal(), pause })
    }

    /// When the token expires, or the failure need not be remembered any longer.
    pub(super) fn end(&self) -> Option<Moment> {
        match self {
            Self::Nothing => None,
            Self::Token(cached) => Some(cached.token.lifetime().end()),
            Self::Failed(failure) => Some(failure.pause.end().plus(REMEMBERED)),
        }
    }
}

impl Cached {
    fn new(token: Token, before: &Known, renew_before: Duration, now: Moment) -> Self {
        let lifetime = token.lifetime();
        let kept_until = match (before, before.refusal()) {
            // Only a token that was requested after the refusal is a replacement. An earlier one
            // may have been revoked together with the refused token.
            (_, Some(refusal)) if refusal.at <= lifetime.start.monotonic => {
                now.plus(REPLACEMENT_KEPT).monotonic
            }
            // The renewal of a replacement is kept as long as the replacement would have been.
            (Known::Token(cached), None) => cached.kept_until,
            _ => lifetime.start.monotonic,
        };
        let early_refusals = before.refusal().map_or(0, |refusal| refusal.early_refusals);
        let window = jitter::shortened(lifetime.window(renew_before));
        let renew_at = lifetime.before_end(window);
        let standing = Standing::Accepted { early_refusals };
        Self { token, window, renew_at, failure: None, kept_until, standing }
    }

    /// Whether the token stays in use after a fetch failed. A valid token does; a refused token
    /// does if the failure is transient.
    fn outlasts(&self, error: &Error, now: Moment) -> bool {
        let is_replaceable = matches!(self.standing, Standing::Accepted { .. });
        !self.token.lifetime().has_ended(now) && (is_replaceable || error.is_transient())
    }

    /// Keeps the token in use after a fetch failed.
    fn fail(&mut self, error: &Error, now: Moment) {
        if let Standing::Refused(refusal) = self.standing {
            self.standing = Standing::LastResort(refusal);
            self.window = jitter::shortened(LAST_RESORT_WINDOW);
        }
        self.postpone_renewal(back_off::retry_after(error).max(self.window / 10), now);
        self.failure = Some(error.clone().into());
    }

    /// Makes the next renewal due after `pause`, at the token's end at the latest.
    fn postpone_renewal(&mut self, pause: Duration, now: Moment) {
        self.renew_at = now.plus(pause).or_earlier(self.token.lifetime().end());
    }

    fn is_valid(&self, now: Moment) -> bool {
        !matches!(self.standing, Standing::Refused(_)) && !self.token.lifetime().has_ended(now)
    }
}

impl Failure {
    /// The error, with the rest of its `Retry-After`.
    #[cold]
    fn error_at(&self, now: Moment) -> Error {
        let wait = self.error.retry_after().map(|_| self.pause.remaining(now));
        self.error.clone().with_retry_after(wait)
    }
}
