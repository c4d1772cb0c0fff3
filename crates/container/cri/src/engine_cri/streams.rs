//! Exec, attach and port-forward over the engine, and exec to the end.
//!
//! Invariant: output is handed on as it comes, with the consumer's back-pressure; what one exec may answer in
//! memory is bounded.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::{AttachOptions, Channel, ExecConfig, Streams, WaitCondition};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use tokio::sync::mpsc;

use super::EngineCri;
use crate::{ByteStream, CriError, Duplex, Result, Session, Streaming, TerminalSize, v1};

/// As much output of an exec_sync as containerd keeps.
const OUTPUT_LIMIT: usize = 16 << 20;
/// Chunks that may wait for a slow reader of one stream while the other one goes on.
const WAITING_CHUNKS: usize = 32;

impl EngineCri {
    pub(super) async fn run_exec(
        &self,
        container_id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        if command.is_empty() {
            return Err(CriError::InvalidArgument("exec needs a command".to_owned()));
        }
        let config =
            ExecConfig { cmd: command, attach_stdout: true, attach_stderr: true, ..ExecConfig::default() };
        let id = self.engine.exec_create(container_id, config).await?;
        let run = self.collect_exec(&id);
        if timeout.is_zero() {
            return run.await;
        }
        match tokio::time::timeout(timeout, run).await {
            Ok(answer) => answer,
            Err(_) => {
                self.engine.exec_kill(&id)?;
                Err(CriError::DeadlineExceeded(format!("timeout of {}s exceeded", timeout.as_secs())))
            }
        }
    }

    async fn collect_exec(&self, id: &str) -> Result<v1::ExecSyncResponse> {
        let mut streams = self.engine.exec_start(id).await?;
        drop(streams.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(frame) = streams.output.next().await {
            let into = match frame.channel {
                Channel::Stdout => &mut stdout,
                Channel::Stderr => &mut stderr,
            };
            let room = OUTPUT_LIMIT.saturating_sub(into.len()).min(frame.data.len());
            into.extend_from_slice(&frame.data[..room]);
        }
        let exit_code = self.engine.exec_wait(id).await?;
        Ok(v1::ExecSyncResponse { stdout, stderr, exit_code })
    }
}

/// Splits the engine's one output into CRI's two.
fn split(output: futures_util::stream::BoxStream<'static, engine::Frame>) -> (ByteStream, ByteStream) {
    let (to_stdout, stdout) = mpsc::channel::<std::io::Result<Bytes>>(WAITING_CHUNKS);
    let (to_stderr, stderr) = mpsc::channel::<std::io::Result<Bytes>>(WAITING_CHUNKS);
    // Ends with the output, or when nobody reads either stream any more.
    tokio::spawn(async move {
        let mut output = output;
        while let Some(frame) = output.next().await {
            let to = match frame.channel {
                Channel::Stdout => &to_stdout,
                Channel::Stderr => &to_stderr,
            };
            if to.send(Ok(frame.data)).await.is_err() && to_stdout.is_closed() && to_stderr.is_closed() {
                return;
            }
        }
    });
    let stream = |receiver| tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
    (stream(stdout), stream(stderr))
}

fn session(
    streams: Streams,
    (stdin, stdout, stderr): (bool, bool, bool),
    resize: mpsc::Sender<TerminalSize>,
    exit: BoxFuture<'static, Result<i32>>,
) -> Session {
    let (out, err) = split(streams.output);
    Session {
        stdin: streams.stdin.filter(|_| stdin),
        stdout: stdout.then_some(out),
        stderr: stderr.then_some(err),
        resize,
        exit,
    }
}

#[async_trait]
impl Streaming for EngineCri {
    async fn exec(&self, request: v1::ExecRequest) -> Result<Session> {
        let config = ExecConfig {
            cmd: request.cmd,
            tty: request.tty,
            attach_stdin: request.stdin,
            attach_stdout: request.stdout,
            attach_stderr: request.stderr,
            ..ExecConfig::default()
        };
        let id = self.engine.exec_create(&request.container_id, config).await?;
        let streams = self.engine.exec_start(&id).await?;
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let (engine, exec) = (self.engine.clone(), id.clone());
        // Ends when the session is dropped.
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                // A size that comes after the end is of no interest.
                let _ = engine.exec_resize(&exec, size.width, size.height).await;
            }
        });
        let engine = self.engine.clone();
        let exit = async move { engine.exec_wait(&id).await.map_err(CriError::from) }.boxed();
        let wanted = (request.stdin, request.stdout, request.stderr);
        Ok(session(streams, wanted, resize, exit))
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<Session> {
        let id = self.pod_container(&request.container_id)?.record.id;
        let options = AttachOptions { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let exit = self.engine.begin_wait(&id, WaitCondition::NotRunning)?;
        let streams = self.engine.attach_container(&id, options).await?;
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let _ = engine.resize_container(&id, size.width, size.height).await;
            }
        });
        let exit = async move { exit.await.map_err(CriError::from) }.boxed();
        let wanted = (request.stdin, request.stdout, request.stderr);
        Ok(session(streams, wanted, resize, exit))
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        Ok(Box::new(self.engine.dial_sandbox(sandbox_id, port).await?))
    }
}
