use std::thread;

use time::OffsetDateTime;

use super::*;
use crate::clock::Span;
use crate::error::InvalidResponse;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);
/// The longest time that a flight lasts.
const TIMEOUT: Duration = Duration::from_secs(10);

fn grant(id: &str) -> Grant {
    Grant::client_credentials(id, "s3cr3t")
}

/// Returns a cache in which a renewal is due in the last quarter of a token's lifetime, shortened
/// by jitter.
fn cache(capacity: usize) -> Arc<Cache> {
    Cache::new(capacity, HOUR, TIMEOUT)
}

fn token(text: &str, sent: Moment, lifetime: Duration) -> Token {
    Token::new(text, OffsetDateTime::UNIX_EPOCH, Span::new(sent, lifetime))
}

fn unavailable(retry_after: Option<Duration>) -> Error {
    Error::Unavailable { status: 503, code: None, description: None, retry_after }
}

fn rejected() -> Error {
    Error::Rejected { status: 401, code: None, description: None }
}

fn name(claim: &Claim) -> &'static str {
    match claim {
        Claim::Hit(_) => "a hit",
        Claim::Renew(..) => "a renewal",
        Claim::Wait(_) => "a flight to wait for",
        Claim::Failed(_) => "a failure",
        Claim::Fetch(_) => "a fetch",
    }
}

#[track_caller]
fn hit(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> String {
    match cache.claim(grant, now) {
        Claim::Hit(token) => token.access_token().to_owned(),
        other => panic!("{}", name(&other)),
    }
}

#[track_caller]
fn renewal(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> Lead {
    match cache.claim(grant, now) {
        Claim::Renew(_, lead) => lead,
        other => panic!("{}", name(&other)),
    }
}

#[track_caller]
fn flight(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> Arc<Flight> {
    match cache.claim(grant, now) {
        Claim::Wait(flight) => flight,
        other => panic!("{}", name(&other)),
    }
}

#[track_caller]
fn failure(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> Error {
    match cache.claim(grant, now) {
        Claim::Failed(error) => error,
        other => panic!("{}", name(&other)),
    }
}

#[track_caller]
fn fetch(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> Lead {
    match cache.claim(grant, now) {
        Claim::Fetch(lead) => lead,
        other => panic!("{}", name(&other)),
    }
}

/// Caches a token that is valid from `now` on, and returns it.
#[track_caller]
fn fill(cache: &Arc<Cache>, grant: &Grant, text: &str, now: Moment, lifetime: Duration) -> Token {
    let token = token(text, now, lifetime);
    fetch(cache, grant, now).land(Landing::Token(token.clone()), now);
    token
}

/// Starts a fetch and lets it fail.
#[track_caller]
fn fail(cache: &Arc<Cache>, grant: &Grant, error: Error, now: Moment) {
    fetch(cache, grant, now).land(Landing::Failed(error.into()), now);
}

/// Measures how long before the token's end its renewal is due, to the nanosecond.
fn window(cache: &Arc<Cache>, grant: &Grant, start: Moment, lifetime: Duration) -> Duration {
    let is_hit = |at: Duration| matches!(decision(cache, grant, start.plus(at)), Decided::Hit);
    lifetime - turning_point(lifetime, is_hit)
}

/// Measures how long callers get the failure, to the nanosecond; zero if they don't.
fn pause(cache: &Arc<Cache>, grant: &Grant, from: Moment) -> Duration {
    let fails = |at: Duration| matches!(decision(cache, grant, from.plus(at)), Decided::Failed);
    turning_point(HOUR * 2, fails)
}

/// Returns the first time at which `holds` is false. Before it `holds` must be true, and after it
/// false.
fn turning_point(longest: Duration, holds: impl Fn(Duration) -> bool) -> Duration {
    let (mut true_at, mut false_at) = (Duration::ZERO, longest);
    if !holds(true_at) {
        return true_at;
    }
    while false_at - true_at > TICK {
        let middle = true_at + (false_at - true_at) / 2;
        if holds(middle) { true_at = middle } else { false_at = middle }
    }
    false_at
}

enum Decided {
    Hit,
    Failed,
    Other,
}

/// Returns the decision of a claim, without making the claim.
fn decision(cache: &Arc<Cache>, grant: &Grant, now: Moment) -> Decided {
    let state = cache.lock();
    match state.entries.get(grant).map(|entry| entry.decide(now)) {
        Some(Decision::Hit(_)) => Decided::Hit,
        Some(Decision::Failed(_)) => Decided::Failed,
        _ => Decided::Other,
    }
}

/// Returns the outcome that a landed flight gives a waiter with an hour left; `None` if the waiter
/// starts over.
fn landed(flight: &Flight) -> Option<Result<Token, Error>> {
    let now = Moment::now();
    match flight.wait(now.monotonic + HOUR, || now) {
        Waited::Outcome(outcome) => Some(outcome),
        Waited::StartOver => None,
        Waited::TimedOut | Waited::OwnFlight => panic!("the flight has not landed"),
    }
}

/// Returns the client ids of all entries, in order.
fn ids(cache: &Arc<Cache>) -> String {
    let state = cache.lock();
    let mut ids: Vec<_> = state.entries.keys().map(Grant::client_id).collect();
    ids.sort_unstable();
    ids.concat()
}

#[test]
fn token_is_returned_until_it_expires_and_renewed_by_one_caller() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    fill(&cache, &grant, "old", start, HOUR);
    let window = window(&cache, &grant, start, HOUR);
    assert_eq!(hit(&cache, &grant, start), "old");
    assert_eq!(hit(&cache, &grant, start.plus(HOUR - window - TICK)), "old");
    drop(renewal(&cache, &grant, start.plus(HOUR - window)));

    let due = start.plus(HOUR - SECOND);
    let Claim::Renew(current, lead) = cache.claim(&grant, due) else { panic!("not due") };
    assert_eq!(current.access_token(), "old");
    assert_eq!(hit(&cache, &grant, due), "old", "other callers don't wait");
    assert_eq!(hit(&cache, &grant, due.plus(SECOND - TICK)), "old");

    let waiting = flight(&cache, &grant, start.plus(HOUR));
    let landing = token("new", start.plus(HOUR), HOUR);
    lead.land(Landing::Token(landing), start.plus(HOUR));
    assert_eq!(landed(&waiting).unwrap().unwrap().access_token(), "new");
    assert_eq!(hit(&cache, &grant, start.plus(HOUR)), "new");
}

#[test]
fn renewal_is_due_by_either_clock() {
    for by_monotonic in [true, false] {
        let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
        fill(&cache, &grant, "old", start, HOUR);
        let late = HOUR - TICK;
        let (monotonic, wall) = if by_monotonic { (late, TICK) } else { (TICK, late) };
        renewal(&cache, &grant, start.later(monotonic, wall));
    }
}

#[test]
fn token_that_has_expired_by_either_clock_is_fetched_again() {
    for (monotonic, wall) in [(HOUR, TICK), (TICK, HOUR)] {
        let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
        fill(&cache, &grant, "old", start, HOUR);
        fetch(&cache, &grant, start.later(monotonic, wall));
    }
}

#[test]
fn window_is_a_quarter_of_the_lifetime_at_most_and_jittered_by_up_to_a_quarter() {
    for (lifetime, longest) in [(HOUR, MINUTE * 5), (MINUTE * 8, MINUTE * 2)] {
        let (cache, start) = (Cache::new(1000, MINUTE * 5, TIMEOUT), Moment::now());
        let windows = (0..200).map(|i| {
            let grant = grant(&i.to_string());
            fill(&cache, &grant, "t", start, lifetime);
            window(&cache, &grant, start, lifetime)
        });
        let (least, most) = windows.fold((HOUR, TICK), |(a, b), w| (a.min(w), b.max(w)));
        assert!(least >= longest * 3 / 4 && most <= longest, "{least:?} {most:?}");
        assert!(
            least < longest * 4 / 5 && most > longest * 19 / 20,
            "the whole range of the jitter is used"
        );
    }
}

#[test]
fn window_of_zero_turns_renewal_off() {
    let (cache, grant, start) = (Cache::new(1, Duration::ZERO, TIMEOUT), grant("a"), Moment::now());
    fill(&cache, &grant, "old", start, HOUR);
    assert_eq!(hit(&cache, &grant, start.plus(HOUR - TICK)), "old");
    fetch(&cache, &grant, start.plus(HOUR));
}

#[test]
fn failed_renewal_is_due_again_a_tenth_of_the_window_later() {
    let landings: [fn() -> Landing; 4] = [
        || Landing::Failed(rejected().into()),
        || Landing::Failed(unavailable(Some(TICK)).into()),
        || Landing::OutOfTime(Box::new(Error::InvalidResponse(InvalidResponse::Expired))),
        || Landing::Gone,
    ];
    for landing in landings {
        let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
        fill(&cache, &grant, "old", start, HOUR);
        let window = window(&cache, &grant, start, HOUR);
        let due = start.plus(HOUR - window);
        renewal(&cache, &grant, due).land(landing(), due);
        assert_eq!(hit(&cache, &grant, due.plus(window / 10 - TICK)), "old");
        renewal(&cache, &grant, due.plus(window / 10));
    }
}

#[test]
fn failed_renewal_waits_for_a_longer_retry_after_but_not_past_the_tokens_end() {
    for (retry_after, is_past_the_end) in [(MINUTE * 5, false), (HOUR, true)] {
        let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
        fill(&cache, &grant, "old", start, HOUR);
        let due = start.plus(HOUR - window(&cache, &grant, start, HOUR));
        let landing = Landing::Failed(unavailable(Some(retry_after)).into());
        renewal(&cache, &grant, due).land(landing, due);
        if is_past_the_end {
            assert_eq!(hit(&cache, &grant, start.plus(HOUR - TICK)), "old");
            fetch(&cache, &grant, start.plus(HOUR));
        } else {
            assert_eq!(hit(&cache, &grant, due.plus(retry_after - TICK)), "old");
            renewal(&cache, &grant, due.plus(retry_after * 11 / 10));
        }
    }
}

#[test]
fn failed_renewal_does_not_count_as_a_failed_fetch() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    fill(&cache, &grant, "old", start, HOUR);
    let due = start.plus(HOUR - TICK * 3);
    renewal(&cache, &grant, due).land(Landing::Failed(rejected().into()), due);
    fail(&cache, &grant, rejected(), start.plus(HOUR));
    fetch(&cache, &grant, start.plus(HOUR));
}

#[test]
fn waiter_gets_the_failure_of_a_renewal_and_the_expired_token_is_dropped() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    let old = fill(&cache, &grant, "old", start, HOUR);
    let lead = renewal(&cache, &grant, start.plus(HOUR - TICK));
    let waiting = flight(&cache, &grant, start.plus(HOUR));
    lead.land(Landing::Failed(rejected().into()), start.plus(HOUR));
    assert_eq!(landed(&waiting).unwrap().unwrap_err().status(), Some(401));
    assert_eq!(old.handles(), 1, "the cache has dropped the token");
}

#[test]
fn outcome_is_shared() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let lead = fetch(&cache, &grant, now);
    let waiting = [flight(&cache, &grant, now), flight(&cache, &grant, now)];
    lead.land(Landing::Failed(rejected().into()), now);
    for flight in waiting {
        assert_eq!(landed(&flight).unwrap().unwrap_err().status(), Some(401));
    }
}

#[test]
fn pauses_double_from_the_second_failure_on_up_to_their_limit() {
    let milliseconds = Duration::from_millis;
    for (error, first, limit) in [
        (unavailable(None), milliseconds(100), milliseconds(2000)),
        (rejected(), SECOND, SECOND * 30),
        (Error::InvalidResponse(InvalidResponse::Body("")), SECOND, SECOND * 30),
        (Error::InvalidResponse(InvalidResponse::Expired), milliseconds(100), milliseconds(2000)),
    ] {
        let (cache, grant, mut now) = (cache(1), grant("a"), Moment::now());
        fail(&cache, &grant, error.clone(), now);
        assert_eq!(pause(&cache, &grant, now), Duration::ZERO, "one failure causes no pause");
        let mut longest = first;
        for _ in 2..12 {
            fail(&cache, &grant, error.clone(), now);
            let pause = pause(&cache, &grant, now);
            assert!(pause >= longest * 3 / 4 && pause <= longest, "{pause:?} {longest:?}");
            assert_eq!(failure(&cache, &grant, now).status(), error.status());
            now = now.plus(pause);
            longest = (longest * 2).min(limit);
        }
    }
}

#[test]
fn pauses_are_jittered() {
    let (cache, now) = (cache(100), Moment::now());
    let pauses = (0..50).map(|i| {
        let grant = grant(&i.to_string());
        fail(&cache, &grant, rejected(), now);
        fail(&cache, &grant, rejected(), now);
        pause(&cache, &grant, now)
    });
    let (least, most) = pauses.fold((HOUR, TICK), |(a, b), p| (a.min(p), b.max(p)));
    assert!(most - least > SECOND / 20, "{least:?} {most:?}");
}

#[test]
fn failure_after_the_token_has_expired_counts() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    fill(&cache, &grant, "old", start, HOUR);
    fail(&cache, &grant, rejected(), start.plus(HOUR));
    fail(&cache, &grant, rejected(), start.plus(HOUR));
    failure(&cache, &grant, start.plus(HOUR));
}

#[test]
fn retry_after_holds_from_the_first_failure_and_where_it_is_longer() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    fail(&cache, &grant, unavailable(Some(MINUTE)), now);
    let pause = pause(&cache, &grant, now);
    assert!(pause >= MINUTE && pause <= MINUTE * 11 / 10, "{pause:?}");
    assert_eq!(failure(&cache, &grant, now).retry_after(), Some(pause));
    let late = now.plus(pause - TICK);
    assert_eq!(failure(&cache, &grant, late).retry_after(), Some(TICK));

    let now = now.plus(pause);
    fail(&cache, &grant, unavailable(Some(TICK)), now);
    assert!(self::pause(&cache, &grant, now) >= Duration::from_millis(75));
}

#[test]
fn success_forget_and_clear_reset_the_failures_of_a_grant() {
    let reset: [fn(&Arc<Cache>, &Grant, Moment); 3] = [
        |cache, grant, now| {
            let old = fill(cache, grant, "t", now.plus(MINUTE), HOUR);
            cache.invalidate(grant, &old, now.plus(MINUTE));
        },
        |cache, grant, _| cache.forget(grant),
        |cache, _, _| cache.clear(),
    ];
    for reset in reset {
        let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
        fail(&cache, &grant, rejected(), now);
        fail(&cache, &grant, rejected(), now);
        failure(&cache, &grant, now);
        reset(&cache, &grant, now);
        fail(&cache, &grant, rejected(), now.plus(MINUTE));
        fetch(&cache, &grant, now.plus(MINUTE));
    }
}

#[test]
fn status_is_right_by_both_clocks() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    let remaining = |now| cache.status(&grant, now).remaining;
    assert_eq!(remaining(start), None);
    fill(&cache, &grant, "t", start, HOUR);
    assert_eq!(remaining(start), Some(HOUR));
    assert_eq!(remaining(start.later(MINUTE, TICK)), Some(HOUR - MINUTE));
    assert_eq!(remaining(start.later(TICK, MINUTE)), Some(HOUR - MINUTE));
    assert_eq!(remaining(start.later(TICK, HOUR)), None);
}

#[test]
fn status_shows_failed_renewals_while_the_token_is_in_use() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    fill(&cache, &grant, "old", start, HOUR);
    let window = window(&cache, &grant, start, HOUR);
    let due = start.plus(HOUR - window);
    let lead = renewal(&cache, &grant, due);
    assert!(cache.status(&grant, due).fetching);
    lead.land(Landing::Failed(rejected().into()), due);
    let status = cache.status(&grant, due);
    assert_eq!(status.last_error.unwrap().status(), Some(401));
    assert_eq!(status.remaining, Some(window));
    assert_eq!(status.retry_in, Some(window / 10));
    assert!(!status.fetching);

    let due = due.plus(window / 10);
    renewal(&cache, &grant, due).land(Landing::Token(token("new", due, HOUR)), due);
    let status = cache.status(&grant, due);
    assert!(status.last_error.is_none() && status.retry_in.is_none(), "{status:?}");
}

#[test]
fn abandoned_flight_does_not_count_as_fetching() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let _lost = fetch(&cache, &grant, now);
    assert!(cache.status(&grant, now).fetching);
    assert!(!cache.status(&grant, now.plus(TIMEOUT + SECOND)).fetching);
}

#[test]
fn failure_of_one_grant_leaves_the_others_alone() {
    let (cache, now) = (cache(2), Moment::now());
    fail(&cache, &grant("a"), unavailable(Some(MINUTE)), now);
    fetch(&cache, &grant("b"), now);
}

#[test]
fn wrong_secret_is_not_served_from_cache() {
    let (cache, now) = (cache(2), Moment::now());
    fill(&cache, &Grant::client_credentials("a", "right"), "t", now, HOUR);
    fetch(&cache, &Grant::client_credentials("a", "wrong"), now);
}

#[test]
fn secrets_of_one_client_do_not_displace_each_other() {
    let (cache, now) = (cache(3), Moment::now());
    let grants = ["right", "wrong"].map(|secret| Grant::client_credentials("a", secret));
    let users = ["p4ss", "w0rd"].map(|word| Grant::password("a", "right", "jan", word));
    fill(&cache, &grants[0], "t", now, HOUR);
    fill(&cache, &users[0], "t", now, HOUR);
    fail(&cache, &grants[1], rejected(), now);
    fail(&cache, &users[1], rejected(), now);
    fail(&cache, &Grant::password("a", "wrong", "jan", "p4ss"), rejected(), now);
    hit(&cache, &grants[0], now);
    hit(&cache, &users[0], now);
}

#[test]
fn dropped_lead_hands_over_and_leaves_no_entry() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let lead = fetch(&cache, &grant, now);
    let waiting = flight(&cache, &grant, now);
    drop(lead);
    assert!(landed(&waiting).is_none());
    assert_eq!(ids(&cache), "");
    fetch(&cache, &grant, now);
}

#[test]
fn waiter_with_time_left_takes_over_when_the_leader_times_out() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    fail(&cache, &grant, unavailable(None), now);
    let lead = fetch(&cache, &grant, now);
    let waiting = flight(&cache, &grant, now);
    let late = now.plus(TIMEOUT);
    lead.land(Landing::OutOfTime(unavailable(None).into()), late);
    let has_time = waiting.wait(late.monotonic + TIMEOUT / 10, || late);
    assert!(matches!(has_time, Waited::StartOver));
    let is_late = waiting.wait(late.monotonic + TIMEOUT / 10 - TICK, || late);
    assert!(
        matches!(is_late, Waited::Outcome(Err(_))),
        "a waiter with too little time does not take over"
    );
    fetch(&cache, &grant, late);
}

#[test]
fn pause_after_a_timeout_starts_with_the_request() {
    let (cache, grant, mut now) = (cache(1), grant("a"), Moment::now());
    for _ in 0..8 {
        now = now.plus(MINUTE / 2);
        let lead = fetch(&cache, &grant, now);
        lead.land(Landing::OutOfTime(unavailable(None).into()), now.plus(SECOND));
    }
    failure(&cache, &grant, now.plus(SECOND));
    fetch(&cache, &grant, now.plus(SECOND * 2));
}

#[test]
fn flight_past_its_time_by_more_than_a_second_is_abandoned() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let lost = fetch(&cache, &grant, now);
    let waiting = flight(&cache, &grant, now.plus(TIMEOUT + SECOND - TICK));
    let late = now.plus(TIMEOUT + SECOND);
    let waited = waiting.wait(late.monotonic + HOUR, || late);
    assert!(matches!(waited, Waited::StartOver), "a waiter with time left takes over");

    let second = fetch(&cache, &grant, late);
    lost.land(Landing::Token(token("lost", late, HOUR)), late);
    flight(&cache, &grant, late);
    second.land(Landing::Token(token("new", late, HOUR)), late);
    assert_eq!(hit(&cache, &grant, late), "new");
}

#[test]
fn renewal_past_its_time_is_abandoned_and_the_token_stays_in_use() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    // With this lifetime, a flight lasts longer than a tenth of the window and shorter than the
    // window.
    fill(&cache, &grant, "old", start, MINUTE * 4);
    let due = start.plus(MINUTE * 4 - window(&cache, &grant, start, MINUTE * 4));
    let _lost = renewal(&cache, &grant, due);
    hit(&cache, &grant, due.plus(TIMEOUT + SECOND - TICK));
    renewal(&cache, &grant, due.plus(TIMEOUT + SECOND));
}

#[test]
fn waiter_gives_up_at_its_deadline_by_its_own_clock() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let lead = fetch(&cache, &grant, now);
    let flight = flight(&cache, &grant, now);
    assert!(matches!(flight.wait(now.monotonic, || now), Waited::TimedOut));
    lead.land(Landing::Token(token("t", now, HOUR)), now);
    let waited = flight.wait(now.monotonic, || now);
    assert!(
        matches!(waited, Waited::Outcome(Ok(_))),
        "a landed outcome is returned at the deadline too"
    );
}

#[test]
fn cache_works_after_a_panic_while_its_lock_was_held() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    fill(&cache, &grant, "t", now, HOUR);
    thread::scope(|scope| {
        let panicking = scope.spawn(|| {
            let _held = cache.lock();
            panic!("while the lock is held");
        });
        assert!(panicking.join().is_err());
    });
    assert!(cache.state.is_poisoned());
    assert_eq!(hit(&cache, &grant, now), "t");
}

#[test]
fn invalidate_refuses_a_token_with_the_same_text_and_no_other() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let new = token("new", now, HOUR);
    let old = fill(&cache, &grant, "old", now, HOUR);
    cache.invalidate(&grant, &new, now);
    cache.invalidate(&self::grant("b"), &old, now);
    hit(&cache, &grant, now);
    cache.invalidate(&grant, &token("old", now, MINUTE), now);
    fetch(&cache, &grant, now).land(Landing::Token(new), now);
    cache.invalidate(&grant, &old, now.plus(MINUTE));
    hit(&cache, &grant, now);
}

#[test]
fn refused_token_counts_as_missing_even_by_an_earlier_clock() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let old = fill(&cache, &grant, "old", now, HOUR);
    cache.invalidate(&grant, &old, now.plus(SECOND));
    assert!(cache.status(&grant, now).remaining.is_none());
    fetch(&cache, &grant, now);
}

#[test]
fn refused_token_is_the_last_resort_while_the_endpoint_is_unavailable() {
    for landing in [Landing::Failed, Landing::OutOfTime] {
        let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
        let old = fill(&cache, &grant, "old", now, HOUR);
        cache.invalidate(&grant, &old, now);
        let lead = fetch(&cache, &grant, now);
        let waiting = flight(&cache, &grant, now);
        let served = lead.land(landing(unavailable(None).into()), now);
        assert!(served.unwrap().is_same(&old));
        assert!(landed(&waiting).unwrap().unwrap().is_same(&old));

        assert_eq!(hit(&cache, &grant, now), "old");
        assert!(
            cache.invalidate(&grant, &old, now.plus(MINUTE)).is_none(),
            "the token is refused already"
        );
        let status = cache.status(&grant, now);
        assert!(status.remaining.is_some() && status.last_error.is_some(), "{status:?}");

        // Callers get the token at once, while a thread tries to replace it every 1.5 to 2 s.
        hit(&cache, &grant, now.plus(SECOND * 3 / 2 - TICK));
        let due = now.plus(SECOND * 2);
        renewal(&cache, &grant, due).land(Landing::Failed(unavailable(None).into()), due);
        assert_eq!(hit(&cache, &grant, due), "old");
        let due = due.plus(SECOND * 2);
        renewal(&cache, &grant, due).land(Landing::Token(token("new", due, HOUR)), due);
        assert_eq!(hit(&cache, &grant, due), "new");
        let new = token("new", due, HOUR);
        assert!(cache.invalidate(&grant, &new, due.plus(SECOND * 10 - TICK)).is_none());
        assert!(cache.invalidate(&grant, &new, due.plus(SECOND * 10)).is_some());
    }
}

#[test]
fn last_resort_ends_with_the_token_and_with_a_rejection() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let old = fill(&cache, &grant, "old", now, MINUTE);
    cache.invalidate(&grant, &old, now);
    fail(&cache, &grant, unavailable(Some(HOUR)), now);
    assert_eq!(hit(&cache, &grant, now.plus(MINUTE - TICK)), "old");
    fetch(&cache, &grant, now.plus(MINUTE));

    let old = fill(&cache, &grant, "old", now.plus(MINUTE), HOUR);
    let now = now.plus(MINUTE * 2);
    cache.invalidate(&grant, &old, now);
    fail(&cache, &grant, unavailable(None), now);
    let due = now.plus(SECOND * 2);
    let lead = renewal(&cache, &grant, due);
    assert!(lead.land(Landing::Failed(rejected().into()), due).is_none());
    fetch(&cache, &grant, due);
}

#[test]
fn early_refusals_in_a_row_are_counted() {
    let (cache, grant, mut now) = (cache(1), grant("a"), Moment::now());
    let mut refuse = |text: &str, wait: Duration| {
        let token = fill(&cache, &grant, text, now, HOUR);
        now = now.plus(wait);
        cache.invalidate(&grant, &token, now).unwrap()
    };
    assert_eq!(refuse("a", MINUTE), 1);
    assert_eq!(refuse("b", MINUTE), 2);
    assert_eq!(refuse("c", MINUTE), 3);
    assert_eq!(refuse("d", HOUR - MINUTE), 0, "the renewal was due");
    assert_eq!(refuse("e", MINUTE), 1);
    let token = fill(&cache, &grant, "f", now, HOUR);
    let due = now.plus(HOUR - TICK);
    renewal(&cache, &grant, due).land(Landing::Token(self::token("g", due, HOUR)), due);
    assert!(cache.invalidate(&grant, &token, due).is_none());
    let refusals = cache.invalidate(&grant, &self::token("g", due, HOUR), due.plus(MINUTE));
    assert_eq!(refusals, Some(1), "the token in between was not refused");
}

#[test]
fn token_that_replaced_a_refused_one_is_kept_for_ten_seconds() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let first = fill(&cache, &grant, "first", now, HOUR);
    cache.invalidate(&grant, &first, now);
    let second = fill(&cache, &grant, "second", now, HOUR);
    cache.invalidate(&grant, &second, now.plus(SECOND * 10 - TICK));
    assert_eq!(hit(&cache, &grant, now), "second");
    cache.invalidate(&grant, &second, now.plus(SECOND * 10));
    fetch(&cache, &grant, now);
}

#[test]
fn replacement_that_is_being_renewed_is_refused_at_once() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let first = fill(&cache, &grant, "first", now, HOUR);
    cache.invalidate(&grant, &first, now);
    let second = fill(&cache, &grant, "second", now, SECOND * 4);
    let due = now.plus(SECOND * 4 - TICK);
    let lead = renewal(&cache, &grant, due);
    assert!(cache.invalidate(&grant, &second, due).is_some());
    lead.land(Landing::Token(token("third", due, HOUR)), due);
    assert_eq!(hit(&cache, &grant, due), "third");
}

#[test]
fn replacement_is_kept_through_its_renewal_and_after_a_failure() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let first = fill(&cache, &grant, "first", now, HOUR);
    cache.invalidate(&grant, &first, now);
    fail(&cache, &grant, rejected(), now);
    fill(&cache, &grant, "second", now, SECOND * 4);
    let due = now.plus(SECOND * 4 - TICK);
    let third = token("third", due, HOUR);
    renewal(&cache, &grant, due).land(Landing::Token(third.clone()), due);
    cache.invalidate(&grant, &third, now.plus(SECOND * 10 - TICK));
    assert_eq!(hit(&cache, &grant, due), "third");
    cache.invalidate(&grant, &third, now.plus(SECOND * 10));
    fetch(&cache, &grant, due);
}

#[test]
fn token_that_replaced_no_refused_one_is_refused_at_once() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    for _ in 0..3 {
        let token = fill(&cache, &grant, "t", now, HOUR);
        assert!(cache.invalidate(&grant, &token, now).is_some());
        cache.forget(&grant);
    }
}

#[test]
fn renewal_in_flight_replaces_a_refused_token() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    let old = fill(&cache, &grant, "old", start, HOUR);
    let due = start.plus(HOUR - TICK);
    let lead = renewal(&cache, &grant, due);
    cache.invalidate(&grant, &old, due);
    let waiting = flight(&cache, &grant, due);
    let new = token("new", due, HOUR);
    lead.land(Landing::Token(new.clone()), due);
    assert_eq!(landed(&waiting).unwrap().unwrap().access_token(), "new");
    cache.invalidate(&grant, &new, due);
    assert_eq!(hit(&cache, &grant, due), "new");
}

#[test]
fn refused_token_whose_renewal_fails_is_fetched() {
    let (cache, grant, start) = (cache(1), grant("a"), Moment::now());
    let old = fill(&cache, &grant, "old", start, HOUR);
    let due = start.plus(HOUR - TICK);
    let lead = renewal(&cache, &grant, due);
    cache.invalidate(&grant, &old, due);
    lead.land(Landing::Failed(rejected().into()), due);
    fetch(&cache, &grant, due);
}

#[test]
fn clear_and_forget_leave_nothing_and_a_fetch_in_flight_does_not_refill() {
    let forget: [fn(&Arc<Cache>, &Grant); 2] =
        [|cache, _| cache.clear(), |cache, grant| cache.forget(grant)];
    for forget in forget {
        let (cache, grant, now) = (cache(3), grant("a"), Moment::now());
        let lead = fetch(&cache, &grant, now);
        let waiting = flight(&cache, &grant, now);
        forget(&cache, &grant);
        assert_eq!(ids(&cache), "");
        let second = fetch(&cache, &grant, now);
        lead.land(Landing::Token(token("stale", now, HOUR)), now);
        let served = landed(&waiting).unwrap().unwrap();
        assert_eq!(served.access_token(), "stale", "the waiter gets the token");
        flight(&cache, &grant, now);
        second.land(Landing::Token(token("new", now, HOUR)), now);
        assert_eq!(hit(&cache, &grant, now), "new");
    }
}

#[test]
fn forget_drops_one_grant_only() {
    let (cache, now) = (cache(3), Moment::now());
    let token = fill(&cache, &grant("a"), "t", now, HOUR);
    fill(&cache, &grant("b"), "t", now, HOUR);
    cache.forget(&grant("a"));
    cache.forget(&grant("c"));
    assert_eq!((ids(&cache).as_str(), token.handles()), ("b", 1));
    assert_eq!(cache.lock().tokens.len(), 1);
}

#[test]
fn full_cache_evicts_the_token_that_expires_first() {
    let (cache, now) = (cache(3), Moment::now());
    for (id, minutes) in [("a", 2), ("b", 60), ("c", 30)] {
        fill(&cache, &grant(id), "t", now, MINUTE * minutes);
    }
    let evicted = |id, minutes| {
        fill(&cache, &grant(id), "t", now, MINUTE * minutes);
        ids(&cache)
    };
    assert_eq!(evicted("d", 1), "bcd", "the new token stays, however short its lifetime");
    assert_eq!(evicted("e", 120), "bce");
    // A renewed token evicts no other, because it replaces the old one.
    let due = now.plus(MINUTE * 30 - TICK);
    let lead = renewal(&cache, &grant("c"), due);
    lead.land(Landing::Token(token("new", due, HOUR)), due);
    assert_eq!(ids(&cache), "bce");
}

#[test]
fn failed_fetches_evict_no_token() {
    let (cache, now) = (cache(2), Moment::now());
    for id in ["a", "b"] {
        fill(&cache, &grant(id), "t", now, HOUR);
    }
    let leads: Vec<_> = (0..50).map(|i| fetch(&cache, &grant(&i.to_string()), now)).collect();
    for lead in leads {
        lead.land(Landing::Failed(rejected().into()), now);
    }
    assert_eq!(hit(&cache, &grant("a"), now) + &hit(&cache, &grant("b"), now), "tt");
    let state = cache.lock();
    assert_eq!(state.failures.len(), 2, "the capacity limits failures too");
    assert_eq!(state.entries.len(), 4);
}

#[test]
fn flights_are_never_evicted_and_leave_a_bounded_cache() {
    let (cache, now) = (cache(2), Moment::now());
    let grants = ["a", "b", "c", "d"].map(grant);
    let leads = grants.each_ref().map(|grant| fetch(&cache, grant, now));
    for grant in &grants {
        flight(&cache, grant, now);
    }
    for lead in leads {
        lead.land(Landing::Token(token("t", now, HOUR)), now);
    }
    assert_eq!(cache.lock().entries.len(), 2);
    for i in 0..1000 {
        fill(&cache, &grant(&i.to_string()), "t", now, HOUR);
        assert!(cache.lock().entries.len() <= 2);
    }
}

#[test]
fn token_evicted_while_it_is_renewed_comes_back() {
    let (cache, start) = (cache(1), Moment::now());
    fill(&cache, &grant("a"), "old", start, HOUR);
    let due = start.plus(HOUR - TICK);
    let lead = renewal(&cache, &grant("a"), due);
    fill(&cache, &grant("b"), "t", due, HOUR);
    lead.land(Landing::Token(token("new", due, HOUR)), due);
    assert_eq!(hit(&cache, &grant("a"), due), "new");
    assert_eq!(ids(&cache), "a");
}

#[test]
fn expired_tokens_are_dropped_at_the_next_landing_of_any_flight() {
    let (cache, start) = (cache(1000), Moment::now());
    let tokens: Vec<_> =
        (0..200).map(|i| fill(&cache, &grant(&i.to_string()), "t", start, HOUR)).collect();
    fail(&cache, &grant("b"), rejected(), start.later(TICK, HOUR));
    assert_eq!(cache.lock().tokens.len(), 200, "the wall clock alone does not end a token here");
    fail(&cache, &grant("b"), rejected(), start.later(HOUR, TICK));
    assert_eq!(ids(&cache), "b");
    assert!(tokens.iter().all(|token| token.handles() == 1));
}

#[test]
fn failures_are_forgotten_a_minute_after_their_pause() {
    let (cache, now) = (cache(9), Moment::now());
    fail(&cache, &grant("a"), unavailable(Some(MINUTE)), now);
    let pause = pause(&cache, &grant("a"), now);
    let at = |since| {
        fill(&cache, &grant("c"), "t", now.plus(since), TICK);
        ids(&cache)
    };
    assert_eq!(at(pause + MINUTE - TICK), "ac");
    assert_eq!(at(pause + MINUTE), "c");
}

#[test]
fn thread_does_not_wait_for_its_own_flight() {
    let (cache, grant, now) = (cache(1), grant("a"), Moment::now());
    let lead = fetch(&cache, &grant, now);
    lead.flight.set_leader();
    let flight = flight(&cache, &grant, now);
    let wait = || flight.wait(now.monotonic, || now);
    assert!(matches!(wait(), Waited::OwnFlight));
    thread::scope(|scope| {
        assert!(matches!(scope.spawn(wait).join().unwrap(), Waited::TimedOut));
    });
}

#[test]
fn renewals_are_limited_and_the_others_are_due_a_little_later() {
    let (cache, now) = (cache(100), Moment::now());
    let grants: Vec<_> = (0..34).map(|i| grant(&i.to_string())).collect();
    for grant in &grants {
        fill(&cache, grant, "t", now, HOUR);
    }
    let due = now.plus(HOUR - MINUTE);
    let mut leads: Vec<_> = grants[..32].iter().map(|grant| renewal(&cache, grant, due)).collect();
    hit(&cache, &grants[32], due);
    cache.clear();
    for grant in &grants[32..] {
        fill(&cache, grant, "t", now, HOUR);
    }
    hit(&cache, &grants[32], due);
    leads.pop().unwrap().land(Landing::Gone, due);
    hit(&cache, &grants[32], due);
    renewal(&cache, &grants[32], due.plus(SECOND));
    // An abandoned renewal, for example after a fork, no longer counts.
    let late = due.plus(TIMEOUT + SECOND);
    renewal(&cache, &grants[33], late);
}
