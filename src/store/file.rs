use std::collections::hash_map::RandomState;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
#[cfg(unix)]
use std::fs::{DirBuilder, Permissions};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Write};
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use crate::read;
use crate::store::seal::MAX_SEALED;
use crate::store::{Lease, StoreError, Stored, TokenStore};

/// The age at which a half-written file of a killed process is removed.
const ABANDONED: Duration = Duration::from_secs(60);
const TEMPORARY: &str = ".tmp";

/// A [`TokenStore`] in a directory, for the processes of one machine.
///
/// For programs that run from cron or a shell: each run finds the token of an earlier run until the
/// token expires. The tool `weseedo-token` uses this store.
///
/// The directory is created when it is first needed, on Unix for its owner only (mode 0700,
/// whatever the umask). An existing directory keeps its mode, but is refused if other users may
/// write to it (mode `o+w`). The directory should belong to one program and be on a local disk.
///
/// Each grant has two small files, on Unix of mode 0600: the encrypted token, and a lock file. A
/// token is written to a temporary file that is then renamed, so that no process reads half a
/// token. A file that is truncated, foreign or of another version counts as missing, and the next
/// save replaces it.
///
/// The lease is a lock of the operating system. The lock ends when the lease is released or the
/// process ends, and not after a time. On a file system without locks, processes that need a token
/// at the same time all ask the endpoint.
///
/// Files of grants that are no longer used stay in the directory. You can delete them at any time;
/// deleting a `.lock` that a process holds costs a second token request at worst.
#[derive(Clone, Debug)]
pub struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// Creates a store in a directory, which need not exist yet. Does no I/O. A relative path
    /// starts at the working directory of the moment when the store is used.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Does some work on the file of a key. Errors name the directory.
    fn on_file<T>(
        &self,
        key: &str,
        work: impl FnOnce(PathBuf) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.path(key).and_then(work).map_err(|error| {
            format!("token directory '{}': {error}", self.directory.display()).into()
        })
    }

    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let invalid = |reason| Err(io::Error::new(ErrorKind::InvalidInput, reason));
        if self.directory.as_os_str().is_empty() {
            return invalid("an empty path is no directory: for the current one, give \".\"");
        }
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return invalid("a key names a file: it must be ASCII letters and digits");
        }
        #[cfg(unix)]
        if fs::metadata(&self.directory).is_ok_and(|data| data.permissions().mode() & 0o002 != 0) {
            return invalid("other users may write to it: take that right away (chmod o-w)");
        }
        Ok(self.directory.join(key))
    }

    /// Removes the temporary files of processes that died while they saved.
    fn remove_abandoned(&self, key: &str) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if name.starts_with(key) && name.ends_with(TEMPORARY) && age() > Some(ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl TokenStore for FileStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.on_file(key, |path| Ok(read(&path)?.map(Stored::new)))
    }

    fn save(&self, key: &str, sealed: &[u8], _: Duration) -> Result<(), StoreError> {
        self.on_file(key, |path| {
            make_directory(&self.directory)?;
            self.remove_abandoned(key);
            let temporary = temporary(&path);
            let saved = create(&temporary)
                .and_then(|mut file| file.write_all(sealed))
                .and_then(|()| fs::rename(&temporary, &path));
            if saved.is_err() {
                let _ = fs::remove_file(temporary);
            }
            saved
        })
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.on_file(key, |path| {
            if read(&path)?.as_deref() != Some(sealed) {
                return Ok(());
            }
            // Moved away before the second look, so that no process can save in between.
            let temporary = temporary(&path);
            if_there(fs::rename(&path, &temporary))?;
            // Another process may have removed the file, because an old temporary file counts as
            // abandoned.
            if read(&temporary)?.is_some_and(|found| found != sealed) {
                // A newer token goes back to its place, unless an even newer one is there.
                let _ = fs::hard_link(&temporary, &path);
            }
            if_there(fs::remove_file(temporary)).map(|_| ())
        })
    }

    fn lease(&self, key: &str, _: Duration) -> Result<Option<Lease>, StoreError> {
        self.on_file(key, |path| {
            let path = path.with_extension("lock");
            make_directory(&self.directory)?;
            let file = match create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => open(&path)?,
                created => Some(created?),
            };
            let Some(file) = file else {
                // A lock file that was deleted in between counts as held. Something else with that
                // name is no lock, so that it delays nobody.
                return Ok(path.symlink_metadata().is_ok().then(Lease::none));
            };
            Ok(match file.try_lock() {
                // Unlock explicitly: a forked child keeps the file open, so closing it here would
                // not release the lock.
                Ok(()) => Some(Lease::new(move || _ = file.unlock())),
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Error(_)) => Some(Lease::none()),
            })
        })
    }
}

/// A name beside `path` that no other thread or process uses. The process number distinguishes
/// forked processes, which have the same random numbers.
fn temporary(path: &Path) -> PathBuf {
    let (process, random) = (process::id(), RandomState::new().hash_one(()));
    path.with_extension(format!("{process:x}-{random:016x}{TEMPORARY}"))
}

/// Turns `NotFound` into `None`.
fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; MAX_SEALED + 1];
    let file = open(path)?;
    file.map(|file| Ok(read::until_full(file, &mut buffer)?.to_vec())).transpose()
}

/// Opens a regular file; `None` if there is none, or something else has its name. Checks after
/// opening, so that a link or a pipe that was swapped in before is refused. Opened for writing too,
/// because a pipe would block its reader, and because NFS locks only such files.
fn open(path: &Path) -> io::Result<Option<File>> {
    let file = if_there(OpenOptions::new().read(true).write(true).open(path))?;
    let is_regular = |data: io::Result<Metadata>| data.is_ok_and(|data| data.is_file());
    Ok(file.filter(|file| is_regular(file.metadata()) && is_regular(fs::symlink_metadata(path))))
}

/// Creates a file for its owner only. Neither opens a file that exists nor follows a link.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    options.mode(0o600);
    let file = options.read(true).write(true).create_new(true).open(path)?;
    // The umask may have cleared bits of the mode.
    #[cfg(unix)]
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() || path.as_os_str().is_empty() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), make_directory)?;
    #[cfg(unix)]
    let created = DirBuilder::new().mode(0o700).create(path);
    #[cfg(not(unix))]
    let created = fs::create_dir(path);
    match created {
        // Another process has created the directory meanwhile, and decides on its mode.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    }
    // The umask may have cleared bits of the mode.
    #[cfg(unix)]
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(())
}
