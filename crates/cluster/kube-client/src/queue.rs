use std::hash::Hash;
use std::time::Duration;
/// Keys to look at: a key is queued once, never handled twice at a time, re-queued with exponential back-off on failure.
pub struct WorkQueue<T> { inner: std::marker::PhantomData<T> }
impl<T: Clone + Eq + Hash + Send> WorkQueue<T> {
    pub fn new() -> Self { todo!() }
    pub fn add(&self, _key: T) { todo!() }
    pub fn add_after(&self, _key: T, _delay: Duration) { todo!() }
    pub fn add_rate_limited(&self, _key: T) { todo!() }
    pub fn forget(&self, _key: &T) { todo!() }
    pub async fn next(&self) -> Option<T> { todo!() }
    pub fn done(&self, _key: &T) { todo!() }
    pub fn close(&self) { todo!() }
}
