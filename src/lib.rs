//! Blocking OAuth2 access tokens for the WeSeeDo video-calling API.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]
#![cfg_attr(
    test,
    allow(clippy::unchecked_time_subtraction, reason = "a panic fails the test")
)]

mod authenticator;
mod bearer;
mod builder;
mod cache;
mod clock;
mod endpoint;
mod environment;
mod error;
mod grant;
mod hash;
mod jitter;
mod json;
mod redact;
#[cfg(feature = "wipe")]
mod resolve;
mod response;
mod secret;
mod token;
#[cfg(feature = "wipe")]
mod wipe;

pub use crate::authenticator::Authenticator;
pub use crate::bearer::Bearer;
pub use crate::builder::Builder;
pub use crate::environment::Environment;
pub use crate::error::{ConfigError, Error, InvalidResponse};
pub use crate::grant::Grant;
pub use crate::secret::Secret;
pub use crate::token::Token;
pub use ureq;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
