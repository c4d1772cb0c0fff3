//! Progress of pulls and pushes as Docker's JSON lines, shared by builds and `docker-api`.

use distribution::client::{LayerState, Progress};
use serde_json::{Value, json};

/// One line, without its newline.
pub fn line(progress: &Progress) -> String {
    value(progress).to_string()
}

/// One line of `docker load`'s progress.
pub fn loading(id: &str, current: u64, total: u64) -> String {
    moving("Loading layer", id, current, total).to_string()
}

fn moving(text: &str, id: &str, current: u64, total: u64) -> Value {
    json!({
        "status": text,
        "progressDetail": {"current": current, "total": total},
        "progress": bar(current, total),
        "id": id,
    })
}

fn value(progress: &Progress) -> Value {
    match progress {
        Progress::Status { id: Some(id), message } => json!({"status": message, "id": id}),
        Progress::Status { id: None, message } => json!({"status": message}),
        Progress::Layer { id, state } => layer(id, state),
    }
}

fn layer(id: &str, state: &LayerState) -> Value {
    let plain = |text: &str| json!({"status": text, "progressDetail": {}, "id": id});
    let moving = |text: &str, current: &u64, total: &u64| moving(text, id, *current, *total);
    match state {
        LayerState::PullingFsLayer => plain("Pulling fs layer"),
        LayerState::Waiting => plain("Waiting"),
        LayerState::Downloading { current, total } => moving("Downloading", current, total),
        LayerState::VerifyingChecksum => plain("Verifying Checksum"),
        LayerState::DownloadComplete => plain("Download complete"),
        LayerState::Extracting { current, total } => moving("Extracting", current, total),
        LayerState::PullComplete => plain("Pull complete"),
        LayerState::AlreadyExists => plain("Already exists"),
        LayerState::Preparing => plain("Preparing"),
        LayerState::Pushing { current, total } => moving("Pushing", current, total),
        LayerState::Pushed => plain("Pushed"),
        LayerState::LayerAlreadyExists => plain("Layer already exists"),
        LayerState::MountedFrom(repository) => plain(&format!("Mounted from {repository}")),
    }
}

/// `[====>     ]  1.2MB/3MB`, fifty columns.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return human(current);
    }
    let done = usize::try_from(current.min(total) * 50 / total).unwrap_or(50);
    let arrow = if done < 50 { ">" } else { "" };
    let space = " ".repeat(50 - done - arrow.len());
    format!("[{}{arrow}{space}]  {}/{}", "=".repeat(done), human(current), human(total))
}

/// Decimal units with four significant digits, as Docker prints sizes.
fn human(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit < 4 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", ["B", "kB", "MB", "GB", "TB"][unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_have_dockers_shape() {
        let downloading =
            Progress::Layer { id: "abc".into(), state: LayerState::Downloading { current: 500, total: 1000 } };
        let value: Value = serde_json::from_str(&line(&downloading)).unwrap();
        assert_eq!(value["progressDetail"], json!({"current": 500, "total": 1000}));
        assert_eq!(value["progress"], "[=========================>                        ]  500B/1kB");
        let status = Progress::Status { id: None, message: "Digest: x".into() };
        assert_eq!(line(&status), r#"{"status":"Digest: x"}"#);
    }

    #[test]
    fn sizes_are_decimal() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1_234_000, "1.234MB"), (50_000_000, "50MB"), (123_456, "123.5kB")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
