//! Values in GVariant's text format, as the annotations `org.systemd.property.*` have them: what runc and crun
//! accept but dictionaries.
//!
//! `true`, `'text'`, `5` (an `i`), `uint64 5`, `@as []`, `[1, 2]`, `('a', true)`, `<'v'>`, `b'bytes'`.

#![forbid(unsafe_code)]

use crate::dbus::Value;
use crate::dbus::wire::split;

/// Deeper than any property of systemd's.
const DEPTH: u32 = 8;

/// Reads a whole text as one value.
///
/// # Errors
/// Says what is wrong, and where.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, rest: text };
    let value = parser.value(None, 0)?;
    parser.blanks();
    if parser.rest.is_empty() { Ok(value) } else { parser.bad("nothing more") }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

/// Names of types that may stand before a value.
const KEYWORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl<'a> Parser<'a> {
    fn bad<T>(&self, wanted: &str) -> Result<T, String> {
        let at = self.text.len() - self.rest.len();
        Err(format!("{wanted} expected at byte {at} of {:?}", self.text))
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blanks();
        self.rest.strip_prefix(token).is_some_and(|rest| {
            self.rest = rest;
            true
        })
    }

    /// The longest prefix of such characters.
    fn word(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !of(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn value(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        if depth > DEPTH {
            return self.bad("less nesting");
        }
        if self.eat("@") {
            let signature = self.word(|c| !c.is_whitespace());
            return match split(signature) {
                Ok((_, "")) if wanted.is_none_or(|wanted| wanted == signature) => {
                    self.value(Some(signature), depth + 1)
                }
                _ => self.bad("another type"),
            };
        }
        self.blanks();
        if let Some(quoted) = self.rest.strip_prefix('b').filter(|rest| rest.starts_with(['\'', '"'])) {
            self.rest = quoted;
            let mut bytes = self.string()?.into_bytes();
            bytes.push(0);
            return Ok(Value::bytes(&bytes));
        }
        match self.rest.chars().next() {
            Some('\'' | '"') => self.text_value(wanted),
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('<') if wanted.is_none_or(|wanted| wanted == "v") => {
                self.eat("<");
                let inner = self.value(None, depth + 1)?;
                if self.eat(">") { Ok(Value::Variant(inner.into())) } else { self.bad("'>'") }
            }
            Some('0'..='9' | '-' | '+' | '.') => self.number(wanted),
            _ => self.named(wanted, depth),
        }
    }

    fn named(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        let before = self.rest;
        let word = self.word(|c| c.is_ascii_alphanumeric());
        if let "true" | "false" = word
            && matches!(wanted, None | Some("b"))
        {
            return Ok(Value::Bool(word == "true"));
        }
        let known = KEYWORDS.iter().find(|(name, _)| *name == word);
        if let Some((_, signature)) = known.filter(|(_, s)| wanted.is_none_or(|wanted| wanted == *s)) {
            return self.value(Some(signature), depth + 1);
        }
        self.rest = before;
        self.bad("a value")
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let before = self.rest;
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let (sign, digits) = match word.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let radix = |digits: &str, radix| i128::from_str_radix(digits, radix).ok();
        let integer = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => radix(digits.get(2..).unwrap_or_default(), 16),
            [b'0', _, ..] => radix(digits, 8),
            [b'0'..=b'9', ..] => radix(digits, 10),
            _ => None,
        };
        let real = integer.is_none() && word.contains(['.', 'e', 'E']);
        let wanted = wanted.unwrap_or(if real { "d" } else { "i" });
        let n = integer.map(|n| n * sign);
        let value = match wanted {
            "y" => n.and_then(|n| n.try_into().ok()).map(Value::Byte),
            "n" => n.and_then(|n| n.try_into().ok()).map(Value::I16),
            "q" => n.and_then(|n| n.try_into().ok()).map(Value::U16),
            "i" => n.and_then(|n| n.try_into().ok()).map(Value::I32),
            "u" => n.and_then(|n| n.try_into().ok()).map(Value::U32),
            "x" => n.and_then(|n| n.try_into().ok()).map(Value::I64),
            "t" => n.and_then(|n| n.try_into().ok()).map(Value::U64),
            "d" => word.parse().ok().map(Value::F64),
            _ => None,
        };
        value.map_or_else(
            || {
                self.rest = before;
                self.bad(&format!("a number of type {wanted:?}"))
            },
            Ok,
        )
    }

    fn text_value(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        match wanted {
            None | Some("s") => self.string().map(Value::Str),
            Some("o") => self.string().map(Value::Path),
            Some("g") => self.string().map(Value::Signature),
            Some(_) => self.bad("another type"),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next() {
                None | Some('\0') => return self.bad("a closing quote"),
                c if c == quote => break,
                Some('\\') => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    _ => return self.bad("another escape"),
                },
                Some(c) => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }

    fn array(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        let element = match wanted.map(|wanted| wanted.strip_prefix('a')) {
            Some(None) => return self.bad("another type"),
            Some(element) => element,
            None => None,
        };
        let mut element = element.map(str::to_owned);
        let mut values = Vec::new();
        self.eat("[");
        while !self.eat("]") {
            if !values.is_empty() && !self.eat(",") {
                return self.bad("',' or ']'");
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            element = element.or_else(|| Some(value.signature()));
            values.push(value);
        }
        match element {
            Some(element) => Ok(Value::Array(element, values)),
            None => self.bad("a type such as @as before an empty array"),
        }
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        let mut types = match wanted {
            None => None,
            Some(wanted) => match wanted.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
                Some(types) => Some(types),
                None => return self.bad("another type"),
            },
        };
        let mut fields = Vec::new();
        self.eat("(");
        while !self.eat(")") {
            if !fields.is_empty() && !self.eat(",") {
                return self.bad("',' or ')'");
            }
            // "(1,)" is a tuple of one.
            if fields.len() == 1 && self.eat(")") {
                break;
            }
            let field = types.map(split).transpose().or_else(|_| self.bad("')'"))?;
            fields.push(self.value(field.map(|(one, _)| one), depth + 1)?);
            types = field.map(|(_, rest)| rest);
        }
        match (fields.is_empty(), types) {
            (false, None | Some("")) => Ok(Value::Struct(fields)),
            _ => self.bad("more fields"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_annotations() {
        let text = |text: &str| Value::Str(text.into());
        for (given, want) in [
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""a\"b\\""#, text("a\"b\\")),
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            (" -0x10 ", Value::I32(-16)),
            ("017", Value::I32(15)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@u 7", Value::U32(7)),
            ("byte 9", Value::Byte(9)),
            ("1.5", Value::F64(1.5)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', 'b']", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("@as []", Value::Array("s".into(), vec![])),
            (
                "@a(ss) [('a','b')]",
                Value::Array("(ss)".into(), vec![Value::Struct(vec![text("a"), text("b")])]),
            ),
            ("(true, uint32 1)", Value::Struct(vec![Value::Bool(true), Value::U32(1)])),
            ("(1,)", Value::Struct(vec![Value::I32(1)])),
            ("<'x'>", Value::Variant(text("x").into())),
            ("b'ab'", Value::bytes(b"ab\0")),
            ("[b'a']", Value::Array("ay".into(), vec![Value::bytes(b"a\0")])),
        ] {
            assert_eq!(parse(given), Ok(want), "{given}");
        }
    }

    #[test]
    fn others_are_refused_with_their_place() {
        for bad in [
            "",
            "text",
            "'open",
            "5 6",
            "[]",
            "[1, 'a']",
            "[1 2]",
            "()",
            "uint64 -1",
            "byte 256",
            "@u 'x'",
            "2147483648",
            "{'a': 1}",
            "@zz 1",
            "(1",
            "[1,",
            "@(ss) ('a')",
            "@(s) ('a','b')",
            "08",
            "'\\x'",
            "[[[[[[[[[[1]]]]]]]]]]",
            "<1",
            "uint32 uint64 1",
        ] {
            let e = parse(bad).expect_err(bad);
            assert!(e.contains("expected at byte"), "{bad}: {e}");
        }
        assert_eq!(parse("[1, 'a']"), Err("another type expected at byte 4 of \"[1, 'a']\"".into()));
    }
}
