//! A COPY or ADD with its variables expanded: what it depends on, and how it is carried out.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::BuildError;
use crate::chmod::Chmod;
use crate::config;
use crate::context::{Found, Root, normalise};
use crate::copy::{self, CopyOptions, Destination};
use crate::dockerfile::{Copy, CopySource};
use crate::layer::owner;
use crate::remote::{Fetched, Remote};

/// A COPY with its variables expanded.
#[derive(Clone)]
pub(crate) struct CopyPlan {
    instruction: &'static str,
    sources: Vec<Source>,
    destination: PathBuf,
    must_be_dir: bool,
    chown: Option<String>,
    mode: Option<Chmod>,
    exclude: Vec<String>,
    parents: bool,
    /// Files come from another image: they keep their owners, and devices may be among them.
    from_image: bool,
    unpack: bool,
}

#[derive(Clone)]
enum Source {
    Path(String),
    Inline { name: String, content: String },
    Remote(String),
}

/// Where a plan is carried out.
pub(crate) struct Place<'a> {
    pub tree: Option<&'a Root>,
    pub into: &'a Root,
    /// Where an archive may be unpacked for a moment.
    pub scratch: &'a Path,
    pub fetched: &'a [Fetched],
}

type Expand<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl CopyPlan {
    pub(crate) fn new(copy: &Copy, working_dir: &str, expand: Expand<'_>, text: Expand<'_>) -> Result<Self, String> {
        let source = |source: &CopySource| match source {
            CopySource::Path(path) => {
                let path = expand(path)?;
                Ok(if copy.is_add && Remote::is_one(&path) { Source::Remote(path) } else { Source::Path(path) })
            }
            CopySource::Inline(heredoc) => {
                let content = if heredoc.expand { text(&heredoc.content)? } else { heredoc.content.clone() };
                Ok(Source::Inline { name: heredoc.name.clone(), content })
            }
        };
        let sources = copy.sources.iter().map(source).collect::<Result<Vec<_>, String>>()?;
        let destination = expand(&copy.destination)?;
        let slash = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        let mode = copy.chmod.as_deref().map(expand).transpose()?.map(|text| Chmod::parse(&text)).transpose()?;
        Ok(Self {
            instruction: copy.name(),
            must_be_dir: slash || sources.len() > 1,
            destination: PathBuf::from(config::joined_dir(working_dir, &destination)),
            chown: copy.chown.as_deref().map(expand).transpose()?,
            mode,
            exclude: copy.exclude.iter().map(|pattern| expand(pattern)).collect::<Result<_, _>>()?,
            parents: copy.parents,
            from_image: copy.from.is_some(),
            unpack: copy.is_add,
            sources,
        })
    }

    /// Whether the result is the same whatever lies below: names of users are looked up there.
    pub(crate) fn stands_alone(&self) -> bool {
        let numeric = |text: &str| text.split(':').all(|part| part.parse::<u32>().is_ok());
        self.chown.as_deref().is_none_or(numeric)
    }

    fn excluded(&self) -> impl Fn(&Path) -> bool + '_ {
        |path: &Path| {
            self.exclude
                .iter()
                .any(|pattern| crate::glob::path_match(pattern.trim_start_matches("./"), &path.to_string_lossy()))
        }
    }

    fn found(&self, tree: Option<&Root>, path: &str) -> Result<Vec<Found>, BuildError> {
        let missing = || BuildError::SourceMissing { instruction: self.instruction, source_path: path.to_owned() };
        let found = tree.ok_or_else(missing)?.find(path).map_err(BuildError::io("cannot read", path))?;
        if found.is_empty() { Err(missing()) } else { Ok(found) }
    }

    /// All that the result depends on. Another image's files are named by that image (`from`), a context's by their
    /// content, what is fetched by its identity.
    pub(crate) fn digest(
        &self,
        tree: Option<&Root>,
        from: Option<&str>,
        identities: &[String],
    ) -> Result<Vec<u8>, BuildError> {
        let mut hash = Sha256::new();
        let options = (
            &self.destination,
            self.must_be_dir,
            &self.chown,
            &self.mode,
            &self.exclude,
            self.parents,
            self.unpack,
            from,
            identities,
        );
        hash.update(serde_json::to_vec(&options).map_err(|error| BuildError::Storage(error.to_string()))?);
        for source in &self.sources {
            match source {
                Source::Inline { name, content } => {
                    hash.update(name.as_bytes());
                    hash.update(content.as_bytes());
                }
                Source::Remote(url) => hash.update(url.as_bytes()),
                Source::Path(path) if from.is_some() => hash.update(path.as_bytes()),
                Source::Path(path) => {
                    for found in self.found(tree, path)? {
                        tree.map_or(Ok(()), |tree| tree.hash(&found, &self.excluded(), &mut hash))
                            .map_err(BuildError::io("cannot read", &found.path))?;
                    }
                }
            }
        }
        Ok(hash.finalize().to_vec())
    }

    pub(crate) fn execute(&self, place: &Place<'_>) -> Result<(), BuildError> {
        let excluded = self.excluded();
        let default_owner = if self.from_image { None } else { Some((0, 0)) };
        let chown = self.chown.as_deref().map(|text| owner(place.into, text)).transpose()?;
        let options = CopyOptions {
            owner: chown.or(default_owner),
            mode: self.mode.as_ref(),
            parents: None,
            excluded: &excluded,
            special_files: self.from_image,
        };
        let mut destination = Destination { path: self.destination.clone(), must_be_dir: self.must_be_dir };
        let mut fetched = place.fetched.iter();
        for source in &self.sources {
            match source {
                Source::Inline { name, content } => {
                    copy::write_inline(content, name, place.into, &destination, &options)
                        .map_err(BuildError::io("cannot write", &destination.path))?;
                }
                Source::Remote(url) => {
                    let Some(one) = fetched.next() else { continue };
                    // A file is readable by its owner only, unless the Dockerfile says otherwise.
                    let private = Chmod::Octal(0o600);
                    let mode = self.mode.as_ref().or((!one.found.is_dir).then_some(&private));
                    copy::copy(&one.root, &one.found, place.into, &destination, &CopyOptions { mode, ..options })
                        .map_err(BuildError::io("cannot copy", url))?;
                }
                Source::Path(path) => {
                    let all = self.found(place.tree, path)?;
                    destination.must_be_dir |= all.len() > 1;
                    for found in all {
                        self.one(place, path, &found, &destination, &options, chown)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn one(
        &self,
        place: &Place<'_>,
        written: &str,
        found: &Found,
        destination: &Destination,
        options: &CopyOptions<'_>,
        chown: Option<(u32, u32)>,
    ) -> Result<(), BuildError> {
        let Some(tree) = place.tree else { return Ok(()) };
        // What an archive holds keeps the owners that it says, as an image's files do.
        let archive = CopyOptions { owner: chown, mode: None, parents: None, special_files: true, ..*options };
        if self.unpack
            && !found.is_dir
            && crate::layer::add_archive(tree, found, place.scratch, place.into, destination, &archive)?
        {
            return Ok(());
        }
        let kept = kept_folders(written, &found.path);
        let parents = self.parents.then_some(kept.as_path());
        copy::copy(tree, found, place.into, destination, &CopyOptions { parents, ..*options })
            .map_err(BuildError::io("cannot copy", &found.path))
    }

    /// The instruction for the image's history.
    pub(crate) fn text(&self, copy: &Copy) -> String {
        let sources = self.sources.iter().map(|source| match source {
            Source::Path(path) => normalise(path).display().to_string(),
            Source::Inline { name, .. } => format!("<<{name}"),
            Source::Remote(url) => url.clone(),
        });
        let flags = [
            copy.from.as_ref().map(|from| format!("--from={from} ")),
            self.chown.as_ref().map(|chown| format!("--chown={chown} ")),
        ];
        format!(
            "{} {}{} {}",
            copy.name(),
            flags.into_iter().flatten().collect::<String>(),
            sources.collect::<Vec<_>>().join(" "),
            self.destination.display()
        )
    }
}

/// The folders that `--parents` keeps of a found path: those after `/./` where the source has one, else all.
fn kept_folders(written: &str, found: &Path) -> PathBuf {
    let parent = found.parent().unwrap_or(Path::new(""));
    let Some((pivot, _)) = written.split_once("/./") else { return parent.to_owned() };
    let depth = normalise(pivot).components().count();
    parent.components().skip(depth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_kept_from_the_pivot_on() {
        for (written, found, kept) in [
            ("a/b/c.txt", "a/b/c.txt", "a/b"),
            ("a/./b/c.txt", "a/b/c.txt", "b"),
            ("a/b/./c.txt", "a/b/c.txt", ""),
            ("./a/c.txt", "a/c.txt", "a"),
            ("*/./x/*.go", "m/x/y.go", "x"),
        ] {
            assert_eq!(kept_folders(written, Path::new(found)), Path::new(kept), "{written}");
        }
    }
}
