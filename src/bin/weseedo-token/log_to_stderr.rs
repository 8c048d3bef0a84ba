use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

/// Writes the library's log to standard error.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "weseedo_auth"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // A log that can't be written must not cost the token.
            let _ = writeln!(io::stderr(), "{}: {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

pub(crate) fn start() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}
