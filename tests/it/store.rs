//! One token for many processes.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::Write;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;
#[cfg(feature = "cli")]
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use weseedo_auth::{Authenticator, Event, FileStore, Grant, Lease, StoreError, Stored, TokenStore};

use crate::contract;
#[cfg(feature = "cli")]
use crate::examples::set_variables;
use crate::memory_store::MemoryStore;
#[cfg(feature = "cli")]
use crate::support::wait_until;
use crate::support::{Directory, HOUR, Server, grant, read_request, token_answer};

impl Directory {
    fn store(&self) -> FileStore {
        FileStore::new(&self.0)
    }

    /// Returns the files in the directory, except lock files.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_none_or(|ext| ext != "lock")).collect()
    }

    #[track_caller]
    fn file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }
}

/// Returns a server that answers the `n`th request, counted from 0, with the token `t{n}`.
fn server() -> Server {
    Server::answering(|n| token_answer(&format!("t{n}"), HOUR))
}

/// Returns an authenticator that keeps its tokens in a directory, and the list of its events as
/// texts.
fn recorded(server: &Server, directory: &Path) -> (Authenticator, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&events);
    let builder = server.builder().store(FileStore::new(directory)).on_event(move |event| {
        reported.lock().unwrap().push(match event {
            Event::Obtained { from_store: true, .. } => "found".to_owned(),
            Event::Obtained { .. } => "fetched".to_owned(),
            Event::StoreFailed { error, .. } => error.to_string(),
            other => panic!("{other:?}"),
        });
    });
    (builder.build().unwrap(), events)
}

#[track_caller]
fn get(authenticator: &Authenticator) -> String {
    authenticator.get_token(&grant()).unwrap().access_token().to_owned()
}

/// Gets a token as another process does that shares the directory. Returns the last event and the
/// token.
#[track_caller]
fn another_process(server: &Server, directory: &Path) -> (String, String) {
    let (authenticator, events) = recorded(server, directory);
    let token = get(&authenticator);
    let last = events.lock().unwrap().pop().unwrap();
    (last, token)
}

/// The path of the command-line tool.
#[cfg(feature = "cli")]
const TOOL: &str = env!("CARGO_BIN_EXE_weseedo-token");

/// Starts a process that prints its token.
#[cfg(feature = "cli")]
fn print_token(server: &Server, directory: &Path) -> Child {
    spawn(&mut Command::new(TOOL), server, directory)
}

#[cfg(feature = "cli")]
fn spawn(command: &mut Command, server: &Server, directory: &Path) -> Child {
    let variables = [
        ("WESEEDO_CLIENT_ID", "id"),
        ("WESEEDO_CLIENT_SECRET", "s3cr3t"),
        ("WESEEDO_ENVIRONMENT", &server.base_url),
        ("WESEEDO_TOKEN_DIR", directory.to_str().unwrap()),
    ];
    set_variables(command, &variables).stdout(Stdio::piped()).spawn().unwrap()
}

#[cfg(feature = "cli")]
#[track_caller]
fn printed(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn stores_keep_the_contract() {
    contract::check(&MemoryStore::default());
    let directory = Directory::new();
    contract::check(&directory.store());
    assert!(directory.files().is_empty());
}

#[test]
#[cfg(feature = "cli")]
fn second_run_makes_no_request() {
    let (server, directory) = (server(), Directory::new());
    for _ in 0..2 {
        assert_eq!(printed(print_token(&server, &directory.0)), "t0\n");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
#[cfg(feature = "cli")]
fn processes_that_start_together_make_one_request() {
    let server = Server::answering(|n| {
        thread::sleep(Duration::from_millis(200));
        token_answer(&format!("t{n}"), HOUR)
    });
    let directory = Directory::new();
    let children: Vec<_> = (0..32).map(|_| print_token(&server, &directory.0)).collect();
    for child in children {
        assert_eq!(printed(child), "t0\n");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
#[cfg(feature = "cli")]
fn process_that_is_killed_during_a_fetch_delays_the_others_briefly() {
    let server = Server::stalling(|n| n == 0, token_answer("t", HOUR));
    let directory = Directory::new();
    let mut holder = print_token(&server, &directory.0);
    wait_until(|| server.connections() == 1);
    let waiting = print_token(&server, &directory.0);
    // Gives the second process time to ask for the lease.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.connections(), 1, "the second process waits for the lease");
    let start = Instant::now();
    holder.kill().unwrap();
    assert_eq!(printed(waiting), "t\n");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(printed(print_token(&server, &directory.0)), "t\n");
    assert_eq!(server.connections(), 2);
    holder.wait().unwrap();
}

#[test]
fn unusable_directory_is_reported_and_fails_no_call() {
    let server = server();
    let directory = Directory::new();
    fs::write(&directory.0, "a file").unwrap();
    let mut unusable = vec![directory.0.join("tokens"), directory.0.clone()];
    if cfg!(target_os = "linux") {
        // Even root can't create a file there.
        unusable.push("/proc".into());
    }
    for path in unusable {
        let (authenticator, events) = recorded(&server, &path);
        get(&authenticator);
        let events = events.lock().unwrap();
        assert!(
            matches!(&events[..], [fetched, failed]
            if fetched == "fetched" && failed.starts_with(&format!("token directory '{}': ", path.display()))),
            "{events:?}"
        );
    }
    fs::remove_file(&directory.0).unwrap();
}

#[test]
fn deleted_directory_is_created_again() {
    let (server, directory) = (server(), Directory::new());
    let nested = directory.0.join("a").join("b");
    assert_eq!(another_process(&server, &nested), ("fetched".into(), "t0".into()));
    fs::remove_dir_all(&directory.0).unwrap();
    assert_eq!(another_process(&server, &nested), ("fetched".into(), "t1".into()));
    assert_eq!(another_process(&server, &nested), ("found".into(), "t1".into()));
}

#[test]
#[cfg(all(feature = "cli", unix))]
fn full_disk_fails_no_call() {
    let (server, directory) = (server(), Directory::new());
    // The limit of 0 bytes makes every write to a file fail, also to the log. The trap keeps the
    // signal for that from killing the process.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" 2>\"$1\""]);
    let logs = Directory::new();
    fs::create_dir(&logs.0).unwrap();
    shell.arg(TOOL).arg(logs.0.join("log"));
    assert_eq!(printed(spawn(&mut shell, &server, &directory.0)), "t0\n");
    assert!(directory.files().is_empty(), "the failed save leaves no file");
}

#[test]
#[cfg(unix)]
fn directory_that_exists_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;

    let directory = Directory::new();
    fs::create_dir(&directory.0).unwrap();
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
    let store = FileStore::new(directory.0.join("missing/../tokens"));
    store.save("key", b"sealed", HOUR).unwrap();
    let mode = fs::metadata(&directory.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
#[cfg(all(feature = "cli", unix))]
fn only_the_owner_can_access_the_files_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;

    for umask in ["0777", "0000"] {
        let (server, directory) = (server(), Directory::new());
        let nested = directory.0.join("nested");
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $1; exec \"$0\""]).arg(TOOL).arg(umask);
        printed(spawn(&mut shell, &server, &nested));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory.0), mode(&nested)), (0o700, 0o700), "{umask}");
        let modes: Vec<_> =
            fs::read_dir(&nested).unwrap().map(|entry| mode(&entry.unwrap().path())).collect();
        assert_eq!(modes, [0o600, 0o600], "{umask}");
    }
}

#[test]
fn truncated_or_foreign_file_is_replaced() {
    let (server, directory) = (server(), Directory::new());
    another_process(&server, &directory.0);
    let file = directory.file();
    let good = fs::read(&file).unwrap();
    let long = vec![0; 1 << 20];
    for bad in [&[], &good[..good.len() / 2], b"{\"access_token\":\"x\"}", &long] {
        fs::write(&file, bad).unwrap();
        assert_eq!(another_process(&server, &directory.0).0, "fetched");
        assert_eq!(another_process(&server, &directory.0).0, "found");
    }
    // A token of another grant.
    let other = Directory::new();
    recorded(&server, &other.0).0.get_token(&Grant::client_credentials("id", "x")).unwrap();
    fs::copy(other.file(), &file).unwrap();
    assert_eq!(another_process(&server, &directory.0).0, "fetched");
}

#[test]
#[cfg(unix)]
fn link_pipe_or_directory_in_place_of_a_file_fails_no_call() {
    let (server, directory) = (server(), Directory::new());
    another_process(&server, &directory.0);
    let file = directory.file();

    let elsewhere = directory.0.join("elsewhere");
    fs::copy(&file, &elsewhere).unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert_eq!(another_process(&server, &directory.0).0, "fetched", "a link is not followed");
    fs::remove_file(elsewhere).unwrap();

    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_eq!(another_process(&server, &directory.0).0, "fetched", "a pipe blocks no process");
    assert_eq!(another_process(&server, &directory.0).0, "found");

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (reported, _) = another_process(&server, &directory.0);
    assert!(reported.starts_with("token directory '"), "{reported}");
}

#[test]
fn temporary_files_of_killed_processes_are_removed() {
    let (server, directory) = (server(), Directory::new());
    another_process(&server, &directory.0);
    let file = directory.file();
    let (old, young) = (file.with_extension("1.tmp"), file.with_extension("2.tmp"));
    let foreign = directory.0.join("0.tmp");
    for path in [&old, &young, &foreign] {
        fs::write(path, "half").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(120);
    for path in [&old, &foreign] {
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    fs::remove_file(&file).unwrap();
    another_process(&server, &directory.0);
    assert!(!old.exists());
    assert!(young.exists(), "another process may still be writing it");
    assert!(foreign.exists(), "the file belongs to another key");
}

#[test]
#[cfg(unix)]
fn directory_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (server, directory) = (server(), Directory::new());
    fs::create_dir(&directory.0).unwrap();
    for (mode, is_refused) in [(0o777, true), (0o1777, true), (0o702, true), (0o770, false)] {
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).unwrap();
        let (reported, _) = another_process(&server, &directory.0);
        let reason = "other users may write to it: take that right away (chmod o-w)";
        assert_eq!(reported.ends_with(reason), is_refused, "{mode:o}: {reported}");
    }
}

#[test]
#[cfg(unix)]
fn lock_file_that_is_a_pipe_or_a_link_delays_no_process() {
    let directory = Directory::new();
    fs::create_dir(&directory.0).unwrap();
    let lock = directory.0.join("key.lock");
    assert!(Command::new("mkfifo").arg(&lock).status().unwrap().success());
    assert!(directory.store().lease("key", HOUR).unwrap().is_some());
    fs::remove_file(&lock).unwrap();
    let elsewhere = directory.0.join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
    assert!(directory.store().lease("key", HOUR).unwrap().is_some());
}

#[test]
fn key_that_is_not_a_file_name_is_refused() {
    let directory = Directory::new();
    let store = directory.store();
    for key in ["", "../x", "a/b", "a.lock"] {
        let error = store.load(key).unwrap_err().to_string();
        assert!(
            error.ends_with("a key names a file: it must be ASCII letters and digits"),
            "{error}"
        );
        store.save(key, b"x", HOUR).unwrap_err();
        store.remove(key, b"x").unwrap_err();
        store.lease(key, HOUR).unwrap_err();
    }
    assert!(!directory.0.exists());
}

#[test]
fn empty_path_is_refused() {
    let error = FileStore::new("").lease("key", HOUR).unwrap_err().to_string();
    let expected =
        "token directory '': an empty path is no directory: for the current one, give \".\"";
    assert_eq!(error, expected);
}

#[test]
fn lock_file_that_is_deleted_meanwhile_is_not_an_error() {
    let directory = Directory::new();
    let store = directory.store();
    let lock = directory.0.join("key.lock");
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                let _ = fs::remove_file(&lock);
            }
        });
        let outcome = (0..50_000).try_for_each(|_| store.lease("key", HOUR).map(drop));
        is_done.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
}

#[test]
fn debug_shows_no_value() {
    let stored = Stored::new(b"s3aled".to_vec()).with_remaining(Duration::from_secs(5));
    assert_eq!(format!("{stored:?}"), "Stored { sealed: 6 bytes, remaining: Some(5s) }");
    assert_eq!(format!("{:?}", Lease::none()), "Lease(..)");
    assert_eq!(format!("{:?}", FileStore::new("d")), "FileStore { directory: \"d\" }");
}

/// A store that loses, exchanges, restores and corrupts values.
#[derive(Default)]
struct Liar {
    store: MemoryStore,
    /// All values that were ever saved.
    history: Mutex<Vec<Vec<u8>>>,
}

fn random(below: usize) -> usize {
    usize::try_from(RandomState::new().hash_one(()) % below as u64).unwrap()
}

impl TokenStore for &'static Liar {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        thread::sleep(Duration::from_micros(random(2000) as u64));
        let history = self.history.lock().unwrap();
        let any = (!history.is_empty()).then(|| history[random(history.len())].clone());
        let stored = |sealed, remaining: Option<Duration>| {
            let stored = Stored::new(sealed);
            Ok(Some(match remaining {
                Some(remaining) => stored.with_remaining(remaining),
                None => stored,
            }))
        };
        match (random(8), any) {
            (0, _) => Ok(None),
            (1, Some(old)) => stored(old, None),
            (2, Some(old)) => stored(old, Some(HOUR)),
            (3, Some(mut old)) => {
                let i = random(old.len());
                old[i] ^= 1 << random(8);
                stored(old, None)
            }
            (4, Some(mut old)) => {
                old.truncate(random(old.len()));
                stored(old, Some(HOUR))
            }
            (5, _) if random(10) == 0 => Err("lost".into()),
            _ => self.store.load(key),
        }
    }

    fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError> {
        self.history.lock().unwrap().push(sealed.to_vec());
        match random(4) {
            0 => Ok(()),
            1 => Err("lost".into()),
            _ => self.store.save(key, sealed, remaining),
        }
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        if random(2) == 0 { Ok(()) } else { self.store.remove(key, sealed) }
    }

    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        match random(10) {
            0 => Ok(None),
            1 => Ok(Some(Lease::none())),
            2 => Err("lost".into()),
            _ => self.store.lease(key, at_most),
        }
    }
}

#[test]
fn unreliable_store_returns_no_wrong_token_and_fails_no_call() {
    const LIFETIME: Duration = Duration::from_secs(2);

    // The client of each token, and the time when the token was issued.
    let issued = Arc::new(Mutex::new(HashMap::new()));
    let by_server = Arc::clone(&issued);
    let server = Server::start(move |n, mut stream| {
        let request = read_request(&mut stream);
        let id = usize::from(request.contains(r#""client_id":"1""#));
        by_server.lock().unwrap().insert(format!("t{n}"), (id, Instant::now()));
        let _ = stream.write_all(token_answer(&format!("t{n}"), LIFETIME).as_bytes());
    });
    let liar: &Liar = Box::leak(Box::default());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let authenticator = server.builder().store(liar).build().unwrap();
                    let id = random(2);
                    let grant = Grant::client_credentials(id.to_string(), "s3cr3t");
                    for _ in 0..3 {
                        let (start, token) =
                            (Instant::now(), authenticator.get_token(&grant).unwrap());
                        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
                        let (client, issued_at) = issued.lock().unwrap()[token.access_token()];
                        assert_eq!(client, id);
                        assert!(start - issued_at.min(start) < LIFETIME);
                        match random(4) {
                            0 => authenticator.invalidate(&grant, &token),
                            1 => authenticator.clear(),
                            _ => {}
                        }
                    }
                }
            });
        }
    });
}
