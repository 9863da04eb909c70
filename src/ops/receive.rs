//! A host's end of a fetch: blocks come from a queue and are written, and how far that came is noted beside the
//! file, so that a pull that breaks off is taken up by the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval};

use crate::bucket::Bucket;
use crate::host::FileWriter;
use crate::model::{BLOCK_BYTES, Digest, Error, Kind, Manifest, Object, Phase, Result};

use super::Context;
use super::fetch::{Block, Message, Queue, Share};

/// Writes on their way at once.
const WRITES: usize = 4;
/// How far the file has come is noted after so many bytes or so long, whatever comes first: what was not noted is
/// fetched again after a break. A note costs one command there, and only one is on its way at a time.
const MARK_BYTES: u64 = 8 << 20;
const MARK_TIME: Duration = Duration::from_secs(2);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// Why a pull ended early.
pub(super) struct Break {
    pub(super) error: Error,
    /// The host is out of reach: what was written there can neither be used nor removed.
    pub(super) host_away: bool,
}

/// What the host said.
impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Self {
            host_away: error.kind() == Kind::Unreachable,
            error,
        }
    }
}

/// May a file that holds the beginning of `object` be completed with its rest? Only a strong entity tag says that
/// both are of one and the same object (RFC 9110, section 8.8.1).
fn is_resumable(object: &Object) -> bool {
    let tag = object.etag.as_deref();
    tag.is_some_and(|tag| !tag.starts_with("W/"))
}

/// How many leading bytes of `object` need not be fetched for `writer`.
pub(super) fn taken_up(object: &Object, writer: &FileWriter) -> u64 {
    match is_resumable(object) {
        true => writer.done_bytes(),
        false => 0,
    }
}

/// Writes the whole of `object` with `writer`: by `share`, and by itself where that leaves it behind. Each block must
/// be what `manifest` says. Returns the digests of all blocks, unless some were there before and no manifest tells.
pub(super) async fn receive(
    share: Share,
    bucket: &Bucket,
    object: &Object,
    manifest: Option<&Manifest>,
    writer: &FileWriter,
    ctx: &Context,
) -> Result<Option<Vec<Digest>>, Break> {
    let done = taken_up(object, writer);
    let count = object.size_bytes.div_ceil(BLOCK_BYTES) as usize;
    let mut file = Receiving {
        object,
        manifest,
        blocks: match manifest {
            Some(manifest) => manifest.blocks.iter().copied().map(Some).collect(),
            None => vec![None; count],
        },
        writer,
        ctx,
        written: Written::up_to(done),
        marks: FuturesUnordered::new(),
        marked: (done, Instant::now()),
    };
    let received = file.all(share, bucket).await;
    if received.is_err() && ctx.leaving.is_cancelled() {
        file.mark_now();
    }
    // A note that is written late would stand beside nothing.
    if !matches!(
        received,
        Err(Break {
            host_away: true,
            ..
        })
    ) {
        while file.marks.next().await.is_some() {}
    }
    received.map(|()| file.blocks.into_iter().collect())
}

struct Receiving<'a> {
    object: &'a Object,
    manifest: Option<&'a Manifest>,
    /// As far as they are known.
    blocks: Vec<Option<Digest>>,
    writer: &'a FileWriter,
    ctx: &'a Context,
    written: Written,
    /// The note that is being written, if any.
    marks: FuturesUnordered<BoxFuture<'a, Result<()>>>,
    /// The last note: its bytes, and when.
    marked: (u64, Instant),
}

impl Receiving<'_> {
    async fn all(&mut self, share: Share, bucket: &Bucket) -> Result<(), Break> {
        let total = self.object.size_bytes;
        let mut share = share;
        self.ctx.progress.enter(Phase::Downloading, total);
        loop {
            self.ctx.progress.set_done(self.written.done);
            let queue = share.join(bucket, self.object, self.written.done);
            if queue.late {
                self.ctx
                    .info("the other hosts could not be joined: it is fetched for this one alone");
            }
            if self.take(queue).await? {
                return Ok(());
            }
            if !is_resumable(self.object) {
                self.written = Written::up_to(0);
            }
            self.ctx.warn(format!(
                "the other hosts went on without this one, which was too slow: the {} bytes after the first {} \
                 are fetched again for it",
                total - self.written.done,
                self.written.done
            ));
            share = Share::alone();
        }
    }

    /// Writes what comes; `false` where the others went on without us.
    async fn take(&mut self, mut queue: Queue) -> Result<bool, Break> {
        let from = self.written.done;
        let mut writes = FuturesUnordered::new();
        let mut places: HashMap<u64, Arc<OwnedSemaphorePermit>> = HashMap::new();
        let (mut complete, mut left) = (false, false);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !((complete || left) && writes.is_empty()) {
            let takes = !complete && !left && writes.len() < WRITES;
            tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => return Err(Error::cancelled("the pull").into()),
                () = queue.pace.left_behind.cancelled(), if !left && !complete => {
                    left = true;
                    queue.receiver.close();
                    while queue.receiver.try_recv().is_ok() {}
                    places.clear();
                }
                Some((offset, bytes, outcome)) = writes.next() => {
                    let outcome: Result<Digest> = outcome;
                    self.note(offset, bytes, outcome?)?;
                    places.remove(&offset);
                    queue.pace.wrote(bytes);
                    self.written.add(offset, bytes);
                }
                Some(outcome) = self.marks.next() => {
                    // The file is no worse for it.
                    if let Err(error) = outcome {
                        tracing::debug!("{error}");
                    }
                }
                message = queue.receiver.recv(), if takes => match message {
                    Some(Message::Block(Block { offset, data, place })) => {
                        let bytes = data.len() as u64;
                        if offset + bytes <= from {
                            queue.pace.wrote(bytes);
                            continue;
                        }
                        places.insert(offset, place);
                        writes.push(write(self.writer, offset, data));
                    }
                    Some(Message::End(ended)) => {
                        // The bucket's word, not the host's.
                        ended.map_err(|error| Break { error, host_away: false })?;
                        complete = true;
                    }
                    None => {
                        let what = format!("the fetch of {} broke off", self.object.key);
                        return Err(Error::new(Kind::Failed, what).into());
                    }
                },
                _ = ticks.tick() => {
                    // Smoother than whole blocks, while what is fetched is for us, too.
                    let fetched = match left {
                        true => 0,
                        false => queue.fetched.sample().done_bytes,
                    };
                    let ours = fetched.saturating_sub(queue.pace.backlog_bytes());
                    self.ctx.progress.set_done(ours.max(self.written.done));
                    self.mark();
                }
            }
        }
        self.ctx.progress.set_done(self.written.done);
        Ok(complete)
    }

    /// Takes note of a block's digest.
    ///
    /// # Errors
    /// `Damaged` where the manifest has another.
    fn note(&mut self, offset: u64, bytes: u64, digest: Digest) -> Result<(), Break> {
        let whole = bytes == BLOCK_BYTES.min(self.object.size_bytes - offset);
        if !whole || !offset.is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        // Of a file's length.
        let block = (offset / BLOCK_BYTES) as usize;
        let wanted = self
            .manifest
            .and_then(|manifest| manifest.blocks.get(block));
        if wanted.is_some_and(|wanted| *wanted != digest) {
            // The bucket's fault, not the host's.
            let error = Error::new(Kind::Damaged, format!("{} is damaged", self.object.key))
                .because(format!("the {bytes} bytes at {offset} are not those its manifest tells of"))
                .hint("pull it again; where that fails push it again, or remove its manifest to have it as it is");
            return Err(error.into());
        }
        if let Some(slot) = self.blocks.get_mut(block) {
            *slot = Some(digest);
        }
        Ok(())
    }

    /// Begins to note how far the file has come, where that is due.
    fn mark(&mut self) {
        let (bytes, at) = self.marked;
        let done = self.written.done;
        let due = done >= bytes + MARK_BYTES || (done > bytes && at.elapsed() >= MARK_TIME);
        if due && self.marks.is_empty() {
            self.mark_now();
        }
    }

    fn mark_now(&mut self) {
        let done = self.written.done;
        if is_resumable(self.object) {
            self.marked = (done, Instant::now());
            self.marks.push(Box::pin(self.writer.mark(done)));
        }
    }
}

/// Writes a block, and hashes it meanwhile.
async fn write(writer: &FileWriter, offset: u64, data: Bytes) -> (u64, u64, Result<Digest>) {
    let bytes = data.len() as u64;
    let hashed = {
        let data = data.clone();
        tokio::task::spawn_blocking(move || Digest::of(&data))
    };
    let (written, hashed) = tokio::join!(writer.write_at(offset, data), hashed);
    let digest = written.and_then(|()| {
        hashed.map_err(|error| Error::new(Kind::Failed, "cannot hash a block").because(error))
    });
    (offset, bytes, digest)
}

/// What is written of a file, in any order.
struct Written {
    /// All bytes before this one.
    done: u64,
    /// Beyond it: offsets and their ends.
    ahead: BTreeMap<u64, u64>,
}

impl Written {
    fn up_to(done: u64) -> Self {
        Self {
            done,
            ahead: BTreeMap::new(),
        }
    }

    fn add(&mut self, offset: u64, bytes: u64) {
        self.ahead.insert(offset, offset + bytes);
        while let Some(next) = self.ahead.first_entry()
            && *next.key() <= self.done
        {
            self.done = self.done.max(next.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_counts_from_the_start_without_a_gap() {
        let mut written = Written::up_to(5);
        for (offset, bytes, done) in [(15, 5, 5), (10, 5, 5), (30, 1, 5), (2, 8, 20), (20, 10, 31)]
        {
            written.add(offset, bytes);
            assert_eq!(written.done, done, "{offset}");
        }
        assert!(written.ahead.is_empty());
    }
}
