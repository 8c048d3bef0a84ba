//! What a user of the crate would notice, one file for each subject.

mod config;
mod examples;
mod failures;
mod support;
mod threads;
mod token;
