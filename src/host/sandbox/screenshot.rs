//! Screenshots of guests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use image::imageops::thumbnail;
use image::{ImageFormat, ImageReader, Limits};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt::stream::Stream;

use super::Sandboxes;
use snapdeck_model::{Error, Kind, Picture, Result, SandboxId};

/// Short, because a screenshot is not worth waiting for.
const SCREENSHOT_TIMEOUT: Duration = Duration::from_secs(8);
/// Bound of a screenshot; one of 4096 x 2160 pixels has 27 MB as PPM.
const MAX_BYTES: usize = 64 << 20;
/// Maximum length of a side, in pixels.
const MAX_SIDE: u32 = 8192;
/// Bound of the pixels in memory: a small PNG may have many. A screen of 7680 x 4320 pixels takes 100 MB.
const MAX_DECODED_BYTES: u64 = 128 << 20;

/// A screenshot that is scaled down.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    /// The picture; its fingerprint is that of the whole screen.
    pub picture: Arc<Picture>,
    /// CPU time that this process took for it.
    pub cpu_time: Duration,
}

impl Sandboxes<'_> {
    /// Returns the guest's screen; `previous` itself if it has not changed.
    ///
    /// # Errors
    /// `Failed` if it has no screen or the image cannot be decoded; as [`Sandboxes::suspend`].
    pub async fn screenshot(
        self,
        id: &SandboxId,
        previous: Option<Arc<Picture>>,
    ) -> Result<Arc<Picture>> {
        let thumbnail = self.thumbnail(id, previous, (MAX_SIDE, MAX_SIDE)).await?;
        Ok(thumbnail.picture)
    }

    /// Returns the guest's screen, scaled down into a box of width and height if it is larger; `previous` itself if the
    /// screen has not changed.
    ///
    /// # Errors
    /// As [`Sandboxes::screenshot`].
    pub async fn thumbnail(
        self,
        id: &SandboxId,
        previous: Option<Arc<Picture>>,
        size: (u32, u32),
    ) -> Result<Thumbnail> {
        let capture = move |domain: &Domain| {
            let start = thread_cpu_time();
            let picture = capture(domain, previous, size)?;
            let cpu_time = thread_cpu_time().saturating_sub(start);
            let thumbnail = picture.map(|picture| Thumbnail { picture, cpu_time });
            Ok(thumbnail.map_err(|reason| reason.to_string()))
        };
        let thumbnail = self
            .call_domain(id, "take a screenshot of", SCREENSHOT_TIMEOUT, capture)
            .await?;
        thumbnail.map_err(|reason| {
            Error::new(
                Kind::Failed,
                format!("cannot show the screen of sandbox {id}"),
            )
            .with_cause(reason)
        })
    }
}

/// Returns the CPU time of this thread so far.
fn thread_cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else {
        return Duration::ZERO;
    };
    let micros = usage.user_time() + usage.system_time();
    Duration::from_micros(micros.num_microseconds().try_into().unwrap_or(0))
}

type DecodeResult = std::result::Result<Arc<Picture>, Box<dyn std::error::Error>>;

fn capture(
    domain: &Domain,
    previous: Option<Arc<Picture>>,
    size: (u32, u32),
) -> std::result::Result<DecodeResult, VirtError> {
    let stream = Stream::new(&domain.connect()?, 0)?;
    // PNG, or PPM from QEMU before 7.1; its first bytes say which.
    domain.screenshot(&stream, 0, 0)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let length = usize::try_from(stream.recv(&mut chunk)?).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..length]);
        if length == 0 {
            stream.finish()?;
            return Ok(decode(&bytes, previous, size));
        }
        if bytes.len() > MAX_BYTES {
            stream.abort()?;
            return Ok(Err("the image has more than 64 MiB".into()));
        }
    }
}

/// Decodes a picture; one larger than `size` is scaled down, and keeps its aspect.
fn decode(bytes: &[u8], previous: Option<Arc<Picture>>, size: (u32, u32)) -> DecodeResult {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let fingerprint = hasher.finish();
    if let Some(same) = previous.filter(|picture| picture.fingerprint == fingerprint) {
        return Ok(same);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Pnm)) {
        return Err("it is neither PNG nor PPM".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let mut image = reader.decode()?.into_rgb8();
    let (width, height) = fit(image.dimensions(), size);
    if (width, height) != image.dimensions() {
        image = thumbnail(&image, width, height);
    }
    Ok(Arc::new(Picture {
        width,
        height,
        rgb: image.into_raw().into(),
        fingerprint,
    }))
}

/// Returns the size of a picture scaled down into a box; a side has at least one pixel.
fn fit((width, height): (u32, u32), (max_width, max_height): (u32, u32)) -> (u32, u32) {
    if width <= max_width && height <= max_height {
        return (width, height);
    }
    let scale = |side: u32, to: u32, of: u32| {
        let scaled = u64::from(side) * u64::from(to) / u64::from(of.max(1));
        u32::try_from(scaled).unwrap_or(to).max(1)
    };
    match u64::from(width) * u64::from(max_height) > u64::from(height) * u64::from(max_width) {
        true => (max_width, scale(height, max_width, width)),
        false => (scale(width, max_height, height), max_height),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FULL: (u32, u32) = (MAX_SIDE, MAX_SIDE);

    #[test]
    fn a_thumbnail_keeps_the_aspect_and_the_fingerprint() {
        assert_eq!(fit((1024, 768), (320, 240)), (320, 240));
        assert_eq!(fit((1920, 1080), (320, 240)), (320, 180));
        assert_eq!(fit((720, 1280), (320, 240)), (135, 240));
        assert_eq!(fit((200, 100), (320, 240)), (200, 100));
        assert_eq!(fit((8192, 1), (320, 240)), (320, 1));
        let rgb = [[255, 0, 0]; 800 * 600].concat();
        let ppm = [b"P6\n800 600\n255\n".as_slice(), &rgb].concat();
        let small = decode(&ppm, None, (320, 240)).unwrap();
        assert_eq!((small.width, small.height), (320, 240));
        assert_eq!(small.rgb.len(), 320 * 240 * 3);
        assert_eq!(small.rgb[..3], [255, 0, 0]);
        let full = decode(&ppm, None, FULL).unwrap();
        assert_eq!(full.fingerprint, small.fingerprint);
        let same = decode(&ppm, Some(small.clone()), (320, 240)).unwrap();
        assert!(Arc::ptr_eq(&same, &small));
    }

    #[test]
    fn reads_png_and_ppm_and_returns_an_unchanged_picture() {
        let ppm = b"P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd";
        let picture = decode(ppm, None, FULL).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!(*picture.rgb, [1, 2, 3, 255, 254, 253]);
        let again = decode(ppm, Some(picture.clone()), FULL).unwrap();
        assert!(Arc::ptr_eq(&picture, &again));

        let mut png = Vec::new();
        let image = image::RgbaImage::from_pixel(3, 2, image::Rgba([9, 8, 7, 255]));
        image
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        let other = decode(&png, Some(picture), FULL).unwrap();
        assert_eq!((other.width, other.height), (3, 2));
        assert_eq!(other.rgb[..3], [9, 8, 7]);
    }

    #[test]
    fn invalid_and_oversized_pictures_are_refused() {
        let huge = b"P6\n9000 9000\n255\n".as_slice();
        for bytes in [b"".as_slice(), b"GIF89a", b"P6\n2 2\n255\n\x01", huge] {
            assert!(decode(bytes, None, FULL).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn fuzz_screenshot() {
        let mut png = Vec::new();
        let image = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 7]));
        image
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        snapdeck_fuzz::FuzzTarget::new("screenshot")
            .seed(png)
            .seed(b"P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd")
            .seed(b"P3\n# a\n2 1\n15\n1 2 3 15 14 13\n")
            .words(&[
                "P4\n",
                "P5\n",
                "P7\nWIDTH 2\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n",
                "8192 8192",
                "IHDR",
                "IDAT",
                "tRNS",
                "PLTE",
                "acTL",
                "zTXt",
                "iCCP",
            ])
            .memory(2 * MAX_DECODED_BYTES as usize, 8)
            .run(|bytes| {
                let _ = decode(bytes, None, (64, 48));
                if let Ok(picture) = decode(bytes, None, FULL) {
                    let (width, height) = (picture.width as usize, picture.height as usize);
                    assert_eq!(picture.rgb.len(), width * height * 3);
                }
            });
    }
}
