//! Clients' sessions: connections on which we are the caller. A session is known by its ID from the moment that its
//! connection is there until it ends; whoever needs one waits a little, because the request that names it may be faster.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Uri};
use hyper::upgrade::Upgraded;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

use crate::io::Watched;

const ID: &str = "x-docker-expose-session-uuid";
const METHOD: &str = "x-docker-expose-session-grpc-method";
/// How long a build waits for the session that it names.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client's services.
pub(crate) struct Session {
    pub channel: Channel,
    methods: HashSet<String>,
}

impl Session {
    /// Whether the client offers a method: `/moby.filesync.v1.FileSync/DiffCopy`, in any case.
    pub(crate) fn offers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }
}

/// All living sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    known: Mutex<HashMap<String, Arc<Session>>>,
    changed: Notify,
}

impl Sessions {
    /// Registers a session and holds it until its connection ends.
    pub(crate) async fn serve(&self, connection: Upgraded, headers: &HeaderMap) {
        let Some(id) = headers.get(ID).and_then(|id| id.to_str().ok()).map(str::to_owned) else {
            tracing::debug!("a session without an ID");
            return;
        };
        let methods = headers.get_all(METHOD).iter().filter_map(|method| method.to_str().ok());
        let methods = methods.map(str::to_ascii_lowercase).collect();
        let (watched, dropped) = Watched::new(connection);
        let channel = match connect(watched).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::debug!(%error, "a session could not be opened");
                return;
            }
        };
        let session = Arc::new(Session { channel, methods });
        self.lock().insert(id.clone(), session.clone());
        self.changed.notify_waiters();
        let _ = dropped.await;
        let mut known = self.lock();
        // A newer session may have taken the name.
        if known.get(&id).is_some_and(|current| Arc::ptr_eq(current, &session)) {
            known.remove(&id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of an ID, waiting for it to appear.
    pub(crate) async fn find(&self, id: &str) -> Option<Arc<Session>> {
        let appears = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that nothing is missed between the two.
                changed.as_mut().enable();
                if let Some(session) = self.lock().get(id) {
                    return session.clone();
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, appears).await.ok()
    }
}

/// A channel over one connection that is there already; there is no second one.
async fn connect(connection: Watched<Upgraded>) -> Result<Channel, tonic::transport::Error> {
    let mut once = Some(connection);
    let connector = tower::service_fn(move |_: Uri| {
        let taken = once.take().ok_or_else(|| std::io::Error::other("the client closed its session"));
        std::future::ready(taken)
    });
    Endpoint::from_static("http://session")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_with_connector(connector)
        .await
}
