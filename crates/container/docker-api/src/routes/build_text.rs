//! What happens in a build as the classic builder's text. Stages run at the same time; their text comes one after the other.

use std::collections::BTreeMap;

use build::{BuildEvent, StepId};
use serde_json::json;

/// Puts the events of stages that run at the same time into the order of the file: one stage is shown as it goes, the
/// others wait until it is done.
#[derive(Default)]
pub(crate) struct InOrder {
    shown: Option<usize>,
    /// Number of the last step that was shown.
    last: usize,
    held: BTreeMap<usize, Vec<BuildEvent>>,
}

impl InOrder {
    /// Takes an event; returns what is to be shown now.
    pub(crate) fn push(&mut self, id: StepId, event: BuildEvent) -> Vec<BuildEvent> {
        if id.stage == StepId::WHOLE.stage {
            return vec![event];
        }
        self.held.entry(id.stage).or_default().push(event);
        let mut out = Vec::new();
        while self.choose() {
            let Some(stage) = self.shown else { break };
            for event in self.held.remove(&stage).unwrap_or_default() {
                match &event {
                    BuildEvent::Step { number, .. } => self.last = *number,
                    BuildEvent::StageDone => self.shown = None,
                    _ => {}
                }
                out.push(event);
            }
            if self.shown.is_some() {
                break;
            }
        }
        out
    }

    /// Finds the stage whose first step comes next.
    fn choose(&mut self) -> bool {
        if self.shown.is_none() {
            let next = self.last + 1;
            let begins = |events: &Vec<BuildEvent>| matches!(events.first(), Some(BuildEvent::Step { number, .. }) if *number == next);
            self.shown = self.held.iter().find(|(_, events)| begins(events)).map(|(stage, _)| *stage);
        }
        self.shown.is_some_and(|stage| self.held.contains_key(&stage))
    }

    /// All that is still held: the build ended before it came to be shown.
    pub(crate) fn rest(&mut self) -> Vec<BuildEvent> {
        std::mem::take(&mut self.held).into_values().flatten().collect()
    }
}

pub(crate) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// One event as the lines that the classic builder prints for it.
pub(crate) fn draw(event: &BuildEvent, quiet: bool) -> Vec<String> {
    let text = |text: String| vec![json!({"stream": text}).to_string()];
    match event {
        BuildEvent::Built { id } => {
            let mut lines = vec![json!({"aux": {"ID": id_of(id)}}).to_string()];
            if !quiet {
                lines.extend(text(format!("Successfully built {}\n", short(id))));
            }
            lines
        }
        BuildEvent::Progress { json } if !quiet => vec![json.clone()],
        _ if quiet => Vec::new(),
        BuildEvent::Step { number, total, text: step, .. } => text(format!("Step {number}/{total} : {step}\n")),
        BuildEvent::Triggers { count: 1 } => text("# Executing 1 build trigger\n".to_owned()),
        BuildEvent::Triggers { count } => text(format!("# Executing {count} build triggers\n")),
        BuildEvent::UsingCache => text(" ---> Using cache\n".to_owned()),
        BuildEvent::RunningIn { container } => text(format!(" ---> Running in {}\n", short(container))),
        BuildEvent::Removed { container } => {
            text(format!(" ---> Removed intermediate container {}\n", short(container)))
        }
        BuildEvent::Output { bytes, .. } => text(String::from_utf8_lossy(bytes).into_owned()),
        BuildEvent::Result { id } => text(format!(" ---> {}\n", short(id))),
        BuildEvent::Warning { text: warning } => text(format!("{warning}\n")),
        BuildEvent::Progress { json } => vec![json.clone()],
        BuildEvent::Tagged { name } => text(format!("Successfully tagged {name}\n")),
        // The classic builder knows no checks, and the failure itself ends its text.
        BuildEvent::Check(_) | BuildEvent::Failed { .. } | BuildEvent::StageDone => Vec::new(),
    }
}

fn id_of(id: &str) -> String {
    if id.starts_with("sha256:") { id.to_owned() } else { format!("sha256:{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: usize) -> BuildEvent {
        BuildEvent::Step { number, total: 4, text: format!("step {number}"), vertex: None }
    }

    #[test]
    fn events_are_drawn_as_the_classic_builder_draws_them() {
        let id = "a".repeat(64);
        assert_eq!(draw(&step(1), false), [r#"{"stream":"Step 1/4 : step 1\n"}"#]);
        assert_eq!(draw(&BuildEvent::Built { id: id.clone() }, true), [format!(r#"{{"aux":{{"ID":"sha256:{id}"}}}}"#)]);
        assert_eq!(draw(&BuildEvent::Built { id }, false)[1], r#"{"stream":"Successfully built aaaaaaaaaaaa\n"}"#);
        assert!(draw(&BuildEvent::UsingCache, true).is_empty());
    }

    #[test]
    fn stages_that_run_at_the_same_time_are_shown_one_after_the_other() {
        let mut order = InOrder::default();
        let at = |stage| StepId { stage, index: 0 };
        assert!(order.push(at(2), step(3)).is_empty(), "the second stage waits");
        assert_eq!(order.push(at(0), step(1)), [step(1)], "the first is shown as it goes");
        assert_eq!(order.push(at(2), BuildEvent::StageDone), []);
        assert_eq!(order.push(at(0), step(2)), [step(2)]);
        let shown = order.push(at(0), BuildEvent::StageDone);
        assert_eq!(shown, [BuildEvent::StageDone, step(3), BuildEvent::StageDone]);
        order.push(at(5), step(9));
        assert_eq!(order.rest(), [step(9)]);
    }
}
