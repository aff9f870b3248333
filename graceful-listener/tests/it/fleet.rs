//! The real `fleet` with real processes.

mod fixture;

mod check;
mod clock;
mod command_line;
mod commands;
mod control_groups;
mod counters;
mod faults;
mod generations;
mod keys;
mod log_commands;
mod old_kernel;
mod states;
mod succession;
mod torture;
mod upgrade;
