//! The real `fleet` with real processes.

mod fixture;

mod commands;
mod generations;
mod keys;
mod states;
mod succession;
