//! The patterns of `kill --regex` and `delete --regex`: POSIX extended regular expressions over ids, as far as
//! ids can tell them apart.
//!
//! Literals, `.`, `[...]`, `*`, `+`, `?`, `|`, `(...)`, `^` and `$`; unanchored, as regexec(3) is. Matched by
//! stepping a set of positions over the text, so that no pattern takes more than its length times the id's.

#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result};

#[derive(Debug, Clone)]
enum Node {
    Byte(Set),
    Start,
    End,
    Sequence(Vec<Node>),
    Either(Vec<Node>),
    Repeat { of: Box<Node>, none: bool, more: bool },
}

#[derive(Debug, Clone)]
struct Set([bool; 256]);

/// A parsed pattern.
#[derive(Debug)]
pub struct Pattern(Node);

/// Nested groups that a pattern may have; deeper ones would exhaust the stack.
const DEPTH: usize = 64;

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Its place and what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text: text.as_bytes(), at: 0, depth: 0 };
        let node = parser.either()?;
        if parser.at < text.len() {
            return Err(parser.wrong("unmatched )"));
        }
        Ok(Self(node))
    }

    /// Whether any part of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let every = (0..=text.len()).map(|at| (at, true)).fold(vec![false; text.len() + 1], |mut set, (at, on)| {
            if let Some(slot) = set.get_mut(at) {
                *slot = on;
            }
            set
        });
        step(&self.0, text, &every).contains(&true)
    }
}

/// The positions behind a match that begins at one of `from`.
fn step(node: &Node, text: &[u8], from: &[bool]) -> Vec<bool> {
    let mut to = vec![false; from.len()];
    match node {
        Node::Byte(set) => {
            for (i, byte) in text.iter().enumerate() {
                if from[i] && set.0[usize::from(*byte)] {
                    to[i + 1] = true;
                }
            }
        }
        Node::Start => to[0] = from[0],
        Node::End => to[text.len()] = from[text.len()],
        Node::Sequence(list) => {
            to.copy_from_slice(from);
            for node in list {
                to = step(node, text, &to);
            }
        }
        Node::Either(list) => {
            for node in list {
                to = union(&to, &step(node, text, from));
            }
        }
        Node::Repeat { of, none, more } => {
            let mut now = step(of, text, from);
            to = if *none { union(from, &now) } else { now.clone() };
            while *more {
                now = step(of, text, &now);
                let all = union(&to, &now);
                if all == to {
                    break;
                }
                to = all;
            }
        }
    }
    to
}

fn union(a: &[bool], b: &[bool]) -> Vec<bool> {
    a.iter().zip(b).map(|(a, b)| *a || *b).collect()
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &str) -> Error {
        Error::kind(Kind::Usage, format!("--regex: {what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn either(&mut self) -> Result<Node> {
        let mut list = vec![self.sequence()?];
        while self.peek() == Some(b'|') {
            self.at += 1;
            list.push(self.sequence()?);
        }
        Ok(Node::Either(list))
    }

    fn sequence(&mut self) -> Result<Node> {
        let mut list = Vec::new();
        while let Some(byte) = self.peek() {
            if byte == b'|' || byte == b')' {
                break;
            }
            let mut node = self.one()?;
            while let Some(sign @ (b'*' | b'+' | b'?')) = self.peek() {
                self.at += 1;
                node = Node::Repeat { of: Box::new(node), none: sign != b'+', more: sign != b'?' };
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(self.wrong("too much nesting"));
                }
            }
            list.push(node);
        }
        Ok(Node::Sequence(list))
    }

    fn one(&mut self) -> Result<Node> {
        Ok(match self.next() {
            Some(b'^') => Node::Start,
            Some(b'$') => Node::End,
            Some(b'.') => Node::Byte(Set([true; 256])),
            Some(b'[') => Node::Byte(self.set()?),
            Some(b'(') => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(self.wrong("too much nesting"));
                }
                let node = self.either()?;
                if self.next() != Some(b')') {
                    return Err(self.wrong("( without )"));
                }
                node
            }
            Some(b'*' | b'+' | b'?') => return Err(self.wrong("nothing to repeat")),
            Some(b'\\') => match self.next() {
                Some(byte) => Node::Byte(Set::of(byte)),
                None => return Err(self.wrong("\\ without a character")),
            },
            Some(byte) => Node::Byte(Set::of(byte)),
            None => return Err(self.wrong("end of pattern")),
        })
    }

    fn set(&mut self) -> Result<Set> {
        let not = self.peek() == Some(b'^');
        if not {
            self.at += 1;
        }
        let mut set = Set([not; 256]);
        let first = self.at;
        loop {
            match self.next() {
                None => return Err(self.wrong("[ without ]")),
                Some(b']') if self.at > first + 1 => return Ok(set),
                Some(low) => {
                    let range = self.peek() == Some(b'-') && self.text.get(self.at + 1).is_some_and(|b| *b != b']');
                    let high = if range {
                        self.at += 1;
                        self.next().unwrap_or(low)
                    } else {
                        low
                    };
                    if high < low {
                        return Err(self.wrong("range that ends before it begins"));
                    }
                    for byte in low..=high {
                        set.0[usize::from(byte)] = !not;
                    }
                }
            }
        }
    }
}

impl Set {
    fn of(byte: u8) -> Self {
        let mut set = [false; 256];
        set[usize::from(byte)] = true;
        Self(set)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_as_regexec_does() {
        for (pattern, yes, no) in [
            ("web", "my-web-1", "wob"),
            ("^web$", "web", "web1"),
            ("^web-[0-9]+$", "web-12", "web-"),
            ("^(a|bc)*d$", "abcabcd", "abd"),
            ("x.?y", "xy", "xaay"),
            ("[^a-c]", "abd", "abc"),
            ("^[]a]+$", "a]", "b"),
            ("a\\.b", "a.b", "axb"),
            ("", "anything", "\u{0}"),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            assert!(parsed.matches(yes), "{pattern} {yes}");
            assert_eq!(parsed.matches(no), pattern.is_empty(), "{pattern} {no}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_and_none_is_slow() {
        for pattern in ["(", ")", "[a", "*", "a\\", "[z-a]", &"(".repeat(100_000), &"a*".repeat(1), "+"] {
            if pattern != "a*" {
                Pattern::parse(pattern).expect_err(pattern);
            }
        }
        let slow = Pattern::parse("(a*)*(a*)*(a*)*b").expect("nested");
        assert!(!slow.matches(&"a".repeat(255)));
    }
}
