//! Trusts a root certificate of one's own, and sets a proxy and timeouts: all that `Builder::http`
//! reaches.

#[path = "standin/tls.rs"]
mod tls;

use std::error::Error;
use std::time::Duration;

use weseedo_auth::ureq::Proxy;
use weseedo_auth::ureq::tls::{Certificate, RootCerts, TlsConfig};
use weseedo_auth::{Authenticator, Environment, Grant};

fn main() -> Result<(), Box<dyn Error>> {
    let (base_url, der) = tls::start()?;
    let meetings = format!("{base_url}/api/v2/personal/meetings");

    // From a file: `Certificate::from_pem(&std::fs::read("ca.pem")?)?`. To trust what the system
    // trusts, take `RootCerts::PlatformVerifier`, with the feature `platform-verifier`.
    let roots = RootCerts::from([Certificate::from_der(&der).to_owned()]);
    let authenticator = Authenticator::builder(Environment::Custom(base_url))
        .timeout(Duration::from_secs(5)) // for a token
        .http(move |http| {
            http.tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .proxy(Proxy::try_from_env()) // or `Proxy::new("http://proxy.example:3128").ok()`
                .timeout_connect(Some(Duration::from_secs(2)))
                .timeout_recv_response(Some(Duration::from_secs(10))) // for API calls too
        })
        .build()?;

    let grant = Grant::client_credentials("demo", "demo secret");
    println!("{:?}", authenticator.get_token(&grant)?);
    let mut answer = authenticator.agent(grant).get(meetings).call()?;
    println!("meetings: {}", answer.body_mut().read_to_string()?);
    Ok(())
}
