//! What a user of the crate would notice, one file for each subject.

mod bearer;
mod config;
mod events;
mod examples;
mod failures;
mod hostile;
mod rotation;
mod support;
mod threads;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls;
mod token;
