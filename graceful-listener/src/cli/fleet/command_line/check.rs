use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::account::Account;
use crate::cli::failure::{Failure, reason};
use crate::cli::fleet::definition::{Definition, Instances};
use crate::cli::fleet::directory::Directory;
use crate::cli::fleet::order::order;
use crate::cli::process::find_program;
use crate::cli::variables::{self, Variables};

use super::table::plural;
use super::{FAILED, Stop, complain, print};

/// Looks for mistakes in the definitions of directories and in single files, and
/// tells them all.
pub(super) fn check(paths: &[PathBuf]) -> Result<ExitCode, Stop> {
    let (mut good, mut instances, mut mistakes) = (0, 0, Vec::new());
    for path in paths {
        let (root, files) = definitions(path, &mut mistakes)?;
        let mut programs = BTreeMap::new();
        for (name, file) in &files {
            match Definition::text(file).and_then(|text| Definition::parse(file, &text)) {
                Ok(definition) => {
                    let missing = surroundings(&root, &definition);
                    mistakes.extend(
                        missing
                            .iter()
                            .map(|why| format!("{}: {why}", file.display())),
                    );
                    good += 1;
                    if let Instances::Count(count) = definition.instances {
                        instances += count as usize;
                    }
                    programs.insert(&**name, (file, definition));
                }
                Err(found) => mistakes.extend(found.lines().map(str::to_owned)),
            }
        }
        if path.is_dir() {
            mistakes.extend(relations(&programs, &files));
        }
    }
    for mistake in &mistakes {
        complain(mistake);
    }
    if mistakes.is_empty() {
        let (programs, instances) = (plural(good, "program"), plural(instances, "instance"));
        print(format!("no mistakes in {programs} with {instances}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    Err(Stop::told(FAILED))
}

type Files = BTreeMap<String, PathBuf>;

/// Returns the directory of a fleet with its definitions, or a single one.
fn definitions(path: &Path, mistakes: &mut Vec<String>) -> Result<(PathBuf, Files), Stop> {
    if !path.is_dir() && path.exists() {
        let path = fs::canonicalize(path).map_err(|error| Failure::io(path.display(), &error))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let root = path.parent().and_then(Path::parent).unwrap_or(&path);
        return Ok((
            root.into(),
            BTreeMap::from([(name.into_owned(), path.clone())]),
        ));
    }
    let directory = Directory::at(path)?;
    directory
        .check()
        .unwrap_or_else(|failure| mistakes.push(failure.to_string()));
    let scan = directory.scan().map_err(|error| {
        Failure::io(
            format_args!("failed to read {}", directory.programs().display()),
            &error,
        )
    })?;
    mistakes.extend(scan.refused.into_values());
    Ok((directory.root().into(), scan.programs))
}

/// Tells what a program needs and this machine does not have.
fn surroundings(root: &Path, definition: &Definition) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut variables: Variables = variables::inherited();
    for file in &definition.env_files {
        let read = variables::read_file(&root.join(file), &mut variables);
        mistakes.extend(read.err().map(|why| format!("env_file: {why}")));
    }
    variables.extend(definition.environment.iter().cloned());
    let account = Account::find(definition.user.as_deref(), definition.group.as_deref());
    mistakes.extend(account.err().map(|failure| failure.to_string()));
    let directory = definition
        .directory
        .as_ref()
        .map_or_else(|| root.into(), |directory| root.join(directory));
    match fs::metadata(&directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => mistakes.push(format!("directory: {} is none", directory.display())),
        Err(error) => {
            mistakes.push(format!(
                "directory: {}: {}",
                directory.display(),
                reason(&error)
            ));
        }
    }
    // A name with a slash in it is looked up where the program runs.
    let command = match definition.command.as_encoded_bytes().contains(&b'/') {
        true => directory.join(&definition.command).into_os_string(),
        false => definition.command.clone(),
    };
    let path = variables.get(OsStr::new("PATH"));
    let found = find_program(&command, path.map(|path| &**path))
        .and_then(fs::metadata)
        .map_err(|error| reason(&error));
    let command = definition.command.display();
    match found {
        Ok(file) if file.is_file() && file.mode() & 0o111 != 0 => {}
        Ok(_) => mistakes.push(format!("command: {command}: cannot be executed")),
        Err(why) => mistakes.push(format!("command: {command}: {why}")),
    }
    mistakes
}

/// Tells what is wrong between programs.
fn relations(programs: &BTreeMap<&str, (&PathBuf, Definition)>, files: &Files) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (file, definition) in programs.values() {
        for other in &definition.depends_on {
            if !files.contains_key(other) {
                let file = file.display();
                mistakes.push(format!("{file}: depends_on: there is no program {other}"));
            }
        }
    }
    let all = programs
        .iter()
        .map(|(name, (_, definition))| (*name, definition.priority, &*definition.depends_on));
    if let Err(circle) = order(all) {
        let circle = circle.join(" -> ");
        mistakes.push(format!(
            "depends_on: programs wait for each other in a circle: {circle}"
        ));
    }
    mistakes
}
