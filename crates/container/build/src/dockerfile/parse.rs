//! Logical lines → [`Statement`]s, with every complaint tied to its line.

use super::Dockerfile;
use super::instruction::{Command, Copy, CopySource, Healthcheck, Instruction, Run, Statement};
use super::lines::{self, Heredoc, INSTRUCTIONS, Line};
use super::mount::Mount;
use super::words::{self, Flag};
use crate::BuildError;

/// Parses a whole file. `name` is what errors call it.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, BuildError> {
    let at = |line: usize, text: &str, message: String| BuildError::Parse {
        file: name.to_owned(),
        line,
        text: shortened(text),
        message,
    };
    let (directives, lines) = lines::split(text)
        .map_err(|(line, message)| at(line, text.lines().nth(line - 1).unwrap_or_default(), message))?;
    if lines.is_empty() {
        return Err(BuildError::Empty { file: name.to_owned() });
    }
    let mut statements = Vec::with_capacity(lines.len());
    let mut in_stage = false;
    for line in lines {
        let instruction =
            instruction(&line, directives.escape).map_err(|message| at(line.number, &line.text, message))?;
        match instruction {
            Instruction::From { .. } => in_stage = true,
            Instruction::Arg(_) => {}
            _ if !in_stage => return Err(at(line.number, &line.text, "no build stage in current context".to_owned())),
            _ => {}
        }
        statements.push(Statement { line: line.number, text: line.text, instruction });
    }
    if !in_stage {
        return Err(at(
            1,
            text.lines().next().unwrap_or_default(),
            "file with no instructions: FROM is missing".to_owned(),
        ));
    }
    Ok(Dockerfile { name: name.to_owned(), directives, statements })
}

/// Parses an ONBUILD trigger that a base image carries.
pub fn parse_onbuild(trigger: &str) -> Result<Statement, BuildError> {
    let refused =
        |message: String| BuildError::Parse { file: "ONBUILD".to_owned(), line: 1, text: shortened(trigger), message };
    let (directives, lines) = lines::split(trigger).map_err(|(_, message)| refused(message))?;
    let [line] = lines.as_slice() else { return Err(refused("a trigger is exactly one instruction".to_owned())) };
    let instruction = instruction(line, directives.escape).map_err(refused)?;
    if matches!(instruction, Instruction::From { .. } | Instruction::Onbuild(_) | Instruction::Maintainer(_)) {
        return Err(refused("this instruction isn't allowed as an ONBUILD trigger".to_owned()));
    }
    Ok(Statement { line: 1, text: line.text.clone(), instruction })
}

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 160 { line.chars().take(157).collect::<String>() + "..." } else { line.to_owned() }
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, String> {
    let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let (flags, rest) = words::take_flags(rest);
    let word = word.to_ascii_uppercase();
    let mut flags = Flags { instruction: &word, flags };
    let parsed = match word.as_str() {
        "FROM" => from(rest, &mut flags)?,
        "RUN" => run(rest, &line.heredocs, &mut flags)?,
        "COPY" | "ADD" => copy(word == "ADD", rest, &line.heredocs, &mut flags, escape)?,
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "SHELL" => Instruction::Shell(
            words::json_array(rest)
                .filter(|shell| !shell.is_empty())
                .ok_or("SHELL requires the arguments to be in JSON form")?,
        ),
        "ENV" => Instruction::Env(words::pairs(rest, escape, "ENV")?),
        "LABEL" => Instruction::Label(words::pairs(rest, escape, "LABEL")?),
        "ARG" => arg(rest, escape)?,
        "EXPOSE" => Instruction::Expose(at_least_one(words::split(rest, escape), "EXPOSE")?),
        "USER" => Instruction::User(exactly_one(rest, "USER")?),
        "WORKDIR" => Instruction::Workdir(exactly_one(rest, "WORKDIR")?),
        "VOLUME" => Instruction::Volume(at_least_one(
            words::json_array(rest).unwrap_or_else(|| words::split(rest, escape)),
            "VOLUME",
        )?),
        "STOPSIGNAL" => Instruction::StopSignal(exactly_one(rest, "STOPSIGNAL")?),
        "HEALTHCHECK" => healthcheck(rest, &mut flags)?,
        "ONBUILD" => onbuild(rest, escape)?,
        "MAINTAINER" => Instruction::Maintainer(exactly_one(rest, "MAINTAINER")?),
        other => return Err(unknown(other)),
    };
    flags.finish()?;
    Ok(parsed)
}

fn unknown(word: &str) -> String {
    let nearest = INSTRUCTIONS.iter().map(|known| (distance(known, word), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 2 => format!("unknown instruction: {word} (did you mean {known}?)"),
        _ => format!("unknown instruction: {word}"),
    }
}

/// Levenshtein distance over the few letters of an instruction; long words need not be measured exactly.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(16).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The flags of one instruction; what nobody took is unknown.
struct Flags<'a> {
    instruction: &'a str,
    flags: Vec<Flag>,
}

impl Flags<'_> {
    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(index) = self.flags.iter().position(|flag| flag.name == name) else { return Ok(None) };
        let flag = self.flags.remove(index);
        if self.flags.iter().any(|flag| flag.name == name) {
            return Err(format!("duplicate flag specified: {name}"));
        }
        flag.value.map(Some).ok_or(format!("missing a value on flag: {name}"))
    }

    fn values(&mut self, name: &str) -> Result<Vec<String>, String> {
        let taken: Vec<Flag> = self.flags.extract_if(.., |flag| flag.name == name).collect();
        taken.into_iter().map(|flag| flag.value.ok_or(format!("missing a value on flag: {name}"))).collect()
    }

    fn switch(&mut self, name: &str) -> Result<bool, String> {
        match self.flags.iter().position(|flag| flag.name == name) {
            None => Ok(false),
            Some(index) => match self.flags.remove(index).value.as_deref() {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(other) => Err(format!("expecting boolean value for flag {name}, not: {other}")),
            },
        }
    }

    fn finish(&self) -> Result<(), String> {
        match self.flags.first() {
            None => Ok(()),
            Some(flag) => Err(format!("unknown flag: --{} for {}", flag.name, self.instruction)),
        }
    }
}

fn command(rest: &str) -> Command {
    match words::json_array(rest) {
        Some(args) => Command::Exec(args),
        None => Command::Shell(rest.trim().to_owned()),
    }
}

fn exactly_one(rest: &str, instruction: &str) -> Result<String, String> {
    let rest = rest.trim();
    if rest.is_empty() { Err(format!("{instruction} requires exactly one argument")) } else { Ok(rest.to_owned()) }
}

fn at_least_one(words: Vec<String>, instruction: &str) -> Result<Vec<String>, String> {
    if words.is_empty() { Err(format!("{instruction} requires at least one argument")) } else { Ok(words) }
}

fn from(rest: &str, flags: &mut Flags<'_>) -> Result<Instruction, String> {
    let platform = flags.value("platform")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (*image, Some(name.to_ascii_lowercase())),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    if let Some(name) = &name {
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
        if !valid || name == "scratch" {
            return Err(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
    }
    Ok(Instruction::From { image: image.to_owned(), platform, name })
}

fn run(rest: &str, heredocs: &[Heredoc], flags: &mut Flags<'_>) -> Result<Instruction, String> {
    let network = flags.value("network")?;
    if let Some(network) = network.as_deref().filter(|network| !["default", "none", "host"].contains(network)) {
        return Err(format!("invalid network mode: {network:?}"));
    }
    let insecure = match flags.value("security")?.as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => return Err(format!("security {other:?} is not valid")),
    };
    let mounts = flags.values("mount")?.iter().map(|text| Mount::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if rest.trim().is_empty() {
        return Err("RUN requires at least one argument".to_owned());
    }
    Ok(Instruction::Run(Run { command: command(rest), heredocs: heredocs.to_vec(), network, insecure, mounts }))
}

fn copy(
    is_add: bool,
    rest: &str,
    heredocs: &[Heredoc],
    flags: &mut Flags<'_>,
    escape: char,
) -> Result<Instruction, String> {
    let name = if is_add { "ADD" } else { "COPY" };
    let from = if is_add { None } else { flags.value("from")? };
    let (chown, chmod, exclude) = (flags.value("chown")?, flags.value("chmod")?, flags.values("exclude")?);
    let parents = flags.switch("parents")?;
    let link = flags.switch("link")?;
    let checksum = if is_add { flags.value("checksum")? } else { None };
    let keep_git_dir = is_add && flags.switch("keep-git-dir")?;
    let mut words = words::json_array(rest).unwrap_or_else(|| words::split(rest, escape));
    let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    };
    let mut inline = heredocs.iter();
    let sources = words
        .into_iter()
        .map(|word| match inline.clone().next() {
            Some(heredoc) if word.starts_with("<<") => {
                inline.next();
                CopySource::Inline(heredoc.clone())
            }
            _ => CopySource::Path(word),
        })
        .collect();
    Ok(Instruction::Copy(Copy {
        is_add,
        from,
        chown,
        chmod,
        exclude,
        parents,
        link,
        checksum,
        keep_git_dir,
        sources,
        destination,
    }))
}

fn arg(rest: &str, escape: char) -> Result<Instruction, String> {
    let words = at_least_one(words::split(rest, escape), "ARG")?;
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err("ARG names can not be blank".to_owned()),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word, None)),
        })
        .collect::<Result<_, _>>()
        .map(Instruction::Arg)
}

fn onbuild(rest: &str, escape: char) -> Result<Instruction, String> {
    let trigger = exactly_one(rest, "ONBUILD")?;
    match trigger.split_whitespace().next().map(str::to_ascii_uppercase).as_deref() {
        Some("ONBUILD") => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        Some(word @ ("FROM" | "MAINTAINER")) => return Err(format!("{word} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    // What cannot be parsed must fail here, not in the image that is built from this one.
    instruction(&Line { number: 1, text: trigger.clone(), heredocs: Vec::new() }, escape)?;
    Ok(Instruction::Onbuild(trigger))
}

fn healthcheck(rest: &str, flags: &mut Flags<'_>) -> Result<Instruction, String> {
    let mut duration = |name: &str| flags.value(name)?.map_or(Ok(0), |text| duration_ns(&text));
    let (interval_ns, timeout_ns) = (duration("interval")?, duration("timeout")?);
    let (start_period_ns, start_interval_ns) = (duration("start-period")?, duration("start-interval")?);
    let retries = flags
        .value("retries")?
        .map_or(Ok(0), |text| text.parse::<i64>().map_err(|_| format!("invalid --retries value: {text}")))?;
    if retries < 0 {
        return Err(format!("--retries cannot be negative ({retries})"));
    }
    let (kind, rest) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => match command(rest) {
            Command::Exec(args) if !args.is_empty() => [vec!["CMD".to_owned()], args].concat(),
            Command::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
            Command::Exec(_) | Command::Shell(_) => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        },
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(Instruction::Healthcheck(Healthcheck {
        test,
        interval_ns,
        timeout_ns,
        start_period_ns,
        start_interval_ns,
        retries,
    }))
}

/// A duration as Go writes it: `1m30s`, `500ms`. At least a millisecond, as Docker wants.
fn duration_ns(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid duration {text:?}");
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        total += number * scale;
        rest = &rest[unit_end..];
    }
    if total != 0.0 && !(1e6..=i64::MAX as f64).contains(&total) {
        return Err(format!("Interval {text:?} cannot be less than 1ms"));
    }
    Ok(total as i64)
}

#[cfg(test)]
mod tests;
