//! A token store in memory that fails, hangs or lies on request.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weseedo_auth::{Lease, StoreError, Stored, TokenStore};

/// A handle: clones share one store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: Mutex<HashMap<String, Stored>>,
    leases: Mutex<HashSet<String>>,
    calls: Mutex<Vec<&'static str>>,
    longest_lease: Mutex<Duration>,
    before: Mutex<Option<Arc<Before>>>,
}

type Before = dyn Fn(&str) -> Result<(), StoreError> + Send + Sync;

impl MemoryStore {
    /// Runs `hook` before each later call of the store, with the name of that call. The call fails
    /// with the hook's error.
    pub fn before(&self, hook: impl Fn(&str) -> Result<(), StoreError> + Send + Sync + 'static) {
        *self.0.before.lock().unwrap() = Some(Arc::new(hook));
    }

    /// Removes the hook of [`before`](Self::before).
    pub fn works(&self) {
        *self.0.before.lock().unwrap() = None;
    }

    /// Returns the names of the store's calls, and clears the list.
    pub fn calls(&self) -> String {
        std::mem::take(&mut *self.0.calls.lock().unwrap()).join(" ")
    }

    /// Returns the only value, and its key.
    #[track_caller]
    pub fn value(&self) -> (String, Stored) {
        let values = self.0.values.lock().unwrap();
        assert_eq!(values.len(), 1);
        values.iter().next().map(|(key, value)| (key.clone(), value.clone())).unwrap()
    }

    pub fn is_empty(&self) -> bool {
        self.0.values.lock().unwrap().is_empty()
    }

    pub fn put(&self, key: &str, value: Stored) {
        self.0.values.lock().unwrap().insert(key.to_owned(), value);
    }

    pub fn clear(&self) {
        self.0.values.lock().unwrap().clear();
    }

    /// Returns the longest lease that was requested since the last call of this function.
    pub fn longest_lease(&self) -> Duration {
        std::mem::take(&mut *self.0.longest_lease.lock().unwrap())
    }

    fn called(&self, name: &'static str) -> Result<(), StoreError> {
        self.0.calls.lock().unwrap().push(name);
        let before = self.0.before.lock().unwrap().clone();
        before.map_or(Ok(()), |before| before(name))
    }
}

impl TokenStore for MemoryStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.called("load")?;
        Ok(self.0.values.lock().unwrap().get(key).cloned())
    }

    fn save(&self, key: &str, sealed: &[u8], _: Duration) -> Result<(), StoreError> {
        self.called("save")?;
        self.put(key, Stored::new(sealed.to_vec()));
        Ok(())
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.called("remove")?;
        let mut values = self.0.values.lock().unwrap();
        if values.get(key).is_some_and(|value| value.sealed == sealed) {
            values.remove(key);
        }
        Ok(())
    }

    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        self.called("lease")?;
        let mut longest = self.0.longest_lease.lock().unwrap();
        *longest = at_most.max(*longest);
        if !self.0.leases.lock().unwrap().insert(key.to_owned()) {
            return Ok(None);
        }
        let (this, key) = (self.clone(), key.to_owned());
        Ok(Some(Lease::new(move || {
            let _ = this.called("give");
            this.0.leases.lock().unwrap().remove(&key);
        })))
    }
}
