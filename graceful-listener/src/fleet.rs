pub(crate) use self::handover::RESUME;

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
mod owner;
mod program;
mod recipe;
mod scan;
mod state;
mod status;
mod supervisor;
mod wakeup;

/// Temporary.
#[must_use]
pub fn fleet(args: impl IntoIterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let text = args[1].to_string_lossy().into_owned();
    if let Some(fd) = text.strip_prefix("--check-resume=") {
        match handover::check(fd.parse().unwrap_or(-1)) {
            Ok(answer) => {
                use std::io::Write;
                let _ = std::io::stdout().write_all(answer.as_bytes());
                return std::process::ExitCode::SUCCESS;
            }
            Err(_) => return std::process::ExitCode::FAILURE,
        }
    }
    let options = supervisor::Options {
        dir: args[1].clone().into(),
        rate: 2000.0,
        burst: 1000,
        log_format: crate::log::LogFormat::Text,
    };
    match supervisor::run(&options, args) {
        Ok(code) => code,
        Err(failure) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{failure}");
            std::process::ExitCode::FAILURE
        }
    }
}
