//! The examples, run as a user would.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

#[cfg(feature = "json")]
use crate::support::token_mock;

/// Runs an example with these variables and no other `WESEEDO_*`.
fn run(example: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program(example));
    set_variables(&mut command, variables).output().unwrap()
}

/// Gives a command these variables and no other `WESEEDO_*`.
pub fn set_variables<'a>(command: &'a mut Command, variables: &[(&str, &str)]) -> &'a mut Command {
    let inherited = env::vars().filter(|(name, _)| !name.starts_with("WESEEDO_"));
    command.env_clear().envs(inherited).envs(variables.iter().copied())
}

/// Returns the path of an example's program.
fn program(example: &str) -> PathBuf {
    let program = target_directory().join("examples").join(example);
    program.with_extension(env::consts::EXE_EXTENSION)
}

/// Returns the directory of the profile's binaries. Builds the examples, because
/// `cargo test --test it` does not.
fn target_directory() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let this = env::current_exe().unwrap();
        let directory = this.ancestors().nth(2).unwrap();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--examples", "--offline", "--quiet", "--no-default-features"]);
        build.arg("--target-dir").arg(directory.parent().unwrap());
        build.args(["--features", &features()]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // Variables that cargo sets for a test would make build scripts run again.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        directory.to_owned()
    });
    &DIRECTORY
}

/// Returns the features that this test is built with.
fn features() -> String {
    let features = [
        ("default", cfg!(feature = "default")),
        ("rustls", cfg!(feature = "rustls")),
        ("native-tls", cfg!(feature = "native-tls")),
        ("platform-verifier", cfg!(feature = "platform-verifier")),
        ("socks-proxy", cfg!(feature = "socks-proxy")),
        ("wipe", cfg!(feature = "wipe")),
        ("json", cfg!(feature = "json")),
        ("store", cfg!(feature = "store")),
        ("cli", cfg!(feature = "cli")),
    ];
    let on = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
    on.collect::<Vec<_>>().join(",")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn examples_end_well() {
    let mut examples = vec![
        (
            "api_call",
            "created: {\"id\":\"8\"}
unknown meeting: the call failed: http status: 404
wrong secret: no token, check the settings: token request rejected with status 401: invalid_client
token requests: 2
",
        ),
        ("threads", "3200 calls from 32 threads\ntoken requests: 1\n"),
        ("testing", "meetings, without any server: []\n"),
    ];
    if cfg!(feature = "json") {
        examples.push(("quickstart", "meeting 7 starts at 2030-05-01T09:00:00Z\n"));
    }
    if cfg!(feature = "rustls") {
        examples.push((
            "custom_tls",
            "meetings: [{\"id\":\"7\",\"start\":\"2030-05-01T09:00:00Z\"}]\n",
        ));
    }
    #[cfg(all(feature = "store", unix))]
    if crate::redis::redis().is_some() {
        examples.push(("redis_store", "token requests of 8 processes: 1\n"));
    }
    for (example, end) in examples {
        let output = run(example, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stderr), "", "{output:?}");
        let printed = text(&output.stdout);
        assert!(printed.ends_with(end), "{output:?}");
        for secret in ["demo secret", "d33f"] {
            assert!(!printed.contains(secret), "{output:?}");
        }
    }
}

#[test]
#[cfg(feature = "json")]
fn quickstart_talks_to_the_environment_of_the_variables() {
    let mut server = mockito::Server::new();
    let token = token_mock(&mut server, "t0k3n").expect(1).create();
    let meetings = server
        .mock("GET", "/api/v2/personal/meetings")
        .match_header("authorization", "Bearer t0k3n")
        .with_body(r#"[{"id":"a","start":"today"},{"id":"b","start":"tomorrow"}]"#)
        .create();
    let nobody = "http://127.0.0.1:1";
    let output = run(
        "quickstart",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET", "s3cr3t"),
            ("WESEEDO_ENVIRONMENT", &server.url()),
            // Plain http uses no proxy.
            ("ALL_PROXY", nobody),
            ("HTTP_PROXY", nobody),
            ("HTTPS_PROXY", nobody),
        ],
    );
    assert_eq!(text(&output.stderr), "");
    let expected = "meeting a starts at today\nmeeting b starts at tomorrow\n";
    assert_eq!(text(&output.stdout), expected);
    token.assert();
    meetings.assert();
}

#[test]
#[cfg(feature = "json")]
fn quickstart_says_what_is_missing() {
    let id = ("WESEEDO_CLIENT_ID", "id");
    let sandbox = ("WESEEDO_ENVIRONMENT", "sandbox");
    for (variables, expected) in [
        (
            &[id, ("WESEEDO_ENVIRONMENT", "")][..],
            "set WESEEDO_ENVIRONMENT to sandbox, production or a URL",
        ),
        (
            &[id, ("WESEEDO_ENVIRONMENT", "acceptance")],
            "base URL: must be sandbox, production or a URL",
        ),
        (&[id, sandbox], "no grant: set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET"),
    ] {
        let output = run("quickstart", variables);
        assert_eq!(text(&output.stdout), "");
        assert_eq!(text(&output.stderr), format!("quickstart: {expected}\n"));
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
#[cfg(feature = "store")]
fn redis_store_without_a_server_says_what_to_do() {
    let output = run("redis_store", &[("PATH", "")]);
    assert_eq!(text(&output.stdout), "");
    let advice = "redis_store: install redis-server, or set WESEEDO_REDIS_URL\n";
    assert_eq!(text(&output.stderr), advice);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn rotation_loses_no_call() {
    let output = run("rotation", &[]);
    assert!(output.status.success(), "{output:?}");
    let end = "token revoked:
  call 1: 200 OK
  call 2: 200 OK
  call 3: 200 OK
API calls: 9 ok, 0 failed
token requests: 3
reads of the file: 2
";
    assert!(text(&output.stdout).ends_with(end), "{output:?}");
}

#[test]
fn service_loses_no_call_and_reports_its_health() {
    let output = run("service", &[]);
    assert!(output.status.success(), "{output:?}");
    let text = text(&output.stdout);
    assert!(text.ends_with(", lost: 0\n"), "{output:?}");
    for line in [
        "/healthz at first:      200 ok\n",
        "/healthz in the outage: 200 degraded: renewals fail, the token is valid for ",
        "/healthz after it:      200 ok\n",
        "# TYPE weseedo_tokens_obtained_total counter\nweseedo_tokens_obtained_total ",
        "weseedo_token_failures_total{kind=\"transport\"} 0\n",
        "weseedo_tokens_refused_total 1\n",
        "# TYPE weseedo_token_remaining_seconds gauge\nweseedo_token_remaining_seconds ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("{kind=\"unavailable\"} 0\n"), "{text}");
}
