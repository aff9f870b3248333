use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One option of the command line.
#[derive(Debug)]
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    /// Server::Starter has it too. Abbreviations that are unique among its
    /// options go on meaning what they meant.
    pub(crate) perl: bool,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    /// Nothing.
    None,
    /// Any text, even one that looks like an option.
    Text,
    /// A whole number.
    Integer,
    /// Text behind `=`, or a number as the next argument, or nothing.
    Optional,
}

/// The command line taken apart, as Perl's `Getopt::Long` does by default:
/// `--name=value`, `--name value`, `-name`, `+name`, in any case, abbreviated as
/// long as it stays unique, and mixed with other arguments up to `--`.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// The options in their order, with the value of those that take one.
    pub(crate) options: Vec<(&'static Opt, Option<OsString>)>,
    /// What is left: the program and its arguments.
    pub(crate) rest: Vec<OsString>,
}

impl Arguments {
    /// Takes `args` apart by the table `known`.
    ///
    /// With `in_order`, which `POSIXLY_CORRECT` asks for, options end at the first
    /// argument that is none.
    ///
    /// # Errors
    ///
    /// Fails with every argument that cannot be understood.
    pub(crate) fn parse(
        known: &'static [Opt],
        args: impl IntoIterator<Item = OsString>,
        in_order: bool,
    ) -> Result<Self, Vec<UsageError>> {
        let mut parsed = Self::default();
        let mut errors = Vec::new();
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.rest.extend(args.by_ref());
            } else if let Some((name, value)) = split(arg.as_bytes(), in_order) {
                match find(known, name, value.is_some()) {
                    Ok(opt) => {
                        let value = value.map(|value| OsString::from_vec(value.to_vec()));
                        match take_value(opt, value, &mut args) {
                            Ok(value) => parsed.options.push((opt, value)),
                            Err(error) => errors.push(error),
                        }
                    }
                    Err(error) => errors.push(error),
                }
            } else {
                parsed.rest.push(arg);
                if in_order {
                    parsed.rest.extend(args.by_ref());
                }
            }
        }
        if errors.is_empty() {
            Ok(parsed)
        } else {
            Err(errors)
        }
    }
}

/// Splits an option into its name and the value behind `=`; `None` if it is no option.
fn split(arg: &[u8], in_order: bool) -> Option<(&[u8], Option<&[u8]>)> {
    let name = arg
        .strip_prefix(b"--")
        .or_else(|| arg.strip_prefix(b"-"))
        .or_else(|| arg.strip_prefix(b"+").filter(|_| !in_order))?;
    if name.is_empty() {
        return None;
    }
    match name.iter().position(|&byte| byte == b'=') {
        Some(0) | None => Some((name, None)),
        Some(at) => Some((&name[..at], Some(&name[at + 1..]))),
    }
}

fn find(known: &'static [Opt], name: &[u8], valued: bool) -> Result<&'static Opt, UsageError> {
    let is = |opt: &&Opt| opt.name.as_bytes().eq_ignore_ascii_case(name);
    if let Some(exact) = known.iter().find(is) {
        // `--status=FILE` was an abbreviation before there was a `--status`.
        if !(valued && exact.value == Value::None && !exact.perl) {
            return Ok(exact);
        }
    }
    let begins = |opt: &&Opt| {
        let start = opt.name.as_bytes().get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name)) && opt.name.len() > name.len()
    };
    for perl in [true, false] {
        let matches: Vec<_> = known
            .iter()
            .filter(|opt| opt.perl == perl)
            .filter(begins)
            .collect();
        match matches[..] {
            [] => {}
            [only] => return Ok(only),
            _ => {
                return Err(UsageError::Ambiguous(
                    lossy(name),
                    matches.iter().map(|opt| opt.name).collect(),
                ));
            }
        }
    }
    known
        .iter()
        .find(is)
        .ok_or_else(|| UsageError::Unknown(lossy(name)))
}

fn take_value(
    opt: &'static Opt,
    inline: Option<OsString>,
    args: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Result<Option<OsString>, UsageError> {
    match opt.value {
        Value::None if inline.is_some() => Err(UsageError::TakesNone(opt.name)),
        Value::None => Ok(None),
        Value::Text | Value::Integer => {
            // A missing value and an empty one behind `=` are the same mistake.
            let value = match inline {
                Some(value) => Some(value).filter(|value| !value.is_empty()),
                None => args.next(),
            };
            let value = value.ok_or(UsageError::NeedsValue(opt.name))?;
            if opt.value == Value::Integer && !is_integer(&value) {
                return Err(UsageError::NotANumber(opt.name, lossy(value.as_bytes())));
            }
            Ok(Some(value))
        }
        Value::Optional => Ok(inline.or_else(|| args.next_if(|next| is_number(next)))),
    }
}

fn is_integer(text: &OsStr) -> bool {
    let text = text.as_bytes();
    let digits = text
        .strip_prefix(b"-")
        .or_else(|| text.strip_prefix(b"+"))
        .unwrap_or(text);
    // Perl allows `1_000`.
    digits.iter().any(u8::is_ascii_digit)
        && digits
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'_')
}

fn is_number(text: &OsStr) -> bool {
    !text.is_empty()
        && text
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// An argument that cannot be understood, told as `Getopt::Long` tells it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum UsageError {
    /// No option begins like this.
    Unknown(String),
    /// Several do.
    Ambiguous(String, Vec<&'static str>),
    /// The option's value is missing.
    NeedsValue(&'static str),
    /// The option takes no value.
    TakesNone(&'static str),
    /// The value is no whole number.
    NotANumber(&'static str, String),
    /// The value cannot be used, for a reason of its own.
    Invalid(&'static str, String, String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "Unknown option: {name}"),
            Self::Ambiguous(name, matches) => {
                write!(f, "Option {name} is ambiguous ({})", matches.join(", "))
            }
            Self::NeedsValue(name) => write!(f, "Option {name} requires an argument"),
            Self::TakesNone(name) => write!(f, "Option {name} does not take an argument"),
            Self::NotANumber(name, value) => {
                write!(
                    f,
                    "Value \"{value}\" invalid for option {name} (number expected)"
                )
            }
            Self::Invalid(name, value, reason) => {
                write!(f, "Value \"{value}\" invalid for option {name} ({reason})")
            }
        }
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    static KNOWN: [Opt; 7] = [
        opt("port", Value::Text, true),
        opt("status-file", Value::Text, true),
        opt("stop", Value::None, true),
        opt("interval", Value::Integer, true),
        opt("status", Value::None, false),
        opt("stop-timeout", Value::Text, false),
        opt("wait-ready", Value::Optional, false),
    ];

    const fn opt(name: &'static str, value: Value, perl: bool) -> Opt {
        Opt { name, value, perl }
    }

    fn parse(args: &[&str]) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
        parse_in(args, false)
    }

    fn parse_in(args: &[&str], in_order: bool) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
        let text = |value: &OsString| value.to_string_lossy().into_owned();
        match Arguments::parse(&KNOWN, args.iter().map(OsString::from), in_order) {
            Ok(parsed) => Ok((
                parsed
                    .options
                    .iter()
                    .map(|(opt, value)| match value {
                        Some(value) => format!("{}={}", opt.name, text(value)),
                        None => opt.name.into(),
                    })
                    .collect(),
                parsed.rest.iter().map(text).collect(),
            )),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    fn options(args: &[&str]) -> Vec<String> {
        parse(args).unwrap().0
    }

    #[test]
    fn options_are_read_in_every_form_that_perl_takes() {
        for args in [
            &["--port=80"][..],
            &["--port", "80"],
            &["-port=80"],
            &["-port", "80"],
            &["--PORT=80"],
            &["--po=80"],
            &["+port=80"],
            &["-p", "80"],
        ] {
            assert_eq!(options(args), ["port=80"], "{args:?}");
        }
    }

    #[test]
    fn options_behind_the_program_are_still_ours_without_a_double_dash() {
        let (options, rest) = parse(&["prog", "--port=80", "arg"]).unwrap();
        assert_eq!(options, ["port=80"]);
        assert_eq!(rest, ["prog", "arg"]);
    }

    #[test]
    fn nothing_behind_a_double_dash_is_ours() {
        let (options, rest) = parse(&["--stop", "--", "prog", "--port=80", "--"]).unwrap();
        assert_eq!(options, ["stop"]);
        assert_eq!(rest, ["prog", "--port=80", "--"]);
    }

    #[test]
    fn options_end_at_the_program_if_posix_order_is_asked_for() {
        let (options, rest) = parse_in(&["--stop", "prog", "--port=80"], true).unwrap();
        assert_eq!(options, ["stop"]);
        assert_eq!(rest, ["prog", "--port=80"]);
        // Nor does `+` begin one then.
        let (options, rest) = parse_in(&["+stop"], true).unwrap();
        assert_eq!(
            (options.len(), rest.as_slice()),
            (0, &["+stop".to_owned()][..])
        );
    }

    #[test]
    fn abbreviations_unique_among_perls_options_keep_their_meaning() {
        assert_eq!(options(&["--stat", "F"]), ["status-file=F"]);
        assert_eq!(options(&["--sto"]), ["stop"]);
        assert_eq!(options(&["--status=F"]), ["status-file=F"]);
        assert_eq!(options(&["--status"]), ["status"]);
        assert_eq!(options(&["--stop-t=3"]), ["stop-timeout=3"]);
    }

    #[test]
    fn ambiguous_abbreviation_names_what_it_could_be() {
        assert_eq!(
            parse(&["--st"]).unwrap_err(),
            ["Option st is ambiguous (status-file, stop)"]
        );
    }

    #[test]
    fn text_values_may_look_like_options() {
        assert_eq!(options(&["--port", "--stop"]), ["port=--stop"]);
        assert_eq!(options(&["--port=a=b"]), ["port=a=b"]);
    }

    #[test]
    fn every_bad_argument_is_named() {
        assert_eq!(
            parse(&[
                "--nope",
                "--interval=0.5",
                "--stop=1",
                "--port=",
                "--interval"
            ])
            .unwrap_err(),
            [
                "Unknown option: nope",
                "Value \"0.5\" invalid for option interval (number expected)",
                "Option stop does not take an argument",
                "Option port requires an argument",
                "Option interval requires an argument",
            ]
        );
    }

    #[test]
    fn whole_numbers_may_be_signed_and_grouped() {
        for number in ["-1", "+2", "1_000", "007"] {
            assert_eq!(
                options(&["--interval", number]),
                [format!("interval={number}")]
            );
        }
        assert!(parse(&["--interval", "_"]).is_err());
    }

    #[test]
    fn optional_value_takes_the_next_argument_only_if_it_is_a_number() {
        assert_eq!(options(&["--wait-ready=5"]), ["wait-ready=5"]);
        let (options, rest) = parse(&["--wait-ready", "1.5", "prog"]).unwrap();
        assert_eq!(
            (options, rest),
            (vec!["wait-ready=1.5".into()], vec!["prog".into()])
        );
        let (options, rest) = parse(&["--wait-ready", "prog"]).unwrap();
        assert_eq!(
            (options, rest),
            (vec!["wait-ready".into()], vec!["prog".into()])
        );
    }

    proptest! {
        #[test]
        fn no_argument_is_lost_and_none_panics(args in vec("[-+]{0,2}[a-z=]{0,8}|--|[^-+]{0,4}", 0..8), in_order: bool) {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            if let Ok((options, rest)) = parse_in(&words, in_order) {
                // An option and its value are one or two arguments; `--` is none.
                let taken = args.len() - rest.len();
                prop_assert!(options.len() <= taken, "{options:?} {rest:?}");
                let mut left = words.iter();
                for word in &rest {
                    prop_assert!(left.any(|arg| arg == word), "{rest:?} is not a part of {words:?}");
                }
            }
        }
    }

    #[test]
    fn lone_dashes_are_no_options() {
        assert_eq!(parse(&["-", "+"]).unwrap().1, ["-", "+"]);
    }
}
