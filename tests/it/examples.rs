//! The examples, run as a user would.

use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::LazyLock;
use std::{env, fs};

use mockito::{Matcher, Server};

use crate::support::{token_mock, token_mock_at};

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

/// The path of an example's program.
pub fn program(example: &str) -> PathBuf {
    let program = target_directory().join("examples").join(example);
    program.with_extension(env::consts::EXE_EXTENSION)
}

/// Where the profile's binaries are, with the examples built: `cargo test --test it` builds none.
fn target_directory() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let this = env::current_exe().unwrap();
        let directory = this.ancestors().nth(2).unwrap();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--examples", "--offline", "--quiet", "--no-default-features"]);
        build.arg("--target-dir").arg(directory.parent().unwrap());
        build.args(["--features", &features()]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells a test of its package would make build scripts run again.
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

/// Those that this test is built with.
fn features() -> String {
    let features = [
        ("default", cfg!(feature = "default")),
        ("rustls", cfg!(feature = "rustls")),
        ("native-tls", cfg!(feature = "native-tls")),
        ("platform-verifier", cfg!(feature = "platform-verifier")),
        ("socks-proxy", cfg!(feature = "socks-proxy")),
        ("wipe", cfg!(feature = "wipe")),
        ("store", cfg!(feature = "store")),
    ];
    let on = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
    on.collect::<Vec<_>>().join(",")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn quickstart_makes_one_request_for_each_grant_and_shows_no_secret() {
    let output = run("quickstart", &[]);
    assert!(output.status.success(), "{output:?}");
    let text = text(&output.stdout);
    assert!(text.ends_with("token requests that the stand-in saw: 2\n"), "{text}");
    assert_eq!(text.matches("api/v2/docs: 200 OK").count(), 2, "{text}");
    assert!(
        !text.contains("demo secret") && !text.contains("jan") && !text.contains("d33f"),
        "{text}"
    );
}

#[test]
fn examples_end_well() {
    let mut examples = vec![
        ("api_call", "through agent: []\nthrough with_token: []\ntoken requests: 1\n"),
        ("threads", "3200 calls from 32 threads\ntoken requests: 1\n"),
    ];
    if cfg!(feature = "rustls") {
        examples.push(("custom_tls", "meetings: []\n"));
    }
    #[cfg(all(feature = "store", unix))]
    if crate::redis::redis().is_some() {
        examples.push(("redis_store", "token requests of 8 processes: 1\n"));
    }
    for (example, end) in examples {
        let output = run(example, &[]);
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).ends_with(end), "{output:?}");
    }
}

#[test]
#[cfg(feature = "store")]
fn redis_store_without_a_server_says_what_to_do() {
    let output = run("redis_store", &[("PATH", "")]);
    assert_eq!(text(&output.stdout), "");
    let advice = "Error: \"install redis-server, or set WESEEDO_REDIS_URL\"\n";
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
fn service_loses_no_call_and_tells_how_it_stands() {
    let output = run("service", &[]);
    assert!(output.status.success(), "{output:?}");
    let text = text(&output.stdout);
    assert!(text.ends_with(", lost: 0\n"), "{output:?}");
    for line in [
        "/healthz at first:      200 ok\n",
        "/healthz in the outage: 200 degraded: renewals fail, ",
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

#[test]
fn print_token_prints_the_token_alone() {
    let mut server = Server::new();
    token_mock_at(&mut server, "/token", "t0k3n").create();
    let output = run(
        "print_token",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET", "s3cr3t"),
            ("WESEEDO_BASE_URL", &server.url()),
            ("WESEEDO_TOKEN_PATH", "/token"),
        ],
    );
    assert_eq!(text(&output.stdout), "t0k3n\n");
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn print_token_takes_the_secret_from_a_file_before_the_variable() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n")
        .match_body(Matcher::Regex(r#""client_secret":"s3cr3t""#.to_owned()))
        .create();
    let file = env::temp_dir().join(format!("weseedo-auth-print-token-{}", process::id()));
    fs::write(&file, "s3cr3t\n").unwrap();
    let output = run(
        "print_token",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET_FILE", file.to_str().unwrap()),
            ("WESEEDO_CLIENT_SECRET", "another"),
            ("WESEEDO_BASE_URL", &server.url()),
        ],
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(text(&output.stdout), "t0k3n\n", "{output:?}");
}

#[test]
fn quickstart_takes_secret_and_password_from_files() {
    let mut server = Server::new();
    token_mock_at(&mut server, "/token", "t0k3n")
        .match_body(Matcher::Regex(
            r#""client_secret":"s3cr3t"(,.*"password":"p4ss"|})"#.to_owned(),
        ))
        .expect(2)
        .create();
    server.mock("GET", "/api/v2/docs").create();
    let files = ["s3cr3t", "p4ss"].map(|secret| {
        let name = format!("weseedo-auth-quickstart-{secret}-{}", process::id());
        let file = env::temp_dir().join(name);
        fs::write(&file, format!("{secret}\r\n")).unwrap();
        file
    });
    let output = run(
        "quickstart",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET_FILE", files[0].to_str().unwrap()),
            ("WESEEDO_USERNAME", "jan"),
            ("WESEEDO_PASSWORD_FILE", files[1].to_str().unwrap()),
            ("WESEEDO_BASE_URL", &server.url()),
            ("WESEEDO_TOKEN_PATH", "/token"),
        ],
    );
    for file in files {
        fs::remove_file(file).unwrap();
    }
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout).matches("api/v2/docs: 200 OK").count(), 2, "{output:?}");
}

#[test]
fn plain_http_takes_no_proxy_from_the_environment() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let nobody = "http://127.0.0.1:1";
    let output = run(
        "print_token",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET", "s3cr3t"),
            ("WESEEDO_BASE_URL", &server.url()),
            ("ALL_PROXY", nobody),
            ("HTTP_PROXY", nobody),
            ("HTTPS_PROXY", nobody),
        ],
    );
    assert_eq!(text(&output.stdout), "t0k3n\n", "{output:?}");
}

#[test]
#[cfg(not(feature = "store"))]
fn print_token_says_what_keeps_it_from_keeping_the_token() {
    let output = run(
        "print_token",
        &[
            ("WESEEDO_CLIENT_ID", "id"),
            ("WESEEDO_CLIENT_SECRET", "s3cr3t"),
            ("WESEEDO_BASE_URL", "http://127.0.0.1:1"),
            ("WESEEDO_TOKEN_DIR", "tokens"),
        ],
    );
    assert_eq!(
        text(&output.stderr),
        "print_token: to keep the token in tokens, build with --features store\n"
    );
}

#[test]
fn print_token_tells_its_errors_on_stderr() {
    let output = run("print_token", &[("WESEEDO_CLIENT_ID", "id")]);
    assert_eq!(text(&output.stdout), "");
    assert_eq!(
        text(&output.stderr),
        "print_token: set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET\n"
    );
    assert_eq!(output.status.code(), Some(1));
}
