//! The messages of CRIU's RPC (its images/rpc.proto), in protobuf's wire format.
//!
//! Some forty fields of a format with two wire types do not justify a code generator and its runtime. The
//! numbers are CRIU's interface; unknown fields of a newer CRIU are skipped, as the format wants it.

#![forbid(unsafe_code)]

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    /// The name that rpc.proto gives it; people search the web for it.
    pub fn name(number: u64) -> &'static str {
        match number {
            1 => "DUMP",
            2 => "RESTORE",
            4 => "PRE_DUMP",
            6 => "NOTIFY",
            9 => "FEATURE_CHECK",
            10 => "VERSION",
            _ => "EMPTY",
        }
    }
}

/// Field numbers of `criu_opts`.
#[allow(missing_docs)]
pub mod opt {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    pub const PS: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    pub const EXT_MNT: u32 = 23;
    pub const MANAGE_CGROUPS: u32 = 24;
    pub const CG_ROOT: u32 = 25;
    pub const RST_SIBLING: u32 = 26;
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    pub const JOIN_NS: u32 = 39;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const STATUS_FD: u32 = 49;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const TCP_CLOSE: u32 = 52;
    pub const LSM_PROFILE: u32 = 53;
    pub const CGROUP_YARD: u32 = 60;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
    pub const NETWORK_LOCK: u32 = 64;
}

/// A message being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An enumeration, uint32 or int32; a negative int32 is sign-extended.
    pub fn int(&mut self, field: u32, value: impl Into<i64>) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value.into().cast_unsigned());
        self
    }

    /// A bool, which is left out if it is false, the default of every one here.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        if value {
            self.int(field, 1);
        }
        self
    }

    /// A string.
    pub fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// A message of two strings: `ext_mount_map`, `join_namespace`, `cgroup_root`.
    pub fn pair(&mut self, field: u32, first: impl AsRef<[u8]>, second: impl AsRef<[u8]>) -> &mut Self {
        let mut inner = Self::default();
        inner.bytes(1, first).bytes(2, second);
        self.bytes(field, inner)
    }

    /// A message of a string and a number: `inherit_fd`, `criu_page_server_info`.
    pub fn numbered(&mut self, field: u32, text: impl AsRef<[u8]>, number: impl Into<i64>) -> &mut Self {
        let mut inner = Self::default();
        inner.bytes(1, text).int(2, number);
        self.bytes(field, inner)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `criu_req` of a kind, to which options (2) or features (5) may be added.
pub fn request(kind: Kind) -> Message {
    let mut message = Message::default();
    message.int(1, kind as i32);
    message
}

/// `criu_resp`, as far as we read it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Response {
    /// `criu_req_type`
    pub kind: u64,
    /// Whether the request was served.
    pub success: bool,
    /// Pid of the restored init.
    pub restored: Option<u32>,
    /// Name of the notification and the pid of init that comes with some.
    pub notify: Option<(String, u32)>,
    /// errno of the failure, 0 if it had none.
    pub errno: i32,
    /// CRIU's own words for it; few failures have any.
    pub message: String,
    /// `mem_track` and `lazy_pages`.
    pub features: (bool, bool),
    /// major * 10000 + minor * 100 + sublevel.
    pub version: u32,
}

impl Response {
    /// Reads a response; `None` if it is not protobuf.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut response = Self::default();
        for field in Fields(message) {
            match field? {
                (1, Value::Int(kind)) => response.kind = kind,
                (2, Value::Int(success)) => response.success = success != 0,
                (4, Value::Bytes(restore)) => response.restored = Some(number(restore, 1)?),
                (5, Value::Bytes(notify)) => response.notify = Some((text(notify, 1)?, number(notify, 2)?)),
                (7, Value::Int(errno)) => response.errno = errno as i32,
                (8, Value::Bytes(f)) => response.features = (number(f, 1)? != 0, number(f, 2)? != 0),
                (9, Value::Bytes(words)) => response.message = String::from_utf8_lossy(words).into_owned(),
                (10, Value::Bytes(version)) => response.version = read_version(version)?,
                _ => {}
            }
        }
        Some(response)
    }
}

/// `criu_version`; with a git id it is a development version, which counts as the next minor one.
fn read_version(message: &[u8]) -> Option<u32> {
    let part = |field| number(message, field);
    let minor = part(2)?.saturating_mul(100);
    let version = part(1)?.saturating_mul(10000).saturating_add(minor);
    Some(version.saturating_add(if text(message, 3)?.is_empty() { part(4)? } else { 100 }))
}

fn number(message: &[u8], wanted: u32) -> Option<u32> {
    let mut found = 0;
    for field in Fields(message) {
        if let (field, Value::Int(value)) = field? {
            found = if field == wanted { value as u32 } else { found };
        }
    }
    Some(found)
}

fn text(message: &[u8], wanted: u32) -> Option<String> {
    let mut found = String::new();
    for field in Fields(message) {
        match field? {
            (field, Value::Bytes(value)) if field == wanted => {
                found = String::from_utf8_lossy(value).into_owned()
            }
            _ => {}
        }
    }
    Some(found)
}

enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width, which none of our fields has.
    Other,
}

/// The fields of a message; yields `None` once where it is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Int(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(n)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_encoded_as_protobuf_says() {
        let mut opts = Message::default();
        opts.int(opt::IMAGES_DIR_FD, 5).int(opt::PID, 300).flag(opt::LEAVE_RUNNING, true);
        opts.flag(opt::SHELL_JOB, false).bytes(opt::LOG_FILE, "d.log");
        opts.pair(opt::EXT_MNT, "/a", "/b").numbered(opt::INHERIT_FD, "k", 4);
        let mut message = request(Kind::Dump);
        message.bytes(2, &opts);
        let expected = [
            &[0x08, 1, 0x12, 33][..],
            &[0x08, 5, 0x10, 0xac, 0x02, 0x18, 1],
            b"\x52\x05d.log",
            b"\xba\x01\x08\x0a\x02/a\x12\x02/b",
            b"\xda\x01\x05\x0a\x01k\x10\x04",
        ];
        assert_eq!(message.as_ref(), expected.concat());
    }

    #[test]
    fn a_negative_number_takes_ten_bytes() {
        let mut message = Message::default();
        message.int(1, -1);
        assert_eq!(message.as_ref(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    #[test]
    fn responses_are_read_and_unknown_fields_skipped() {
        // NOTIFY with a script, an unknown fixed32 field 20, an unknown string field 21.
        let bytes = b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x2a\xa5\x01\0\0\0\0\xaa\x01\x01x";
        let response = Response::decode(bytes).unwrap();
        assert_eq!((response.kind, response.success), (6, true));
        assert_eq!(response.notify, Some(("post-restore".into(), 42)));
        let failed = Response::decode(b"\x08\x01\x10\x00\x38\x0d\x4a\x03why").unwrap();
        assert_eq!((failed.success, failed.errno, failed.message.as_str()), (false, 13, "why"));
        let version = Response::decode(b"\x08\x0a\x10\x01\x52\x06\x08\x03\x10\x11\x20\x01").unwrap();
        assert_eq!(version.version, 31701);
        let development =
            Response::decode(b"\x08\x0a\x10\x01\x52\x08\x08\x03\x10\x11\x1a\x02v3\x20").unwrap_or_default();
        assert_eq!(development.version, 0, "cut short");
        assert_eq!(Response::decode(b"\x52\x08\x08\x03\x10\x11\x1a\x02v3").unwrap().version, 31800);
    }

    #[test]
    fn broken_messages_are_refused_without_a_panic() {
        for bytes in [
            &b"\x08"[..],
            b"\x12\x05a",
            b"\x0f",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x2a\x02\x0a\x09",
        ] {
            assert_eq!(Response::decode(bytes), None, "{bytes:x?}");
        }
    }
}
