//! Screenshots of guests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use image::{ImageFormat, ImageReader, Limits};
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
        let capture = move |domain: &Domain| {
            Ok(capture(domain, previous)?.map_err(|reason| reason.to_string()))
        };
        let picture = self
            .call_domain(id, "take a screenshot of", SCREENSHOT_TIMEOUT, capture)
            .await?;
        picture.map_err(|reason| {
            Error::new(
                Kind::Failed,
                format!("cannot show the screen of sandbox {id}"),
            )
            .with_cause(reason)
        })
    }
}

type DecodeResult = std::result::Result<Arc<Picture>, Box<dyn std::error::Error>>;

fn capture(
    domain: &Domain,
    previous: Option<Arc<Picture>>,
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
            return Ok(decode(&bytes, previous));
        }
        if bytes.len() > MAX_BYTES {
            stream.abort()?;
            return Ok(Err("the image has more than 64 MiB".into()));
        }
    }
}

fn decode(bytes: &[u8], previous: Option<Arc<Picture>>) -> DecodeResult {
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
    let image = reader.decode()?.into_rgb8();
    let (width, height) = image.dimensions();
    Ok(Arc::new(Picture {
        width,
        height,
        rgb: image.into_raw().into(),
        fingerprint,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_png_and_ppm_and_returns_an_unchanged_picture() {
        let ppm = b"P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd";
        let picture = decode(ppm, None).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!(*picture.rgb, [1, 2, 3, 255, 254, 253]);
        let again = decode(ppm, Some(picture.clone())).unwrap();
        assert!(Arc::ptr_eq(&picture, &again));

        let mut png = Vec::new();
        let image = image::RgbaImage::from_pixel(3, 2, image::Rgba([9, 8, 7, 255]));
        image
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        let other = decode(&png, Some(picture)).unwrap();
        assert_eq!((other.width, other.height), (3, 2));
        assert_eq!(other.rgb[..3], [9, 8, 7]);
    }

    #[test]
    fn invalid_and_oversized_pictures_are_refused() {
        let huge = b"P6\n9000 9000\n255\n".as_slice();
        for bytes in [b"".as_slice(), b"GIF89a", b"P6\n2 2\n255\n\x01", huge] {
            assert!(decode(bytes, None).is_err(), "{bytes:?}");
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
                if let Ok(picture) = decode(bytes, None) {
                    let (width, height) = (picture.width as usize, picture.height as usize);
                    assert_eq!(picture.rgb.len(), width * height * 3);
                }
            });
    }
}
