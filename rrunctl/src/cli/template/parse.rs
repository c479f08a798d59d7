//! The words of a template, and what they make.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde_json::Value;

/// Parentheses and blocks within one another: what follows calls itself once for each.
const DEPTH: usize = 64;

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    /// `{{if A}}…{{else if B}}…{{else}}…{{end}}`, and `with`, whose body sees what was tested as `.`.
    If {
        with: bool,
        branches: Vec<(Pipe, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// `$x := command | command`.
#[derive(Debug)]
pub(super) struct Pipe {
    pub variables: Vec<String>,
    /// `:=` makes a variable, `=` changes one.
    pub declares: bool,
    pub commands: Vec<Command>,
}

/// What is called, and with what.
#[derive(Debug)]
pub(super) struct Command {
    pub terms: Vec<Term>,
}

/// One word, and where it stands.
#[derive(Debug)]
pub(super) struct Term {
    pub at: usize,
    pub what: What,
    /// `.A.B` behind it.
    pub fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum What {
    Dot,
    Variable(String),
    Function(&'static str),
    Literal(Value),
    Nil,
    Pipe(Box<Pipe>),
}

/// Every function that can be called, by its name.
const FUNCTIONS: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];

#[derive(Debug, Clone, PartialEq)]
enum Word {
    Text(String),
    Open,
    Close,
    Identifier(String),
    /// `.Name`, and whether white space is in front: `.A.B` is one word more than `.A .B` is.
    Field(String, bool),
    Dot,
    Variable(String),
    Literal(Value),
    Pipe,
    Left,
    Right,
    Comma,
    Declare,
    Assign,
}

/// Where `at` is, as Go's templates say it: the line from 1, the byte in it from 0.
pub(super) fn position(source: &str, at: usize) -> String {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |n| n + 1);
    format!("template: :{line}:{column}")
}

fn error(source: &str, at: usize, text: impl std::fmt::Display) -> Error {
    Error::invalid(format!("template parsing error: {}: {text}", position(source, at)))
}

/// The tree of a template.
///
/// # Errors
/// With the position of the first word that does not fit.
pub(super) fn parse(source: &str) -> Result<Vec<Node>> {
    let words = words(source)?;
    let mut parser = Parser { source, words, next: 0, variables: vec!["$".into()], loops: 0, depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        Stop::File => Ok(nodes),
        Stop::End => Err(parser.error("unexpected {{end}}")),
        Stop::Else => Err(parser.error("unexpected {{else}}")),
    }
}

fn words(source: &str) -> Result<Vec<(usize, Word)>> {
    let mut words = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while at < source.len() {
        let rest = &source[at..];
        let text_end = rest.find("{{").unwrap_or(rest.len());
        let mut text = &rest[..text_end];
        if trim {
            text = text.trim_start();
        }
        let action = at + text_end + 2;
        let opened = text_end < rest.len();
        // `{{-` and white space: what is in front loses its own.
        let trims = opened
            && source[action..].starts_with('-')
            && source[action + 1..].starts_with(char::is_whitespace);
        if trims {
            text = text.trim_end();
        }
        if !text.is_empty() {
            words.push((at, Word::Text(text.to_owned())));
        }
        if !opened {
            break;
        }
        (at, trim) = action_words(source, action + usize::from(trims), &mut words)?;
    }
    Ok(words)
}

/// The words up to `}}`; where it ends, and whether it takes the white space behind it.
fn action_words(source: &str, from: usize, words: &mut Vec<(usize, Word)>) -> Result<(usize, bool)> {
    let comment = from + (source[from..].len() - source[from..].trim_start().len());
    if source[comment..].starts_with("/*") {
        let end = source[comment..].find("*/").ok_or_else(|| error(source, comment, "unclosed comment"))?;
        let rest = &source[comment + end + 2..];
        let close = rest.trim_start();
        let (close, trim) = match close.strip_prefix('-') {
            Some(behind) if rest.len() > close.len() => (behind, true),
            _ => (close, false),
        };
        let behind = close
            .strip_prefix("}}")
            .ok_or_else(|| error(source, comment, "comment ends before closing delimiter"))?;
        return Ok((source.len() - behind.len(), trim));
    }
    words.push((from.saturating_sub(2), Word::Open));
    let mut at = from;
    let mut space = true;
    loop {
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else {
            return Err(error(source, from.saturating_sub(2), "unclosed action"));
        };
        if rest.starts_with("}}") {
            words.push((at, Word::Close));
            return Ok((at + 2, false));
        }
        if space && rest.starts_with("-}}") {
            words.push((at, Word::Close));
            return Ok((at + 3, true));
        }
        if first.is_whitespace() {
            space = true;
            at += first.len_utf8();
            continue;
        }
        let (word, length) = word(source, at, space)?;
        words.push((at, word));
        at += length;
        space = false;
    }
}

fn word(source: &str, at: usize, space: bool) -> Result<(Word, usize)> {
    let rest = &source[at..];
    let name = |rest: &str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let first = rest.chars().next().unwrap_or_default();
    Ok(match first {
        '|' => (Word::Pipe, 1),
        '(' => (Word::Left, 1),
        ')' => (Word::Right, 1),
        ',' => (Word::Comma, 1),
        ':' if rest.starts_with(":=") => (Word::Declare, 2),
        '=' => (Word::Assign, 1),
        '$' => {
            let length = 1 + name(&rest[1..]);
            (Word::Variable(rest[..length].to_owned()), length)
        }
        '.' if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            let length = 1 + name(&rest[1..]);
            (Word::Field(rest[1..length].to_owned(), space), length)
        }
        '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(source, at)?,
        '.' => (Word::Dot, 1),
        '"' => quoted(source, at)?,
        '`' => {
            let end =
                rest[1..].find('`').ok_or_else(|| error(source, at, "unterminated raw quoted string"))?;
            (Word::Literal(rest[1..=end].into()), end + 2)
        }
        c if c.is_ascii_digit() || c == '-' || c == '+' => number(source, at)?,
        c if c.is_alphabetic() || c == '_' => {
            let length = name(rest);
            let word = match &rest[..length] {
                "true" => Word::Literal(true.into()),
                "false" => Word::Literal(false.into()),
                name => Word::Identifier(name.to_owned()),
            };
            (word, length)
        }
        other => return Err(error(source, at, format_args!("unexpected {other:?} in operand"))),
    })
}

fn number(source: &str, at: usize) -> Result<(Word, usize)> {
    let rest = &source[at..];
    let length = rest
        .char_indices()
        .find(|(n, c)| {
            let exponent = *n > 0 && matches!(rest.as_bytes()[n - 1], b'e' | b'E');
            !(c.is_ascii_alphanumeric() || *c == '.' || (matches!(c, '+' | '-') && (*n == 0 || exponent)))
        })
        .map_or(rest.len(), |(n, _)| n);
    let text = &rest[..length];
    let digits = text.trim_start_matches(['+', '-']);
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => {
            i64::from_str_radix(hex, 16).ok().map(|n| Value::from(if text.starts_with('-') { -n } else { n }))
        }
        None => text.parse::<i64>().map(Value::from).ok().or_else(|| {
            let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
            // Go's constants: 1e3 is a whole number.
            Some(if float.fract() == 0.0 && float.abs() < 1e15 && !digits.contains('.') {
                Value::from(float as i64)
            } else {
                Value::from(float)
            })
        }),
    };
    match value {
        Some(value) if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            Ok((Word::Literal(value), length))
        }
        _ => Err(error(source, at, format_args!("bad number syntax: {text:?}"))),
    }
}

fn quoted(source: &str, at: usize) -> Result<(Word, usize)> {
    let mut text = String::new();
    let mut letters = source[at..].char_indices().skip(1);
    while let Some((n, c)) = letters.next() {
        match c {
            '"' => return Ok((Word::Literal(text.into()), n + 1)),
            '\n' => break,
            '\\' => match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c @ ('\\' | '"'))) => text.push(c),
                _ => {
                    return Err(error(
                        source,
                        at + n,
                        "unknown escape in string (\\n \\t \\r \\\\ \\\" are known)",
                    ));
                }
            },
            c => text.push(c),
        }
    }
    Err(error(source, at, "unterminated quoted string"))
}

enum Stop {
    File,
    End,
    Else,
}

struct Parser<'a> {
    source: &'a str,
    words: Vec<(usize, Word)>,
    next: usize,
    variables: Vec<String>,
    loops: usize,
    depth: usize,
}

impl Parser<'_> {
    /// About the word that was taken last.
    fn error(&self, text: impl std::fmt::Display) -> Error {
        let at = self.words.get(self.next.saturating_sub(1)).map_or(self.source.len(), |(at, _)| *at);
        error(self.source, at, text)
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(format_args!("more than {DEPTH} levels")));
        }
        Ok(())
    }

    fn peek(&self) -> Option<&Word> {
        self.words.get(self.next).map(|(_, word)| word)
    }

    fn take(&mut self, word: &Word) -> bool {
        let is = self.peek() == Some(word);
        self.next += usize::from(is);
        is
    }

    fn close(&mut self) -> Result<()> {
        if self.take(&Word::Close) {
            return Ok(());
        }
        self.next += 1;
        Err(self.error("unexpected operand"))
    }

    /// Up to the end of the block, whose word and `}}` or ` if` it has then taken or left.
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop)> {
        self.deeper()?;
        let mut nodes = Vec::new();
        let end = loop {
            let Some((_, word)) = self.words.get(self.next).cloned() else { break Stop::File };
            self.next += 1;
            if let Word::Text(text) = word {
                nodes.push(Node::Text(text));
                continue;
            }
            let name = match self.peek() {
                Some(Word::Identifier(name)) => name.clone(),
                _ => String::new(),
            };
            self.next += 1;
            match name.as_str() {
                "end" => {
                    self.close()?;
                    break Stop::End;
                }
                "else" => break Stop::Else,
                "if" | "with" => nodes.push(self.branches(name == "with")?),
                "range" => nodes.push(self.range()?),
                "break" | "continue" => {
                    if self.loops == 0 {
                        return Err(self.error(format_args!("{{{{{name}}}}} outside {{{{range}}}}")));
                    }
                    self.close()?;
                    nodes.push(if name == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(self.error(format_args!("{{{{{name}}}}} is not supported")));
                }
                _ => {
                    self.next -= 1;
                    let pipe = self.pipe("command")?;
                    self.close()?;
                    nodes.push(Node::Print(pipe));
                }
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    /// The rest of a block that has to have an end.
    fn block(&mut self) -> Result<(Vec<Node>, Stop)> {
        let known = self.variables.len();
        let (body, end) = self.nodes()?;
        self.variables.truncate(known);
        match end {
            Stop::File => Err(self.error("unexpected EOF: {{end}} is missing")),
            end => Ok((body, end)),
        }
    }

    fn last_block(&mut self) -> Result<Vec<Node>> {
        self.close()?;
        match self.block()? {
            (body, Stop::End) => Ok(body),
            _ => Err(self.error("unexpected {{else}}")),
        }
    }

    fn branches(&mut self, with: bool) -> Result<Node> {
        let known = self.variables.len();
        let word = if with { "with" } else { "if" };
        let mut branches = Vec::new();
        let otherwise = loop {
            let test = self.pipe(word)?;
            self.close()?;
            let (body, end) = self.block()?;
            branches.push((test, body));
            match end {
                Stop::Else if self.take(&Word::Identifier(word.to_owned())) => {}
                Stop::Else => break self.last_block()?,
                _ => break Vec::new(),
            }
        };
        self.variables.truncate(known);
        Ok(Node::If { with, branches, otherwise })
    }

    fn range(&mut self) -> Result<Node> {
        let known = self.variables.len();
        let over = self.pipe("range")?;
        self.close()?;
        self.loops += 1;
        let (body, end) = self.block()?;
        self.loops -= 1;
        let otherwise = match end {
            Stop::Else => self.last_block()?,
            _ => Vec::new(),
        };
        self.variables.truncate(known);
        Ok(Node::Range { over, body, otherwise })
    }

    fn pipe(&mut self, of: &str) -> Result<Pipe> {
        self.deeper()?;
        let (variables, declares) = self.assigned(of)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            if command.terms.is_empty() {
                self.next += 1;
                return Err(self.error(format_args!("missing value for {of}")));
            }
            commands.push(command);
            if !self.take(&Word::Pipe) {
                break;
            }
        }
        if let Some(word) = commands.iter().skip(1).find(|c| !matches!(c.terms[0].what, What::Function(_))) {
            return Err(error(self.source, word.terms[0].at, "non executable command in pipeline"));
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { variables, declares, commands })
    }

    /// `$x :=`, `$x =`, and for range `$k, $v :=`.
    fn assigned(&mut self, of: &str) -> Result<(Vec<String>, bool)> {
        let word = |n: usize| self.words.get(self.next + n).map(|(_, word)| word);
        let (names, length) = match (word(0), word(1), word(2)) {
            (Some(Word::Variable(a)), Some(Word::Comma), Some(Word::Variable(b))) if of == "range" => {
                (vec![a.clone(), b.clone()], 3)
            }
            (Some(Word::Variable(a)), ..) => (vec![a.clone()], 1),
            _ => return Ok((Vec::new(), false)),
        };
        let declares = match word(length) {
            Some(Word::Declare) => true,
            Some(Word::Assign) => false,
            _ => return Ok((Vec::new(), false)),
        };
        self.next += length + 1;
        if let Some(unknown) = names.iter().find(|name| !declares && !self.variables.contains(name)) {
            return Err(self.error(format_args!("undefined variable {unknown:?}")));
        }
        Ok((names, declares))
    }

    fn command(&mut self) -> Result<Command> {
        let mut terms: Vec<Term> = Vec::new();
        while let Some((at, word)) = self.words.get(self.next).cloned() {
            let what = match word {
                Word::Field(name, space) => match terms.last_mut() {
                    Some(last)
                        if !space
                            && !matches!(last.what, What::Function(_) | What::Literal(_) | What::Nil) =>
                    {
                        last.fields.push(name);
                        self.next += 1;
                        continue;
                    }
                    _ => {
                        terms.push(Term { at, what: What::Dot, fields: vec![name] });
                        self.next += 1;
                        continue;
                    }
                },
                Word::Dot => What::Dot,
                Word::Variable(name) if self.variables.contains(&name) => What::Variable(name),
                Word::Variable(name) => {
                    return Err(error(self.source, at, format_args!("undefined variable {name:?}")));
                }
                Word::Literal(value) => What::Literal(value),
                Word::Identifier(name) if name == "nil" => What::Nil,
                Word::Identifier(name) => match FUNCTIONS.iter().find(|known| **known == name) {
                    Some(name) => What::Function(name),
                    None => {
                        return Err(error(self.source, at, format_args!("function {name:?} not defined"))
                            .remedy(format_args!("there are {}", FUNCTIONS.join(" "))));
                    }
                },
                Word::Left => {
                    self.next += 1;
                    let pipe = self.pipe("parenthesized pipeline")?;
                    if !self.take(&Word::Right) {
                        return Err(error(self.source, at, "unclosed left paren"));
                    }
                    terms.push(Term { at, what: What::Pipe(Box::new(pipe)), fields: Vec::new() });
                    continue;
                }
                _ => break,
            };
            terms.push(Term { at, what, fields: Vec::new() });
            self.next += 1;
        }
        Ok(Command { terms })
    }
}
