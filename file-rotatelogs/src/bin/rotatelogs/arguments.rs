use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use file_rotatelogs::{Builder, Clock, Compression, Error, Event, RotateLogs, SyncPolicy};

/// Writes standard input to log files that are called by date and time, and goes on to
/// the next file on time or when one is large enough.
#[derive(Debug, Parser)]
#[command(name = "rotatelogs", version, after_long_help = MORE, after_help = "See --help for more.")]
pub(crate) struct Arguments {
    /// What the files are called: a path with strftime directives such as %Y %m %d %H
    ///
    /// Without a directive it is followed, as in Apache's, by a dot and the second since
    /// 1970 at which the file nominally begins, if ROTATION is given without -t or -n; else
    /// by nothing, and by .1, .2 and so on where --size makes more than one.
    #[arg(value_name = "LOGFILE")]
    logfile: PathBuf,

    /// Apache's notation: seconds, or a size with B, K, M or G, or both; then minutes from
    /// UTC
    ///
    /// "86400" is a file each day, "5M" a new file before one is larger than 5 MiB,
    /// "3600 100M" whichever comes first, "86400 -300" days of a zone 5 hours behind UTC.
    #[arg(value_name = "ROTATION", num_args = 0..=3, allow_negative_numbers = true)]
    rotation: Vec<String>,

    /// Use the local time zone instead of UTC
    #[arg(short, long, conflicts_with = "timezone")]
    local: bool,

    /// Use this time zone, such as Europe/Berlin
    #[arg(short = 'z', long, value_name = "ZONE")]
    timezone: Option<String>,

    /// Keep a symbolic link here that leads to the file being written
    #[arg(short = 'L', long, value_name = "PATH")]
    link: Option<PathBuf>,

    /// Run this program with each new file, and the file before it, as arguments
    #[arg(short = 'p', long, value_name = "PROGRAM")]
    pub(crate) program: Option<String>,

    /// Open the first file at once instead of with the first line
    #[arg(short = 'f', long = "open")]
    pub(crate) open_at_once: bool,

    /// Create missing directories: always done, taken for Apache's sake
    #[arg(short = 'D')]
    _directories: bool,

    /// Empty the file instead of rotating it, and at the start
    #[arg(short, long)]
    truncate: bool,

    /// Empty each file but the first when it is opened, for names that come round again
    #[arg(short = 'T', long, conflicts_with_all = ["truncate", "number"])]
    truncate_later: bool,

    /// Tell on standard error what is done
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Copy the lines to standard output too
    #[arg(short, long)]
    pub(crate) echo: bool,

    /// Make a file for each period, even if there is nothing to write to it
    #[arg(short, long)]
    create_empty: bool,

    /// Go round in this many files, LOGFILE, LOGFILE.1, …, emptying each
    #[arg(short, long, value_name = "FILES")]
    number: Option<u32>,

    /// Begin a file this often: 15m, 1h, 1day, 1week
    ///
    /// Without it, and without ROTATION, a file begins whenever the name changes.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "rotation")]
    every: Option<Duration>,

    /// Begin a file, LOGFILE.1, .2, …, before one is larger than this: 512K, 100M, 1G
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "rotation")]
    size: Option<u64>,

    /// Remove files older than this: 36h, 14days
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,

    /// Keep this many files
    #[arg(long, value_name = "FILES")]
    max_files: Option<usize>,

    /// Keep as many files as take no more than this together: 10G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_total: Option<u64>,

    /// Compress files that are done with
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "gzip", require_equals = true)]
    compress: Option<Format>,

    /// Begin a new file at the start, also where there is one to append to
    #[arg(long)]
    force_new_file: bool,

    /// Give new files these permissions: 640
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    mode: Option<u32>,

    /// Give new directories these permissions: 750
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    dir_mode: Option<u32>,

    /// Bring what was written to the disk this often: 1s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    sync: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Gzip,
    Zstd,
}

/// Apache's way of saying when to rotate.
#[derive(Debug, Default, Eq, PartialEq)]
struct Rotation {
    every: Option<u64>,
    size: Option<u64>,
    is_by_size_only: bool,
    /// Minutes ahead of UTC.
    offset: Option<i32>,
}

impl Arguments {
    /// Opens the log that the arguments describe.
    pub(crate) fn open(
        &self,
        on_event: impl Fn(&Event) + Clone + Send + Sync + 'static,
    ) -> Result<RotateLogs, Box<dyn std::error::Error>> {
        let mut rotation = Rotation::parse(&self.rotation)?;
        let build = |rotation: &Rotation| {
            let builder = self.builder(rotation)?.on_event(on_event.clone());
            if self.verbose {
                crate::complain(&format!("{builder:?}"));
            }
            Ok::<_, Box<dyn std::error::Error>>(builder.build())
        };
        match build(&rotation)? {
            // Apache goes on with the same file when the name of the next period is the
            // same; here, too, the name decides.
            Err(error) if error.setting() == "rotate_every" && rotation.every.is_some() => {
                crate::complain(&format!("{error}; a new file begins when it changes"));
                rotation.every = None;
                Ok(build(&rotation)??)
            }
            result => Ok(result?),
        }
    }

    fn builder(&self, rotation: &Rotation) -> Result<Builder, Box<dyn std::error::Error>> {
        let mut builder = RotateLogs::builder(self.pattern())
            .clock(self.clock(rotation)?)
            .lazy(!self.create_empty)
            .finish_lines(true)
            .force_new_file(self.force_new_file);
        if let Some(size) = self.size.or(rotation.size) {
            builder = builder.rotate_at_bytes(size);
        }
        if let Some(every) = self.every {
            builder = builder.rotate_every(every);
        } else if let Some(seconds) = rotation.every {
            builder = builder.rotate_every(Duration::from_secs(seconds));
        } else if rotation.is_by_size_only {
            // Only by size: the name is that of the moment.
            builder = builder.rotate_every(None);
        }
        if let Some(link) = &self.link {
            builder = builder.link(link);
        }
        if let Some(age) = self.max_age {
            builder = builder.max_age(age);
        }
        if let Some(files) = self.max_files {
            builder = builder.max_files(files);
        }
        if let Some(bytes) = self.max_total {
            builder = builder.max_total_bytes(bytes);
        }
        if let Some(format) = self.compress {
            builder = builder.compress(match format {
                Format::Gzip => Compression::Gzip,
                Format::Zstd => Compression::Zstd,
            });
        }
        if let Some(mode) = self.mode {
            builder = builder.mode(mode);
        }
        if let Some(mode) = self.dir_mode {
            builder = builder.dir_mode(mode);
        }
        if let Some(interval) = self.sync {
            builder = builder.sync(SyncPolicy::Every(interval));
        }
        if let Some(files) = self.ring() {
            builder = builder.ring(files).start_empty(self.truncate);
        }
        Ok(builder)
    }

    fn ring(&self) -> Option<u32> {
        self.number
            .or((self.truncate || self.truncate_later).then_some(1))
    }

    fn pattern(&self) -> PathBuf {
        let has_directives = self.logfile.as_os_str().as_encoded_bytes().contains(&b'%');
        if has_directives || self.rotation.is_empty() || self.truncate || self.number.is_some() {
            return self.logfile.clone();
        }
        let mut pattern = self.logfile.clone().into_os_string();
        pattern.push(".%s");
        PathBuf::from(pattern)
    }

    fn clock(&self, rotation: &Rotation) -> Result<Clock, Box<dyn std::error::Error>> {
        Ok(match (&self.timezone, rotation.offset) {
            (Some(_), Some(_)) => {
                return Err("--timezone and minutes from UTC exclude each other".into());
            }
            (None, Some(_)) if self.local => {
                return Err("--local and minutes from UTC exclude each other".into());
            }
            (Some(name), None) => Clock::zone(name)?,
            (None, Some(minutes)) => fixed(minutes)?,
            (None, None) if self.local => Clock::local(),
            (None, None) => Clock::utc(),
        })
    }
}

fn fixed(minutes: i32) -> Result<Clock, Error> {
    Clock::fixed_offset(minutes.saturating_mul(60))
}

impl Rotation {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut rotation = Self::default();
        for (index, word) in words.iter().enumerate() {
            let is_last = index + 1 == words.len();
            let is_first_number = rotation.every.is_none() && rotation.size.is_none();
            if word.ends_with(['B', 'K', 'M', 'G']) {
                if rotation.size.replace(size(word)?).is_some() {
                    return Err(format!("{word}: there is a size already"));
                }
            } else if is_first_number {
                let seconds = word.parse().ok().filter(|&seconds| seconds > 0);
                rotation.every = Some(seconds.ok_or_else(|| {
                    format!("{word}: neither seconds nor a size that ends in B, K, M or G")
                })?);
            } else if is_last {
                let minutes = word
                    .parse()
                    .map_err(|_| format!("{word}: not minutes from UTC"))?;
                rotation.offset = Some(minutes);
            } else {
                return Err(format!("{word}: minutes from UTC come last"));
            }
        }
        rotation.is_by_size_only = rotation.size.is_some() && rotation.every.is_none();
        Ok(rotation)
    }
}

fn size(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text}: not a number of bytes, or one with B, K, M or G");
    let (digits, unit) = match text.strip_suffix(['B', 'K', 'M', 'G']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "B"),
    };
    let factor: u64 = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 1,
    };
    let number: u64 = digits.parse().map_err(|_| refuse())?;
    number
        .checked_mul(factor)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(refuse)
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("{text}: not an octal number"))
}

const MORE: &str = "\
Examples:
  myserver 2>&1 | rotatelogs --link current.log 'log.%Y%m%d'
      a file each day (in UTC; -l for local days), and current.log leads to it

  myserver 2>&1 | rotatelogs -l --size 100M --max-age 14days --compress 'app.%Y%m%d.log'
      a file each local day and for each 100 MiB; closed ones become .gz, and go after
      two weeks

  start_server --log-file \"| rotatelogs -l '/var/log/app/%Y/%m/%d.log'\" ...
      directories are made as they are needed

  CustomLog \"|/usr/bin/rotatelogs -l /var/log/httpd/access.%Y-%m-%d 86400\" combined
      as Apache's own

What you can rely on:
  A line is never split across two files: it is written when its end is there, however
  slowly or in what pieces it comes. A line of more than 1 MiB is written as it comes, and
  the file is not changed before its end.
  When a file cannot be written, as on a full disk, lines are dropped and counted, a
  message tells when it begins and when it is over, and old files are left as they are.
  Several rotatelogs may write to the same files, with the same LOGFILE and ROTATION.

Signals:
  HUP         look whether the file was moved or deleted, and open it anew if so
  USR1        begin the next file now
  TERM, INT   go on until the end of input, so that nothing is lost of what a server says
              that is ending too; the second time, end at once

Directives: %Y year, %m month, %d day, %H hour, %M minute, %S second, %j day of the year,
  %a %b names of day and month, %G-%V ISO week, %s seconds since 1970, %z %Z time zone,
  %% a percent sign, and the others of strftime(3).

Exit status: 0 if all lines were written; 2 if LOGFILE is missing or an option or its value
  is unknown; 1 if lines were lost and on all other errors.";

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(words: &str) -> Result<Rotation, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Rotation::parse(&words)
    }

    #[test]
    fn rotation_is_read_as_apache_reads_it() {
        let of = |every, size, offset| {
            Ok(Rotation {
                every,
                size,
                is_by_size_only: size.is_some() && every.is_none(),
                offset,
            })
        };
        assert_eq!(rotation(""), of(None, None, None));
        assert_eq!(rotation("86400"), of(Some(86_400), None, None));
        assert_eq!(rotation("5M"), of(None, Some(5 << 20), None));
        assert_eq!(rotation("500B"), of(None, Some(500), None));
        assert_eq!(rotation("3600 2K"), of(Some(3600), Some(2048), None));
        assert_eq!(
            rotation("3600 1G 60"),
            of(Some(3600), Some(1 << 30), Some(60))
        );
        assert_eq!(rotation("86400 -300"), of(Some(86_400), None, Some(-300)));
        assert_eq!(rotation("5M 120"), of(None, Some(5 << 20), Some(120)));
        for wrong in [
            "0",
            "-5",
            "x",
            "5X",
            "0K",
            "K",
            "3600 5M 6M",
            "3600 60 5M",
            "1.5M",
            "99999999999G",
        ] {
            assert!(rotation(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_modes_are_read() {
        assert_eq!(size("10"), Ok(10));
        assert_eq!(size("10K"), Ok(10_240));
        assert!(size("-1").is_err());
        assert!(size("10k").is_err());
        assert_eq!(octal("640"), Ok(0o640));
        assert!(octal("900").is_err());
    }

    #[test]
    fn command_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
