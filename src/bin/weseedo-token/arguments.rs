use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Parser;
use lexopt::prelude::{Long, Short, Value, ValueExt};
use weseedo_auth::Environment;

use crate::failure::Failure;

pub(crate) enum Command {
    Token(Settings),
    Check(Settings),
    Demo,
    Help,
    Version,
}

pub(crate) struct Settings {
    pub(crate) environment: Environment,
    pub(crate) token_path: Option<String>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) refresh: bool,
    pub(crate) format: Format,
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Format {
    Token,
    Header,
    Json,
}

/// Reads the arguments, and environment variables for those that are missing.
pub(crate) fn parse() -> Result<Command, Failure> {
    read(Parser::from_env()).map_err(|error| Failure::usage(&error))
}

fn read(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let (mut environment, mut token_path, mut store) = (None, None, None);
    let (mut refresh, mut verbose, mut format) = (false, false, Format::Token);
    let mut command = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('v') | Long("verbose") => verbose = true,
            Long("refresh") => refresh = true,
            Long("environment") => environment = Some(parser.value()?),
            Long("token-path") => token_path = Some(parser.value()?),
            Long("store") => store = Some(parser.value()?),
            Long("format") => {
                format = match parser.value()?.string()?.as_str() {
                    "token" => Format::Token,
                    "header" => Format::Header,
                    "json" => Format::Json,
                    other => {
                        return Err(
                            format!("--format: {other:?} is not token, header or json").into()
                        );
                    }
                }
            }
            Value(name) if command.is_none() => command = Some(name.string()?),
            argument => return Err(argument.unexpected()),
        }
    }
    match command.as_deref() {
        None | Some("check") => {}
        Some("demo") => return Ok(Command::Demo),
        Some("help") => return Ok(Command::Help),
        Some(other) => return Err(format!("{other:?} is not check, demo or help").into()),
    }
    let environment = environment.or_else(|| variable("WESEEDO_ENVIRONMENT"));
    let environment = environment.ok_or("set --environment or WESEEDO_ENVIRONMENT")?;
    let token_path = token_path.or_else(|| variable("WESEEDO_TOKEN_PATH"));
    let not_known =
        |_| "--environment or WESEEDO_ENVIRONMENT: must be sandbox, production or a URL";
    let settings = Settings {
        environment: environment.string()?.parse().map_err(not_known)?,
        token_path: token_path.map(ValueExt::string).transpose()?,
        store: store.or_else(|| variable("WESEEDO_TOKEN_DIR")).map(PathBuf::from),
        refresh,
        format,
        verbose,
    };
    Ok(if command.is_some() { Command::Check(settings) } else { Command::Token(settings) })
}

/// An empty variable counts as unset.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
