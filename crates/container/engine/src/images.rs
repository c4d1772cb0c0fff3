//! Image operations where containers matter: an image that a container uses cannot be deleted.

use crate::{Engine, error::Result};

impl Engine {
    /// The shared image store.
    pub fn content(&self) -> &content::Store {
        todo!()
    }

    /// The registry client.
    pub fn registry_client(&self) -> &distribution::client::Client {
        todo!()
    }

    /// Whether a container (of either half) was made from this image ID.
    pub fn image_in_use(&self, image_id: &str) -> bool {
        let _ = image_id;
        todo!()
    }

    /// Deletes an image or one of its names.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<()> {
        let _ = (name, force);
        todo!()
    }
}
