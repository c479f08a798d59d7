//! The words of a Dockerfile's line: quotes, escapes, variables (Dockerfile reference, Environment replacement).

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::iter::Peekable;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may be.
const DEPTH: usize = 16;

/// Cuts at white space outside quotes; quotes and escapes stay.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    let mut letters = line.chars();
    while let Some(c) = letters.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        match c {
            '\\' if quote != Some('\'') => word.extend(letters.next()),
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a word stands for: variables are those of `env` (`NAME=value`), a missing one is nothing.
///
/// # Errors
/// A quote or a brace is not closed.
pub(super) fn expand(word: &str, env: &[String]) -> Result<String> {
    let mut letters = word.chars().peekable();
    let mut out = String::new();
    let mut quoted = false;
    while let Some(c) = letters.next() {
        match c {
            '\'' if !quoted => loop {
                match letters.next() {
                    Some('\'') => break,
                    Some(c) => out.push(c),
                    None => return Err(broken(word, "a quote is not closed")),
                }
            },
            '"' => quoted = !quoted,
            '\\' => match letters.next() {
                Some(c) if !quoted || matches!(c, '"' | '$' | '\\') => out.push(c),
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            '$' => variable(&mut letters, env, word, &mut out, DEPTH)?,
            c => out.push(c),
        }
    }
    if quoted { Err(broken(word, "a quote is not closed")) } else { Ok(out) }
}

fn broken(word: &str, why: &str) -> Error {
    Error::invalid(format!("failed to process {word:?}: {why}"))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().filter_map(|entry| entry.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What follows `$`.
fn variable(
    letters: &mut Peekable<Chars<'_>>,
    env: &[String],
    word: &str,
    out: &mut String,
    depth: usize,
) -> Result<()> {
    let braced = letters.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = letters.next_if(|c| is_name(*c)) {
        name.push(c);
    }
    if !braced {
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(value(env, &name).unwrap_or_default());
        return Ok(());
    }
    let unset = value(env, &name).filter(|value| !value.is_empty());
    match (letters.next(), letters.peek().copied()) {
        (Some('}'), _) if !name.is_empty() => out.push_str(value(env, &name).unwrap_or_default()),
        (Some(':'), Some(operator @ ('-' | '+'))) => {
            letters.next();
            let other = alternative(letters, env, word, depth)?;
            match (operator, unset) {
                ('-', Some(value)) => out.push_str(value),
                ('-', None) | ('+', Some(_)) => out.push_str(&other),
                _ => {}
            }
        }
        _ => return Err(broken(word, "unsupported or unfinished ${…}")),
    }
    Ok(())
}

/// What stands behind `:-`, up to the brace.
fn alternative(
    letters: &mut Peekable<Chars<'_>>,
    env: &[String],
    word: &str,
    depth: usize,
) -> Result<String> {
    let depth = depth.checked_sub(1).ok_or_else(|| broken(word, "too many braces"))?;
    let mut out = String::new();
    loop {
        match letters.next() {
            Some('}') => return Ok(out),
            Some('$') => variable(letters, env, word, &mut out, depth)?,
            Some('\\') => out.extend(letters.next()),
            Some(c) => out.push(c),
            None => return Err(broken(word, "a brace is not closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_outside_quotes() {
        assert_eq!(split(r#"a  b="c d" e='f " g' h\ i"#), ["a", r#"b="c d""#, r#"e='f " g'"#, r"h\ i"]);
        assert_eq!(split("  "), [""; 0]);
    }

    #[test]
    fn variables_quotes_and_escapes_are_undone() {
        let env = ["A=x y".to_owned(), "EMPTY=".to_owned()];
        for (word, meant) in [
            ("$A/b", "x y/b"),
            ("${A}b", "x yb"),
            ("'$A'", "$A"),
            (r#""$A""#, "x y"),
            (r"\$A", "$A"),
            (r#""a\"b\n""#, r#"a"b\n"#),
            ("${B:-d}${EMPTY:-e}${A:-f}", "dex y"),
            ("${A:+set}${B:+unset}", "set"),
            ("${B:-${A}}", "x y"),
            ("$B|$", "|$"),
            ("ü$A", "üx y"),
        ] {
            assert_eq!(expand(word, &env).expect(word), meant, "{word}");
        }
        let deep = "${a:-".repeat(1000);
        for word in ["'a", "\"a", "${A", "${A:-b", "${}", "${A?b}", &deep] {
            assert!(expand(word, &env).is_err(), "{word}");
        }
    }
}
