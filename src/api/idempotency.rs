//! Idempotency-Key: a request that is sent twice runs once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::problem::Problem;
use snapdeck_engine::JobId;
use snapdeck_model::Operation;

const MAX_KEYS: usize = 1000;
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The keys used in this process.
#[derive(Default)]
pub(crate) struct IdempotencyKeys(HashMap<String, KeyRecord>);

struct KeyRecord {
    operation: Operation,
    job: JobId,
    used_at: Instant,
}

impl IdempotencyKeys {
    /// Returns the job that was submitted with `key`.
    ///
    /// # Errors
    /// `keyReused` if the key was used for another operation.
    pub(crate) fn find(&self, key: &str, operation: &Operation) -> Result<Option<JobId>, Problem> {
        match self
            .0
            .get(key)
            .filter(|record| record.used_at.elapsed() < KEY_LIFETIME)
        {
            Some(record) if record.operation == *operation => Ok(Some(record.job)),
            Some(_) => Err(Problem::key_reused()),
            None => Ok(None),
        }
    }

    /// Records `key`; beyond [`MAX_KEYS`] the oldest one is removed.
    pub(crate) fn insert(&mut self, key: String, operation: Operation, job: JobId) {
        self.0
            .retain(|_, record| record.used_at.elapsed() < KEY_LIFETIME);
        if self.0.len() >= MAX_KEYS {
            let oldest = self.0.iter().min_by_key(|(_, record)| record.used_at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&oldest);
            }
        }
        let record = KeyRecord {
            operation,
            job,
            used_at: Instant::now(),
        };
        self.0.insert(key, record);
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
    fn a_key_belongs_to_one_operation_and_the_oldest_key_is_evicted() {
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
