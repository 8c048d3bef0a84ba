//! Whom the quickstart talks to: the environment that variables name, or a stand-in.

use std::env;
use std::error::Error;
use std::io;

use weseedo_auth::{Authenticator, Builder, Environment, Grant, Secret};

use crate::standin::Standin;

pub struct Target {
    pub builder: Builder,
    pub grants: Vec<Grant>,
    pub docs: String,
    pub standin: Option<Standin>,
}

impl Target {
    pub fn from_variables() -> Result<Self, Box<dyn Error>> {
        let var = |name| env::var(name).ok();
        let mut standin = None;
        let mut grants = Vec::new();
        let environment = if let Some(id) = var("WESEEDO_CLIENT_ID") {
            let secret = secret_from("WESEEDO_CLIENT_SECRET")?
                .ok_or("set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET")?;
            grants.push(Grant::client_credentials(&*id, secret.clone()));
            if let (Some(user), Some(word)) =
                (var("WESEEDO_USERNAME"), secret_from("WESEEDO_PASSWORD")?)
            {
                grants.push(Grant::password(id, secret, user, word));
            }
            var("WESEEDO_BASE_URL").map_or(Environment::Sandbox, Environment::Custom)
        } else {
            println!("WESEEDO_CLIENT_ID is not set: talking to a stand-in");
            grants.push(Grant::client_credentials("demo", "demo secret"));
            grants.push(Grant::password("demo", "demo secret", "jan", "demo password"));
            Environment::Custom(standin.insert(Standin::start()).base_url())
        };
        let docs = format!("{}/api/v2/docs", environment.base_url());
        let mut builder = Authenticator::builder(environment);
        if let Some(path) = var("WESEEDO_TOKEN_PATH") {
            builder = builder.token_path(path);
        }
        Ok(Self { builder, grants, docs, standin })
    }
}

/// From the file that `{name}_FILE` names, else from the variable itself.
fn secret_from(name: &str) -> io::Result<Option<Secret>> {
    match env::var_os(format!("{name}_FILE")) {
        Some(path) => Secret::from_file(path).map(Some),
        None => Ok(env::var(name).ok().map(Secret::from)),
    }
}
