//! The user at the other end of a TCP connection on this machine.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The tables of TCP sockets (proc_pid_net(5)). A socket of IPv6 can be connected to an address of IPv4.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// Bytes of a table that are read: some 400,000 sockets.
const MAX_TABLE_BYTES: u64 = 64 << 20;
const ESTABLISHED: &str = "01";
/// The kernel writes a table in pieces: while others are closed, a socket may be missing from one reading.
const MAX_READINGS: usize = 3;

/// Returns the user whose process holds the other end `peer` of a connection to `local`; `None` if no process does.
///
/// The kernel shows a socket that its process has closed as root's; it has no user.
///
/// # Errors
/// An I/O error.
pub(crate) fn peer_uid(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    for _ in 1..MAX_READINGS {
        if let Some(uid) = read_tables(local, peer)? {
            return Ok(Some(uid));
        }
    }
    read_tables(local, peer)
}

fn read_tables(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    let mut last_error = None;
    for table in TABLES {
        match File::open(table) {
            Ok(file) => {
                let table = BufReader::new(file.take(MAX_TABLE_BYTES));
                if let Some(uid) = find_uid(table, local, peer)? {
                    return Ok(Some(uid));
                }
            }
            // Without IPv6 there is no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => last_error = Some(error),
            Err(error) => return Err(error),
        }
    }
    match last_error.filter(|_| peer.is_ipv6()) {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

fn find_uid(table: impl BufRead, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    for line in table.lines() {
        let line = line?;
        let fields: Vec<&str> = line.split_whitespace().collect();
        // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
        let &[_, from, to, state, _, _, _, uid, _, inode, ..] = &*fields else {
            continue;
        };
        let is_it = state == ESTABLISHED
            && inode != "0"
            && parse_address(from) == Some(canonical(peer))
            && parse_address(to) == Some(canonical(local));
        if is_it {
            return Ok(uid.parse().ok());
        }
    }
    Ok(None)
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Parses `ADDRESS:PORT`; an address is 32-bit words in the order of the machine.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_a_connection_is_found_with_both_kinds_of_sockets() {
        let own = nix::unistd::geteuid().as_raw();
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let Ok(listener) = TcpListener::bind(listen) else {
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let address: IpAddr = connect.parse().unwrap();
            let client = TcpStream::connect((address, port)).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            assert_eq!(peer_uid(local, peer).unwrap(), Some(own), "{connect}");
            // Closed by its process: no user's, though the kernel shows user 0.
            drop(client);
            assert_eq!(peer_uid(local, peer).unwrap(), None, "{connect}");
        }
    }

    #[test]
    fn only_an_established_socket_of_a_process_counts() {
        let (local, peer) = ("127.0.0.1:5901", "127.0.0.1:40000");
        let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
        let line = |state: &str, inode: &str| {
            let address = |ip: u32, port: u16| format!("{:08X}:{port:04X}", ip.to_be());
            let ip = u32::from(Ipv4Addr::LOCALHOST);
            format!(
                " 0: {} {} {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0\n",
                address(ip, 40000),
                address(ip, 5901)
            )
        };
        let find = |text: String| find_uid(text.as_bytes(), local, peer).unwrap();
        assert_eq!(find(line("01", "7")), Some(1000));
        assert_eq!(find(line("04", "7")), None);
        assert_eq!(find(line("01", "0")), None);
        let swapped = find_uid(line("01", "7").as_bytes(), peer, local).unwrap();
        assert_eq!(swapped, None);
        assert_eq!(find("garbage\n 0: x y 01 a b c 0 0 1\n".to_owned()), None);
    }
}
