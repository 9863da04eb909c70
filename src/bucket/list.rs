//! Lists the snapshots in the bucket, a page at a time.

use std::sync::Arc;

use futures_util::{Stream, stream};

use super::keys::{IMAGE_SUFFIX, snapshot_name};
use super::s3::LazyClient;
use snapdeck_model::{Error, Kind, Object, Result};

/// Pages of up to 1,000 keys: ten million keys. A store with more repeats itself.
const MAX_PAGES: u32 = 10_000;

struct Paginator {
    lazy_client: Arc<LazyClient>,
    token: Option<String>,
    pages: u32,
    is_done: bool,
}

/// Returns the pages in the order of the store; ends after the first error.
pub(super) fn list_pages(
    lazy_client: Arc<LazyClient>,
) -> impl Stream<Item = Result<Vec<Object>>> + Send + use<> {
    let paginator = Paginator {
        lazy_client,
        token: None,
        pages: 0,
        is_done: false,
    };
    stream::unfold(paginator, |mut paginator| async move {
        if paginator.is_done {
            return None;
        }
        let page = paginator.next_page().await;
        paginator.is_done |= page.is_err();
        Some((page, paginator))
    })
}

impl Paginator {
    async fn next_page(&mut self) -> Result<Vec<Object>> {
        let store = self.lazy_client.get_store().await?;
        let prefix = &self.lazy_client.settings().prefix;
        let page = store.list(prefix, self.token.clone()).await?;
        self.pages += 1;
        self.is_done = page.is_last;
        let next = page.next_token;
        if !page.is_last && (next.is_none() || next == self.token || self.pages >= MAX_PAGES) {
            let summary = format!("cannot list {}", self.lazy_client.location());
            return Err(Error::new(Kind::Failed, summary)
                .with_cause(format!("the listing of {} does not end", store.endpoint()))
                .hint("check the bucket with another S3 client"));
        }
        self.token = next;
        let objects = page.objects.into_iter().filter_map(|object| {
            let name = snapshot_name(prefix, &object.key, &[IMAGE_SUFFIX])?;
            Some(object.into_object(name))
        });
        Ok(objects.collect())
    }
}
