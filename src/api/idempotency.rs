//! Idempotency-Key: a request that is sent twice is done once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::problem::Problem;
use snapdeck_engine::JobId;
use snapdeck_model::Operation;

/// Keys that are remembered, and for how long.
const MAX_KEYS: usize = 1000;
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The keys that were used, in this process.
#[derive(Default)]
pub(crate) struct IdempotencyKeys(HashMap<String, KeyRecord>);

struct KeyRecord {
    operation: Operation,
    job: JobId,
    used_at: Instant,
}

impl IdempotencyKeys {
    /// The job that was taken on under `key` before.
    ///
    /// # Errors
    /// 409 where the key was used for another operation.
    pub(crate) fn find(&self, key: &str, operation: &Operation) -> Result<Option<JobId>, Problem> {
        match self
            .0
            .get(key)
            .filter(|used| used.used_at.elapsed() < KEY_LIFETIME)
        {
            Some(used) if used.operation == *operation => Ok(Some(used.job)),
            Some(_) => Err(Problem::key_reused()),
            None => Ok(None),
        }
    }

    /// Remembers `key`; where there are too many the oldest is forgotten.
    pub(crate) fn insert(&mut self, key: String, operation: Operation, job: JobId) {
        self.0
            .retain(|_, used| used.used_at.elapsed() < KEY_LIFETIME);
        if self.0.len() >= MAX_KEYS {
            let oldest = self.0.iter().min_by_key(|(_, used)| used.used_at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&oldest);
            }
        }
        let at = Instant::now();
        self.0.insert(
            key,
            KeyRecord {
                operation,
                job,
                used_at: at,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pull(name: &str) -> Operation {
        Operation::Pull {
            host: "alpha".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        }
    }

    #[test]
    fn a_key_stands_for_one_operation_and_the_oldest_go_first() {
        let mut keys = IdempotencyKeys::default();
        keys.insert("first".into(), pull("a"), JobId(1));
        assert_eq!(keys.find("first", &pull("a")).unwrap(), Some(JobId(1)));
        assert!(keys.find("first", &pull("b")).is_err());
        assert_eq!(keys.find("other", &pull("b")).unwrap(), None);
        for n in 0..MAX_KEYS as u64 {
            keys.insert(format!("k{n}"), pull("c"), JobId(n));
        }
        assert_eq!(keys.find("first", &pull("a")).unwrap(), None);
        assert_eq!(keys.0.len(), MAX_KEYS);
    }
}
