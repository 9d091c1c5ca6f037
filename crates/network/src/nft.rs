//! nftables over raw netlink: encodes `netplan::nft` batches, sends each as one atomic transaction, reads back what
//! only the kernel knows. No external binary, and nothing is decided here.

mod dump;
mod encode;
mod message;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netplan::nft::{Batch, Family, Key, Set};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};

use crate::netns::NetNs;
use crate::{Error, Result};

/// The largest transaction sent: 64 MiB hold some 500,000 elements.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 20;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A netfilter netlink socket of one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: OwnedFd,
}

/// The address families there are tables of.
pub fn families() -> [Family; 2] {
    Family::BOTH
}

impl Nft {
    pub fn open(netns: &NetNs) -> Result<Self> {
        let socket = netns.run(netfilter_socket)?.map_err(|e| Error::netlink("open a netfilter socket", e))?;
        Ok(Nft { socket })
    }

    /// Make the changes, all or none. Blocks for as long as the kernel works.
    pub fn apply(&self, family: Family, table: &str, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = encode::batch(family, table, batch);
        self.transact(&bytes).map_err(|e| Error::netlink(format!("change nftables table {table}"), e))
    }

    /// Remove a table with all it holds. One that does not exist is no error.
    pub fn delete_table(&self, family: Family, table: &str) -> Result<()> {
        let bytes = encode::delete_table(family, table);
        self.transact(&bytes).map_err(|e| Error::netlink(format!("delete nftables table {table}"), e))
    }

    /// Names of the tables of a family.
    pub fn tables(&self, family: Family) -> Result<Vec<String>> {
        let answer = self.dump(&encode::list_tables(family)).map_err(|e| Error::netlink("list nftables tables", e))?;
        Ok(answer.iter().filter_map(|m| dump::table_name(m)).collect())
    }

    /// The elements of a map, as far as they have the shape of `set`.
    pub fn elements(&self, family: Family, table: &str, name: &str, set: &Set) -> Result<Vec<(Key, Key)>> {
        let request = encode::list_elements(family, table, name);
        let answer = self.dump(&request).map_err(|e| Error::netlink(format!("list elements of {table} {name}"), e))?;
        Ok(answer.iter().flat_map(|m| dump::elements(m, family, set)).collect())
    }

    /// UDP entries of connection tracking, each with what is needed to delete it.
    pub fn udp_flows(&self, family: Family) -> Result<Vec<dump::Flow>> {
        let answer = self.dump(&encode::list_flows(family)).map_err(|e| Error::netlink("list connections", e))?;
        Ok(answer.iter().filter_map(|m| dump::udp_flow(m)).collect())
    }

    /// Forget a connection. One that is gone already is no error.
    pub fn delete_flow(&self, family: Family, flow: &dump::Flow) -> Result<()> {
        match self.transact(&encode::delete_flow(family, flow)) {
            Err(Errno::ENOENT) => Ok(()),
            other => other.map_err(|e| Error::netlink("forget a connection", e)),
        }
    }

    /// Send one request; the first error among the answers, if any. The kernel works within the call of send, so every
    /// answer is there when it returns.
    fn transact(&self, bytes: &[u8]) -> std::result::Result<(), Errno> {
        if bytes.len() > SEND_BUFFER_BYTES_MAX {
            return Err(Errno::EMSGSIZE);
        }
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        let mut first = Ok(());
        loop {
            let len = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(Errno::EAGAIN) => return first,
                Err(Errno::EINTR) => continue,
                Err(e) => return first.and(Err(e)),
            };
            for message in message::messages(&buffer[..len]) {
                if let Some(code) = message.error().filter(|code| *code != 0)
                    && first.is_ok()
                {
                    first = Err(Errno::from_raw(code));
                }
            }
        }
    }

    fn dump(&self, request: &[u8]) -> std::result::Result<Vec<Vec<u8>>, Errno> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
        let mut found = Vec::new();
        loop {
            let len = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in message::messages(&buffer[..len]) {
                if let Some(code) = message.error() {
                    return if code == 0 || code == Errno::ENOENT as i32 { Ok(found) } else { Err(Errno::from_raw(code)) };
                }
                if message.is_done() {
                    return Ok(found);
                }
                found.push(message.body.to_vec());
            }
        }
    }
}

pub use dump::Flow;

fn netfilter_socket() -> std::result::Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // Without the right to force, the usual limit holds and only small changes pass.
    if setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES_MAX).is_err() {
        setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER_BYTES_MAX)?;
    }
    if setsockopt(&fd, sockopt::RcvBufForce, &(4 * RECEIVE_BUFFER_BYTES)).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &(4 * RECEIVE_BUFFER_BYTES))?;
    }
    Ok(fd)
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Self {
        Error::netlink("talk to netfilter", io::Error::from(e))
    }
}
