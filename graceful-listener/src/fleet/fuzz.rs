//! What the fuzzer reaches of the parsers; compiled for it alone.

use std::path::Path;

use super::definition::Definition;
use super::inbox::Command;

/// Reads a definition, or tells its mistakes.
pub fn definition(text: &str) -> Result<(), String> {
    Definition::parse(Path::new("fuzz.toml"), text).map(drop)
}

/// Reads the name of a command's file and writes it again.
pub fn command(name: &str) -> Result<String, String> {
    Command::parse(name).map(|command| command.to_string())
}
