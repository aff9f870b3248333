//! The real `fleet` with real processes.

mod fixture;

mod commands;
mod keys;
mod states;
mod succession;
