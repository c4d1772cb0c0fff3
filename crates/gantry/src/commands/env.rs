//! `gantry env`: the exports that point stock clients at an instance.

use anyhow::{Result, bail};

use crate::instance::Card;
use crate::paths::Paths;

pub(crate) fn run(paths: &Paths) -> Result<()> {
    let Some(card) = Card::read(paths)? else {
        bail!("nothing has run on {} yet: start it with `gantry up --root {0}`", paths.root.display());
    };
    println!("export DOCKER_HOST={}", quoted(&format!("unix://{}", paths.docker_socket().display())));
    println!("export KUBECONFIG={}", quoted(&paths.kubeconfig().display().to_string()));
    println!("export GANTRY_REGISTRY={}", quoted(&card.registry));
    Ok(())
}

/// Single quotes where a shell would see more than a word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+@%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_safe_to_eval() {
        assert_eq!(super::quoted("unix:///run/x.sock"), "unix:///run/x.sock");
        assert_eq!(super::quoted("/a b/$(x)'"), r"'/a b/$(x)'\'''");
    }
}
