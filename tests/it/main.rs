//! Behaviour that users of the crate notice, with one file for each subject.

mod bearer;
mod config;
#[cfg(feature = "store")]
mod contract;
mod events;
mod examples;
mod failures;
mod hostile;
#[cfg(feature = "store")]
#[expect(dead_code, reason = "most of it is for the unit tests")]
mod memory_store;
#[cfg(all(feature = "store", unix))]
mod redis;
mod refused;
mod rotation;
#[cfg(feature = "store")]
mod store;
mod support;
mod threads;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls;
mod token;
#[cfg(feature = "cli")]
mod tool;
