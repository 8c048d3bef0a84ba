//! Blocking OAuth2 access tokens for the WeSeeDo video-calling API: fetched once, cached, renewed
//! ahead of time, wiped from memory.
//!
//! ```
//! use weseedo_auth::{Authenticator, Environment, Grant};
//!
//! # let mut server = mockito::Server::new();
//! # let body = r#"{"access_token":"d33...59b","expires":"9999-12-31T23:59:59.999Z","token_type":"Bearer"}"#;
//! # server.mock("POST", "/api/v2/oauth2/token").with_body(body).create();
//! # server.mock("GET", "/api/v2/personal/meetings").match_header("authorization", "Bearer d33...59b").with_body("[]").create();
//! let environment = Environment::Sandbox;
//! # let environment = Environment::Custom(server.url());
//! let url = format!("{}/api/v2/personal/meetings", environment.base_url());
//! let authenticator = Authenticator::new(environment)?;
//! let grant = Grant::client_credentials("client id", "client secret");
//!
//! // The agent adds the token to each API call. Make it once and keep it.
//! let agent = authenticator.agent(grant.clone());
//! # #[cfg(feature = "json")] {
//! let meetings: serde_json::Value = agent.get(&url).call()?.body_mut().read_json()?;
//! println!("{meetings}");
//! # }
//!
//! // For another HTTP client, get the token itself. This call finds it in the cache.
//! let token = authenticator.get_token(&grant)?;
//! assert!(token.authorization().starts_with("Bearer "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Check the token endpoint's path first: see [`Builder::token_path`].
//!
//! # Grants and secrets
//!
//! [`Grant::client_credentials`] is for a program that acts for itself, [`Grant::password`] for one
//! that acts for a user. [`Grant::from_env`] reads either from environment variables.
//! [`Secret::from_file`] reads systemd credentials, Docker and Kubernetes secrets.
//!
//! # Calling the API
//!
//! [`Authenticator::agent`] returns a ureq agent that adds the token to each call. [`Bearer`] is
//! middleware for an agent of your own. For another HTTP client, [`Token::authorization`] is the
//! value of the header.
//!
//! # Errors
//!
//! ```
//! use weseedo_auth::{Authenticator, Error, Grant};
//!
//! fn advice(authenticator: &Authenticator, grant: &Grant) -> String {
//!     match authenticator.get_token(grant) {
//!         Ok(_) => "go ahead".to_owned(),
//!         Err(Error::Rejected { code: Some(code), .. }) if code == "invalid_grant" => {
//!             "check the user name and password".to_owned()
//!         }
//!         Err(Error::Rejected { status: 400 | 401 | 403, .. }) => {
//!             "check the client id and secret".to_owned()
//!         }
//!         Err(error) if error.is_transient() => format!("try again later: {error}"),
//!         Err(error) => format!("ask an administrator: {error}"),
//!     }
//! }
//! ```
//!
//! If an API call fails for lack of a token, [`Error::from_ureq`] returns the reason.
//!
//! # Refused tokens and new secrets
//!
//! If the API answers 401, an `agent` fetches another token and repeats the call once;
//! [`Bearer::agent`] lists the exceptions. [`Bearer::with_token`] repeats any call. With another
//! HTTP client, call [`Authenticator::invalidate`].
//!
//! WeSeeDo resets a secret at once: the old and the new secret never work at the same time. A
//! [`GrantSource`] reads the new secret when the token endpoint rejects the old one, so the program
//! needs no restart. For a change without a gap, create a second client and let the source return
//! its grant.
//!
//! # Testing
//!
//! This test uses a mock server. The example `testing` also shows tests without a server, with
//! middleware in [`Builder::http`] that answers all requests.
//!
//! ```
//! use weseedo_auth::{Authenticator, Environment, Grant};
//!
//! let mut server = mockito::Server::new();
//! let body = r#"{"access_token":"t0k3n","expires":"9999-12-31T23:59:59Z","token_type":"Bearer"}"#;
//! let request = server.mock("POST", "/api/v2/oauth2/token").with_body(body).expect(1).create();
//!
//! let authenticator = Authenticator::new(Environment::Custom(server.url()))?;
//! let grant = Grant::client_credentials("id", "secret");
//! assert_eq!(authenticator.get_token(&grant)?.access_token(), "t0k3n");
//! assert_eq!(authenticator.get_token(&grant)?.access_token(), "t0k3n");
//! request.assert();
//! # Ok::<(), weseedo_auth::Error>(())
//! ```
//!
//! # Async programs
//!
//! A fetch blocks its thread. In tokio, call
//! `tokio::task::spawn_blocking(move || authenticator.get_token(&grant)).await`.
//!
//! # Operations
//!
//! Health checks call [`Bearer::status`] or [`Authenticator::status`]. Metrics come from
//! [`Builder::on_event`]; the example `service` shows both. [`Builder::http`] sets root
//! certificates and proxies. Log records have the target `weseedo_auth`.
//!
#![cfg_attr(feature = "store", doc = include_str!("store.md"))]
//!
//! # Timing
//!
//! [`Authenticator::get_token`] has the rules.
//!
//! ```text
//!   request sent          window starts            token expires
//!        |                      |                        |
//! -------+----------------------+------------------------+-----------------> time
//!  fetch |  valid               |  valid, being renewed  |  expired
//!        |                      |                        |
//!  calls |  calls get the       |  calls get the cached  |  calls wait for
//!  wait  |  cached token        |  token; one thread     |  one fetch, or get
//!        |                      |  fetches the next      |  the last error
//! ```
//!
//! subject | number
//! ---|---
//! lifetime | `expires` − `Date` (the local clock if missing) − 1 s, from the sending of the request
//! end | when the monotonic or the wall clock says so
//! window | [`renew_before`](Builder::renew_before) or a quarter of the lifetime, whichever is less; minus a random 0 to 25 %
//! renewals at the same time | 32; further ones are due again within 1 s
//! next try after a failed renewal | after a tenth of the window, or `Retry-After` if longer; at the token's end at the latest
//! pause before a retry | random, up to 100 ms, 200 ms and so on to 2 s; `Retry-After` if longer; 1 to 1.1 s if the token had expired on arrival
//! pause after failed fetches | none after the first; then 100 ms, 200 ms and so on to 2 s (transient) or 1 s, 2 s and so on to 30 s (permanent); minus a random 0 to 25 %
//! `Retry-After` | obeyed from the first failure on, for 1 h at most, plus a random 0 to 10 %
//! failure remembered | for 60 s after its pause
//! token that replaced a refused one | stays at least 10 s, even if it is refused too
//! next try while a refused token stays in use | after 1.5 to 2 s, or `Retry-After` if longer
//!
//! time limit | covers
//! ---|---
//! [`timeout`](Builder::timeout) (10 s) | a `get_token`, or a renewal in the background: all look-ups, proxies, TLS, waiting, attempts and pauses
//! half of `timeout`, then half of the remaining time | each attempt but the last
//! the least of 3 s, `timeout` and half of the token's remaining time | a [renewal by the caller](Builder::renew_in_background), in one attempt
//! `timeout` + 1 s | in a forked child, the wait for a fetch whose thread is in the parent
//! 10 s, then 60 s | an API call's connection, then the head of its answer
//! none | the look-up of an API call's host; the body of an API answer; hooks, loggers and sources
//!
//! If a thread can't be started, a token request's look-up of a host name has no limit (without
//! `wipe`, the fetch fails).
//!
//! # Limits
//!
//! - A hook, a logger or a source must not take a lock that the caller of `get_token` holds. A
//!   source must not use its own agent.
//! - `fork`: create the [`Authenticator`] in the child. A `fork` while other threads use one can
//!   leave its lock taken in the child, whose calls then hang.
//! - Root certificates that [`Builder::http`] sets replace the built-in ones. Token requests keep
//!   them until a restart.
//! - `openssl req -x509` makes a CA, which rustls refuses as a server's certificate. Add
//!   `-addext basicConstraints=critical,CA:FALSE`.
//! - Broken IPv6 costs 3.3 s of a token request and 6.7 s of each new API connection. Set
//!   `ip_family` in [`Builder::http`].
//! - `NO_PROXY` takes `host`, `.domain`, `*.domain`, `prefix*` and `*`, separated by commas without
//!   spaces. Entries with a port or a network match nothing.
//! - The crate wipes its own copies of secrets and tokens and, with `wipe`, ureq's plaintext
//!   buffers. These are not wiped: the stack, TLS keys, the kernel's buffers, buffers of agents
//!   that you make, rustls's copies of an answer, and ureq's copy of a call's header.
//! - The old secret of a rotated grant stays in memory until its token has expired, and for a
//!   minute after its last failure. The next fetch then wipes it.
//! - `ureq_proto` logs tokens at `trace`: set the filter `ureq_proto=debug`.
//!
//! # Sizes
//!
//! A program that prints one token, measured on Linux (x86-64), has 3.7 MB with the profile
//! `release` and 1.7 MB with the profile below. `store` adds 0.1 MB. `native-tls` instead of
//! `rustls` makes it 0.9 MB, without OpenSSL.
//!
//! ```toml
//! [profile.release]
//! opt-level = "z"
//! lto = "fat"
//! codegen-units = 1
//! panic = "abort"
//! strip = true
//! ```
//!
//! # Features
//!
//! feature | default | effect
//! ---|---|---
//! `rustls` | on | TLS with rustls and the roots of webpki-roots
//! `json` | on | ureq's `read_json` and `send_json`
//! `wipe` | on | wipes ureq's buffers, keeps its TLS set-up, bounds slow proxies
//! `native-tls` | off | TLS with the system's library
//! `platform-verifier` | off | lets [`Builder::http`] choose the system's roots for rustls
//! `socks-proxy` | off | SOCKS proxies
//! `store` | off | one token for many processes
//! `cli` | off | the tool `weseedo-token`
//!
//! # Versions
//!
//! - Types of ureq and `time` are public, so a new major version of either is a breaking change
//!   here.
//! - `wipe` uses ureq's module `unversioned`, which any release of ureq may change. If it does not
//!   compile, switch `wipe` off.
//! - A minor version may change a default, or raise the `rust-version` in `Cargo.toml`.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]
#![cfg_attr(test, allow(clippy::unchecked_time_subtraction, reason = "a panic fails the test"))]

mod authenticator;
mod back_off;
mod background;
mod bearer;
mod builder;
mod cache;
mod clock;
mod endpoint;
mod environment;
mod error;
mod event;
mod from_env;
mod grant;
mod grant_source;
mod jitter;
mod read;
mod secret;
mod source;
mod status;
#[cfg(feature = "store")]
mod store;
mod token;

// The tests' stand-in is written for users of the crate.
#[cfg(all(test, not(loom)))]
extern crate self as weseedo_auth;
#[cfg(all(test, not(loom), feature = "store"))]
#[path = "../tests/it/memory_store.rs"]
mod memory_store;
#[cfg(all(test, not(loom)))]
#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod support;

pub use crate::authenticator::Authenticator;
pub use crate::bearer::Bearer;
pub use crate::builder::Builder;
pub use crate::environment::Environment;
pub use crate::error::{ConfigError, Error, GrantError, InvalidResponse, TransportError};
pub use crate::event::Event;
#[cfg(feature = "store")]
pub use crate::event::StoreError;
pub use crate::grant::{Credentials, Grant};
pub use crate::grant_source::GrantSource;
pub use crate::secret::Secret;
pub use crate::status::Status;
#[cfg(feature = "store")]
pub use crate::store::file::FileStore;
#[cfg(feature = "store")]
pub use crate::store::{Lease, Stored, TokenStore};
pub use crate::token::Token;
pub use time;
pub use ureq;

#[cfg(doctest)]
#[doc = include_str!("../tests/non_exhaustive.md")]
#[cfg_attr(feature = "json", doc = include_str!("../README.md"))]
struct Texts;
