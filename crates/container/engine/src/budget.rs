//! The disk budget of images: which go when stored content outgrows it.
//!
//! `decide` is pure. Only what can be had again goes: images that came from a registry and that no container of either
//! half uses, the longest unused first, until the low water mark. What was made here is never taken for space. The shell
//! looks after every event that adds content; nothing polls.

use std::collections::BTreeMap;

use content::Origin;
use jiff::Timestamp;
use oci::ImageId;
use tokio::sync::broadcast::error::RecvError;

use crate::{Engine, Event, Subject, blocking, error::Result, images::content_error};

/// How much images may take on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub max_size_bytes: u64,
    /// Percent of it above which images go.
    pub high_water: u8,
    /// Percent of it down to which they go.
    pub low_water: u8,
}

impl Budget {
    /// The marks at 90 and 75 percent.
    pub fn of(max_size_bytes: u64) -> Self {
        Self { max_size_bytes, high_water: 90, low_water: 75 }
    }

    fn mark(&self, percent: u8) -> u64 {
        (u128::from(self.max_size_bytes) * u128::from(percent.min(100)) / 100) as u64
    }
}

/// An image as far as the budget looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: ImageId,
    /// About what its going would free.
    pub size_bytes: u64,
    pub last_used: Timestamp,
    pub in_use: bool,
    /// Whether a registry has it.
    pub pulled: bool,
}

/// The images to remove, in this order.
pub fn decide(budget: &Budget, used_bytes: u64, images: &[Candidate]) -> Vec<ImageId> {
    if used_bytes <= budget.mark(budget.high_water) {
        return Vec::new();
    }
    let mut left: Vec<&Candidate> = images.iter().filter(|i| i.pulled && !i.in_use).collect();
    left.sort_by_key(|i| (i.last_used, i.id));
    let mut expected = used_bytes;
    let mut going = Vec::new();
    for image in left {
        if expected <= budget.mark(budget.low_water) {
            break;
        }
        expected = expected.saturating_sub(image.size_bytes);
        going.push(image.id);
    }
    going
}

impl Engine {
    /// Keeps images within a budget for as long as the engine lives.
    pub async fn keep_budget(self, budget: Budget) -> Result<()> {
        let mut events = self.subscribe(None).live;
        let mut used: BTreeMap<ImageId, Timestamp> = BTreeMap::new();
        loop {
            if let Err(error) = self.enforce(&budget, &used).await {
                tracing::warn!(%error, "disk budget not kept; the next change tries again");
            }
            loop {
                match events.recv().await {
                    Ok(event) => {
                        self.note_use(&event, &mut used);
                        if adds_content(&event) {
                            break;
                        }
                    }
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
        }
    }

    fn note_use(&self, event: &Event, used: &mut BTreeMap<ImageId, Timestamp>) {
        let image = event.attributes.get("image").filter(|_| event.subject == Subject::Container);
        if let Some(image) = image.and_then(|name| self.find_image(name).ok()) {
            used.insert(image.id, event.time);
        }
    }

    async fn enforce(&self, budget: &Budget, used: &BTreeMap<ImageId, Timestamp>) -> Result<()> {
        let bytes = self.image_bytes().await?;
        if bytes <= budget.mark(budget.high_water) {
            return Ok(());
        }
        // What nobody needs any more goes before anything that somebody might.
        self.collect().await?;
        let bytes = self.image_bytes().await?;
        let candidate = |image: content::Image| Candidate {
            id: image.id,
            size_bytes: image.size + image.layers.iter().map(|l| l.size).sum::<u64>(),
            last_used: used.get(&image.id).copied().unwrap_or(image.stored).max(image.stored),
            in_use: !self.image_users(&image.id).is_empty(),
            pulled: image.origin != Origin::Local,
        };
        let images: Vec<Candidate> = self.content().images().list().into_iter().map(candidate).collect();
        let going = decide(budget, bytes, &images);
        for id in &going {
            if let Err(error) = self.remove_image(&id.to_string(), true).await {
                tracing::debug!(image = %id, %error, "image stays: it came into use");
            }
        }
        self.collect().await?;
        let left = self.image_bytes().await?;
        tracing::info!(before = bytes, after = left, removed = going.len(), "images over the disk budget removed");
        if left > budget.max_size_bytes {
            tracing::warn!(
                bytes = left,
                max_size_bytes = budget.max_size_bytes,
                "images take more than the disk budget, and none can be had again elsewhere: remove some, or raise it"
            );
        }
        Ok(())
    }

    /// Bytes on disk of stored content and unpacked layers.
    pub async fn image_bytes(&self) -> Result<u64> {
        let (content, snapshots) = (self.content().clone(), self.snapshots().clone());
        blocking(move || {
            let layers = snapshots.layers_disk_bytes().map_err(|e| crate::Error::system("measure layers", e))?;
            Ok(content.disk_bytes().map_err(content_error)? + layers)
        })
        .await
    }
}

fn adds_content(event: &Event) -> bool {
    let actions = ["pull", "load", "import", "commit", "build", "tag", "delete"];
    event.subject == Subject::Image && actions.contains(&event.action.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: u8, size_bytes: u64, last_used: i64) -> Candidate {
        let last_used = Timestamp::from_second(last_used).unwrap();
        Candidate { id: ImageId(oci::Digest::of(&[n])), size_bytes, last_used, in_use: false, pulled: true }
    }

    #[test]
    fn the_longest_unused_go_until_the_low_mark_and_nothing_below_the_high_one() {
        let budget = Budget { max_size_bytes: 1000, high_water: 90, low_water: 70 };
        let images = [image(1, 100, 30), image(2, 100, 10), image(3, 100, 20)];
        let ids = |order: &[usize]| order.iter().map(|i| images[*i].id).collect::<Vec<_>>();
        assert_eq!(decide(&budget, 900, &images), []);
        assert_eq!(decide(&budget, 901, &images), ids(&[1, 2, 0]));
        assert_eq!(decide(&budget, 1, &images), []);
        let roomy = Budget { low_water: 85, ..budget };
        assert_eq!(decide(&roomy, 940, &images), ids(&[1]));
        // A second look after that changes nothing.
        assert_eq!(decide(&roomy, 840, &[images[0], images[2]]), []);
    }

    #[test]
    fn what_is_used_or_was_made_here_stays_however_full_it_is() {
        let budget = Budget::of(100);
        let used = Candidate { in_use: true, ..image(1, 500, 1) };
        let made = Candidate { pulled: false, ..image(2, 500, 1) };
        let last = image(3, 5, 9);
        assert_eq!(decide(&budget, 2000, &[used, made, last]), [last.id]);
    }
}
