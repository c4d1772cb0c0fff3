//! Kubernetes' channels over a WebSocket: the numbers, the subprotocols and the final status.
//!
//! Shared by the streaming server and by the client of other runtimes. Every message is a channel's number and then
//! bytes; `v5` adds a message that closes a channel.

use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

pub(crate) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;
pub(crate) const CLOSE: u8 = 255;

/// Larger messages end the connection; clients send at most 32 KiB at once.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

pub(crate) fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

/// Channel and bytes of a message; control frames have none.
pub(crate) fn parts(message: Message) -> Option<(u8, Bytes)> {
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => Bytes::from(text),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => return None,
    };
    if bytes.is_empty() {
        return None;
    }
    let channel = bytes.split_to(1)[0];
    Some((channel, bytes))
}

/// The last message of a session, from which clients take the exit code.
pub(crate) fn final_status(exit: &crate::Result<i32>) -> String {
    let value = match exit {
        Ok(0) => serde_json::json!({"metadata": {}, "status": "Success"}),
        Ok(code) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": error.to_string(),
        }),
    };
    value.to_string()
}

/// The exit code that a final status tells.
pub(crate) fn exit_code(status: &[u8]) -> crate::Result<i32> {
    let internal = |text: String| crate::CriError::Internal(text);
    let value: serde_json::Value =
        serde_json::from_slice(status).map_err(|error| internal(format!("the session's status: {error}")))?;
    if value["status"] == "Success" {
        return Ok(0);
    }
    let causes = value["details"]["causes"].as_array().into_iter().flatten();
    let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode").filter_map(|cause| cause["message"].as_str());
    match codes.next().and_then(|text| text.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(internal(value["message"].as_str().unwrap_or("the session failed").to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_survives_the_final_status_and_a_failure_keeps_its_words() {
        for code in [0, 1, 137] {
            assert_eq!(exit_code(final_status(&Ok(code)).as_bytes()), Ok(code));
        }
        let failed = crate::CriError::NotFound("no such container".to_owned());
        let back = exit_code(final_status(&Err(failed)).as_bytes());
        assert_eq!(back, Err(crate::CriError::Internal("no such container".to_owned())));
        assert!(exit_code(b"not json").is_err());
        assert!(exit_code(b"{}").is_err());
    }
}
