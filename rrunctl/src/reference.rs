//! Names of images, as people write them and in full.
//!
//! The grammar, what is filled in and the texts are Docker's (distribution/reference; distribution-spec, Pulling
//! manifests): `busybox` is `docker.io/library/busybox:latest`.

#![forbid(unsafe_code)]

use crate::digest::Digest;
use crate::error::{Error, Result};
use std::fmt;

const HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";
/// The longest registry and repository together, in bytes.
const NAME_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_MAX: usize = 128;

/// The full name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// Of a manifest or an index; where a tag is given too, it decides.
    pub digest: Option<Digest>,
    /// `latest`.
    pub tag: Option<String>,
}

impl Reference {
    /// Reads a name as people write it, and fills in what they leave out.
    ///
    /// # Errors
    /// Docker's texts for what is not a name: `invalid reference format`.
    pub fn parse(text: &str) -> Result<Self> {
        let reference = Self::parse_without_default(text)?;
        Ok(match reference {
            Self { tag: None, digest: None, .. } => Self { tag: Some("latest".to_owned()), ..reference },
            complete => complete,
        })
    }

    /// The same, but a missing tag stays missing: `docker images NAME` and `docker push --all-tags` mean every tag.
    ///
    /// # Errors
    /// Docker's texts for what is not a name.
    pub fn parse_without_default(text: &str) -> Result<Self> {
        // It would be taken for an image's id wherever one may be given.
        if Digest::from_hex(text).is_some() {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (registry, rest) = split_registry(text);
        let path = rest.split(':').next().unwrap_or_default();
        if path.chars().any(char::is_uppercase) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        let invalid = || Error::invalid("invalid reference format");
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest.to_owned(), Some(parse_digest(digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository.to_owned(), Some(tag.to_owned())),
            None => (rest, None),
        };
        if !is_registry(&registry)
            || !repository.split('/').all(is_component)
            || tag.as_deref().is_some_and(|tag| !is_tag(tag))
        {
            return Err(invalid());
        }
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(Error::invalid(format!(
                "repository name must not be more than {NAME_MAX} characters"
            )));
        }
        Ok(Self { registry, repository, tag, digest })
    }

    /// Refuses a digest in a name that an image shall get: it says what the image is, and only a pull has looked.
    ///
    /// # Errors
    /// Docker's text.
    pub fn refuse_digest(&self) -> Result<()> {
        match self.digest {
            Some(_) => Err(Error::invalid("refusing to create a tag with a digest reference")),
            None => Ok(()),
        }
    }

    /// The name alone, in full: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// The name alone, as people write it: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.registry != HUB {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// Whether a filter's pattern is the name, with or without its tag, as people write it; `*` is anything but `/`.
    pub fn matches(&self, pattern: &str) -> bool {
        [self.familiar(), self.familiar_name()].iter().any(|name| glob(pattern.as_bytes(), name.as_bytes()))
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.suffix())
    }
}

/// The registry, and what follows it, with `library/` where the Hub wants it.
fn split_registry(text: &str) -> (String, String) {
    let (registry, rest) = match text.split_once('/') {
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                // A repository has no capital letters, a host may.
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (HUB, text),
    };
    let official = registry == HUB && !rest.contains('/');
    (registry.to_owned(), if official { format!("{OFFICIAL}{rest}") } else { rest.to_owned() })
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|c| c.is_ascii_hexdigit() || c == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Runs of letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text
            .split(alphanumeric)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|c| c == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn parse_digest(text: &str) -> Result<Digest> {
    let invalid = |why: &str| Error::invalid(format!("invalid reference format{why}"));
    let (algorithm, hex) = text.split_once(':').ok_or_else(|| invalid(""))?;
    if hex.len() < 32 || !hex.bytes().all(|c| c.is_ascii_hexdigit()) || algorithm.is_empty() {
        return Err(invalid(""));
    }
    match algorithm {
        "sha256" if hex.len() != 64 => Err(Error::invalid("invalid checksum digest length")),
        "sha256" => Digest::from_hex(hex).ok_or_else(|| Error::invalid("invalid checksum digest format")),
        _ => Err(Error::invalid("unsupported digest algorithm")),
    }
}

/// `*` and `?`, which `/` ends; `[a-c]`, `[^a]`; `\\` takes the next as it is (Go's path.Match).
fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // What stood behind the last `*`, and where that one began: an earlier one never has to take more, as none takes
    // a `/`, so that this ends soon whatever the pattern is.
    let mut last: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            (last, pattern) = (Some((rest, text)), rest);
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else if let Some(rest) = text.first().and_then(|&c| one(pattern, c)) {
            (pattern, text) = (rest, &text[1..]);
        } else {
            let Some((rest, [taken, begun @ ..])) = last else { return false };
            if *taken == b'/' {
                return false;
            }
            (last, pattern, text) = (Some((rest, begun)), rest, begun);
        }
    }
}

/// What is left of the pattern when its first part has matched this character.
fn one(pattern: &[u8], c: u8) -> Option<&[u8]> {
    let (matches, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (c != b'/', rest),
        [b'[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|&c| c == b']')?;
            let (set, rest) = (&rest[..=end], &rest[end + 2..]);
            let (set, inverted) = set.strip_prefix(b"^").map_or((set, false), |set| (set, true));
            (in_set(set, c) != inverted, rest)
        }
        [b'\\', one, rest @ ..] | [one, rest @ ..] => (c == *one, rest),
    };
    matches.then_some(rest)
}

fn in_set(set: &[u8], c: u8) -> bool {
    match set {
        [low, b'-', high, rest @ ..] => (low..=high).contains(&&c) || in_set(rest, c),
        [one, rest @ ..] => *one == c || in_set(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_people_leave_out_is_filled_in() {
        for (written, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("atguigu/mytomcat", "docker.io/atguigu/mytomcat:latest", "atguigu/mytomcat:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/my-ubuntu",
                "localhost:5000/my-ubuntu:latest",
                "localhost:5000/my-ubuntu:latest",
            ),
            ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("127.0.0.1/p/x", "127.0.0.1/p/x:latest", "127.0.0.1/p/x:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest", "a__b/c--d.e_f:latest"),
        ] {
            let reference = Reference::parse(written).expect(written);
            assert_eq!(reference.to_string(), full, "{written}");
            assert_eq!(reference.familiar(), familiar, "{written}");
            assert_eq!(Reference::parse(full).expect(full), reference);
            assert_eq!(Reference::parse(familiar).expect(familiar), reference);
        }
    }

    #[test]
    fn a_digest_takes_the_place_of_the_default_tag() {
        let reference = Reference::parse(&format!("busybox@sha256:{HEX}")).expect("valid");
        assert_eq!((reference.tag.as_deref(), reference.digest), (None, Digest::from_hex(HEX)));
        assert_eq!(reference.familiar(), format!("busybox@sha256:{HEX}"));
        let both = Reference::parse(&format!("h:1/busybox:1@sha256:{HEX}")).expect("valid");
        assert_eq!(both.to_string(), format!("h:1/busybox:1@sha256:{HEX}"));
        assert_eq!(Reference::parse_without_default("busybox").expect("valid").tag, None);
    }

    #[test]
    fn a_pattern_matches_as_gos_does_and_ends_soon() {
        for (pattern, text, matches) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("*a*/b", "xaya/b", true),
            ("a*b*c", "abxbyc", true),
            ("a*b*c", "abxbyd", false),
            ("*b", "a/b", false),
            ("a?c", "a/c", false),
            ("a[b-d]", "ac", true),
            ("a[^b-d]", "ac", false),
            ("a[b", "ab", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
        // With every star tried against every place this would take longer than the universe has.
        assert!(!glob(&[b"a*".repeat(60), b"b".to_vec()].concat(), &b"a".repeat(200)));
    }

    #[test]
    fn what_is_no_name_is_told_in_dockers_words() {
        let long = "a".repeat(256);
        let tag = format!("a:{}", "t".repeat(129));
        let short = "busybox@sha256:e3b0c44298fc1c149afbf4c8996fb924";
        let sha512 = format!("busybox@sha512:{HEX}{HEX}");
        for (written, text) in [
            ("", "invalid reference format"),
            (":", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("http://a/b", "invalid reference format"),
            ("a:.x", "invalid reference format"),
            ("-h.io/a", "invalid reference format"),
            ("h:x/a", "invalid reference format"),
            ("[::1/a", "invalid reference format"),
            ("a@sha256:", "invalid reference format"),
            ("../../etc", "invalid reference format"),
            ("ü", "invalid reference format"),
            (&tag, "invalid reference format"),
            (short, "invalid checksum digest length"),
            (&sha512, "unsupported digest algorithm"),
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
            ("h.io/A/b:T", "invalid reference format: repository name (A/b) must be lowercase"),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            assert_eq!(Reference::parse(written).expect_err(written).to_string(), text, "{written}");
        }
        let hex = Reference::parse(HEX).expect_err("an id").to_string();
        assert_eq!(
            hex,
            format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
        );
    }

    #[test]
    fn a_filters_pattern_is_a_name_with_or_without_its_tag() {
        let reference = Reference::parse("h.io/team/busybox:1.36").expect("valid");
        for pattern in
            ["h.io/team/busybox", "h.io/team/busybox:1.36", "*/*/busy*", "h.io/team/busybox:1.[0-9]?"]
        {
            assert!(reference.matches(pattern), "{pattern}");
        }
        for pattern in
            ["busybox", "*", "*busybox", "h.io/team/busybox:1.37", "h.io/team/busybox:1.[^3]6", "[", "\\"]
        {
            assert!(!reference.matches(pattern), "{pattern}");
        }
        assert!(Reference::parse("busybox").expect("valid").matches("busybox:l*"));
    }
}
