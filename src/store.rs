pub(crate) mod file;
pub(crate) mod guard;
mod ledger;
pub(crate) mod policy;
mod seal;
pub(crate) mod shared;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::event::StoreError;

/// A value that a [`TokenStore`] has under a key.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Exactly the bytes that were saved.
    pub sealed: Vec<u8>,
    /// How long the store will keep the value, by the store's own clock; `None` if it has none.
    pub remaining: Option<Duration>,
}

impl Stored {
    /// Creates a value of a store without a clock of its own.
    #[must_use]
    pub fn new(sealed: Vec<u8>) -> Self {
        Self { sealed, remaining: None }
    }

    /// Adds how long the store will keep the value, by the store's own clock.
    #[must_use]
    pub fn with_remaining(self, remaining: Duration) -> Self {
        Self { remaining: Some(remaining), ..self }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, remaining) = (self.sealed.len(), self.remaining);
        write!(f, "Stored {{ sealed: {length} bytes, remaining: {remaining:?} }}")
    }
}

/// A place where processes keep tokens that they share:
/// [`Builder::store`](super::Builder::store).
///
/// [`FileStore`](super::FileStore) serves the processes of one machine. The example `redis_store`
/// has a store for a fleet, to be copied.
///
/// A store sees no secret and no token. Its keys are 64 lower-case hexadecimal digits, derived from
/// the whole grant, secrets included, and the token endpoint. Its values are encrypted with another
/// key from the same source. At worst, a value that a store loses, mixes up or makes up is a
/// missing token. A value that it returns too late is an expired token. [The crate's
/// documentation](super#one-token-for-many-processes) says who can do what with a store.
///
/// # What an implementation must do
///
/// - Bound each call in time, including the look-up of a host name, a new connection and the
///   release of a lease. Each call runs in a thread of its own, and is waited for a quarter of the
///   fetch's time at most (2.5 s by default). A store that takes longer is left alone for 30 s, and
///   for as long as the call runs.
/// - Accept calls from many threads at once. A process that waits for the token of another process
///   makes two calls every 50 to 100 ms.
/// - Return exactly the bytes that were saved, or nothing. Values have some hundred bytes, 17 KiB
///   at most.
/// - Save in one step: a concurrent `load` gets the old value or the new one.
/// - Make a saved value visible to all processes before the lease is released.
/// - Remove a value only if it is still the given one, in one step.
/// - Give a lease to one holder at a time, in this process or another. Free it when its time has
///   ended, or else when its holder has died. Release it only if it is still held. Keep it under a
///   name that is not a key, because a lease is not a value.
/// - Return an error if the work can't be done. The error is logged at `warn` and reported to
///   [`Builder::on_event`](super::Builder::on_event), and the token endpoint is asked instead. Keep
///   passwords out of its text.
///
/// `tests/it/contract.rs` in this crate's sources checks these points: copy it and call `check`
/// with your store.
///
/// # Example
///
/// A store in memory, for the `Authenticator`s of one process. A lease owns what its release needs;
/// hence the `Arc`.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::sync::{Arc, Mutex, MutexGuard};
/// use std::time::{Duration, Instant};
///
/// use weseedo_auth::{Lease, StoreError, Stored, TokenStore};
///
/// /// Values and leases, with the moment when each ends.
/// type Map = HashMap<String, (Vec<u8>, Instant)>;
///
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Map>>);
///
/// impl Memory {
///     /// Returns the map without the values and leases that have ended.
///     fn map(&self) -> Result<MutexGuard<'_, Map>, StoreError> {
///         let mut map = self.0.lock().map_err(|_| "another thread panicked")?;
///         map.retain(|_, (_, end)| *end > Instant::now());
///         Ok(map)
///     }
/// }
///
/// impl TokenStore for Memory {
///     fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
///         Ok(self.map()?.get(key).map(|(sealed, end)| {
///             let remaining = end.saturating_duration_since(Instant::now());
///             Stored::new(sealed.clone()).with_remaining(remaining)
///         }))
///     }
///
///     fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError> {
///         let end = Instant::now().checked_add(remaining).ok_or("too far in the future")?;
///         self.map()?.insert(key.to_owned(), (sealed.to_vec(), end));
///         Ok(())
///     }
///
///     fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
///         let mut map = self.map()?;
///         if map.get(key).is_some_and(|(found, _)| found == sealed) {
///             map.remove(key);
///         }
///         Ok(())
///     }
///
///     fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
///         static HOLDERS: AtomicU64 = AtomicU64::new(0);
///         let (this, name) = (self.clone(), format!("{key}:lease"));
///         let holder = HOLDERS.fetch_add(1, Ordering::Relaxed).to_le_bytes();
///         let end = Instant::now().checked_add(at_most).ok_or("too far in the future")?;
///         let mut map = self.map()?;
///         if map.contains_key(&name) {
///             return Ok(None);
///         }
///         map.insert(name.clone(), (holder.to_vec(), end));
///         Ok(Some(Lease::new(move || _ = this.remove(&name, &holder))))
///     }
/// }
/// # let store = Memory::default();
/// # let lease = store.lease("key", Duration::from_secs(60))?;
/// # assert!(lease.is_some() && store.lease("key", Duration::from_secs(60))?.is_none());
/// # drop(lease);
/// # assert!(store.lease("key", Duration::from_secs(60))?.is_some());
/// # Ok::<(), StoreError>(())
/// ```
pub trait TokenStore: Send + Sync {
    /// Returns the value under `key`, or `None`.
    ///
    /// # Errors
    ///
    /// The store can't say.
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// Stores `sealed` under `key`, in place of any other value. The value is of no use after
    /// `remaining`, and may be dropped then.
    ///
    /// # Errors
    ///
    /// The store can't save the value.
    fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError>;

    /// Removes the value under `key`, if it is exactly `sealed`.
    ///
    /// # Errors
    ///
    /// The store can't remove the value. Another value, or none, under `key` is no error.
    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError>;

    /// Acquires the lease to fetch a token for all processes; returns `None` if another process
    /// holds it. Never waits for the lease.
    ///
    /// The lease ends when it is dropped, and after `at_most` in any case. The default has no
    /// leases: processes that need a token at the same time all ask the endpoint.
    ///
    /// # Errors
    ///
    /// The store can't say.
    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        let _ = (key, at_most);
        Ok(Some(Lease::none()))
    }
}

/// The right to fetch a token for all processes. It is released when it is dropped.
pub struct Lease(Mutex<Option<Release>>);

type Release = Box<dyn FnOnce() + Send>;

impl Lease {
    /// Creates a lease that is released by calling `release`, once.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(release))))
    }

    /// Creates a lease whose release does nothing, for a store without leases.
    #[must_use]
    pub fn none() -> Self {
        Self(Mutex::new(None))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            release();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(..)")
    }
}
