//! Draws pictures in a terminal: as pixels if the terminal has a protocol for them, else as half blocks, two pixels a
//! cell.

use std::fmt;

use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};
use ratatui::layout::Size;
use ratatui_image::protocol::Protocol;
use ratatui_image::protocol::halfblocks::Halfblocks;
use ratatui_image::protocol::kitty::Kitty;
use ratatui_image::protocol::sixel::Sixel;

use snapdeck_model::Picture;
use snapdeck_model::settings::PictureStyle;

/// Default width and height of a cell, in pixels.
const CELL: (u16, u16) = (10, 20);
/// Maximum number of rows and columns of kitty's protocol (kitty, "Unicode placeholders").
const MAX_CELLS: u16 = 297;
/// Maximum number of pixels that are sent: encoding more takes long, on a terminal with many small pixels as well.
const MAX_PIXELS: f64 = 4e6;
/// Prefixes of `TERM` (which SSH forwards) or `TERM_PROGRAM` of terminals that draw pixels.
const KITTY: &[&str] = &["xterm-kitty", "xterm-ghostty", "ghostty"];
const SIXEL: &[&str] = &["foot", "mlterm", "contour", "WezTerm"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvas {
    encoding: Encoding,
    /// Width and height of a cell, in pixels.
    cell: (u16, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Kitty,
    Sixel,
    Blocks,
    None,
}

/// A picture encoded for an area of the terminal.
pub(crate) struct EncodedImage {
    /// Fingerprint of the picture.
    pub fingerprint: u64,
    /// Size of the area, in cells.
    pub room: Size,
    /// Size of the picture in it, in cells.
    pub size: Size,
    /// Data for the terminal.
    pub protocol: Protocol,
}

impl fmt::Debug for EncodedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedImage({:x} in {})", self.fingerprint, self.size)
    }
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            encoding: Encoding::Blocks,
            cell: CELL,
        }
    }
}

impl Canvas {
    /// Returns the canvas for the configured style, or for the terminal's name with `auto`.
    ///
    /// Terminals are not queried: the first frame would have to wait for a response. `cell` is the size of a cell in
    /// pixels, if the terminal reports it.
    pub(crate) fn detect(
        configured: PictureStyle,
        variable: impl Fn(&str) -> Option<String>,
        cell: Option<(u16, u16)>,
    ) -> Self {
        let is = |names: &[&str]| {
            ["TERM", "TERM_PROGRAM"]
                .iter()
                .filter_map(|name| variable(name))
                .any(|value| names.iter().any(|name| value.starts_with(name)))
        };
        let no_colors = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        // The terminal behind a multiplexer is unknown, and the multiplexer does not track pixels.
        let in_multiplexer = variable("TMUX").is_some() || variable("STY").is_some();
        let encoding = match configured {
            PictureStyle::Off => Encoding::None,
            PictureStyle::Sixel => Encoding::Sixel,
            // The others need colours.
            _ if no_colors => Encoding::None,
            PictureStyle::Kitty => Encoding::Kitty,
            PictureStyle::Auto if !in_multiplexer && is(KITTY) => Encoding::Kitty,
            PictureStyle::Auto if !in_multiplexer && is(SIXEL) => Encoding::Sixel,
            PictureStyle::Auto | PictureStyle::Blocks => Encoding::Blocks,
        };
        let cell = cell.filter(|(width, height)| *width > 0 && *height > 0);
        Self {
            encoding,
            cell: cell.unwrap_or(CELL),
        }
    }

    /// Returns whether pictures are drawn at all.
    pub(crate) fn is_enabled(self) -> bool {
        self.encoding != Encoding::None
    }

    /// Returns a canvas for several pictures at once: of half blocks.
    pub(crate) fn without_pixels(self) -> Self {
        let encoding = match self.encoding {
            Encoding::None => Encoding::None,
            Encoding::Kitty | Encoding::Sixel | Encoding::Blocks => Encoding::Blocks,
        };
        Self { encoding, ..self }
    }

    /// Returns whether a dialog can be drawn over a picture; pixels are not part of cells.
    pub(crate) fn is_text(self) -> bool {
        self.encoding == Encoding::Blocks
    }

    /// Returns the largest size in `room` with the picture's aspect ratio.
    pub(crate) fn fit(self, (width, height): (u32, u32), room: Size) -> Size {
        let (cell_width, cell_height) = (f64::from(self.cell.0), f64::from(self.cell.1));
        let room = Size::new(room.width.min(MAX_CELLS), room.height.min(MAX_CELLS));
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let scale = (f64::from(room.width) * cell_width / width)
            .min(f64::from(room.height) * cell_height / height);
        let scale = match self.encoding {
            Encoding::Kitty | Encoding::Sixel => scale.min((MAX_PIXELS / (width * height)).sqrt()),
            Encoding::Blocks | Encoding::None => scale,
        };
        let cells = |pixels: f64, cell: f64, limit: u16| {
            let cells = (pixels * scale / cell).round() as u16;
            cells.clamp(1, limit.max(1))
        };
        Size::new(
            cells(width, cell_width, room.width),
            cells(height, cell_height, room.height),
        )
    }

    /// Encodes `picture` for `room`; `None` if there is nothing to draw. Slow: not for the thread that draws.
    pub(crate) fn encode(self, picture: &Picture, room: Size) -> Option<EncodedImage> {
        if room.width == 0 || room.height == 0 {
            return None;
        }
        let size = self.fit((picture.width, picture.height), room);
        let pixels = RgbImage::from_raw(picture.width, picture.height, picture.rgb.to_vec())?;
        let image = DynamicImage::ImageRgb8(pixels);
        let scaled = || {
            let side = |cells: u16, pixels: u16| u32::from(cells) * u32::from(pixels);
            let (width, height) = (
                side(size.width, self.cell.0),
                side(size.height, self.cell.1),
            );
            image.resize_exact(width, height, FilterType::Triangle)
        };
        let protocol = match self.encoding {
            Encoding::None => return None,
            Encoding::Blocks => Protocol::Halfblocks(Halfblocks::new(image, size).ok()?),
            Encoding::Sixel => Protocol::Sixel(Sixel::new(scaled(), size, false).ok()?),
            // Always the same id, so that the terminal replaces the previous picture.
            Encoding::Kitty => {
                let id = std::process::id() & 0x00ff_ffff | 1;
                Protocol::Kitty(Kitty::new(scaled(), size, id, false, false).ok()?)
            }
        };
        Some(EncodedImage {
            fingerprint: picture.fingerprint,
            room,
            size,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoding(style: PictureStyle, variables: &[(&str, &str)]) -> Encoding {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Canvas::detect(style, variable, None).encoding
    }

    #[test]
    fn the_encoding_depends_on_terminal_and_settings() {
        let auto = |variables: &[(&str, &str)]| encoding(PictureStyle::Auto, variables);
        assert_eq!(auto(&[("TERM", "xterm-256color")]), Encoding::Blocks);
        assert_eq!(auto(&[("TERM", "xterm-kitty")]), Encoding::Kitty);
        assert_eq!(auto(&[("TERM", "foot-extra")]), Encoding::Sixel);
        assert_eq!(
            auto(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/x")]),
            Encoding::Blocks
        );
        assert_eq!(
            auto(&[("TERM", "xterm-kitty"), ("NO_COLOR", "1")]),
            Encoding::None
        );
        let no_color = [("NO_COLOR", "1")];
        assert_eq!(encoding(PictureStyle::Sixel, &no_color), Encoding::Sixel);
        assert_eq!(
            encoding(PictureStyle::Kitty, &[("TMUX", "x")]),
            Encoding::Kitty
        );
        assert_eq!(encoding(PictureStyle::Off, &[]), Encoding::None);
    }

    #[test]
    fn a_picture_keeps_its_aspect_ratio() {
        let canvas = Canvas::detect(PictureStyle::Blocks, |_| None, Some((8, 16)));
        assert_eq!(
            canvas.fit((1024, 768), Size::new(100, 20)),
            Size::new(53, 20)
        );
        assert_eq!(
            canvas.fit((1024, 768), Size::new(20, 100)),
            Size::new(20, 8)
        );
        assert_eq!(canvas.fit((1, 5000), Size::new(20, 3)), Size::new(1, 3));
    }

    #[test]
    fn each_encoding_has_the_requested_size() {
        let picture = Picture {
            width: 8,
            height: 4,
            rgb: [255, 0, 0].repeat(32).into(),
            fingerprint: 7,
        };
        for style in [
            PictureStyle::Blocks,
            PictureStyle::Sixel,
            PictureStyle::Kitty,
        ] {
            let canvas = Canvas::detect(style, |_| None, None);
            let encoded = canvas.encode(&picture, Size::new(8, 3)).unwrap();
            assert_eq!((encoded.fingerprint, encoded.size), (7, Size::new(8, 2)));
            assert_eq!(encoded.protocol.size(), encoded.size);
        }
        let off = Canvas::detect(PictureStyle::Off, |_| None, None);
        assert!(off.encode(&picture, Size::new(8, 3)).is_none());
        let truncated = Picture {
            width: 900,
            ..picture
        };
        let blocks = Canvas::detect(PictureStyle::Blocks, |_| None, None);
        assert!(blocks.encode(&truncated, Size::new(8, 3)).is_none());
    }

    #[test]
    fn a_picture_in_pixels_is_bounded() {
        let room = Size::new(297, 200);
        for (style, expected) in [
            (PictureStyle::Sixel, Size::new(115, 58)),
            (PictureStyle::Blocks, Size::new(297, 149)),
        ] {
            let canvas = Canvas::detect(style, |_| None, Some((20, 40)));
            assert_eq!(canvas.fit((800, 600), room).width, expected.width);
        }
    }

    #[test]
    fn fuzz_picture() {
        snapdeck_fuzz::FuzzTarget::new("picture of a screen")
            .seed([0, 9, 0, 7, 0, 40, 0, 20, 10, 20])
            .seed([0, 1, 32, 0, 1, 1, 0, 1, 1, 1])
            .seed(*b"\x00\x09\x00\x07\x1b\x3c\x21\x5d\x30\x3b\x78\x07\x00\x28\x00\x14")
            .max_bytes(16)
            .memory(64 << 20, 0)
            .run(|sizes| {
                let number = |index: usize| {
                    let byte = |index| u16::from(sizes.get(index).copied().unwrap_or_default());
                    byte(index) << 8 | byte(index + 1)
                };
                let (width, height) = (u32::from(number(0) % 1024), u32::from(number(2) % 64));
                let picture = Picture {
                    width,
                    height,
                    rgb: vec![7; (width * height * 3) as usize].into(),
                    fingerprint: 1,
                };
                let room = Size::new(number(4) % 400, number(6) % 400);
                let cell = (number(7) % 24, number(8) % 48);
                for style in [
                    PictureStyle::Blocks,
                    PictureStyle::Sixel,
                    PictureStyle::Kitty,
                ] {
                    let canvas = Canvas::detect(style, |_| None, Some(cell));
                    let size = canvas.fit((width, height), room);
                    let pixels = |cells: u16, pixels: u16| u32::from(cells) * u32::from(pixels);
                    let pixels =
                        pixels(size.width, canvas.cell.0) * pixels(size.height, canvas.cell.1);
                    assert!(
                        pixels <= 5_000_000 || style == PictureStyle::Blocks,
                        "{pixels}"
                    );
                    // Without optimization a million pixels take seconds.
                    if style != PictureStyle::Blocks && pixels > 200_000 {
                        continue;
                    }
                    if let Some(image) = canvas.encode(&picture, room) {
                        assert!(image.size.width <= room.width && image.size.height <= room.height);
                    }
                }
            });
    }
}
