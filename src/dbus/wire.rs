//! The D-Bus wire format (D-Bus specification, "Type System" and "Message Protocol"): values and messages to
//! bytes and back.
//!
//! What comes in is not trusted: every length is checked against the specification's limits and against what is
//! there, and nesting is bounded.

#![forbid(unsafe_code)]

use std::fmt;

/// The largest array, in bytes.
const ARRAY: usize = 1 << 26;
/// The largest message, in bytes, header included.
pub const MESSAGE: usize = 1 << 27;
/// The deepest nesting: 32 arrays and 32 structures.
const DEPTH: u32 = 64;
/// The fixed part of a header, up to the length of the fields.
pub const HEADER: usize = 16;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`; also `h`, the index of a file descriptor.
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a` with the signature of its elements, which an empty one needs.
    Array(String, Vec<Self>),
    /// `(…)`, and an entry of a dictionary.
    Struct(Vec<Self>),
    /// `v`
    Variant(Box<Self>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl Value {
    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().map(|&byte| Self::Byte(byte)).collect())
    }

    /// `(sv)`: a name and any value.
    pub fn named(name: &str, value: Self) -> Self {
        Self::Struct(vec![name.into(), Self::Variant(Box::new(value))])
    }

    /// Its signature.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Variant(_) => "v".into(),
        }
    }

    /// The text of a string, object path or signature, in a variant too.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.text(),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        pad(out, alignment(self.signature().bytes().next()));
        match self {
            Self::Byte(n) => out.push(*n),
            Self::Bool(on) => out.extend(u32::from(*on).to_le_bytes()),
            Self::I16(n) => out.extend(n.to_le_bytes()),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I64(n) => out.extend(n.to_le_bytes()),
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::F64(n) => out.extend(n.to_le_bytes()),
            Self::Str(text) | Self::Path(text) => {
                out.extend(length(text.len()).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => write_signature(text, out),
            Self::Array(element, values) => {
                let at = out.len();
                out.extend([0; 4]);
                // Not counted in the length, and there even without an element.
                pad(out, alignment(element.bytes().next()));
                let start = out.len();
                values.iter().for_each(|value| value.write(out));
                let n = length(out.len() - start);
                out.splice(at..at + 4, n.to_le_bytes());
            }
            Self::Struct(fields) => fields.iter().for_each(|field| field.write(out)),
            Self::Variant(inner) => {
                write_signature(&inner.signature(), out);
                inner.write(out);
            }
        }
    }
}

/// What does not fit is refused when the whole message is checked.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn write_signature(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.as_bytes());
    out.push(0);
}

fn alignment(code: Option<u8>) -> usize {
    match code {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// What kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// METHOD_CALL
    Call,
    /// METHOD_RETURN
    Return,
    /// ERROR
    Error,
    /// SIGNAL
    Signal,
    /// One of a later version of the protocol, to be ignored.
    Unknown,
}

/// A message. Absent header fields are empty, or 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Kind.
    pub kind: Kind,
    /// Number of the message.
    pub serial: u32,
    /// Number of the call that this answers.
    pub reply_to: u32,
    /// Object.
    pub path: String,
    /// Interface.
    pub interface: String,
    /// Method or signal.
    pub member: String,
    /// Name of an error.
    pub error: String,
    /// To whom.
    pub destination: String,
    /// Its values.
    pub body: Vec<Value>,
}

/// A message that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid D-Bus message: {}", self.0)
    }
}

/// A method call, or for tests any message, as bytes.
///
/// # Errors
/// More than the format can hold.
pub fn encode(message: &Message) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    message.body.iter().for_each(|value| value.write(&mut body));
    let signature: String = message.body.iter().map(Value::signature).collect();
    let kind = match message.kind {
        Kind::Call => 1,
        Kind::Return => 2,
        Kind::Error => 3,
        Kind::Signal => 4,
        Kind::Unknown => return Err(Broken("unknown kind")),
    };
    let text = |code: u8, text: &str| (code, Value::Str(text.into()), text.is_empty());
    let fields = [
        (1, Value::Path(message.path.clone()), message.path.is_empty()),
        text(2, &message.interface),
        text(3, &message.member),
        text(4, &message.error),
        (5, Value::U32(message.reply_to), message.reply_to == 0),
        text(6, &message.destination),
        (8, Value::Signature(signature.clone()), signature.is_empty()),
    ];
    let fields = fields.into_iter().filter(|(_, _, absent)| !absent);
    let fields = fields.map(|(code, v, _)| Value::Struct(vec![Value::Byte(code), Value::Variant(v.into())]));
    let mut out = vec![b'l', kind, 0, 1];
    out.extend(length(body.len()).to_le_bytes());
    out.extend(message.serial.to_le_bytes());
    Value::Array("(yv)".into(), fields.collect()).write(&mut out);
    pad(&mut out, 8);
    out.extend(body);
    if out.len() > MESSAGE || signature.len() > 255 {
        return Err(Broken("too long"));
    }
    Ok(out)
}

/// How many bytes the message has whose first [`HEADER`] bytes these are.
///
/// # Errors
/// Not a header, or one of a message that is too long.
pub fn size(header: &[u8]) -> Result<usize, Broken> {
    let mut r = Reader { bytes: header, at: 0, big: big_endian(header)? };
    r.take(4)?;
    let (body, _, fields) = (r.u32()? as usize, r.u32()?, r.u32()? as usize);
    if body > MESSAGE || fields > ARRAY {
        return Err(Broken("too long"));
    }
    let size = (HEADER + fields).next_multiple_of(8) + body;
    if size > MESSAGE { Err(Broken("too long")) } else { Ok(size) }
}

fn big_endian(header: &[u8]) -> Result<bool, Broken> {
    match header.first() {
        Some(b'l') => Ok(false),
        Some(b'B') => Ok(true),
        _ => Err(Broken("neither little nor big endian")),
    }
}

/// Reads a whole message, of [`size`] bytes.
///
/// # Errors
/// What is not a message.
pub fn decode(bytes: &[u8]) -> Result<Message, Broken> {
    let mut r = Reader { bytes, at: 0, big: big_endian(bytes)? };
    let start = r.take(4)?;
    let kind = match start.get(1) {
        Some(1) => Kind::Call,
        Some(2) => Kind::Return,
        Some(3) => Kind::Error,
        Some(4) => Kind::Signal,
        Some(0) | None => return Err(Broken("no kind")),
        Some(_) => Kind::Unknown,
    };
    if start.get(3) != Some(&1) {
        return Err(Broken("not version 1"));
    }
    r.u32()?;
    let mut message = Message {
        kind,
        serial: r.u32()?,
        reply_to: 0,
        path: String::new(),
        interface: String::new(),
        member: String::new(),
        error: String::new(),
        destination: String::new(),
        body: Vec::new(),
    };
    let Value::Array(_, fields) = r.value("a(yv)", 0)? else { return Err(Broken("no header fields")) };
    let mut signature = String::new();
    for field in fields {
        let Value::Struct(pair) = field else { continue };
        let Ok([Value::Byte(code), Value::Variant(value)]) = <[Value; 2]>::try_from(pair) else { continue };
        match (code, *value) {
            (1, Value::Path(text)) => message.path = text,
            (2, Value::Str(text)) => message.interface = text,
            (3, Value::Str(text)) => message.member = text,
            (4, Value::Str(text)) => message.error = text,
            (5, Value::U32(serial)) => message.reply_to = serial,
            (6, Value::Str(text)) => message.destination = text,
            (8, Value::Signature(text)) => signature = text,
            (1..=6 | 8, _) => return Err(Broken("a header field of a wrong type")),
            _ => {}
        }
    }
    r.align(8)?;
    let mut rest = signature.as_str();
    while !rest.is_empty() {
        let (one, more) = split(rest)?;
        message.body.push(r.value(one, 0)?);
        rest = more;
    }
    Ok(message)
}

/// The first complete type of a signature, and the rest.
pub(crate) fn split(signature: &str) -> Result<(&str, &str), Broken> {
    let n = complete(signature.as_bytes(), 0)?;
    signature.split_at_checked(n).ok_or(Broken("a signature"))
}

fn complete(signature: &[u8], depth: u32) -> Result<usize, Broken> {
    if depth > DEPTH {
        return Err(Broken("nested too deep"));
    }
    let rest = |n: usize| signature.get(n..).unwrap_or_default();
    match signature.first() {
        Some(b'a') => Ok(1 + complete(rest(1), depth + 1)?),
        Some(open @ (b'(' | b'{')) => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut n = 1;
            while signature.get(n) != Some(&close) {
                n += complete(rest(n), depth + 1)?;
            }
            if n == 1 { Err(Broken("an empty structure")) } else { Ok(n + 1) }
        }
        Some(code) if b"ybnqiuxtdsoghv".contains(code) => Ok(1),
        _ => Err(Broken("a signature")),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(n).ok_or(Broken("too short"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Broken("too short"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Broken> {
        let padding = self.take(self.at.next_multiple_of(to) - self.at)?;
        if padding.iter().any(|&byte| byte != 0) { Err(Broken("padding that is not zero")) } else { Ok(()) }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| Broken("too short"))?;
        if self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Broken> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, Broken> {
        let text = self.take(length)?;
        if self.take(1)? != [0] || text.contains(&0) {
            return Err(Broken("a string without its end"));
        }
        String::from_utf8(text.to_vec()).map_err(|_| Broken("a string that is not UTF-8"))
    }

    /// Reads one value of a complete type.
    fn value(&mut self, signature: &str, depth: u32) -> Result<Value, Broken> {
        if depth > DEPTH {
            return Err(Broken("nested too deep"));
        }
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match signature.bytes().next() {
            Some(b'y') => Value::Byte(u8::from_le_bytes(self.number()?)),
            Some(b'b') => match self.u32()? {
                n @ (0 | 1) => Value::Bool(n == 1),
                _ => return Err(Broken("neither true nor false")),
            },
            Some(b'n') => Value::I16(i16::from_le_bytes(self.number()?)),
            Some(b'q') => Value::U16(u16::from_le_bytes(self.number()?)),
            Some(b'i') => Value::I32(i32::from_le_bytes(self.number()?)),
            Some(b'u' | b'h') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::U64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::F64(f64::from_le_bytes(self.number()?)),
            Some(b's') => {
                let n = self.u32()? as usize;
                Value::Str(self.text(n)?)
            }
            Some(b'o') => {
                let n = self.u32()? as usize;
                Value::Path(self.text(n)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let signature = self.signature()?;
                if !split(&signature)?.1.is_empty() {
                    return Err(Broken("a variant of several values"));
                }
                Value::Variant(Box::new(self.value(&signature, depth + 1)?))
            }
            Some(b'a') => self.array(inner, depth)?,
            Some(b'(' | b'{') => {
                self.align(8)?;
                let mut fields = Vec::new();
                let mut rest = inner.get(..inner.len().saturating_sub(1)).unwrap_or_default();
                while !rest.is_empty() {
                    let (one, more) = split(rest)?;
                    fields.push(self.value(one, depth + 1)?);
                    rest = more;
                }
                Value::Struct(fields)
            }
            _ => return Err(Broken("a signature")),
        })
    }

    fn array(&mut self, element: &str, depth: u32) -> Result<Value, Broken> {
        let length = self.u32()? as usize;
        if length > ARRAY {
            return Err(Broken("too long an array"));
        }
        self.align(alignment(element.bytes().next()))?;
        let end = self.at + length;
        if end > self.bytes.len() {
            return Err(Broken("too short"));
        }
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.value(element, depth + 1)?);
        }
        if self.at > end {
            Err(Broken("an array that ends in a value"))
        } else {
            Ok(Value::Array(element.into(), values))
        }
    }

    fn signature(&mut self) -> Result<String, Broken> {
        let n = u8::from_le_bytes(self.number()?);
        self.text(usize::from(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Call,
            serial: 1,
            reply_to: 0,
            path: "/a".into(),
            interface: "i.f".into(),
            member: "M".into(),
            error: String::new(),
            destination: String::new(),
            body,
        }
    }

    #[test]
    fn a_call_is_these_bytes() {
        let bytes = encode(&call(vec![Value::named("n", Value::Bool(true))])).expect("fits");
        let want = b"l\x01\x00\x01\x10\x00\x00\x00\x01\x00\x00\x00\x3a\x00\x00\x00\
            \x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00\
            \x02\x01s\x00\x03\x00\x00\x00i.f\x00\x00\x00\x00\x00\
            \x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00\
            \x08\x01g\x00\x04(sv)\x00\x00\x00\x00\x00\x00\x00\
            \x01\x00\x00\x00n\x00\x01b\x00\x00\x00\x00\x01\x00\x00\x00";
        assert_eq!(bytes, want);
        assert_eq!(size(&bytes), Ok(bytes.len()));
        assert_eq!(decode(&bytes), Ok(call(vec![Value::named("n", Value::Bool(true))])));
    }

    fn body(value: Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn values_are_these_bytes() {
        assert_eq!(body("ab".into()), b"\x02\x00\x00\x00ab\x00");
        assert_eq!(body(Value::Signature("as".into())), b"\x02as\x00");
        assert_eq!(body(Value::bytes(&[1, 2])), b"\x02\x00\x00\x00\x01\x02");
        let numbers = Value::Array("u".into(), vec![Value::U32(5)]);
        assert_eq!(body(numbers), b"\x04\x00\x00\x00\x05\x00\x00\x00");
        // The padding to the first element is there without one, and not counted.
        assert_eq!(body(Value::Array("(ss)".into(), vec![])), [0; 8]);
        assert_eq!(
            body(Value::Array("t".into(), vec![Value::U64(1)])),
            b"\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"
        );
        assert_eq!(body(Value::Variant(Value::U64(2).into())), b"\x01t\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(body(Value::Struct(vec![Value::Byte(1), Value::I16(-1)])), b"\x01\x00\xff\xff");
    }

    #[test]
    fn everything_comes_back() {
        let all = vec![
            Value::Byte(1),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::U32(5),
            Value::I64(-6),
            Value::U64(7),
            Value::F64(0.5),
            Value::Path("/x".into()),
            Value::Array("(sv)".into(), vec![Value::named("a", Value::Signature("b".into()))]),
            Value::Array("as".into(), vec![Value::Array("s".into(), vec!["x".into(), "".into()])]),
        ];
        let bytes = encode(&call(all.clone())).expect("fits");
        assert_eq!(decode(&bytes).expect("valid").body, all);
    }

    #[test]
    fn a_dictionary_reads_as_pairs() {
        let mut message = encode(&call(vec![Value::Array("(sv)".into(), vec![])])).expect("fits");
        let at = message.windows(5).position(|w| w == b"a(sv)").expect("signature");
        message.splice(at..at + 5, *b"a{sv}");
        assert_eq!(decode(&message).expect("valid").body, [Value::Array("{sv}".into(), vec![])]);
    }

    #[test]
    fn big_endian_is_read_too() {
        let bytes = b"B\x02\x00\x01\x00\x00\x00\x04\x00\x00\x00\x09\x00\x00\x00\x0f\
            \x05\x01u\x00\x00\x00\x00\x07\x08\x01g\x00\x01u\x00\x00\x00\x00\x00\x2a";
        assert_eq!(size(bytes), Ok(bytes.len()));
        let message = decode(bytes).expect("valid");
        assert_eq!((message.kind, message.reply_to, message.serial), (Kind::Return, 7, 9));
        assert_eq!(message.body, [Value::U32(42)]);
    }

    /// Every prefix and every single changed byte of a message: an error or another message, never a panic.
    #[test]
    fn broken_messages_are_errors() {
        let value = Value::Array("(sv)".into(), vec![Value::named("n", Value::bytes(b"xyz"))]);
        let bytes = encode(&call(vec![value, "text".into(), Value::Bool(true)])).expect("fits");
        for n in 0..bytes.len() {
            decode(bytes.get(..n).expect("shorter")).expect_err("a prefix");
        }
        for i in 0..bytes.len() {
            for byte in [0, 1, 2, 0x7f, 0xff, b'a', b'('] {
                let mut changed = bytes.clone();
                changed[i] = byte;
                let _ = (size(&changed), decode(&changed));
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let header = |body: u32, fields: u32| {
            let mut bytes = b"l\x01\x00\x01".to_vec();
            [body, 1, fields].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            size(&bytes)
        };
        assert_eq!(header(8, 0), Ok(24));
        for (body, fields) in [(1 << 27, 0), (u32::MAX, 0), (0, (1 << 26) + 1), ((1 << 27) - 16, 1)] {
            assert_eq!(header(body, fields), Err(Broken("too long")), "{body} {fields}");
        }
        assert_eq!(split(&"a".repeat(200)), Err(Broken("nested too deep")));
        assert_eq!(split("()"), Err(Broken("an empty structure")));
        assert_eq!(split("a(sv)u"), Ok(("a(sv)", "u")));
        // Variants nest without a signature that shows it.
        let mut deep = Value::Byte(1);
        for _ in 0..100 {
            deep = Value::Variant(deep.into());
        }
        assert_eq!(decode(&encode(&call(vec![deep])).expect("fits")), Err(Broken("nested too deep")));
    }
}
