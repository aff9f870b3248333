pub(crate) use self::handover::RESUME;

pub(crate) mod command_line;
#[cfg(fuzzing)]
pub mod fuzz;

mod boot;
mod bucket;
mod commands;
mod counter;
mod definition;
mod directory;
mod handover;
mod host;
mod inbox;
mod instance;
mod memory;
mod name;
mod note;
mod order;
mod outlets;
mod owner;
mod program;
mod recipe;
mod scan;
mod state;
mod status;
mod supervisor;
mod wakeup;
