//! Command lines as Go programs read them: `--name value`, `--name=value`, one dash as good as two, and the first word that is no flag ends them.

use crate::error::Error;

/// What a verb knows.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: &'static str,
    pub(crate) takes_value: bool,
}

pub(crate) const fn value(name: &'static str, short: &'static str) -> Flag {
    Flag { name, short, takes_value: true }
}

pub(crate) const fn switch(name: &'static str, short: &'static str) -> Flag {
    Flag { name, short, takes_value: false }
}

const HELP: Flag = switch("help", "h");

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    flags: Vec<(&'static str, String)>,
    pub(crate) rest: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(args: &[String], known: &[Flag]) -> Result<Self, Error> {
        let mut parsed = Arguments::default();
        let mut words = args.iter();
        while let Some(word) = words.as_slice().first() {
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
                break;
            };
            words.next();
            if name.is_empty() {
                break;
            }
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let flag = known
                .iter()
                .chain([&HELP])
                .find(|flag| flag.name == name || (!flag.short.is_empty() && flag.short == name))
                .ok_or_else(|| Error::Usage(format!("flag provided but not defined: -{name}")))?;
            let value = match (attached, flag.takes_value) {
                (Some(value), _) => value,
                (None, false) => "true".to_owned(),
                (None, true) => {
                    words.next().cloned().ok_or_else(|| Error::Usage(format!("flag needs an argument: -{name}")))?
                }
            };
            parsed.flags.push((flag.name, value));
        }
        parsed.rest = words.cloned().collect();
        Ok(parsed)
    }

    /// The last one wins.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !matches!(value, "false" | "0" | "f"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        self.value(name)
            .map(|text| text.parse().map_err(|_| Error::Usage(format!("invalid value {text:?} for flag -{name}"))))
            .transpose()
    }

    /// The one argument that every verb about a container has.
    pub(crate) fn id(&self) -> Result<&str, Error> {
        self.rest.first().map(String::as_str).ok_or_else(|| Error::Usage("a container's id is missing".to_owned()))
    }

    /// The same, for verbs that take nothing else.
    pub(crate) fn only_id(&self) -> Result<&str, Error> {
        match &self.rest[..] {
            [_, unexpected, ..] => Err(Error::Usage(format!("unexpected argument {unexpected:?}"))),
            _ => self.id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Error> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&words, &[value("bundle", "b"), switch("detach", "d"), value("env", "e")])
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let parsed = parse("--bundle /b -d -env A=1 --env=B=2 id -d x").unwrap();
        assert_eq!(parsed.value("bundle"), Some("/b"));
        assert!(parsed.has("detach"));
        assert_eq!(parsed.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(parsed.rest, ["id", "-d", "x"]);
        assert!(!parse("--detach=false id").unwrap().has("detach"));
        assert_eq!(parse("-- -d").unwrap().rest, ["-d"]);
        assert!(parse("--nosuch id").unwrap_err().to_string().contains("not defined: -nosuch"));
        assert!(parse("--bundle").is_err());
    }
}
