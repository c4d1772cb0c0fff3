//! The `USER` of a container: names and numbers to IDs, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! Pure: the caller reads both files confined to the container's root. Wording follows Docker.

use crate::error::{Error, Result};

/// Larger files are not read: no honest image has them.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid, _, home) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next(), fields.next());
        Some(Passwd { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.unwrap_or("/") })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
    })
}

/// An ID as a number: Linux allows up to 2³¹-1 here, as Docker does.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())
}

/// Resolves `user[:group]` and the additional groups.
pub(crate) fn resolve(user: &str, extra: &[String], passwd: &str, group: &str) -> Result<bundle::UserSpec> {
    let (user, group_name) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| number(user).and_then(|uid| passwd_entries(passwd).find(|entry| entry.uid == uid)));
    let (uid, mut gid) = match (&entry, number(user)) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => {
            return Err(Error::System(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let find_group = |name: &str| {
        group_entries(group)
            .find(|(known, ..)| *known == name)
            .map(|(_, gid, _)| gid)
            .or_else(|| number(name))
            .ok_or_else(|| Error::System(format!("unable to find group {name}: no matching entries in group file")))
    };
    let mut additional: Vec<u32> = Vec::new();
    match group_name.filter(|name| !name.is_empty()) {
        Some(name) => gid = find_group(name)?,
        // Memberships count only when no group was chosen.
        None => {
            if let Some(entry) = &entry {
                let member = |(_, _, members): &(&str, u32, &str)| members.split(',').any(|m| m == entry.name);
                additional.extend(group_entries(group).filter(member).map(|(_, gid, _)| gid));
            }
        }
    }
    for name in extra {
        additional.push(find_group(name)?);
    }
    additional.sort_unstable();
    additional.dedup();
    Ok(bundle::UserSpec { uid, gid, additional_gids: additional, home: entry.map(|e| e.home.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbroken\n7:x:700:70::/seven:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\ngames:x:60:app\napp:x:1001:\n";

    #[test]
    fn users_and_groups_resolve_as_docker_resolves_them() {
        type Expected = (u32, u32, &'static [u32], Option<&'static str>);
        let table: &[(&str, &[&str], Expected)] = &[
            ("", &[], (0, 0, &[], Some("/root"))),
            ("app", &[], (1000, 1001, &[50, 60], Some("/home/app"))),
            ("1000", &[], (1000, 1001, &[50, 60], Some("/home/app"))),
            ("app:staff", &[], (1000, 50, &[], Some("/home/app"))),
            ("4242", &[], (4242, 0, &[], None)),
            ("4242:99", &[], (4242, 99, &[], None)),
            ("app:app", &["games", "7"], (1000, 1001, &[7, 60], Some("/home/app"))),
            ("7", &[], (700, 70, &[], Some("/seven"))),
        ];
        for (user, extra, (uid, gid, groups, home)) in table {
            let extra: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
            let got = resolve(user, &extra, PASSWD, GROUP).unwrap();
            assert_eq!(
                (got.uid, got.gid, &got.additional_gids[..], got.home.as_deref()),
                (*uid, *gid, *groups, *home),
                "{user}"
            );
        }
    }

    #[test]
    fn unknown_names_are_errors_in_dockers_words() {
        let text = |user: &str| resolve(user, &[], PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(text("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(text("app:nope"), "unable to find group nope: no matching entries in group file");
        assert_eq!(text("4294967295"), "unable to find user 4294967295: no matching entries in passwd file");
    }
}
