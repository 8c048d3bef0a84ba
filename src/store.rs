mod file;
pub(crate) mod fleet;
pub(crate) mod policy;
mod seal;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use crate::event::StoreError;
pub use crate::store::file::FileStore;

/// What a [`TokenStore`] has under a key.
#[derive(Clone)]
pub struct Stored {
    /// The very bytes that were saved.
    pub sealed: Vec<u8>,
    /// How long they will be kept, by the store's own clock; `None` if it has none.
    pub left: Option<Duration>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealed = format_args!("{} bytes", self.sealed.len());
        f.debug_struct("Stored").field("sealed", &sealed).field("left", &self.left).finish()
    }
}

/// Where processes keep a token that they share: [`Builder::store`](super::Builder::store).
///
/// [`FileStore`] is one for the processes of a machine. The example `redis_store` has one for a
/// fleet, to be copied.
///
/// A store sees no secret and no token. Its keys are 64 lower-case hexadecimal digits, derived from
/// the whole grant, secrets included, and the token endpoint; its values are encrypted with another
/// key from the same source. What it loses, mixes up or makes up is a token that was not found, at
/// worst; what it brings back too late is over. See [the crate's
/// documentation](super#one-token-for-many-processes) for who can do what with it.
///
/// # What an implementation must do
///
/// - Bound each call in time, a look-up of a host name, a new connection and the giving back of a
///   lease included: the calling thread waits for it. Stay well below a quarter of
///   [`Builder::timeout`](super::Builder::timeout) (2.5 s by default), after which a store counts
///   as failed.
/// - Bear calls from many threads at once, and not panic: the panic would be that of the call which
///   needed a token. Who waits for another process's token makes two calls every 50 to 100 ms.
/// - Give back the very bytes that were saved, or nothing. Values have some hundred bytes, 17 KiB
///   at most.
/// - Save as a whole: who loads at the same time gets the old value or the new one.
/// - Make what was saved visible to all processes before the lease is given back.
/// - Remove only if the value is still the one that is given, in one step.
/// - Give a lease to one holder at a time, in this process or another, and free it when its time is
///   up, or else when its holder has died. Give it back only if it is still held, and without a
///   panic. A lease is no value: keep it under a name that is no key.
/// - Answer with an error if it can't do its work. It is told in the log, at `warn`, and to
///   [`Builder::on_event`](super::Builder::on_event), and the token endpoint is asked instead: keep
///   passwords out of its text.
///
/// `tests/it/contract.rs` in this crate's sources checks these points: copy it and call `check`
/// with your store.
///
/// # Example
///
/// In memory, for the `Authenticator`s of one process. A lease owns what it needs to be given back;
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
/// /// Values and leases, and when they end.
/// type Map = HashMap<String, (Vec<u8>, Instant)>;
///
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Map>>);
///
/// impl Memory {
///     /// What has not ended.
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
///             let left = end.saturating_duration_since(Instant::now());
///             Stored { sealed: sealed.clone(), left: Some(left) }
///         }))
///     }
///
///     fn save(&self, key: &str, sealed: &[u8], left: Duration) -> Result<(), StoreError> {
///         let end = Instant::now().checked_add(left).ok_or("longer than the clock can tell")?;
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
///         let end = Instant::now().checked_add(at_most).ok_or("longer than the clock can tell")?;
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
    /// Returns what is stored under `key`, or `None`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from telling.
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// Stores `sealed` under `key`, in the place of what is there. It is of no use any more when
    /// `left` has passed, and may be dropped then.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from doing so.
    fn save(&self, key: &str, sealed: &[u8], left: Duration) -> Result<(), StoreError>;

    /// Removes what is stored under `key`, if it is `sealed` and nothing newer.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from doing so. That something else is there is no error.
    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError>;

    /// Returns the right to fetch a token for all processes, or `None` if another process has it.
    /// Never waits for it.
    ///
    /// The lease ends when it is dropped, and after `at_most` in any case. Without leases, which is
    /// the default, processes that need a token at the same time all ask for one.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from telling.
    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        let _ = (key, at_most);
        Ok(Some(Lease::none()))
    }
}

/// The right to fetch a token for all processes, given back when it is dropped.
pub struct Lease(Mutex<Option<GiveBack>>);

type GiveBack = Box<dyn FnOnce() + Send>;

impl Lease {
    /// Creates a lease that is given back by calling `give_back`, once.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(give_back))))
    }

    /// Creates a lease that there is nothing to do for, of a store without leases.
    #[must_use]
    pub fn none() -> Self {
        Self(Mutex::new(None))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            give_back();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(..)")
    }
}
