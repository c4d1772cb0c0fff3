//! The agent's regular rounds: logs that grew, resources that run short, things that nobody needs any more.
//!
//! The agent starts [`keep`] beside its workers. Invariant: a round that fails is logged and the next one comes; nothing is
//! looked at more often than a kubelet does.

use std::{sync::Arc, time::Duration};

use crate::{agent::Shared, clean_up, pressure, rotate};

const ROUND: Duration = Duration::from_secs(10);
/// Rounds between two looks at old logs and at images.
const LOGS_EVERY: u64 = 6;
const IMAGES_EVERY: u64 = 30;

pub(crate) async fn keep(shared: Arc<Shared>) {
    let logs = shared.config.root.join("logs/pods");
    for round in 1_u64.. {
        tokio::time::sleep(ROUND).await;
        if let Err(error) = rotate::all(shared.config.cri.as_ref(), &logs).await {
            tracing::warn!(%error, "logs not looked at");
        }
        pressure::look(&shared).await;
        if round % LOGS_EVERY == 0 {
            clean_up::old_logs(&shared).await;
        }
        if round % IMAGES_EVERY == 0 {
            clean_up::images(&shared).await;
        }
    }
}
