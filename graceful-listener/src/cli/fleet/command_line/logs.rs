use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::fleet::definition::{Definition, LogTarget};
use crate::cli::fleet::directory::Directory;

use super::{ERROR, FAILED, Stop, print};

/// Prints the last lines of a program's log, and goes on with what is added.
pub(super) fn print_log(
    directory: &Directory,
    name: &str,
    lines: usize,
    follow: bool,
) -> Result<ExitCode, Stop> {
    let path = find(directory, name)?;
    let failed = |error: io::Error| Failure::io(path.display(), &error);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && follow => wait_for(&path)?,
        Err(error) => return Err(failed(error).into()),
    };
    let begin = last_lines(&mut file, lines).map_err(failed)?;
    file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    loop {
        if !copy(&mut file).map_err(failed)? {
            return Ok(ExitCode::SUCCESS);
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(PAUSE);
        if let Some(next) = successor(&mut file, &path).map_err(failed)? {
            // What was written before the log was rotated comes first.
            copy(&mut file).map_err(failed)?;
            file = next;
        }
    }
}

fn find(directory: &Directory, name: &str) -> Result<PathBuf, Stop> {
    let file = directory.programs().join(format!("{name}.toml"));
    if !file.exists() {
        let message = format!(
            "{name}: there is no such program: {} is missing",
            file.display()
        );
        return Err(Stop::new(FAILED, message));
    }
    let definition = Definition::text(&file)
        .and_then(|text| Definition::parse(&file, &text))
        .map_err(|mistakes| Stop::new(FAILED, mistakes))?;
    match definition.log {
        None => Ok(directory.log().join(format!("{name}.log"))),
        Some(LogTarget::File(path)) => Ok(directory.root().join(path)),
        Some(LogTarget::Command(command)) => Err(Stop::new(
            ERROR,
            format!(
                "{name}: its output goes to the command `{}`, which alone knows where it is",
                command.display()
            ),
        )),
    }
}

fn wait_for(path: &Path) -> Result<File, Stop> {
    loop {
        thread::sleep(PAUSE);
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return Ok(opened.map_err(|error| Failure::io(path.display(), &error))?),
        }
    }
}

/// Returns where the last lines begin.
fn last_lines(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut begin = end;
    let mut seen = 0;
    let mut block = Vec::new();
    while begin > 0 {
        let length = begin.min(BLOCK);
        begin -= length;
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        Read::by_ref(file).take(length).read_to_end(&mut block)?;
        for (at, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let behind = begin + at as u64 + 1;
            // The end of the last line begins none.
            if behind < end {
                seen += 1;
            }
            if seen == lines {
                return Ok(behind);
            }
        }
    }
    Ok(0)
}

/// Prints what is left of the file; `false` if nobody reads it.
fn copy(file: &mut File) -> io::Result<bool> {
    let mut buffer = [0; BLOCK as usize];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                if !print(&buffer[..length]) {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the file that has taken the place of this one. One that was cut short
/// is read again from its beginning.
fn successor(file: &mut File, path: &Path) -> io::Result<Option<File>> {
    let ours = file.metadata()?;
    if ours.len() < file.stream_position()? {
        file.rewind()?;
    }
    match fs::metadata(path) {
        Ok(theirs) if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) => {
            match File::open(path) {
                // It is being moved away just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                opened => opened.map(Some),
            }
        }
        _ => Ok(None),
    }
}

const BLOCK: u64 = 8192;
const PAUSE: Duration = Duration::from_millis(200);
