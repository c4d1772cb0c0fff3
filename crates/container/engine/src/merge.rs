//! The user's configuration over the image's (pure).

use std::collections::BTreeMap;

use oci::RunConfig;

use crate::config::{Config, Empty, Healthcheck};

/// What the container runs with: the user's words win, the image fills in.
pub(crate) fn merge(user: Config, image: &RunConfig) -> Config {
    let mut merged = user;
    // A user's entrypoint makes the image's command meaningless.
    if merged.entrypoint.is_none() {
        if merged.cmd.as_ref().is_none_or(Vec::is_empty) {
            merged.cmd.clone_from(&image.cmd);
        }
        merged.entrypoint.clone_from(&image.entrypoint);
    } else if merged.entrypoint.as_deref() == Some(&[String::new()]) {
        // `--entrypoint ""` resets it.
        merged.entrypoint = None;
    }
    merged.env = merge_env(merged.env, &image.env);
    if merged.user.is_empty() {
        merged.user = image.user.clone();
    }
    if merged.working_dir.is_empty() {
        merged.working_dir = image.working_dir.clone();
    }
    if merged.stop_signal.is_empty() {
        merged.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    if merged.shell.is_none() {
        merged.shell.clone_from(&image.shell);
    }
    for port in image.exposed_ports.keys() {
        merged.exposed_ports.entry(port.clone()).or_insert(Empty {});
    }
    if !image.volumes.is_empty() {
        let all = merged.volumes.get_or_insert_default();
        for path in image.volumes.keys() {
            all.entry(path.clone()).or_insert(Empty {});
        }
    }
    for (key, value) in &image.labels {
        merged.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    merged.healthcheck = merge_health(merged.healthcheck.take(), image.healthcheck.as_ref());
    merged
}

/// Image variables first, in the image's order; the user's override by name.
pub(crate) fn merge_env(user: Vec<String>, image: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.to_owned(), |(name, _)| name.to_owned());
    let mut merged: Vec<String> =
        image.iter().filter(|entry| !user.iter().any(|ours| name(ours) == name(entry))).cloned().collect();
    merged.extend(user);
    merged
}

fn merge_health(user: Option<Healthcheck>, image: Option<&oci::HealthCheck>) -> Option<Healthcheck> {
    let Some(image) = image else { return user };
    let mut merged = user.unwrap_or_default();
    let inherit = |ours: &mut i64, theirs: i64| {
        if *ours == 0 {
            *ours = theirs;
        }
    };
    if merged.test.is_empty() {
        merged.test.clone_from(&image.test);
    }
    inherit(&mut merged.interval, image.interval);
    inherit(&mut merged.timeout, image.timeout);
    inherit(&mut merged.start_period, image.start_period);
    inherit(&mut merged.start_interval, image.start_interval);
    inherit(&mut merged.retries, image.retries);
    Some(merged)
}

/// A container's configuration as an image's.
pub(crate) fn to_image(config: &Config) -> RunConfig {
    let set = |keys: Vec<&String>| keys.into_iter().map(|key| (key.clone(), oci::Empty {})).collect();
    RunConfig {
        user: config.user.clone(),
        exposed_ports: set(config.exposed_ports.keys().collect()),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: set(config.volumes.iter().flat_map(BTreeMap::keys).collect()),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        shell: config.shell.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| oci::HealthCheck {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        ..RunConfig::default()
    }
}

/// The program and its arguments.
pub(crate) fn args(config: &Config) -> Vec<String> {
    config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|s| (*s).to_owned()).collect())
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["serve"]),
            env: vec!["PATH=/bin".to_owned(), "MODE=image".to_owned()],
            user: "app".to_owned(),
            working_dir: "/srv".to_owned(),
            ..RunConfig::default()
        }
    }

    #[test]
    fn entrypoint_and_command_combine_as_docker_combines_them() {
        type Words = Option<Vec<String>>;
        let table: [(Words, Words, &[&str]); 5] = [
            (None, None, &["/entry", "serve"]),
            (None, words(&["other"]), &["/entry", "other"]),
            (words(&["/mine"]), None, &["/mine"]),
            (words(&["/mine"]), words(&["x"]), &["/mine", "x"]),
            (words(&[""]), words(&["sh"]), &["sh"]),
        ];
        for (entrypoint, cmd, expected) in table {
            let user = Config { entrypoint, cmd, ..Config::default() };
            assert_eq!(args(&merge(user, &image())), expected);
        }
    }

    #[test]
    fn user_variables_override_the_images_by_name() {
        let user = Config { env: vec!["MODE=user".to_owned(), "NEW=1".to_owned()], ..Config::default() };
        assert_eq!(merge(user, &image()).env, ["PATH=/bin", "MODE=user", "NEW=1"]);
    }

    #[test]
    fn the_image_fills_in_what_the_user_left_out() {
        let merged = merge(Config::default(), &image());
        assert_eq!((merged.user.as_str(), merged.working_dir.as_str()), ("app", "/srv"));
        let merged = merge(Config { user: "0".to_owned(), ..Config::default() }, &image());
        assert_eq!(merged.user, "0");
    }
}
