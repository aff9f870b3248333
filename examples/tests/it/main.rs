//! The real programs, run as their users run them.

mod bench;
mod client;
mod databases;
mod deploy;
mod deploy_files;
mod logs;
mod program;
mod small;
mod standalone;
mod story;
