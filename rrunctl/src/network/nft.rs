//! nf_tables over netlink: tables, chains, sets, rules and elements as one batch that the kernel takes whole or not at all.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. Written here because the crates for it are under the GPL, need a
//! C library, or start `nft` and read its JSON.

#![forbid(unsafe_code)]

use super::netlink::{APPEND, CREATE, DUMP, Message, Socket, attribute, string};
use crate::error::{Context as _, Error, Result};
use rustix::io::Errno;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

/// An attribute must stay below 64 KiB; an element has at most 150 bytes.
const ELEMENTS_A_MESSAGE: usize = 256;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `ip`
    V4,
    /// `ip6`
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// How many bytes an address has.
    pub fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// A type of nft's, by which it lists elements; the kernel has only the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_proto`
    Protocol,
    /// `inet_service`
    Port,
    /// `ifname`
    Interface,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 | Self::Interface => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// The number and the length of one type, or of several one after another, each on a word of its own.
fn concatenated(types: &[Type]) -> (u32, u32) {
    match types {
        [one] => (one.number(), one.length()),
        several => several.iter().fold((0, 0), |(number, length), of| {
            ((number << 6) | of.number(), length + of.length().next_multiple_of(4))
        }),
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Accept,
    /// It is dropped.
    Drop,
    /// The chain is left.
    Return,
}

/// A register of four bytes, from 0.
pub type Register = u32;

fn register(register: Register) -> u32 {
    register + 8
}

/// One step of a rule.
#[derive(Debug, Clone)]
pub enum Step {
    /// `meta l4proto`, one byte.
    Protocol(Register),
    /// `meta iifname`, 16 bytes.
    In(Register),
    /// `meta oifname`, 16 bytes.
    Out(Register),
    /// Bytes of the network header: where, and how many.
    Network(u32, u32, Register),
    /// `th dport`
    Port(Register),
    /// `ct state`
    State(Register),
    /// `ct status`
    Status(Register),
    /// `fib daddr type`
    Destination(Register),
    /// The register, and-ed with a mask.
    Mask(Register, u32),
    /// Goes on where the register begins so.
    Is(Register, Vec<u8>),
    /// Goes on where the register begins otherwise.
    Not(Register, Vec<u8>),
    /// Goes on where what the register begins with is in the set.
    Among(Register, &'static str),
    /// Goes on where it is not.
    NotAmong(Register, &'static str),
    /// Goes on where the map has a key as the register begins; the value replaces it.
    Map(Register, &'static str),
    /// Loads bytes.
    Load(Register, Vec<u8>),
    /// What happens.
    Verdict(Verdict),
    /// `dnat` to the address and the port in the registers.
    Dnat(Register, Register),
    /// `masquerade`
    Masquerade,
    /// `counter`, which `iptables` puts in every rule.
    Counter,
}

impl Step {
    fn write<'m>(&self, family: Family, m: &'m mut Message) -> &'m mut Message {
        m.nest(1, |m| m.text(1, self.name()).nest(2, |m| self.data(family, m)))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Protocol(_) | Self::In(_) | Self::Out(_) => "meta",
            Self::Network(..) | Self::Port(_) => "payload",
            Self::State(_) | Self::Status(_) => "ct",
            Self::Destination(_) => "fib",
            Self::Mask(..) => "bitwise",
            Self::Is(..) | Self::Not(..) => "cmp",
            Self::Among(..) | Self::NotAmong(..) | Self::Map(..) => "lookup",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::Dnat(..) => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
        }
    }

    fn data<'m>(&self, family: Family, m: &'m mut Message) -> &'m mut Message {
        match self {
            Self::In(to) => m.big(1, register(*to)).big(2, 6),
            Self::Out(to) => m.big(1, register(*to)).big(2, 7),
            Self::Protocol(to) => m.big(1, register(*to)).big(2, 16),
            Self::Network(offset, length, to) => {
                m.big(1, register(*to)).big(2, 1).big(3, *offset).big(4, *length)
            }
            Self::Port(to) => m.big(1, register(*to)).big(2, 2).big(3, 2).big(4, 2),
            Self::State(to) => m.big(1, register(*to)).big(2, 0),
            Self::Status(to) => m.big(1, register(*to)).big(2, 2),
            Self::Destination(to) => m.big(1, register(*to)).big(2, 3).big(3, 2),
            Self::Mask(of, mask) => {
                m.big(1, register(*of)).big(2, register(*of)).big(3, 4);
                m.nest(4, |m| m.native(1, *mask)).nest(5, |m| m.native(1, 0))
            }
            Self::Is(of, bytes) => m.big(1, register(*of)).big(2, 0).nest(3, |m| m.attr(1, bytes)),
            Self::Not(of, bytes) => m.big(1, register(*of)).big(2, 1).nest(3, |m| m.attr(1, bytes)),
            Self::Among(of, set) => m.text(1, set).big(2, register(*of)),
            Self::NotAmong(of, set) => m.text(1, set).big(2, register(*of)).big(5, 1),
            Self::Map(of, set) => m.text(1, set).big(2, register(*of)).big(3, register(*of)),
            Self::Load(to, bytes) => m.big(1, register(*to)).nest(2, |m| m.attr(1, bytes)),
            Self::Verdict(verdict) => {
                let code: i32 = match verdict {
                    Verdict::Drop => 0,
                    Verdict::Accept => 1,
                    Verdict::Return => -5,
                };
                m.big(1, 0).nest(2, |m| m.nest(2, |m| m.big(1, code as u32)))
            }
            Self::Dnat(ip, port) => {
                m.big(1, 1).big(2, family.number().into()).big(3, register(*ip)).big(5, register(*port))
            }
            Self::Masquerade | Self::Counter => m,
        }
    }
}

/// Where a chain sees packets.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_PRE_ROUTING` 0, local in 1, forward 2, local out 3, post routing 4.
    pub number: u32,
    /// Lower is earlier.
    pub priority: i32,
}

/// An element of a set: its key, the end of its range, its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Each part on a word of its own.
    pub key: Vec<u8>,
    /// The last key that it stands for.
    pub end: Option<Vec<u8>>,
    /// The value in a map.
    pub value: Option<Vec<u8>>,
}

impl Element {
    fn write<'m>(&self, m: &'m mut Message) -> &'m mut Message {
        m.nest(1, |m| m.attr(1, &self.key));
        if let Some(end) = &self.end {
            m.nest(10, |m| m.attr(1, end));
        }
        match &self.value {
            Some(value) => m.nest(2, |m| m.attr(1, value)),
            None => m,
        }
    }
}

fn nfgen(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Changes to one table, made all at once.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: &'static str,
    messages: Vec<Message>,
    sets: u32,
}

impl Batch {
    /// No changes.
    pub fn new(family: Family, table: &'static str) -> Self {
        Self { family, table, messages: Vec::new(), sets: 0 }
    }

    fn message(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Message) -> &mut Message) {
        let mut message = Message::new(SUBSYSTEM | kind, flags, &nfgen(self.family.number(), 0));
        write(message.text(1, self.table));
        self.messages.push(message);
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self, comment: &str) {
        self.message(NEWTABLE, CREATE, |m| {
            let mut user = vec![0, comment.len() as u8 + 1];
            user.extend_from_slice(comment.as_bytes());
            user.push(0);
            m.attr(6, &user)
        });
    }

    /// Removes the table and all in it; it must be there.
    pub fn remove_table(&mut self) {
        self.message(DELTABLE, 0, |m| m);
    }

    /// Adds a chain that lets pass what its rules say nothing about.
    pub fn add_chain(&mut self, name: &str, hook: Hook) {
        self.message(NEWCHAIN, CREATE, |m| {
            m.text(3, name).nest(4, |m| m.big(1, hook.number).big(2, hook.priority as u32));
            m.big(5, 1).text(7, hook.kind)
        });
    }

    /// Adds a set of keys, or a map where `value` is not empty.
    pub fn add_set(&mut self, name: &str, key: &[Type], value: &[Type], interval: bool) {
        self.sets += 1;
        let (id, (kind, length)) = (self.sets, concatenated(key));
        self.message(NEWSET, CREATE, |m| {
            let flags = if interval { 0x84 } else { 0 } | if value.is_empty() { 0 } else { 8 };
            m.text(2, name).big(3, flags).big(4, kind).big(5, length);
            if !value.is_empty() {
                let (kind, length) = concatenated(value);
                m.big(6, kind).big(7, length);
            }
            if interval {
                m.nest(9, |m| {
                    m.nest(2, |m| key.iter().fold(m, |m, part| m.nest(1, |m| m.big(1, part.length()))))
                });
            }
            if key == [Type::Interface] {
                // By NFTNL_UDATA_SET_KEYBYTEORDER nft knows which way round to print a name.
                m.attr(13, &[&[0, 4][..], &1u32.to_ne_bytes()].concat());
            }
            m.big(10, id)
        });
    }

    /// Adds a rule at the chain's end.
    pub fn add_rule(&mut self, chain: &str, steps: &[Step]) {
        self.rule(chain, APPEND, steps, &[]);
    }

    /// Adds a rule in front of the others, with a comment as `iptables` has them.
    pub fn insert_rule(&mut self, chain: &str, steps: &[Step], comment: &str) {
        let mut user = vec![0, comment.len() as u8 + 1];
        user.extend_from_slice(comment.as_bytes());
        user.push(0);
        self.rule(chain, 0, steps, &user);
    }

    fn rule(&mut self, chain: &str, flags: u16, steps: &[Step], user: &[u8]) {
        let family = self.family;
        self.message(NEWRULE, CREATE | flags, |m| {
            m.text(2, chain).nest(4, |m| steps.iter().fold(m, |m, step| step.write(family, m)));
            if user.is_empty() { m } else { m.attr(7, user) }
        });
    }

    /// Removes the rule of this number.
    pub fn remove_rule(&mut self, chain: &str, handle: &[u8]) {
        self.message(DELRULE, 0, |m| m.text(2, chain).attr(3, handle));
    }

    /// Adds elements; those that are there already are no error, unless they have another value.
    pub fn add(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, CREATE, set, elements);
    }

    /// Removes elements, all of which must be there.
    pub fn remove(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        for some in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.message(kind, flags, |m| {
                m.text(2, set).nest(3, |m| some.iter().fold(m, |m, element| m.nest(1, |m| element.write(m))))
            });
        }
    }

    /// Makes the changes, all or none.
    ///
    /// # Errors
    /// The kernel's; `EBUSY` or `EEXIST` where an element has another value, `ENOENT` where what is removed is not there.
    pub fn commit(self, socket: &mut Socket) -> Result<()> {
        let Some((last, others)) = self.messages.split_last() else { return Ok(()) };
        let mark = |kind| Message::new(kind, 0, &nfgen(0, SUBSYSTEM >> 8));
        let mut messages = vec![mark(BATCH_BEGIN)];
        messages.extend_from_slice(others);
        messages.push(last.clone().acknowledged());
        messages.push(mark(BATCH_END));
        let done = socket.batch(messages).context(|| "nf_tables")?;
        done.map_err(|(at, errno)| {
            let e = Error::from(errno).context(format!("nf_tables: change {at} of table {}", self.table));
            match errno {
                Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => e.remedy(
                    "the kernel needs NF_TABLES, NFT_NAT, NFT_MASQ, NFT_CT and NFT_FIB, 5.7 or newer",
                ),
                _ => e,
            }
        })
    }
}

/// What a table's comment says, where there is such a table.
///
/// # Errors
/// The kernel's.
pub fn table(socket: &mut Socket, family: Family, name: &str) -> Result<Option<String>> {
    let mut message = Message::new(SUBSYSTEM | GETTABLE, 0, &nfgen(family.number(), 0));
    message.text(1, name);
    let mut found = None;
    let asked = socket.ask(message, |payload| {
        let user = attribute(payload.get(4..).unwrap_or_default(), 6).unwrap_or_default();
        found = Some(string(user.get(2..).unwrap_or_default()));
    });
    match asked {
        Err(e) if e.errno() == Some(Errno::NOENT) => Ok(None),
        asked => asked.context(|| "nf_tables: get table").map(|()| found),
    }
}

/// What the map has for a key.
///
/// # Errors
/// The kernel's.
pub fn value(
    socket: &mut Socket,
    family: Family,
    table: &str,
    map: &str,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    let mut message = Message::new(SUBSYSTEM | GETSETELEM, 0, &nfgen(family.number(), 0));
    message.text(1, table).text(2, map).nest(3, |m| m.nest(1, |m| m.nest(1, |m| m.attr(1, key))));
    let mut found = None;
    let asked = socket.ask(message, |payload| {
        let elements = attribute(payload.get(4..).unwrap_or_default(), 3);
        let data = elements.and_then(|elements| attribute(attribute(elements, 1)?, 2));
        found = data.and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec);
    });
    match asked {
        Err(e) if e.errno() == Some(Errno::NOENT) => Ok(None),
        asked => asked.context(|| "nf_tables: get element").map(|()| found),
    }
}

/// The policy of a chain (0 drops), where there is such a chain; nothing inside where it has none.
///
/// # Errors
/// The kernel's.
pub fn chain(socket: &mut Socket, family: Family, table: &str, name: &str) -> Result<Option<Option<u32>>> {
    let mut message = Message::new(SUBSYSTEM | GETCHAIN, 0, &nfgen(family.number(), 0));
    message.text(1, table).text(3, name);
    let mut found = None;
    let asked = socket.ask(message, |payload| {
        let policy = attribute(payload.get(4..).unwrap_or_default(), 5);
        found = Some(policy.and_then(|policy| Some(u32::from_be_bytes(policy.try_into().ok()?))));
    });
    match asked {
        Err(e) if e.errno() == Some(Errno::NOENT) => Ok(None),
        asked => asked.context(|| "nf_tables: get chain").map(|()| found),
    }
}

/// The handles and the comments of the rules in a chain.
///
/// # Errors
/// The kernel's.
pub fn rules(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: &str,
) -> Result<Vec<(Vec<u8>, String)>> {
    let mut message = Message::new(SUBSYSTEM | GETRULE, DUMP, &nfgen(family.number(), 0));
    message.text(1, table).text(2, chain);
    let mut found = Vec::new();
    socket
        .ask(message, |payload| {
            let attrs = payload.get(4..).unwrap_or_default();
            let user = attribute(attrs, 7).and_then(|user| user.get(2..)).unwrap_or_default();
            // Kernels before 4.13 have no filter in this request.
            let here = attribute(attrs, 2).is_some_and(|name| string(name) == chain);
            if let Some(handle) = attribute(attrs, 3).filter(|_| here) {
                found.push((handle.to_vec(), string(user)));
            }
        })
        .context(|| "nf_tables: get rules")?;
    Ok(found)
}
