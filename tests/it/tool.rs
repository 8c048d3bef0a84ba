//! The command-line tool, run as a user would.

use std::process::{Command, Output, Stdio};

use mockito::Server;

use crate::examples::set_variables;
use crate::support::{Directory, TOKEN_PATH, token_mock, token_mock_at};

const TOOL: &str = env!("CARGO_BIN_EXE_weseedo-token");
const ID: (&str, &str) = ("WESEEDO_CLIENT_ID", "id");
const SECRET: (&str, &str) = ("WESEEDO_CLIENT_SECRET", "s3cr3t");

/// Runs the tool with these variables and no other `WESEEDO_*`.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    set_variables(Command::new(TOOL).args(arguments), variables).output().unwrap()
}

/// Runs the tool against a server.
fn run_at(server: &Server, arguments: &[&str]) -> Output {
    run(arguments, &[ID, SECRET, ("WESEEDO_ENVIRONMENT", &server.url())])
}

/// Standard output, standard error and the exit status.
fn shown(output: &Output) -> (&str, &str, i32) {
    let text = |bytes| str::from_utf8(bytes).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

#[test]
fn token_is_printed_in_three_formats() {
    let mut server = Server::new();
    token_mock(&mut server, "d33/f\\\"00d").create();
    assert_eq!(shown(&run_at(&server, &[])), ("d33/f\"00d\n", "", 0));
    let header = run_at(&server, &["--format", "header"]);
    assert_eq!(shown(&header), ("Authorization: Bearer d33/f\"00d\n", "", 0));
    let json = run_at(&server, &["--format=json"]);
    let start = concat!(
        r#"{"access_token":"d33/f\"00d","token_type":"Bearer","#,
        r#""expires":"2021-12-31T01:00:00.000Z","expires_in":359"#
    );
    let (text, _, status) = shown(&json);
    assert!(text.starts_with(start) && text.ends_with("}\n") && status == 0, "{text}");
}

#[test]
fn settings_come_from_arguments_before_variables() {
    let mut server = Server::new();
    let mock = token_mock_at(&mut server, "/a", "t").expect(2).create();
    let url = server.url();
    let elsewhere = ("WESEEDO_ENVIRONMENT", "http://127.0.0.1:1");
    let output = run(
        &["--environment", &url, "--token-path", "/a"],
        &[ID, SECRET, elsewhere, ("WESEEDO_TOKEN_PATH", "/b")],
    );
    assert_eq!(shown(&output), ("t\n", "", 0));
    let here = ("WESEEDO_ENVIRONMENT", &*url);
    let output =
        run(&[], &[ID, SECRET, here, ("WESEEDO_TOKEN_PATH", "/a"), ("WESEEDO_TOKEN_DIR", "")]);
    assert_eq!(shown(&output), ("t\n", "", 0));
    mock.assert();
}

#[test]
fn stored_token_is_used_unless_a_new_one_is_asked_for() {
    let mut server = Server::new();
    let mock = token_mock(&mut server, "t").expect(2).create();
    let directory = Directory::new();
    let store = directory.0.to_str().unwrap();
    for arguments in
        [&["--store", store][..], &["--store", store, "--refresh"], &["--store", store]]
    {
        assert_eq!(shown(&run_at(&server, arguments)), ("t\n", "", 0));
    }
    mock.assert();
}

#[test]
fn mistakes_are_named_and_end_with_2() {
    let sandbox = ("WESEEDO_ENVIRONMENT", "sandbox");
    for (arguments, variables, text) in [
        (&[][..], &[ID, SECRET][..], "set --environment or WESEEDO_ENVIRONMENT (see --help)"),
        (&[], &[sandbox], "no grant: set WESEEDO_CLIENT_ID"),
        (&[], &[sandbox, ID], "no grant: set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET"),
        (&["--verbos"], &[sandbox], "invalid option '--verbos' (see --help)"),
        (&["chek"], &[], "\"chek\" is not check, demo or help (see --help)"),
        (
            &["--environment", "test"],
            &[],
            "--environment or WESEEDO_ENVIRONMENT: must be sandbox, production or a URL (see --help)",
        ),
        (&["check", "demo"], &[sandbox], "unexpected argument \"demo\" (see --help)"),
        (
            &["--format", "xml"],
            &[sandbox],
            "--format: \"xml\" is not token, header or json (see --help)",
        ),
        (&["--store"], &[sandbox], "missing argument for option '--store' (see --help)"),
        (&["--token-path", "x"], &[sandbox, ID, SECRET], "token path: must start with /"),
    ] {
        let output = run(arguments, variables);
        assert_eq!(shown(&output), ("", &*format!("weseedo-token: {text}\n"), 2), "{arguments:?}");
    }
}

#[test]
fn errors_have_a_status_each() {
    for (answer, status) in [(401, 3), (400, 3), (404, 2), (503, 4), (429, 4), (501, 3), (308, 1)] {
        let mut server = Server::new();
        let mock = server.mock("POST", TOKEN_PATH).with_status(answer);
        mock.with_header("location", "https://elsewhere.example/").create();
        let output = run_at(&server, &[]);
        let (text, error, code) = shown(&output);
        assert_eq!((text, code), ("", status), "{answer}: {error}");
        assert!(!error.contains("Builder::"), "{error}");
    }
}

#[test]
fn check_says_what_it_found_and_what_to_do_next() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let output = run_at(&server, &["check"]);
    let (text, _, status) = shown(&output);
    assert_eq!(status, 0);
    for line in [
        &*format!("asked:    POST {}{TOKEN_PATH}\n", server.url()),
        "answer:   status 200 after ",
        " s behind\n",
        ", until 2021-12-31T01:00:00.000Z by the server's clock\n",
        "next:     all is well: run weseedo-token to print a token\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("t0k3n") && !text.contains("s3cr3t"), "{text}");

    server.mock("POST", "/elsewhere").with_status(404).create();
    let output = run_at(&server, &["check", "--token-path", "/elsewhere"]);
    let (text, _, status) = shown(&output);
    let docs = format!("look for tokenUrl in the OpenAPI document at {}/api/v2/docs", server.url());
    assert!(status == 2 && text.contains(&docs), "{text}");
    assert!(text.contains("error:    token request rejected with status 404: "), "{text}");
}

#[test]
fn demo_shows_that_no_call_is_lost() {
    let output = run(&["demo"], &[]);
    let (text, error, status) = shown(&output);
    assert_eq!((error, status), ("", 0), "{text}");
    assert_eq!(text.matches(" 0 failed").count(), 3, "{text}");
    assert!(text.contains("8 threads:     8000 calls.\n"), "{text}");
    assert!(text.contains("Token requests so far: 1.\n"), "{text}");
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [&["check", "--help"][..], &["help"], &["-h"]] {
        let output = run(arguments, &[]);
        let (text, error, status) = shown(&output);
        assert!(
            text.starts_with("Prints an access token")
                && text.lines().all(|line| line.len() <= 100)
        );
        assert_eq!((error, status), ("", 0));
    }
    let version = concat!("weseedo-token ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(shown(&run(&["-V"], &[])), (version, "", 0));
}

#[test]
fn log_goes_to_standard_error_and_shows_no_secret() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let output = run_at(&server, &["-v"]);
    let (text, log, _) = shown(&output);
    assert_eq!(text, "t0k3n\n");
    assert!(log.starts_with("DEBUG: client \"id\": requesting a token from http://"), "{log}");
    assert!(!log.contains("t0k3n") && !log.contains("s3cr3t"), "{log}");
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_can_not_be_written_is_an_error_and_no_panic() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = Command::new(TOOL).arg("--help").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("weseedo-token: standard output: "), "{error}");
    let status = Command::new(TOOL).arg("--bogus").stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
