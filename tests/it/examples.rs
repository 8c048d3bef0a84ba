//! The examples, run as a user would.

use std::env;
use std::process::{Command, Output};

use mockito::Server;

use crate::support::{DATE, HOUR, token_body};

/// Runs an example that `cargo test` has built, with these variables and no other `WESEEDO_*`.
fn run(example: &str, variables: &[(&str, &str)]) -> Output {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.set_file_name("examples");
    path.push(format!("{example}{}", env::consts::EXE_SUFFIX));
    let inherited = env::vars().filter(|(name, _)| !name.starts_with("WESEEDO_"));
    Command::new(path).env_clear().envs(inherited).envs(variables.iter().copied()).output().unwrap()
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
    for (example, end) in examples {
        let output = run(example, &[]);
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).ends_with(end), "{output:?}");
    }
}

#[test]
fn print_token_prints_the_token_alone() {
    let mut server = Server::new();
    server
        .mock("POST", "/token")
        .with_header("date", DATE)
        .with_body(token_body("t0k3n", HOUR))
        .create();
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
fn print_token_tells_its_errors_on_stderr() {
    let output = run("print_token", &[("WESEEDO_CLIENT_ID", "id")]);
    assert_eq!(text(&output.stdout), "");
    assert_eq!(
        text(&output.stderr),
        "print_token: WESEEDO_CLIENT_SECRET: environment variable not found\n"
    );
    assert_eq!(output.status.code(), Some(1));
}
