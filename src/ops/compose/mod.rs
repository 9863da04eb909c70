//! Composing: an object is put together from the base's bytes and the overlay's clusters, without a temporary file.
//!
//! ```text
//!  object   ├ head ┼──────────── body ────────────┼──────── tail ────────┤
//!             made   the base's, at their offsets:  the overlay's clusters,
//!             last   copied by the store, or sent   then the tables
//! ```
//!
//! The disk is read at its files' offsets, without QEMU's locks: what keeps a torn image from being published is that
//! the sandbox's state and the stamps of all its files are looked at before and after ([`Source::still_the_same`]). Of a
//! running sandbox the overlay is read as it was at one [moment].

mod base;
mod forecast;
mod layers;
mod moment;
mod send;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Method, Phase, Result, TransferStats};
use snapdeck_qcow2::{Composer, Layout, Options};

use super::flatten::{AWAY_TRIES, is_away};
use super::make::{Sent, Wish};
use super::source::Source;
use super::{Context, variables};

use base::Proof;
use layers::Layers;
use moment::Moment;
use send::Sender;

pub use forecast::forecast;

/// Past so much of the base that nobody can read any more, it is written anew.
const DEAD: f64 = 0.25;

/// What came of it.
pub(super) enum Composed {
    Sent(Box<Sent>),
    /// It cannot be composed, and why. Nothing was left.
    Refused(String),
    /// The disk of a running sandbox cannot be had in that way, and why. Nothing was left.
    Unfit(String),
}

/// Why composing ended.
enum Break {
    Refused(String),
    Unfit(String),
    Failed(Error),
}

impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<snapdeck_qcow2::ComposeError> for Break {
    fn from(refusal: snapdeck_qcow2::ComposeError) -> Self {
        Self::Refused(refusal.to_string())
    }
}

/// How a disk is going to be composed.
struct Way<'a> {
    layers: &'a Layers,
    composer: Composer,
    layout: Layout,
    /// Why this layout.
    reason: String,
    /// The base as an object, where the store can copy it, or why not.
    base: Result<Proof, String>,
}

/// Composes the disk of `source`, which stands still, and uploads it.
///
/// # Errors
/// `Refused` where the sandbox changed meanwhile or the object exists; `Cancelled`; the host's and the store's. Nothing
/// is left then.
pub(super) async fn compose_and_upload(
    host: &Host,
    bucket: &Bucket,
    source: &Source,
    wish: &Wish,
    ctx: &Context,
) -> Result<Composed> {
    ctx.enter(Phase::Checking)?;
    let composed = async {
        let layers = Layers::open(host, source).await?;
        compose(host, bucket, source, &layers, wish, ctx).await
    };
    settle(composed.await)
}

/// Composes the disk of `source`, which runs, as it is at one moment, and uploads it. The guest is paused for that
/// moment by `method`, and runs when this returns.
///
/// # Errors
/// As [`compose_and_upload`]; `Refused` where the sandbox is shut down meanwhile; `NoSpace` where there is no room for
/// what the guest writes meanwhile.
pub(super) async fn compose_running(
    host: &Host,
    bucket: &Bucket,
    source: &Source,
    method: Method,
    wish: &Wish,
    ctx: &Context,
) -> Result<Composed> {
    let mut tries = 1;
    loop {
        ctx.enter(Phase::Checking)?;
        let once = async {
            let mut layers = Layers::open(host, source).await?;
            layers.keep(Box::pin(Moment::take(host, source, method, ctx)).await?);
            let composed = Box::pin(compose(host, bucket, source, &layers, wish, ctx)).await;
            if let Some(moment) = layers.close() {
                moment.clear(ctx).await;
            }
            composed.map(|sent| Sent {
                moved: TransferStats {
                    method,
                    ..sent.moved
                },
                ..sent
            })
        };
        match once.await {
            // The line was lost, and with it the moment.
            Err(Break::Failed(error))
                if is_away(&error) && tries < AWAY_TRIES && !ctx.cancel.is_cancelled() =>
            {
                ctx.warn(format!("{error}; reading the disk from the start again"));
                tries += 1;
            }
            composed => return settle(composed),
        }
    }
}

fn settle(composed: Result<Sent, Break>) -> Result<Composed> {
    match composed {
        Ok(sent) => Ok(Composed::Sent(Box::new(sent))),
        Err(Break::Refused(why)) => Ok(Composed::Refused(why)),
        Err(Break::Unfit(why)) => Ok(Composed::Unfit(why)),
        Err(Break::Failed(error)) => Err(error),
    }
}

async fn compose(
    host: &Host,
    bucket: &Bucket,
    source: &Source,
    layers: &Layers,
    wish: &Wish,
    ctx: &Context,
) -> Result<Sent, Break> {
    let way = ready(host, bucket, source, layers, wish.compact, ctx.zstd).await?;
    tell(&way, ctx);
    Box::pin(upload(host, bucket, source, wish, way, ctx)).await
}

/// Reads the tables and decides.
async fn ready<'a>(
    host: &Host,
    bucket: &Bucket,
    source: &Source,
    layers: &'a Layers,
    compact: bool,
    zstd: bool,
) -> Result<Way<'a>, Break> {
    let (base, overlays) = layers.tables().await?;
    let plan = |layout| {
        let (base, overlays) = (base.clone(), overlays.clone());
        Composer::new(base, overlays, layout, Options { zstd_enabled: zstd })
    };
    let appended = plan(Layout::Append)?;
    let dead = appended.estimate().dead_fraction();
    let (layout, reason) = match compact {
        true => (Layout::Compact, "it was asked for".to_owned()),
        false if dead > DEAD => (
            Layout::Compact,
            format!("{:.0} % of the base is dead", dead * 100.0),
        ),
        false => (
            Layout::Append,
            "the base's bytes stay, and what changed is appended".to_owned(),
        ),
    };
    let composer = match layout {
        Layout::Append => appended,
        Layout::Compact => plan(Layout::Compact)?,
    };
    let base = match layout {
        Layout::Append => base::prove(host, bucket, source, layers).await?,
        Layout::Compact => Err("the whole disk is written anew".to_owned()),
    };
    Ok(Way {
        layers,
        composer,
        layout,
        reason,
        base,
    })
}

fn tell(way: &Way<'_>, ctx: &Context) {
    let method = method(way.layout).as_str();
    ctx.info(format!("composing it ({method}): {}", way.reason));
    if way.layout == Layout::Append {
        match &way.base {
            Ok(proof) => ctx.info(format!(
                "the bucket has the base's bytes in {}: {}",
                proof.object.key, proof.why
            )),
            Err(why) => ctx.info(format!("the base is uploaded with it: {why}")),
        }
    }
    let dead = way.composer.estimate().dead_bytes;
    if dead > 0 {
        ctx.info(format!(
            "{dead} bytes of the base are deleted or replaced, and stay readable in the object; --compact leaves them \
             out"
        ));
    }
}

fn method(layout: Layout) -> Method {
    match layout {
        Layout::Append => Method::Append,
        Layout::Compact => Method::Compact,
    }
}

async fn upload(
    host: &Host,
    bucket: &Bucket,
    source: &Source,
    wish: &Wish,
    way: Way<'_>,
    ctx: &Context,
) -> Result<Sent, Break> {
    ctx.go_on()?;
    let Way {
        layers,
        composer,
        layout,
        base,
        ..
    } = way;
    let estimate = composer.estimate();
    let assembly = bucket
        .begin_multipart(
            &wish.name,
            estimate.file_bytes,
            wish.overwrite,
            &ctx.progress,
            &ctx.cancel,
        )
        .await?;
    let sender = Sender::new(bucket, &assembly, layers, base.as_ref().ok(), &composer);
    let sent = async {
        let sending = assembly.run_with_progress(sender.send(composer));
        let Some(moment) = layers.moment() else {
            let sent = sending.await?;
            let variables = match &source.variables {
                Some(path) => Some(variables::read(host, path).await?),
                None => None,
            };
            source
                .still_the_same(host, source.state, layers.stamps())
                .await?;
            return Ok((sent, variables));
        };
        let sent = tokio::select! {
            sent = sending => sent?,
            error = moment.trouble() => return Err(error.into()),
        };
        source.base_is_the_same(host, layers.stamps()).await?;
        Ok::<_, Break>((sent, moment.variables.clone()))
    };
    let (made, variables) = match sent.await {
        Ok(sent) => sent,
        Err(broken) => {
            assembly.abort().await;
            return Err(match (layers.moment(), broken) {
                (Some(moment), Break::Failed(error)) => moment.explain(error).await.into(),
                (_, broken) => broken,
            });
        }
    };
    if let Some(why) = assembly.copy_error()
        && base.is_ok()
    {
        ctx.info(format!("what the store did not copy was uploaded: {why}"));
    }
    let object = assembly.complete().await?;
    let (uploaded_bytes, copied_bytes) = (made.uploaded_bytes, made.copied_bytes);
    Ok(Sent {
        moved: TransferStats {
            method: method(layout),
            uploaded_bytes,
            copied_bytes,
            saved_bytes: estimate.file_bytes.saturating_sub(uploaded_bytes),
        },
        digests: made.digests.all(object.size_bytes),
        object,
        variables,
        paused: layers.moment().map(|moment| moment.paused),
        consistency: match layers.moment() {
            Some(moment) => moment.consistency,
            None => source.consistency(),
        },
        virtual_size: Some(layers.virtual_size()),
    })
}

fn broken(what: &str) -> Error {
    Error::new(Kind::Failed, format!("cannot compose an image: {what}"))
}
