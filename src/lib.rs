//! Blocking OAuth2 access tokens for the WeSeeDo video-calling API: fetched once, cached, renewed
//! ahead of time, wiped.
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
//! let meetings = format!("{}/api/v2/personal/meetings", environment.base_url());
//! let authenticator = Authenticator::new(environment)?;
//! let grant = Grant::client_credentials("client id", "client secret");
//!
//! // A request only if there is no token to reuse.
//! let token = authenticator.get_token(&grant)?;
//! assert!(token.authorization().starts_with("Bearer "));
//!
//! // Or let an agent bring it along. Make it once and keep it: it owns a pool of connections.
//! let agent = authenticator.agent(grant);
//! let list = agent.get(meetings).call()?.body_mut().read_to_string()?;
//! println!("{list}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In scope: the token request, for the two grant types that WeSeeDo offers, carrying the token to
//! the API, and sharing it between processes. Out of scope: the API itself, async, any other OAuth2
//! flow, and KPN's resold gateway, whose token request is another one. There is no async runtime,
//! no thread but those that [end with one renewal](#threads), and no `unsafe`.
//!
//! **Check the token endpoint's path**, which WeSeeDo's page does not print: see
//! [`Builder::token_path`].
//!
//! # Choosing a grant
//!
//! For whom a program acts decides what it asks with. [`Grant::client_credentials`] is for one that
//! acts for itself: a service, a device. [`Grant::password`] is for one that acts for a user who
//! gave it a password; it asks with that password each time, since the service gives no refresh
//! token. RFC 9700 section 2.4 says that the password grant must not be used, since it shows the
//! user's password to the program; WeSeeDo offers it all the same. Where client credentials will
//! do, take them. One [`Authenticator`] serves any number of both.
//!
//! # Secrets from files and variables
//!
//! To keep secrets out of the program and its command line. [`Secret::from_file`] reads one of
//! systemd's credentials, a Docker or a Kubernetes secret, without its line end, into memory that
//! is wiped:
//!
//! ```no_run
//! use std::env;
//!
//! use weseedo_auth::{Grant, Secret};
//!
//! // A Kubernetes or Docker secret: WESEEDO_CLIENT_SECRET_FILE=/run/secrets/weseedo
//! // A systemd unit with LoadCredential=weseedo:/etc/weseedo/secret: %d/weseedo
//! let secret = match env::var_os("WESEEDO_CLIENT_SECRET_FILE") {
//!     Some(path) => Secret::from_file(path)?,
//!     // The environment keeps a copy of its own, which nobody wipes. The error of `env::var` would
//!     // show what is not UTF-8.
//!     None => Secret::from(env::var("WESEEDO_CLIENT_SECRET").map_err(|_| "no secret is set")?),
//! };
//! let grant = Grant::client_credentials(env::var("WESEEDO_CLIENT_ID")?, secret);
//! # drop(grant);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When a secret is reset
//!
//! To go on without a restart. [`GrantSource::new`] takes a function that reads the secret; an
//! agent made with it asks again when the token endpoint rejects the grant, and the call goes on
//! with what it finds:
//!
//! ```
//! use weseedo_auth::{Authenticator, Environment, Grant, GrantSource, Secret};
//!
//! fn agent(authenticator: &Authenticator) -> weseedo_auth::ureq::Agent {
//!     authenticator.agent(GrantSource::new(|| {
//!         let secret = Secret::from_file("/run/secrets/weseedo")?;
//!         Ok(Grant::client_credentials("client id", secret))
//!     }))
//! }
//! # let _ = agent;
//! ```
//!
//! WeSeeDo resets a client's secret at once: two secrets of one client never work at the same time.
//! As long as tokens of the old secret are accepted, calls go on with them, and if the new secret
//! is in the file before they end, none is lost. For a change without a gap, make a second client,
//! put its id and secret into the file, and delete the first one later. The example `rotation`
//! shows it.
//!
//! # Health
//!
//! For a probe that asks every few seconds. [`Authenticator::status`] tells what is left of the
//! token and how the last request failed, without a request of its own and without waiting for one;
//! it has an example. Don't compare [`Token::expires`] with the local clock, which may be wrong.
//!
//! # Metrics
//!
//! To count requests, failures and refused tokens. [`Builder::on_event`] tells each when it
//! happens; it has an example, and the example `service` turns events into Prometheus' text format.
//!
#![cfg_attr(feature = "store", doc = include_str!("store.md"))]
//!
//! # Own certification authority, proxies
//!
//! For networks that look into TLS or let nothing out directly: [`Builder::http`] has both.
//!
//! # Sharing between threads
//!
//! An [`Authenticator`] is a handle: clone it into every thread, or share a reference. However many
//! threads ask for a token that is not there, one of them makes the request and all get its
//! outcome. A fetch for one grant keeps nobody waiting who asks for another. A lookup that finds
//! its token takes one uncontended lock and allocates nothing.
//!
//! # What happens at expiry, and in an outage
//!
//! [`Authenticator::get_token`] has the table. In short: while a token is in hand that is not over,
//! a call returns it at once. A token is renewed before it expires, in a thread that ends with the
//! renewal; if that fails, everybody goes on with the current one until it expires. Only then is an
//! outage told, and a dead or refusing endpoint is asked a few times at first and then every 2 s or
//! 30 s, however many threads ask.
//!
//! # When a program starts
//!
//! To find mistakes early, call [`Authenticator::get_token`] once. It fetches the first token
//! before the first user waits for it, and tells a wrong secret, a wrong path or an endpoint out of
//! reach while somebody is looking.
//!
//! # Threads
//!
//! The call that finds a renewal due starts a thread for it, named `weseedo-auth`, which ends with
//! it, after [`Builder::timeout`] at most. To bound the look-up of a host name in time, ureq uses
//! another short-lived thread. [`Builder::renew_in_background`] is for programs that may have no
//! threads; where the system gives none, the call that finds the renewal due makes it, and holds
//! its one caller up for 3 s at most.
//!
//! After a `fork`, a renewal or fetch that a thread of the parent was making is missing in the
//! child. It is taken over 1 s after its `timeout`; a token that is in hand is returned meanwhile.
//!
//! # Errors
//!
//! [`Error`] tells what happened, [`Error::is_transient`] whether to try again,
//! [`Error::retry_after`] when. Transient failures were retried already, within
//! [`Builder::timeout`].
//!
//! ```
//! use weseedo_auth::{Authenticator, Error, Grant};
//!
//! fn advice(authenticator: &Authenticator, grant: &Grant) -> String {
//!     match authenticator.get_token(grant) {
//!         Ok(_) => "go ahead".to_owned(),
//!         // RFC 6749 section 5.2 allows both statuses for a wrong secret.
//!         Err(Error::Rejected { code: Some(code), .. }) if code == "invalid_client" => {
//!             "check the client id and secret".to_owned()
//!         }
//!         Err(Error::Rejected { code: Some(code), .. }) if code == "invalid_grant" => {
//!             "check the user's password".to_owned()
//!         }
//!         Err(Error::Rejected { status: 400 | 401, .. }) => "check the grant".to_owned(),
//!         Err(error) if error.is_transient() => format!("try later: {error}"),
//!         Err(error) => format!("ask somebody: {error}"),
//!     }
//! }
//! ```
//!
//! # Secrets and their limits
//!
//! Every buffer of this crate that holds a secret, and ureq's plaintext buffers (with the feature
//! `wipe`), are wiped before they are freed. Outside of that promise are: copies of what the server
//! answered, which rustls frees unwiped, usually two and more where records arrive split; the
//! stack, the kernel and key material; an agent of your own, and the header of an API call, of
//! which ureq makes one copy that it frees unwiped; and what you copy out of a [`Secret`] or a
//! [`Token`]. No `Debug` text, no error and no log record of this crate holds a secret or a user
//! name. At the level `trace`, the target `ureq_proto` logs raw answers: set the filter
//! `ureq_proto=debug`.
//!
//! # Embedded use
//!
//! The example `print_token`, on Linux (x86-64):
//!
//! | profile | size |
//! |---|---|
//! | `release` | 3.7 MB |
//! | the one below | 1.73 MB |
//! | the one below, linked with `-C link-arg=-Wl,-z,pack-relative-relocs` (stock linker, glibc 2.36) | 1.66 MB |
//! | the one below, with the feature `store` | 1.77 MB |
//! | the one below, with `native-tls` instead of `rustls` (OpenSSL not counted) | 0.94 MB |
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
//! Measured once, and not in CI: an armv7 build with this profile has 1,182,848 bytes; the tests
//! pass on i686, and on armv7 and big-endian s390x under qemu all but the four that start an
//! example. One token over TLS took 2.9 MiB of memory at most with this profile.
//!
//! A wrong clock does no harm to tokens, but TLS needs one that is right enough for certificates.
//!
//! # Testing code that uses this crate
//!
//! [`Environment::Custom`] takes the URL of a mock server on loopback, over plain `http`. All it
//! has to answer is the token request:
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
//! # Cargo features
//!
//! To choose the TLS library and leave out what is not used.
//!
//! | feature | default | |
//! |---|---|---|
//! | `rustls` | on | TLS with rustls and the root certificates of webpki-roots |
//! | `native-tls` | off | TLS with the system's library (OpenSSL, SChannel, Secure Transport); the provider where `rustls` is off |
//! | `platform-verifier` | off | lets [`Builder::http`] choose the system's root certificates for rustls |
//! | `socks-proxy` | off | SOCKS proxies |
//! | `store` | off | one token for many processes: `Builder::store` and what it takes; adds the crate `ring`, which `rustls` brings along anyway |
//! | `wipe` | on | wipes ureq's buffers and keeps one TLS set-up for all token requests, through a part of ureq that does not follow semver |
//!
//! Without any TLS library, base URLs on loopback are all that can be asked.
//!
//! # Platforms and compilers
//!
//! To know where it runs: on what the standard library has sockets and clocks for. CI runs on Linux
//! (x86-64). The least compiler that it builds with is the `rust-version` of its `Cargo.toml`; that
//! may rise in a minor version.
//!
//! # Migrating from the `oauth2` crate and a mutex
//!
//! - The client, its HTTP client and the token in a `Mutex<Option<…>>` become one
//!   [`Authenticator`].
//! - "Locked, is it still valid, else exchange" becomes [`Authenticator::get_token`]; nobody waits
//!   for a lock during I/O.
//! - The comparison with `expires_in` and its safety margin go: [`Builder::renew_before`] is the
//!   margin.
//! - `ClientSecret` and `ResourceOwnerPassword` become [`Secret`]s, which a `String` turns into
//!   without a copy.
//! - A loop that retries goes: [`Builder::retries`] and [`Builder::timeout`].
//! - "On 401, drop the token and try again" becomes [`Authenticator::with_token`], or
//!   [`Authenticator::agent`].
//! - A wrong token type, a missing field and the like are told by [`InvalidResponse`].

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
#[doc = include_str!("../README.md")]
struct Readme;
