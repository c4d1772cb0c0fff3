//! Statements → stages and what each of them needs (pure).

use crate::BuildError;
use crate::dockerfile::{Dockerfile, Instruction, Statement};

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageBase {
    Scratch,
    /// Another stage of the same file, by index.
    Stage(usize),
    Image(String),
}

/// One FROM and the instructions up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub index: usize,
    pub name: Option<String>,
    pub base: StageBase,
    pub from: Statement,
    pub statements: Vec<Statement>,
}

/// The stages of a file, and those that a target needs, in an order that can be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildGraph {
    pub stages: Vec<Stage>,
    pub needed: Vec<usize>,
}

impl BuildGraph {
    /// `expand` turns a FROM's image text into its final form (global ARGs); `target` is a stage's name or number, empty for the last.
    pub fn new(
        file: &Dockerfile,
        target: &str,
        expand: &dyn Fn(&Statement, &str) -> Result<String, BuildError>,
    ) -> Result<Self, BuildError> {
        let mut stages: Vec<Stage> = Vec::new();
        for statement in &file.statements {
            match &statement.instruction {
                Instruction::From { image, name, .. } => {
                    let image = expand(statement, image)?;
                    let base = match find(&stages, &image, false) {
                        _ if image.is_empty() => {
                            return Err(BuildError::Parse {
                                file: file.name.clone(),
                                line: statement.line,
                                text: statement.text.clone(),
                                message: "base name should not be blank".to_owned(),
                            });
                        }
                        _ if image == "scratch" => StageBase::Scratch,
                        Some(index) => StageBase::Stage(index),
                        None => StageBase::Image(image),
                    };
                    stages.push(Stage {
                        index: stages.len(),
                        name: name.clone(),
                        base,
                        from: statement.clone(),
                        statements: Vec::new(),
                    });
                }
                // An ARG before the first FROM belongs to no stage.
                _ => {
                    if let Some(stage) = stages.last_mut() {
                        stage.statements.push(statement.clone());
                    }
                }
            }
        }
        let target = if target.is_empty() {
            stages.len() - 1
        } else {
            find(&stages, target, true).ok_or_else(|| BuildError::NoTarget { target: target.to_owned() })?
        };
        let needed = needed(&stages, target);
        Ok(Self { stages, needed })
    }

    /// The index of an earlier stage that `COPY --from` in stage `before` names.
    pub fn stage_for_copy(&self, name: &str, before: usize) -> Option<usize> {
        find(&self.stages[..before], name, true)
    }

    /// Whether a name is that of a stage which `COPY --from` in stage `before` may not use yet.
    pub fn is_later_stage(&self, name: &str, before: usize) -> bool {
        let lower = name.to_ascii_lowercase();
        self.stages[before..].iter().any(|stage| stage.name.as_deref() == Some(&lower))
    }
}

/// A stage by name, or by number where numbers count. A later stage of the same name hides an earlier one.
fn find(stages: &[Stage], name: &str, numbers: bool) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    stages
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(&lower))
        .or_else(|| name.parse::<usize>().ok().filter(|index| numbers && *index < stages.len()))
}

/// The target and all that it is built from, in file order, which is an order of execution.
fn needed(stages: &[Stage], target: usize) -> Vec<usize> {
    let mut wanted = vec![false; stages.len()];
    let mut open = vec![target];
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut wanted[index], true) {
            continue;
        }
        if let StageBase::Stage(base) = stages[index].base {
            open.push(base);
        }
        for statement in &stages[index].statements {
            open.extend(read_by(&statement.instruction).filter_map(|from| find(&stages[..index], from, true)));
        }
    }
    (0..stages.len()).filter(|index| wanted[*index]).collect()
}

/// The names after `--from` in an instruction.
fn read_by(instruction: &Instruction) -> impl Iterator<Item = &str> {
    let (copy, mounts) = match instruction {
        Instruction::Copy(copy) => (copy.from.as_deref(), [].as_slice()),
        Instruction::Run(run) => (None, run.mounts.as_slice()),
        _ => (None, [].as_slice()),
    };
    copy.into_iter().chain(mounts.iter().filter_map(|mount| mount.from.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn graph(text: &str, target: &str) -> Result<BuildGraph, BuildError> {
        BuildGraph::new(&parse("Dockerfile", text)?, target, &|_, image| Ok(image.to_owned()))
    }

    const MULTI: &str =
        "FROM a AS one\nRUN x\nFROM b AS two\nFROM scratch\nCOPY --from=one /x /x\nFROM two\nCOPY --from=0 /y /y\n";

    #[test]
    fn only_needed_stages_are_executed() {
        assert_eq!(graph(MULTI, "").unwrap().needed, [0, 1, 3]);
        assert_eq!(graph(MULTI, "two").unwrap().needed, [1]);
        assert_eq!(graph(MULTI, "2").unwrap().needed, [0, 2]);
    }

    #[test]
    fn bases_are_scratch_stages_or_images() {
        let stages = graph(MULTI, "").unwrap().stages;
        assert_eq!(stages[2].base, StageBase::Scratch);
        assert_eq!(stages[3].base, StageBase::Stage(1));
        assert_eq!(stages[0].base, StageBase::Image("a".into()));
    }

    #[test]
    fn an_unknown_target_is_an_error() {
        assert_eq!(graph(MULTI, "three").unwrap_err().to_string(), "failed to reach build target three in Dockerfile");
    }
}
