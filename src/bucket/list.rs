//! The objects under the prefix, a page at a time.

use std::sync::Arc;

use futures_util::{Stream, stream};

use super::client::LazyClient;
use super::errors::sdk_error;
use super::object::{parse_size, to_timestamp};
use snapdeck_model::{Error, Kind, Object, Result, SnapshotName};

/// Pages of up to 1,000 keys: ten million keys. A store that gives more is going in circles.
const MAX_PAGES: u32 = 10_000;

struct Paginator {
    lazy_client: Arc<LazyClient>,
    token: Option<String>,
    pages: u32,
    is_done: bool,
}

/// The pages, as the store gives them; ends after the first error.
pub(super) fn list_pages(
    door: Arc<LazyClient>,
) -> impl Stream<Item = Result<Vec<Object>>> + Send + use<> {
    let walk = Paginator {
        lazy_client: door,
        token: None,
        pages: 0,
        is_done: false,
    };
    stream::unfold(walk, |mut walk| async move {
        if walk.is_done {
            return None;
        }
        let page = walk.next_page().await;
        walk.is_done |= page.is_err();
        Some((page, walk))
    })
}

impl Paginator {
    async fn next_page(&mut self) -> Result<Vec<Object>> {
        let store = self.lazy_client.get_store().await?;
        let prefix = &self.lazy_client.settings().prefix;
        let what = || format!("cannot list {}", self.lazy_client.location());
        // The delimiter keeps what lies deeper from being listed key by key.
        let page = store
            .client
            .list_objects_v2()
            .bucket(&store.bucket)
            .prefix(prefix)
            .delimiter("/")
            .set_continuation_token(self.token.clone())
            .send()
            .await
            .map_err(|e| sdk_error(store, what(), &e))?;
        self.pages += 1;
        let objects = page
            .contents()
            .iter()
            .filter_map(|entry| object(prefix, entry))
            .collect();
        let next = page.next_continuation_token;
        if page.is_truncated != Some(true) {
            self.is_done = true;
        } else if next.is_none() || next == self.token || self.pages >= MAX_PAGES {
            return Err(Error::new(Kind::Failed, what())
                .with_cause(format!("{} does not end", store.endpoint))
                .hint("inspect the bucket with another S3 client"));
        }
        self.token = next;
        Ok(objects)
    }
}

/// The object of an entry, where its key is one of ours.
fn object(prefix: &str, entry: &aws_sdk_s3::types::Object) -> Option<Object> {
    let key = entry.key()?;
    Some(Object {
        name: snapshot_name(prefix, key)?,
        key: key.to_owned(),
        size_bytes: parse_size(entry.size),
        modified: entry.last_modified().and_then(to_timestamp),
        etag: entry.e_tag.clone(),
    })
}

/// The snapshot's name in a key; `None` where another key would belong to that name (`a.qcow2.qcow2`).
pub(super) fn snapshot_name(prefix: &str, key: &str) -> Option<SnapshotName> {
    let stem = key.strip_prefix(prefix)?.strip_suffix(".qcow2")?;
    let name: SnapshotName = stem.parse().ok()?;
    (name.as_str() == stem).then_some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_names_directly_under_the_prefix_are_ours() {
        let name = |key| super::snapshot_name("snapshots/", key).map(|name| name.to_string());
        assert_eq!(name("snapshots/a-1.qcow2").as_deref(), Some("a-1"));
        for other in [
            "snapshots/",
            "snapshots/.qcow2",
            "snapshots/deep/a.qcow2",
            "snapshots/a.json",
            "snapshots/a.qcow2.qcow2",
            "snapshots/a b.qcow2",
            "a.qcow2",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
