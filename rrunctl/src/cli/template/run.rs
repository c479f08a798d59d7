//! A template meets its data.

#![forbid(unsafe_code)]

use super::Template;
use super::functions;
use super::parse::{Command, Node, Pipe, Term, What, position};
use crate::error::{Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Nodes and commands, and 64 bytes of text each: seconds, where a template multiplies loops by loops.
const STEPS: usize = 1_000_000;
/// Bytes of text, printed or in a variable.
pub(super) const BYTES: usize = 64 << 20;

type Val<'a> = Cow<'a, Value>;

pub(super) fn run(
    template: &Template,
    data: &Value,
    labels: Option<&BTreeMap<String, String>>,
    titles: bool,
) -> Result<String> {
    let mut run = Run {
        source: &template.source,
        labels,
        titles,
        lenient: titles,
        variables: vec![("$", Cow::Borrowed(data))],
        out: String::new(),
        steps: 0,
    };
    run.nodes(&template.nodes, &Cow::Borrowed(data))?;
    Ok(run.out)
}

enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    source: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
    titles: bool,
    /// What is missing is null, and no error.
    lenient: bool,
    variables: Vec<(&'a str, Val<'a>)>,
    out: String,
    steps: usize,
}

impl<'a> Run<'a> {
    fn error(&self, at: usize, text: impl std::fmt::Display) -> Error {
        // The word as Go quotes it, `<.Foo>`: where it stands up to what cannot belong to it.
        let rest = &self.source[at..];
        let word = &rest[..rest.find(|c: char| c.is_whitespace() || "})|".contains(c)).unwrap_or(rest.len())];
        let place = position(self.source, at);
        Error::invalid(format!("template parsing error: {place}: executing \"\" at <{word}>: {text}"))
    }

    fn count(&mut self, at: usize, steps: usize) -> Result<()> {
        self.steps += steps;
        if self.steps > STEPS || self.out.len() > BYTES {
            return Err(self.error(at, "it runs too long or prints too much"));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow> {
        let known = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Val<'a>) -> Result<Flow> {
        match node {
            Node::Text(text) => {
                self.out.push_str(text);
                self.count(0, 1 + text.len() / 64)?;
            }
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    let before = self.out.len();
                    functions::print(&value, &mut self.out);
                    self.count(pipe.commands[0].terms[0].at, (self.out.len() - before) / 64)?;
                }
            }
            Node::If { with, branches, otherwise } => {
                let known = self.variables.len();
                let mut taken = None;
                for (test, body) in branches {
                    // docker's own data have every field; JSON lacks what was empty (`{{if .State.Health}}`).
                    let lenient = std::mem::replace(&mut self.lenient, true);
                    let value = self.pipe(test, dot);
                    self.lenient = lenient;
                    let value = value?;
                    if functions::truth(&value) {
                        taken = Some((body, value));
                        break;
                    }
                }
                let flow = match taken {
                    Some((body, value)) if *with => self.nodes(body, &value),
                    Some((body, _)) => self.nodes(body, dot),
                    None => self.nodes(otherwise, dot),
                };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &'a Pipe,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Val<'a>,
    ) -> Result<Flow> {
        let at = over.commands[0].terms[0].at;
        let known = self.variables.len();
        let value = self.value(over, dot)?;
        let items: Vec<(Value, Val<'a>)> = match value {
            Cow::Borrowed(Value::Array(items)) => numbered(items.iter().map(Cow::Borrowed)),
            Cow::Owned(Value::Array(items)) => numbered(items.into_iter().map(Cow::Owned)),
            Cow::Borrowed(Value::Object(map)) => {
                sorted(map.iter().map(|(key, item)| (key.clone(), Cow::Borrowed(item))).collect())
            }
            Cow::Owned(Value::Object(map)) => {
                sorted(map.into_iter().map(|(key, item)| (key, Cow::Owned(item))).collect())
            }
            value => match (value.as_ref(), value.as_u64()) {
                (Value::Null, _) => Vec::new(),
                (_, Some(n)) => {
                    self.count(at, usize::try_from(n).unwrap_or(usize::MAX).min(STEPS + 1))?;
                    (0..n).map(|n| (n.into(), Cow::Owned(n.into()))).collect()
                }
                _ if self.titles => Vec::new(),
                (other, _) => {
                    let mut text = String::new();
                    functions::print(other, &mut text);
                    return Err(self.error(at, format_args!("range can't iterate over {text}")));
                }
            },
        };
        let mut flow = Flow::Next;
        if items.is_empty() {
            flow = self.nodes(otherwise, dot)?;
        }
        for (key, item) in items {
            self.count(at, 1)?;
            match &over.variables[..] {
                [value] => self.assign(value, item.clone(), over.declares),
                [index, value] => {
                    self.assign(index, Cow::Owned(key), over.declares);
                    self.assign(value, item.clone(), over.declares);
                }
                _ => {}
            }
            let ended = self.nodes(body, &item);
            self.variables.truncate(known);
            if matches!(ended?, Flow::Break) {
                break;
            }
        }
        Ok(flow)
    }

    fn assign(&mut self, name: &'a str, value: Val<'a>, declares: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, known)) if !declares => *known = value,
            _ => self.variables.push((name, value)),
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>> {
        let value = self.value(pipe, dot)?;
        if let [name] = &pipe.variables[..] {
            self.assign(name, value.clone(), pipe.declares);
        }
        Ok(value)
    }

    fn value(&mut self, pipe: &'a Pipe, dot: &Val<'a>) -> Result<Val<'a>> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command(&mut self, command: &'a Command, dot: &Val<'a>, piped: Option<Val<'a>>) -> Result<Val<'a>> {
        let first = &command.terms[0];
        self.count(first.at, 1)?;
        let What::Function(name) = first.what else {
            if let Some(label) = self.label(command, piped.is_some()) {
                return Ok(label);
            }
            if command.terms.len() > 1 {
                return Err(self.error(first.at, "it has arguments but is no function"));
            }
            if matches!(first.what, What::Nil) {
                return Err(self.error(first.at, "nil is not a command"));
            }
            return self.term(first, dot);
        };
        let mut arguments: Vec<Val<'a>> = Vec::new();
        for term in &command.terms[1..] {
            let value = self.term(term, dot)?;
            // The rest is not even looked at: `{{and .A .A.B}}`.
            let decided = match name {
                "and" => !functions::truth(&value),
                "or" => functions::truth(&value),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        if self.titles && functions::leaves_titles(name) {
            return Ok(arguments
                .into_iter()
                .find(|value| value.is_string())
                .unwrap_or(Cow::Owned(Value::Null)));
        }
        let value = functions::call(name, &arguments)
            .map_err(|text| self.error(first.at, format_args!("error calling {name}: {text}")))?;
        let length = value.as_str().map_or(0, str::len);
        self.count(first.at, if length > BYTES { STEPS + 1 } else { length / 64 })?;
        Ok(value)
    }

    /// `.Label "KEY"`: docker's one method with an argument.
    fn label(&self, command: &Command, piped: bool) -> Option<Val<'a>> {
        let [row, key] = &command.terms[..] else { return None };
        let of_row = matches!(row.what, What::Dot | What::Variable(_)) && row.fields == ["Label"];
        let (What::Literal(Value::String(key)), true, false) = (&key.what, of_row, piped) else {
            return None;
        };
        let text = match self.labels {
            _ if self.titles => key.as_str(),
            labels => labels?.get(key).map_or("", String::as_str),
        };
        Some(Cow::Owned(text.into()))
    }

    fn term(&mut self, term: &'a Term, dot: &Val<'a>) -> Result<Val<'a>> {
        let mut value = match &term.what {
            What::Dot => dot.clone(),
            What::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map_or(Cow::Owned(Value::Null), |(_, value)| value.clone()),
            What::Literal(value) => Cow::Borrowed(value),
            What::Nil => Cow::Owned(Value::Null),
            What::Pipe(pipe) => self.pipe(pipe, dot)?,
            // A function without arguments, as an argument.
            What::Function(name) => functions::call(name, &[])
                .map_err(|text| self.error(term.at, format_args!("error calling {name}: {text}")))?,
        };
        for field in &term.fields {
            self.count(term.at, 1)?;
            value = match value {
                Cow::Borrowed(Value::Object(map)) if map.contains_key(field) => Cow::Borrowed(&map[field]),
                Cow::Owned(Value::Object(mut map)) if map.contains_key(field) => {
                    Cow::Owned(map.swap_remove(field).unwrap_or_default())
                }
                _ if self.lenient && !self.titles => Cow::Owned(Value::Null),
                value => return Err(self.no_field(term.at, &value, field)),
            };
        }
        Ok(value)
    }

    fn no_field(&self, at: usize, value: &Value, field: &str) -> Error {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&str> = map.keys().map(String::as_str).take(40).collect();
                keys.sort_unstable();
                let missing = self.error(at, format_args!("map has no entry for key {field:?}"));
                if keys.is_empty() {
                    missing
                } else {
                    missing.remedy(format_args!("there are {}", keys.join(" ")))
                }
            }
            Value::Null => self.error(at, format_args!("nil data; no entry for key {field:?}")),
            other => self.error(
                at,
                format_args!("can't evaluate field {field} in type {}", functions::type_of(other)),
            ),
        }
    }
}

fn numbered<'a>(items: impl Iterator<Item = Val<'a>>) -> Vec<(Value, Val<'a>)> {
    items.enumerate().map(|(n, item)| (n.into(), item)).collect()
}

/// Go ranges over a map in the order of its keys.
fn sorted(mut items: Vec<(String, Val<'_>)>) -> Vec<(Value, Val<'_>)> {
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items.into_iter().map(|(key, item)| (key.into(), item)).collect()
}
