//! The connections of the server. Those that have not sent a valid token share a limited number of places, so that they
//! cannot use up those of callers with one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Connections without a valid token. One more takes the place of the oldest one of the network that has the most.
const MAX_UNKNOWN: usize = 128;
/// Connections on which a valid token was sent. One more takes the place of the one that is unused for the longest time.
const MAX_AUTHORIZED: usize = 384;
/// A connection without a valid token is closed after this time.
const MAX_UNKNOWN_AGE: Duration = Duration::from_secs(30);

/// All connections; clones share them.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    next_id: u64,
    /// By id, which grows.
    entries: HashMap<u64, ConnectionEntry>,
}

struct ConnectionEntry {
    network: IpAddr,
    is_authorized: bool,
    /// Authorized requests in progress.
    requests: usize,
    last_used: Instant,
    evicted: CancellationToken,
}

/// A place in the table; free when it is dropped.
pub(crate) struct Connection {
    connections: Connections,
    id: u64,
    evicted: CancellationToken,
}

/// An authorized request in progress.
pub(crate) struct RequestGuard(Arc<Connection>);

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a new connection; another one that has sent no token may have to go for it.
    pub(super) fn admit(&self, peer: IpAddr) -> Arc<Connection> {
        let mut table = self.table();
        while table.count(false) >= MAX_UNKNOWN && table.evict_unknown() {}
        let evicted = CancellationToken::new();
        let id = table.next_id;
        table.next_id += 1;
        let entry = ConnectionEntry {
            network: network(peer),
            is_authorized: false,
            requests: 0,
            last_used: Instant::now(),
            evicted: evicted.clone(),
        };
        table.entries.insert(id, entry);
        Arc::new(Connection {
            connections: self.clone(),
            id,
            evicted,
        })
    }

    /// Closes a connection without a valid token, such as when there are no more file descriptors.
    pub(super) fn make_room(&self) {
        self.table().evict_unknown();
    }
}

impl Table {
    fn count(&self, is_authorized: bool) -> usize {
        let entries = self.entries.values();
        entries
            .filter(|entry| entry.is_authorized == is_authorized)
            .count()
    }

    /// Closes the oldest unknown connection of the network that has the most of them.
    fn evict_unknown(&mut self) -> bool {
        let unknown = || {
            self.entries
                .iter()
                .filter(|(_, entry)| !entry.is_authorized)
        };
        let mut networks: HashMap<IpAddr, usize> = HashMap::new();
        for (_, entry) in unknown() {
            *networks.entry(entry.network).or_default() += 1;
        }
        // Of the oldest ones of all networks, that of the largest network.
        let oldest = unknown()
            .max_by_key(|(id, entry)| (networks.get(&entry.network).copied(), u64::MAX - **id))
            .map(|(id, _)| *id);
        self.evict(oldest)
    }

    /// Closes the authorized connection that is unused for the longest time.
    fn evict_unused(&mut self) -> bool {
        let unused = self.entries.iter();
        let unused = unused.filter(|(_, entry)| entry.is_authorized && entry.requests == 0);
        let oldest = unused
            .min_by_key(|(_, entry)| entry.last_used)
            .map(|(id, _)| *id);
        self.evict(oldest)
    }

    fn evict(&mut self, id: Option<u64>) -> bool {
        let entry = id.and_then(|id| self.entries.remove(&id));
        entry.map(|entry| entry.evicted.cancel()).is_some()
    }
}

impl Connection {
    /// Completes when the connection is to be closed: it has lost its place, or sent no token in time.
    pub(super) async fn closed(&self) {
        let too_old = async {
            tokio::time::sleep(MAX_UNKNOWN_AGE).await;
            if self.is_authorized() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.evicted.cancelled() => {}
            () = too_old => {}
        }
    }

    fn is_authorized(&self) -> bool {
        let table = self.connections.table();
        table
            .entries
            .get(&self.id)
            .is_some_and(|entry| entry.is_authorized)
    }

    /// Records an authorized request; `None` if there are too many.
    pub(super) fn begin_request(connection: &Arc<Self>) -> Option<RequestGuard> {
        let mut table = connection.connections.table();
        let is_new = !table.entries.get(&connection.id)?.is_authorized;
        if is_new && table.count(true) >= MAX_AUTHORIZED && !table.evict_unused() {
            return None;
        }
        let entry = table.entries.get_mut(&connection.id)?;
        entry.is_authorized = true;
        entry.requests += 1;
        Some(RequestGuard(connection.clone()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.table().entries.remove(&self.id);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut table = self.0.connections.table();
        if let Some(entry) = table.entries.get_mut(&self.0.id) {
            entry.requests -= 1;
            entry.last_used = Instant::now();
        }
    }
}

/// Returns what counts as one network: an address of IPv4, 64 bits of one of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64).into(),
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_open(connection: &Connection) -> bool {
        !connection.evicted.is_cancelled()
    }

    #[test]
    fn a_flood_from_one_network_evicts_only_itself() {
        let connections = Connections::default();
        let peer = |text: &str| connections.admit(text.parse().unwrap());
        let other = peer("192.0.2.7");
        let authorized = peer("2001:db8::1");
        drop(Connection::begin_request(&authorized).unwrap());
        let flood: Vec<_> = (0..1000)
            .map(|n| peer(&format!("2001:db8::{n:x}")))
            .collect();
        assert!(is_open(&other) && is_open(&authorized));
        let open = flood
            .iter()
            .filter(|connection| is_open(connection))
            .count();
        assert_eq!(open, MAX_UNKNOWN - 1);
        // The oldest ones are closed.
        assert!(is_open(&flood[999]) && !is_open(&flood[0]));
        assert!(Connection::begin_request(&flood[0]).is_none());
        drop((other, authorized, flood));
        assert!(connections.table().entries.is_empty());
    }

    #[test]
    fn an_unused_connection_makes_room_and_one_in_use_does_not() {
        let connections = Connections::default();
        let admit = || connections.admit(IpAddr::from([127, 0, 0, 1]));
        let used: Vec<_> = (0..MAX_AUTHORIZED)
            .map(|_| Connection::begin_request(&admit()).unwrap())
            .collect();
        let last = admit();
        assert!(Connection::begin_request(&last).is_none());
        let mut used = used.into_iter();
        let unused = used.next().unwrap().0.clone();
        assert!(Connection::begin_request(&last).is_some());
        assert!(!is_open(&unused) && is_open(&last));
    }
}
