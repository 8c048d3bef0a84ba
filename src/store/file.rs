use std::collections::hash_map::RandomState;
#[cfg(unix)]
use std::fs::Permissions;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
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

/// How old a file is that a save left half-written, when it is removed.
const ABANDONED: Duration = Duration::from_secs(60);

/// A [`TokenStore`] in a directory, for the processes of one machine.
///
/// For a program that runs from cron or a shell: each run finds the token of an earlier one, until
/// that is over. The example `print_token` does so.
///
/// The directory is made when it is first needed, for its owner only (mode 0700, whatever the
/// umask); one that is there is left as it is. It should be the program's own, and on a local disk.
/// For each grant there are two small files of mode 0600: the token, encrypted, and one to be
/// locked. What is saved is written under another name and then renamed, so that nobody reads half
/// of it. A file that is torn, foreign or of another version is no token, and the next save
/// replaces it. The lease is the operating system's lock, which ends when it is given back or
/// its process ends, and not after a time; where the file system has none, processes that need a
/// token at the same time all ask for one.
///
/// Files of grants that are no longer used stay behind. They may be deleted at any time: a `.lock`
/// that a process holds costs a second token request at worst.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// Creates a store in a directory, which need not be there yet. No I/O is done. A relative path
    /// is one from where the program is when the store is used.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let invalid = |reason| Err(io::Error::new(ErrorKind::InvalidInput, reason));
        if self.directory.as_os_str().is_empty() {
            return invalid("an empty path is no directory: for the current one, give \".\"");
        }
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return invalid("a key names a file: it must be ASCII letters and digits");
        }
        Ok(self.directory.join(key))
    }

    fn load_file(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(key)?;
        let file = fs::symlink_metadata(&path).and_then(|metadata| {
            // Not what a link leads to, and no pipe, which would keep its reader waiting.
            if metadata.is_file() { File::open(&path).map(Some) } else { Ok(None) }
        });
        let mut buffer = vec![0; MAX_SEALED + 1];
        let file = if_there(file)?.flatten();
        file.map(|file| Ok(read::until_full(file, &mut buffer)?.to_vec())).transpose()
    }

    fn save_file(&self, key: &str, sealed: &[u8]) -> io::Result<()> {
        let path = self.path(key)?;
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
    }

    fn remove_file(&self, key: &str, sealed: &[u8]) -> io::Result<()> {
        if self.load_file(key)?.as_deref() != Some(sealed) {
            return Ok(());
        }
        // Nobody can save in its place while it is looked at again.
        let path = self.path(key)?;
        let temporary = temporary(&path);
        if_there(fs::rename(&path, &temporary))?;
        // If it is old, another process may take it for abandoned, and remove it.
        if if_there(fs::read(&temporary))?.is_some_and(|found| found != sealed) {
            // A newer one, which goes back, unless there is one that is newer still.
            let _ = fs::hard_link(&temporary, &path);
        }
        if_there(fs::remove_file(temporary)).map(|_| ())
    }

    fn lock(&self, key: &str) -> io::Result<Option<Lease>> {
        let path = self.path(key)?.with_extension("lock");
        make_directory(&self.directory)?;
        let file = match create(&path) {
            // To be written too: NFS locks nothing else.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let opened = OpenOptions::new().read(true).write(true).open(path);
                // Deleted in between: as good as taken.
                let Some(file) = if_there(opened)? else { return Ok(None) };
                file
            }
            file => file?,
        };
        Ok(match file.try_lock() {
            // To close it would not do after a `fork`, whose child has it open too.
            Ok(()) => Some(Lease::new(move || _ = file.unlock())),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Lease::none()),
        })
    }

    /// Removes what was left by processes that died while they saved.
    fn remove_abandoned(&self, key: &str) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_temporary = path.extension().is_some_and(|extension| extension == "tmp")
                && entry.file_name().to_string_lossy().starts_with(key);
            let modified = || entry.metadata().and_then(|metadata| metadata.modified()).ok();
            if is_temporary
                && modified()
                    .and_then(|then| then.elapsed().ok())
                    .is_some_and(|time| time > ABANDONED)
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn told<T>(&self, outcome: io::Result<T>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            format!("token directory '{}': {error}", self.directory.display()).into()
        })
    }
}

impl TokenStore for FileStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let sealed = self.told(self.load_file(key))?;
        Ok(sealed.map(|sealed| Stored { sealed, left: None }))
    }

    fn save(&self, key: &str, sealed: &[u8], _: Duration) -> Result<(), StoreError> {
        self.told(self.save_file(key, sealed))
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.told(self.remove_file(key, sealed))
    }

    fn lease(&self, key: &str, _: Duration) -> Result<Option<Lease>, StoreError> {
        self.told(self.lock(key))
    }
}

/// A name beside `path` that nobody else uses, not even a process that was forked from this one and
/// has its random numbers.
fn temporary(path: &Path) -> PathBuf {
    let (process, random) = (process::id(), RandomState::new().hash_one(()));
    path.with_extension(format!("{process:x}-{random:016x}.tmp"))
}

/// `None` for what is not there.
fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Creates a file for its owner only. What was there is neither opened nor followed.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    options.mode(0o600);
    let file = options.read(true).write(true).create_new(true).open(path)?;
    // The umask may have taken from the mode.
    #[cfg(unix)]
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    builder.mode(0o700);
    match builder.create(path) {
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    }
    #[cfg(unix)]
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(())
}
