//! `RUN --mount=…`: its fields as types. Variables in them are not expanded yet.

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// How builds that run at the same time use one cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountType,
    /// Stage, image or named context.
    pub from: Option<String>,
    pub source: String,
    pub target: Option<String>,
    pub id: Option<String>,
    /// `None`: the kind's own default (a bind is read-only, a cache is not).
    pub read_only: Option<bool>,
    pub sharing: Sharing,
    pub required: bool,
    /// The environment variable that gets a secret.
    pub env: Option<String>,
    pub size_bytes: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Mount {
    /// Parses the flag's value: `type=cache,target=/root/.cache`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut mount = Self {
            kind: MountType::Bind,
            from: None,
            source: String::new(),
            target: None,
            id: None,
            read_only: None,
            sharing: Sharing::default(),
            required: false,
            env: None,
            size_bytes: None,
            mode: None,
            uid: None,
            gid: None,
        };
        for field in fields(text)? {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            mount.set(&key.to_ascii_lowercase(), value, &field)?;
        }
        mount.check()?;
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
        match (key, value) {
            ("readonly" | "ro", value) => self.read_only = Some(boolean(key, value)?),
            ("readwrite" | "rw", value) => self.read_only = Some(!boolean(key, value)?),
            ("required", value) => self.required = boolean(key, value)?,
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            ("type", Some(value)) => self.kind = kind(value)?,
            ("from", Some(value)) => self.from = Some(value.to_owned()),
            ("source" | "src", Some(value)) => value.clone_into(&mut self.source),
            ("target" | "dst" | "destination", Some(value)) => self.target = Some(value.to_owned()),
            ("id", Some(value)) => self.id = Some(value.to_owned()),
            ("env", Some(value)) => self.env = Some(value.to_owned()),
            ("size", Some(value)) => self.size_bytes = Some(size(value)?),
            ("mode", Some(value)) => self.mode = Some(number(key, value, 8)?),
            ("uid", Some(value)) => self.uid = Some(number(key, value, 10)?),
            ("gid", Some(value)) => self.gid = Some(number(key, value, 10)?),
            ("sharing", Some("shared")) => self.sharing = Sharing::Shared,
            ("sharing", Some("private")) => self.sharing = Sharing::Private,
            ("sharing", Some("locked")) => self.sharing = Sharing::Locked,
            ("sharing", Some(value)) => return Err(format!("unsupported sharing value \"{value}\"")),
            (other, Some(_)) => return Err(format!("unexpected key '{other}' in '{field}'")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let needs_target = matches!(self.kind, MountType::Bind | MountType::Cache | MountType::Tmpfs);
        if needs_target && self.target.as_deref().is_none_or(str::is_empty) {
            return Err("target is required".to_owned());
        }
        if self.from.is_some() && !matches!(self.kind, MountType::Bind | MountType::Cache) {
            return Err("from is only allowed for mounts of type bind or cache".to_owned());
        }
        if self.size_bytes.is_some() && self.kind != MountType::Tmpfs {
            return Err("size is only allowed for mounts of type tmpfs".to_owned());
        }
        if self.env.is_some() && self.kind != MountType::Secret {
            return Err("env is only allowed for mounts of type secret".to_owned());
        }
        Ok(())
    }
}

/// Comma-separated as CSV has it: a field in double quotes may hold commas.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("unterminated quote in mount '{text}'"));
    }
    fields.push(field);
    Ok(fields)
}

fn kind(text: &str) -> Result<MountType, String> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Ok(MountType::Bind),
        "cache" => Ok(MountType::Cache),
        "tmpfs" => Ok(MountType::Tmpfs),
        "secret" => Ok(MountType::Secret),
        "ssh" => Ok(MountType::Ssh),
        other => Err(format!("unsupported mount type \"{other}\"")),
    }
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    u32::from_str_radix(value, radix).map_err(|_| format!("invalid value {value} for {key}"))
}

/// Bytes with Docker's units: `64m`, `1GB`.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match lower[digits..].trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("invalid value for size: {text}")),
    };
    let number: u64 = lower[..digits].parse().map_err(|_| format!("invalid value for size: {text}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("invalid value for size: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_every_kind_parse() {
        let cache = Mount::parse("type=cache,id=x,target=/c,sharing=locked,mode=0700,uid=5,gid=6,from=base,source=/s");
        let cache = cache.unwrap();
        assert_eq!((cache.kind, cache.sharing, cache.mode), (MountType::Cache, Sharing::Locked, Some(0o700)));
        assert_eq!((cache.uid, cache.gid, cache.from.as_deref()), (Some(5), Some(6), Some("base")));
        assert_eq!(Mount::parse("target=/x").unwrap().kind, MountType::Bind);
        assert_eq!(Mount::parse("target=/x,rw").unwrap().read_only, Some(false));
        assert_eq!(Mount::parse("type=tmpfs,target=/x,size=2m").unwrap().size_bytes, Some(2 << 20));
        assert!(Mount::parse("type=secret,id=s,required").unwrap().required);
        assert_eq!(Mount::parse("type=secret,id=s,env=TOKEN").unwrap().env.as_deref(), Some("TOKEN"));
        assert_eq!(Mount::parse("\"target=/a,b\"").unwrap().target.as_deref(), Some("/a,b"));
    }

    #[test]
    fn mounts_that_make_no_sense_are_refused() {
        for (text, wanted) in [
            ("type=cache", "target is required"),
            ("type=nfs,target=/x", "unsupported mount type \"nfs\""),
            ("type=ssh,size=1", "size is only allowed"),
            ("type=secret,from=x", "from is only allowed"),
            ("target=/x,foo=1", "unexpected key 'foo'"),
            ("target=/x,foo", "must be a key=value pair"),
            ("type=cache,target=/x,sharing=maybe", "unsupported sharing value"),
            ("type=tmpfs,target=/x,size=99999999999999g", "invalid value for size"),
            ("target=/x,uid=-1", "invalid value -1 for uid"),
        ] {
            let got = Mount::parse(text).unwrap_err();
            assert!(got.contains(wanted), "{text}: {got}");
        }
    }
}
