pub(crate) use self::handover::RESUME;
#[cfg(fuzzing)]
pub(crate) use self::{definition::Definition, inbox::Command, note::Note};

pub(crate) mod command_line;

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
