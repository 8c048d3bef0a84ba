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
            // The token is printed even if the log can't be written.
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
