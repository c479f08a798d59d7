//! Flows that are remembered (`linux/netfilter/nfnetlink_conntrack.h`).

#![forbid(unsafe_code)]

use super::netlink::{DUMP, Message, Socket, attribute};
use crate::error::Result;

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const UDP: u8 = 17;

/// Forgets the flows to these UDP ports, so that their next packet is translated anew.
///
/// # Errors
/// The kernel's.
pub fn forget_udp(ports: &[u16]) -> Result<()> {
    let mut socket = Socket::netfilter()?;
    for family in [2, 10] {
        let mut tuples = Vec::new();
        socket.ask(Message::new(GET, DUMP, &[family, 0, 0, 0]), |payload| {
            let original = attribute(payload.get(4..).unwrap_or_default(), 1);
            if let Some(tuple) =
                original.filter(|tuple| to_udp_port(tuple).is_some_and(|port| ports.contains(&port)))
            {
                tuples.push(tuple.to_vec());
            }
        })?;
        for tuple in tuples {
            let mut message = Message::new(DELETE, 0, &[family, 0, 0, 0]);
            message.nest(1, |m| m.raw(&tuple));
            // It may have ended by itself.
            let _ = socket.request(message);
        }
    }
    Ok(())
}

fn to_udp_port(tuple: &[u8]) -> Option<u16> {
    let protocol = attribute(tuple, 2)?;
    let port = u16::from_be_bytes(attribute(protocol, 3)?.try_into().ok()?);
    (attribute(protocol, 1)? == [UDP]).then_some(port)
}
