//! The program: standard input in, rotated files out.

mod arguments;
mod input;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Parser;
use file_rotatelogs::{Event, NonBlocking, RotateLogs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};

use arguments::Arguments;
use input::{Input, Next};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            complain(&format!("{lost} lines were lost"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Copies until the end of input and returns how many lines could not be written.
fn run(arguments: &Arguments) -> Result<u64, Box<dyn std::error::Error>> {
    let signals = Signals::new()?;
    let verbose = arguments.verbose;
    let program = arguments.program.clone();
    let logs = arguments.open(move |event| {
        if verbose || matches!(event, Event::Failed { .. } | Event::Recovered { .. }) {
            complain(&event.to_string());
        }
        if let Some(program) = &program {
            run_program(program, event);
        }
    })?;
    if arguments.open_at_once {
        logs.ensure_open()?;
    }
    let mut output = Output {
        queue: NonBlocking::new(logs.clone())?,
        logs,
        echo: arguments.echo,
    };
    let result = copy(&signals, &mut output);
    // Lost lines have been told and counted.
    let _ = output.queue.close(std::time::Duration::MAX);
    result?;
    Ok(output.logs.lost())
}

/// Copies lines until the end of input, or a second signal to end.
fn copy(signals: &Signals, output: &mut Output) -> io::Result<()> {
    let mut input = Input::new(&signals.wake);
    let mut asked_to_end = false;
    loop {
        match input.next()? {
            Next::Lines(lines) => output.lines(lines)?,
            Next::LongLine => output.long_line(&mut input)?,
            Next::End(rest) => return output.lines(rest),
            Next::Signal => {}
        }
        if signals.hangup.swap(false, Ordering::Relaxed) {
            // Failures are told as events, and tried again.
            let _ = output.logs.reopen();
        }
        if signals.rotate.swap(false, Ordering::Relaxed) {
            let _ = output.logs.rotate();
        }
        if signals.end.swap(false, Ordering::Relaxed) {
            if asked_to_end {
                return output.lines(input.rest());
            }
            // Whoever still holds the other end may have more to say.
            asked_to_end = true;
        }
    }
}

/// Where lines go.
struct Output {
    logs: RotateLogs,
    queue: NonBlocking,
    echo: bool,
}

impl Output {
    fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            self.queue.write_all(line)?;
        }
        self.echo(lines);
        Ok(())
    }

    /// Writes a line that is longer than the buffer as it comes, all to one file.
    fn long_line(&mut self, input: &mut Input<'_>) -> io::Result<()> {
        // What came before goes before. Lost lines have been told and counted.
        let _ = self.queue.flush();
        let logs = self.logs.clone();
        let mut record = logs.long_record();
        while let Some(part) = input.part()? {
            // Told and counted, too.
            let _ = record.write_all(part);
            self.echo(part);
        }
        Ok(())
    }

    fn echo(&mut self, text: &[u8]) {
        if self.echo
            && let Err(error) = io::stdout().write_all(text)
        {
            // The log goes on though nobody reads along.
            complain(&format!("cannot echo any more: {error}"));
            self.echo = false;
        }
    }
}

/// What signals ask for.
struct Signals {
    end: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    rotate: Arc<AtomicBool>,
    /// Can be read from when a signal has come.
    wake: UnixStream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let flag = |signals: &[i32]| {
            let flag = Arc::new(AtomicBool::new(false));
            for &signal in signals {
                signal_hook::flag::register(signal, Arc::clone(&flag))?;
                signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
            }
            Ok::<_, io::Error>(flag)
        };
        // A file that may not grow any more is an error like others, not the end.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self {
            end: flag(&[SIGTERM, SIGINT])?,
            hangup: flag(&[SIGHUP])?,
            rotate: flag(&[SIGUSR1])?,
            wake,
        })
    }
}

/// Runs the user's program for a file that was opened, and does not wait for it.
fn run_program(program: &str, event: &Event) {
    let mut command = Command::new(program);
    match event {
        Event::Opened { path, .. } => command.arg(path),
        Event::Rotated { from, to, .. } => command.arg(to).arg(from),
        _ => return,
    };
    // Not our input: that is the log.
    match command.stdin(Stdio::null()).spawn() {
        Ok(mut child) => {
            thread::spawn(move || child.wait());
        }
        Err(error) => complain(&format!("cannot run {program:?}: {error}")),
    }
}

fn complain(message: &str) {
    // When nobody reads this, there is nobody to tell.
    let _ = writeln!(io::stderr(), "rotatelogs: {message}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
