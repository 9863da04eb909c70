//! Pictures in a terminal: as pixels where it knows a protocol for them, else as half blocks, two pixels a cell.

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

/// Width and height of a cell in pixels, where the terminal does not tell.
const CELL: (u16, u16) = (10, 20);
/// A placeholder of kitty's protocol knows no more rows and columns (kitty, "Unicode placeholders").
const MAX_CELLS: u16 = 297;
/// Terminals that draw pixels, by the beginning of their `TERM` (which SSH hands on) or `TERM_PROGRAM`.
const KITTY: &[&str] = &["xterm-kitty", "xterm-ghostty", "ghostty"];
const SIXEL: &[&str] = &["foot", "mlterm", "contour", "WezTerm"];

/// How pictures are drawn on this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvas {
    style: Style,
    /// A cell in pixels.
    cell: (u16, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Kitty,
    Sixel,
    Blocks,
    None,
}

/// A picture made ready for some place on the screen.
pub(crate) struct EncodedImage {
    /// Of which picture.
    pub mark: u64,
    /// Its place, in cells.
    pub room: Size,
    /// What it takes of that.
    pub size: Size,
    /// What is written to the terminal.
    pub protocol: Protocol,
}

impl fmt::Debug for EncodedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({:x} in {})", self.mark, self.size)
    }
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            style: Style::Blocks,
            cell: CELL,
        }
    }
}

impl Canvas {
    /// As it is wished for, else as the terminal's name promises. Terminals are not asked: an answer that comes late
    /// or never would hold up the first frame. `cell` is what the terminal says of a cell's pixels.
    pub(crate) fn detect(
        wish: PictureStyle,
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
        // What a multiplexer hands on is not known, and it knows nothing of what it hands on.
        let wrapped = variable("TMUX").is_some() || variable("STY").is_some();
        let style = match wish {
            PictureStyle::Off => Style::None,
            PictureStyle::Sixel => Style::Sixel,
            // All others tell pixels by colours.
            _ if no_colors => Style::None,
            PictureStyle::Kitty => Style::Kitty,
            PictureStyle::Auto if !wrapped && is(KITTY) => Style::Kitty,
            PictureStyle::Auto if !wrapped && is(SIXEL) => Style::Sixel,
            PictureStyle::Auto | PictureStyle::Blocks => Style::Blocks,
        };
        let cell = cell.filter(|(width, height)| *width > 0 && *height > 0);
        Self {
            style,
            cell: cell.unwrap_or(CELL),
        }
    }

    /// Are there pictures at all?
    pub(crate) fn is_enabled(self) -> bool {
        self.style != Style::None
    }

    /// Can something be drawn over one, and the picture again afterwards? Pixels stand in no cell.
    pub(crate) fn is_text(self) -> bool {
        self.style == Style::Blocks
    }

    /// The largest place in `room` that has the picture's shape.
    pub(crate) fn fit(self, (width, height): (u32, u32), room: Size) -> Size {
        let (cell_width, cell_height) = (f64::from(self.cell.0), f64::from(self.cell.1));
        let room = Size::new(room.width.min(MAX_CELLS), room.height.min(MAX_CELLS));
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let scale = (f64::from(room.width) * cell_width / width)
            .min(f64::from(room.height) * cell_height / height);
        let cells = |pixels: f64, cell: f64, most: u16| {
            let cells = (pixels * scale / cell).round() as u16;
            cells.clamp(1, most.max(1))
        };
        Size::new(
            cells(width, cell_width, room.width),
            cells(height, cell_height, room.height),
        )
    }

    /// Makes `picture` ready for `room`. Takes a while: not for the thread that draws. `None` where there is nothing
    /// to draw, or the terminal cannot.
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
        let protocol = match self.style {
            Style::None => return None,
            Style::Blocks => Protocol::Halfblocks(Halfblocks::new(image, size).ok()?),
            Style::Sixel => Protocol::Sixel(Sixel::new(scaled(), size, false).ok()?),
            // Always the same number: the terminal forgets the picture before.
            Style::Kitty => {
                let id = std::process::id() & 0x00ff_ffff | 1;
                Protocol::Kitty(Kitty::new(scaled(), size, id, false, false).ok()?)
            }
        };
        Some(EncodedImage {
            mark: picture.fingerprint,
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

    fn style(wish: PictureStyle, variables: &[(&str, &str)]) -> Style {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Canvas::detect(wish, find, None).style
    }

    #[test]
    fn pixels_only_where_the_terminal_is_known_to_draw_them() {
        let auto = |variables: &[(&str, &str)]| style(PictureStyle::Auto, variables);
        assert_eq!(auto(&[("TERM", "xterm-256color")]), Style::Blocks);
        assert_eq!(auto(&[("TERM", "xterm-kitty")]), Style::Kitty);
        assert_eq!(auto(&[("TERM", "foot-extra")]), Style::Sixel);
        assert_eq!(
            auto(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/x")]),
            Style::Blocks
        );
        assert_eq!(
            auto(&[("TERM", "xterm-kitty"), ("NO_COLOR", "1")]),
            Style::None
        );
        let no_color = [("NO_COLOR", "1")];
        assert_eq!(style(PictureStyle::Sixel, &no_color), Style::Sixel);
        assert_eq!(style(PictureStyle::Kitty, &[("TMUX", "x")]), Style::Kitty);
        assert_eq!(style(PictureStyle::Off, &[]), Style::None);
    }

    #[test]
    fn a_picture_keeps_its_shape_and_stays_in_its_place() {
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
    fn each_protocol_writes_something_of_that_size() {
        let picture = Picture {
            width: 8,
            height: 4,
            rgb: [255, 0, 0].repeat(32).into(),
            fingerprint: 7,
        };
        for wish in [
            PictureStyle::Blocks,
            PictureStyle::Sixel,
            PictureStyle::Kitty,
        ] {
            let canvas = Canvas::detect(wish, |_| None, None);
            let encoded = canvas.encode(&picture, Size::new(8, 3)).unwrap();
            assert_eq!((encoded.mark, encoded.size), (7, Size::new(8, 2)));
            assert_eq!(encoded.protocol.size(), encoded.size);
        }
        let off = Canvas::detect(PictureStyle::Off, |_| None, None);
        assert!(off.encode(&picture, Size::new(8, 3)).is_none());
        let torn = Picture {
            width: 900,
            ..picture
        };
        let blocks = Canvas::detect(PictureStyle::Blocks, |_| None, None);
        assert!(blocks.encode(&torn, Size::new(8, 3)).is_none());
    }
}
