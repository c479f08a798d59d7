//! The home directory of a user id, from the text of the container's /etc/passwd.

#![forbid(unsafe_code)]

/// The sixth field of the first entry with this user id; `/` without one, or with an empty one.
///
/// The file belongs to the image: whatever does not look like passwd(5) is skipped. A relative home is
/// taken as it is, as login(1) would.
pub fn home(passwd: &[u8], uid: u32) -> &[u8] {
    passwd
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.trim_ascii().split(|byte| *byte == b':').skip(2);
            let id = std::str::from_utf8(fields.next()?).ok()?.parse::<u32>().ok()?;
            (id == uid).then(|| fields.nth(2).unwrap_or_default())
        })
        .next()
        // A NUL would cut the environment entry.
        .filter(|home| !home.is_empty() && !home.contains(&0))
        .unwrap_or(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_the_id_counts() {
        let text = b"# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbad\na:b:c\n\
                     one:x:1000:1000::/home/one:/bin/sh\ntwo:x:1000:1000::/home/two:/bin/sh\n\
                     empty:x:5:5:::\nshort:x:6\n";
        for (uid, expected) in [(0, "/root"), (1000, "/home/one"), (5, "/"), (6, "/"), (7, "/")] {
            assert_eq!(home(text, uid), expected.as_bytes(), "{uid}");
        }
        assert_eq!(home(b"", 0), b"/");
        assert_eq!(home(b"root:x:0:0:root:/ro\0ot:/bin/sh", 0), b"/");
        assert_eq!(home(b"root:x:0:0:root:/root", 0), b"/root");
    }
}
