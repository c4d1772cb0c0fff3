//! Build checks (pure): what a Dockerfile may say and better did not. Rules and words as the reference of build checks has them.
//!
//! The `# check` directive leaves rules out (`skip=`) or turns complaints into errors (`error=true`).

use std::collections::BTreeSet;

use crate::BuildError;
use crate::dockerfile::{Command, Dockerfile, Instruction, Statement};

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub rule: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// What is wrong here.
    pub detail: String,
    /// 1-based.
    pub line: usize,
    pub file: String,
}

impl Check {
    /// Where the rule is explained.
    pub fn url(&self) -> String {
        let mut name = String::new();
        let chars: Vec<char> = self.rule.chars().collect();
        for (index, c) in chars.iter().enumerate() {
            let starts_word = c.is_uppercase()
                && index > 0
                && (chars[index - 1].is_lowercase() || chars.get(index + 1).is_some_and(|next| next.is_lowercase()));
            if starts_word {
                name.push('-');
            }
            name.extend(c.to_lowercase());
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{name}/")
    }
}

const RULES: [(&str, &str); 11] = [
    ("StageNameCasing", "Stage names should be lowercase"),
    ("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword"),
    (
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    ("DuplicateStageName", "Stage names should be unique"),
    ("ReservedStageName", "Reserved words should not be used as stage names"),
    (
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    ("MaintainerDeprecated", "The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    (
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    ),
    ("MultipleInstructionsDisallowed", "Multiple instructions of the same type should not be used in the same stage"),
    ("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used"),
    ("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands"),
];

/// All complaints about a file; an error where the file asks for that.
pub(crate) fn checks(file: &Dockerfile) -> Result<Vec<Check>, BuildError> {
    let options = Options::parse(file.directives.check.as_deref().unwrap_or_default());
    if options.skip_all {
        return Ok(Vec::new());
    }
    let mut found = Found { file, options: &options, checks: Vec::new() };
    casing(&mut found);
    stages(&mut found);
    for statement in &file.statements {
        one(&mut found, statement);
    }
    let mut checks = found.checks;
    checks.sort_by_key(|check| check.line);
    if options.error && !checks.is_empty() {
        let rules: BTreeSet<&str> = checks.iter().map(|check| check.rule).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        let first = &checks[0];
        return Err(BuildError::step(format!(
            "lint violation found for rules: {rules} ({}:{}: {})",
            file.name, first.line, first.detail
        )));
    }
    Ok(checks)
}

#[derive(Default)]
struct Options {
    skip: Vec<String>,
    skip_all: bool,
    error: bool,
}

impl Options {
    /// `skip=A,B;error=true`
    fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for part in text.split(';') {
            match part.trim().split_once('=') {
                Some(("skip", "all")) => options.skip_all = true,
                Some(("skip", rules)) => options.skip.extend(rules.split(',').map(|rule| rule.trim().to_lowercase())),
                Some(("error", value)) => options.error = value.trim() == "true",
                _ => {}
            }
        }
        options
    }
}

struct Found<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    checks: Vec<Check>,
}

impl Found<'_> {
    fn add(&mut self, rule: &'static str, line: usize, detail: String) {
        let skipped = self.options.skip.iter().any(|skip| *skip == rule.to_lowercase());
        if let Some((rule, description)) = RULES.iter().find(|(known, _)| *known == rule && !skipped) {
            self.checks.push(Check { rule, description, detail, line, file: self.file.name.clone() });
        }
    }
}

fn word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Instructions in a casing of their own.
fn casing(found: &mut Found<'_>) {
    let words: Vec<(usize, &str)> = found.file.statements.iter().map(|s| (s.line, word(&s.text))).collect();
    let lower = words.iter().filter(|(_, word)| *word == word.to_lowercase()).count();
    let upper = words.iter().filter(|(_, word)| *word == word.to_uppercase()).count();
    let (name, wanted): (_, fn(&str) -> String) =
        if lower > upper { ("lowercase", |w| w.to_lowercase()) } else { ("uppercase", |w| w.to_uppercase()) };
    for (line, word) in words {
        if word != wanted(word) {
            let detail = format!("Command '{word}' should match the case of the command majority ({name})");
            found.add("ConsistentInstructionCasing", line, detail);
        }
    }
}

/// Names of stages, and instructions of which only the last one counts.
fn stages(found: &mut Found<'_>) {
    let file = found.file;
    let mut names: Vec<String> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut absolute = false;
    for statement in &file.statements {
        match &statement.instruction {
            Instruction::From { image, name, .. } => {
                seen.clear();
                absolute = names.iter().any(|known| known == image);
                from(found, statement, name.as_deref(), &names);
                names.extend(name.clone());
            }
            Instruction::Workdir(path) => {
                if !absolute && !path.starts_with(['/', '$']) {
                    let detail =
                        format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    found.add("WorkdirRelativePath", statement.line, detail);
                }
                absolute |= path.starts_with(['/', '$']);
            }
            Instruction::Cmd(_) | Instruction::Entrypoint(_) | Instruction::Healthcheck(_) => {
                let kind = match &statement.instruction {
                    Instruction::Cmd(_) => "CMD",
                    Instruction::Entrypoint(_) => "ENTRYPOINT",
                    _ => "HEALTHCHECK",
                };
                if seen.contains(&kind) {
                    let detail = format!(
                        "Multiple {kind} instructions should not be used in the same stage because only the last one will be used"
                    );
                    found.add("MultipleInstructionsDisallowed", statement.line, detail);
                }
                seen.push(kind);
            }
            _ => {}
        }
    }
}

fn from(found: &mut Found<'_>, statement: &Statement, name: Option<&str>, names: &[String]) {
    let line = statement.line;
    let Some(name) = name else { return };
    let words: Vec<&str> = statement.text.split_whitespace().collect();
    let written = words.last().copied().unwrap_or_default();
    if written != written.to_lowercase() {
        found.add("StageNameCasing", line, format!("Stage name '{written}' should be lowercase"));
    }
    let keyword = words.iter().rev().nth(1).copied().unwrap_or_default();
    let is_lower = |word: &str| word == word.to_lowercase();
    if is_lower(words[0]) != is_lower(keyword) {
        let detail = format!("'{keyword}' and '{}' keywords' casing do not match", words[0]);
        found.add("FromAsCasing", line, detail);
    }
    if names.iter().any(|known| known == name) {
        found.add("DuplicateStageName", line, format!("Duplicate stage name {name:?}, stage names should be unique"));
    }
    if name == "context" {
        let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
        found.add("ReservedStageName", line, detail);
    }
}

/// What one instruction alone shows.
fn one(found: &mut Found<'_>, statement: &Statement) {
    let line = statement.line;
    match &statement.instruction {
        Instruction::Maintainer(_) => {
            found.add(
                "MaintainerDeprecated",
                line,
                "Maintainer instruction is deprecated in favor of using label".into(),
            );
        }
        Instruction::Cmd(Command::Shell(_)) | Instruction::Entrypoint(Command::Shell(_)) => {
            let kind = word(&statement.text).to_uppercase();
            let detail =
                format!("JSON arguments recommended for {kind} to prevent unintended behavior related to OS signals");
            found.add("JSONArgsRecommended", line, detail);
        }
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            let kind = word(&statement.text).to_uppercase();
            let legacy = statement.text.split_whitespace().nth(1).is_some_and(|first| !first.contains('='));
            if legacy {
                let detail =
                    format!("\"{kind} key=value\" should be used instead of legacy \"{kind} key value\" format");
                found.add("LegacyKeyValueFormat", line, detail);
            }
            if kind == "ENV" {
                secrets(found, line, "ENV", pairs.iter().map(|(name, _)| name.as_str()));
            }
        }
        Instruction::Arg(args) => secrets(found, line, "ARG", args.iter().map(|(name, _)| name.as_str())),
        _ => {}
    }
}

fn secrets<'a>(found: &mut Found<'_>, line: usize, kind: &str, names: impl Iterator<Item = &'a str>) {
    const WORDS: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    for name in names {
        let lower = name.to_lowercase();
        let parts: Vec<&str> = lower.split('_').collect();
        if parts.iter().any(|part| WORDS.contains(part)) && !parts.contains(&"public") {
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name:?})");
            found.add("SecretsUsedInArgOrEnv", line, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        checks(&parse("Dockerfile", text).unwrap()).unwrap().iter().map(|check| (check.rule, check.line)).collect()
    }

    #[test]
    fn checks_find_what_the_reference_lists() {
        for (text, want) in [
            ("FROM a AS Build", ("StageNameCasing", 1)),
            ("FROM a as b", ("FromAsCasing", 1)),
            ("FROM a\nrun x\nRUN y", ("ConsistentInstructionCasing", 2)),
            ("FROM a AS b\nFROM c AS b", ("DuplicateStageName", 2)),
            ("FROM a AS context", ("ReservedStageName", 1)),
            ("FROM a\nCMD x", ("JSONArgsRecommended", 2)),
            ("FROM a\nMAINTAINER x", ("MaintainerDeprecated", 2)),
            ("FROM a\nWORKDIR x", ("WorkdirRelativePath", 2)),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]", ("MultipleInstructionsDisallowed", 3)),
            ("FROM a\nENV a b", ("LegacyKeyValueFormat", 2)),
            ("FROM a\nARG API_TOKEN", ("SecretsUsedInArgOrEnv", 2)),
        ] {
            assert_eq!(rules(text), [want], "{text}");
        }
        assert!(
            rules("FROM a AS b\nWORKDIR /x\nWORKDIR y\nENV A=b PUBLIC_KEY=c\nCMD [\"x\"]\nFROM b\nWORKDIR z")
                .is_empty()
        );
    }

    #[test]
    fn the_check_directive_skips_and_makes_errors() {
        assert!(rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER x").is_empty());
        assert!(rules("# check=skip=all\nFROM a\nMAINTAINER x").is_empty());
        let failed = checks(&parse("Dockerfile", "# check=error=true\nFROM a\nMAINTAINER x").unwrap()).unwrap_err();
        assert!(failed.to_string().contains("lint violation found for rules: MaintainerDeprecated"), "{failed}");
    }

    #[test]
    fn every_rule_has_an_address() {
        let check = |rule| Check { rule, description: "", detail: String::new(), line: 1, file: String::new() };
        assert!(check("JSONArgsRecommended").url().ends_with("/json-args-recommended/"));
        assert!(check("StageNameCasing").url().ends_with("/stage-name-casing/"));
    }
}
