//! Instructions that change only the image's configuration (pure).

use oci::{Empty, HealthCheck, ImageConfig};

use crate::dockerfile::{Command, Healthcheck, Instruction};

/// What the shell form is run with unless SHELL says otherwise.
pub(crate) const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Expands one word of an instruction.
pub(crate) type Expand<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Applies a metadata instruction. Returns its text for the image's history, with variables expanded;
/// `None` for an instruction that is not of this kind (FROM, RUN, COPY, ADD, WORKDIR, ARG).
/// `cmd_set`: CMD stands in this stage already, so ENTRYPOINT must not reset it.
pub(crate) fn apply(
    config: &mut ImageConfig,
    instruction: &Instruction,
    cmd_set: &mut bool,
    expand: Expand<'_>,
) -> Result<Option<String>, String> {
    let run = &mut config.config;
    let text = match instruction {
        Instruction::Env(pairs) => {
            let pairs = expand_pairs(pairs, expand)?;
            for (name, value) in &pairs {
                set_env(&mut run.env, name, value);
            }
            format!("ENV {}", join_pairs(&pairs))
        }
        Instruction::Label(pairs) => {
            let pairs = expand_pairs(pairs, expand)?;
            let text = format!("LABEL {}", join_pairs(&pairs));
            run.labels.extend(pairs);
            text
        }
        Instruction::Cmd(command) => {
            *cmd_set = true;
            let args = command_args(command, run.shell.as_deref());
            let text = format!("CMD {}", quoted(&args));
            run.cmd = Some(args);
            text
        }
        Instruction::Entrypoint(command) => {
            let args = command_args(command, run.shell.as_deref());
            let text = format!("ENTRYPOINT {}", quoted(&args));
            run.entrypoint = Some(args);
            // An inherited CMD belongs to the inherited entry point.
            if !*cmd_set {
                run.cmd = None;
            }
            text
        }
        Instruction::Shell(shell) => {
            run.shell = Some(shell.clone());
            format!("SHELL {}", quoted(shell))
        }
        Instruction::Expose(ports) => {
            let mut shown = Vec::new();
            for word in ports {
                for port in expand(word)?.split_whitespace() {
                    for single in ports_of(port)? {
                        run.exposed_ports.insert(single, Empty {});
                    }
                    shown.push(port.to_owned());
                }
            }
            format!("EXPOSE {}", shown.join(" "))
        }
        Instruction::User(user) => {
            run.user = expand(user)?;
            format!("USER {}", run.user)
        }
        Instruction::Volume(paths) => {
            let mut shown = Vec::new();
            for path in paths {
                let path = expand(path)?;
                if path.is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                run.volumes.insert(path.clone(), Empty {});
                shown.push(path);
            }
            format!("VOLUME {}", quoted(&shown))
        }
        Instruction::StopSignal(signal) => {
            let signal = expand(signal)?;
            check_signal(&signal)?;
            run.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Healthcheck(check) => {
            run.healthcheck = Some(health(check));
            format!("HEALTHCHECK {}", quoted(&check.test))
        }
        Instruction::Onbuild(trigger) => {
            run.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Instruction::Maintainer(who) => {
            config.author = Some(who.clone());
            format!("MAINTAINER {who}")
        }
        Instruction::From { .. }
        | Instruction::Run(_)
        | Instruction::Copy(_)
        | Instruction::Workdir(_)
        | Instruction::Arg(_) => return Ok(None),
    };
    Ok(Some(text))
}

/// A command's complete argument vector.
pub(crate) fn command_args(command: &Command, shell: Option<&[String]>) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => shell_of(shell).into_iter().chain([text.clone()]).collect(),
    }
}

pub(crate) fn shell_of(shell: Option<&[String]>) -> Vec<String> {
    shell.map_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec(), <[String]>::to_vec)
}

/// Replaces a variable in place, or adds it at the end: order is kept, as Docker keeps it.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split_once('=').is_some_and(|(old, _)| old == name)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// WORKDIR's new value: relative to the old one.
pub(crate) fn joined_dir(current: &str, path: &str) -> String {
    let base = if path.starts_with('/') { String::new() } else { current.to_owned() };
    let clean = crate::context::normalise(&format!("{base}/{path}"));
    format!("/{}", clean.display())
}

fn expand_pairs(pairs: &[(String, String)], expand: Expand<'_>) -> Result<Vec<(String, String)>, String> {
    pairs.iter().map(|(name, value)| Ok((expand(name)?, expand(value)?))).collect()
}

fn join_pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn quoted(args: &[String]) -> String {
    serde_json::to_string(args).unwrap_or_default()
}

fn health(check: &Healthcheck) -> HealthCheck {
    HealthCheck {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}

/// `8000`, `8000/udp`, `8000-8010/tcp` → one key a port.
fn ports_of(text: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {text}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid);
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A number from 1 to 64, or a name as signal(7) has it with or without SIG.
fn check_signal(signal: &str) -> Result<(), String> {
    const NAMES: &str = "HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS";
    let number = signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.starts_with("RTMIN") || name.starts_with("RTMAX");
    if number || real_time || NAMES.split(' ').any(|known| known == name) {
        Ok(())
    } else {
        Err(format!("Invalid signal: {signal}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    /// Applies a Dockerfile's metadata instructions to an empty image.
    fn built(text: &str) -> ImageConfig {
        let mut config = ImageConfig::default();
        let mut cmd_set = false;
        for statement in parse("Dockerfile", &format!("FROM x\n{text}")).unwrap().statements {
            apply(&mut config, &statement.instruction, &mut cmd_set, &|word| Ok(word.to_owned())).unwrap();
        }
        config
    }

    #[test]
    fn metadata_instructions_fill_the_configuration() {
        let config = built("EXPOSE 80 90-91/udp\nENV A=1\nENV B=2 A=3\nUSER u:g\nVOLUME /d\nSTOPSIGNAL SIGQUIT\nLABEL k=v\nSHELL [\"/bin/bash\",\"-c\"]\nCMD echo hi\nONBUILD RUN x").config;
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
        assert_eq!(config.env, ["A=3", "B=2"]);
        assert_eq!(config.cmd, Some(vec!["/bin/bash".into(), "-c".into(), "echo hi".into()]));
        assert_eq!(
            (config.user.as_str(), config.stop_signal.as_deref(), config.on_build.len()),
            ("u:g", Some("SIGQUIT"), 1)
        );
    }

    #[test]
    fn an_entrypoint_resets_only_an_inherited_cmd() {
        assert!(built("CMD a\nENTRYPOINT b").config.cmd.is_some());
        let mut config = ImageConfig::default();
        config.config.cmd = Some(vec!["inherited".into()]);
        let entry = Instruction::Entrypoint(Command::Shell("b".into()));
        apply(&mut config, &entry, &mut false, &|word| Ok(word.to_owned())).unwrap();
        assert_eq!(config.config.cmd, None);
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in ["EXPOSE 0", "EXPOSE 99999", "EXPOSE 9-8", "EXPOSE 80/x", "STOPSIGNAL NOPE"] {
            let statement = &parse("Dockerfile", &format!("FROM x\n{text}")).unwrap().statements[1];
            let refused =
                apply(&mut ImageConfig::default(), &statement.instruction, &mut false, &|word| Ok(word.to_owned()));
            assert!(refused.is_err(), "{text}");
        }
    }

    #[test]
    fn workdirs_are_relative_to_the_one_before() {
        assert_eq!(joined_dir("/app", "src"), "/app/src");
        assert_eq!(joined_dir("", "src"), "/src");
        assert_eq!(joined_dir("/app", "/x/../y"), "/y");
        assert_eq!(joined_dir("/app", "../.."), "/");
    }
}
