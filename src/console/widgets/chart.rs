//! Charts of values over time, in braille dots: two columns and four rows of dots in each cell.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::text;
use crate::format::{self, clip};
use crate::theme::Theme;

/// Smaller charts are not drawn.
pub(crate) const MIN_CHART: (u16, u16) = (22, 4);

/// A scale of rates has at least this number of bytes per second: a nearly idle device is a low line.
const LEAST_RATE: f64 = 65536.0;

/// Dots in a cell.
const DOTS: (usize, usize) = (2, 4);

/// The braille dots by column, the lowest first.
const BITS: [[u32; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];

/// A value over time.
pub(crate) struct Curve {
    /// Seconds before the right edge and value, oldest first.
    pub points: Vec<(f64, f64)>,
    /// The text of the legend: `read 3.1 MiB/s`.
    pub legend: String,
    pub style: Style,
}

/// The scale of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Bytes per second.
    Rate,
    /// Bytes, up to this number.
    Bytes(u64),
    /// Shares of 1.
    Percent,
}

/// A chart of curves with a title and a legend above them.
pub(crate) struct Chart {
    pub title: String,
    pub curves: Vec<Curve>,
    pub scale: Scale,
    /// Seconds between both edges.
    pub window: f64,
    /// The time at the right edge.
    pub end: &'static str,
}

impl Scale {
    /// Returns the value at the upper edge. A rate has one whose half is a round number as well.
    fn top(self, curves: &[Curve]) -> f64 {
        match self {
            Self::Percent => 1.0,
            Self::Bytes(total) => total.max(1) as f64,
            Self::Rate => {
                let values = curves.iter().flat_map(|curve| &curve.points);
                let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
                let most = most.clamp(LEAST_RATE, 2_f64.powi(60));
                2_f64.powi(most.log2().ceil() as i32)
            }
        }
    }

    fn label(self, value: f64) -> String {
        match self {
            _ if value <= 0.0 => "0".to_owned(),
            Self::Percent => format!("{:.0} %", value * 100.0),
            Self::Bytes(_) => format::size(value as u64),
            Self::Rate => format::rate(value),
        }
    }
}

impl Chart {
    /// Draws the legend, the curves, and the axes with their labels; nothing if there is no room.
    pub(crate) fn draw(&self, frame: &mut Frame, area: Rect, theme: &Theme) {
        if area.width < MIN_CHART.0 || area.height < MIN_CHART.1 {
            return;
        }
        let rows = usize::from(area.height) - 2;
        let top = self.scale.top(&self.curves);
        let mut labels = vec![String::new(); rows];
        labels[0] = self.scale.label(top);
        if rows >= 4 {
            let half = (rows * DOTS.1 - 1) / 2;
            labels[rows - 1 - half / DOTS.1] = self.scale.label(top / 2.0);
        }
        let zero = self.scale.label(0.0);
        let margin = labels.iter().map(|label| label.width()).max().unwrap_or(0);
        let columns = usize::from(area.width).saturating_sub(margin + 3);
        let mut lines = vec![self.legend(usize::from(area.width), theme)];
        let dots = self.dots(columns, rows, top);
        for (label, cells) in labels.into_iter().zip(dots) {
            let mut spans = vec![Span::styled(format!(" {label:>margin$}│"), theme.dim)];
            spans.extend(cells);
            lines.push(Line::from(spans));
        }
        lines.push(self.time_axis(&format!(" {zero:>margin$}"), columns, theme));
        text::draw_lines(frame, area, &lines);
    }

    fn legend(&self, width: usize, theme: &Theme) -> Line<'static> {
        let mut spans = vec![Span::styled(format!(" {}", self.title), theme.label)];
        let mut used = self.title.width() + 1;
        for curve in &self.curves {
            let legend = clip(&format!("  {}", curve.legend), width.saturating_sub(used));
            used += legend.width();
            spans.push(Span::styled(legend, curve.style));
        }
        Line::from(spans)
    }

    /// Returns the axis below the curves: `0└ 60 s ago ────── now `.
    fn time_axis(&self, zero: &str, columns: usize, theme: &Theme) -> Line<'static> {
        let start = match self.window {
            window if window < 120.0 => format!(" {window:.0} s ago "),
            window => format!(" {:.0} min ago ", window / 60.0),
        };
        let end = format!(" {} ", self.end);
        let text = match columns.saturating_sub(start.width() + end.width()) {
            0 => "─".repeat(columns),
            line => format!("{start}{}{end}", "─".repeat(line)),
        };
        Line::styled(format!("{zero}└{text}"), theme.dim)
    }

    /// Returns the rows of cells, the top one first. Where curves meet, a cell has the style of the last one, which is
    /// filled down to the axis.
    fn dots(&self, columns: usize, rows: usize, top: f64) -> Vec<Vec<Span<'static>>> {
        let mut cells = vec![vec![(0_u32, Style::new()); columns]; rows];
        let most = rows * DOTS.1 - 1;
        for (at, curve) in self.curves.iter().enumerate() {
            let is_filled = at + 1 == self.curves.len();
            let mut before: Option<usize> = None;
            for x in 0..columns * DOTS.0 {
                let age = self.window * (1.0 - (x as f64 + 0.5) / (columns * DOTS.0) as f64);
                let Some(value) = value_at(&curve.points, age) else {
                    before = None;
                    continue;
                };
                // Beside other curves, one at zero would only colour the axis.
                if !is_filled && value <= 0.0 {
                    before = Some(0);
                    continue;
                }
                let height = ((value / top).clamp(0.0, 1.0) * most as f64).round() as usize;
                // A steep curve has no gaps.
                let from = match before.replace(height) {
                    Some(before) if before < height => before + 1,
                    Some(before) if before > height => before - 1,
                    _ => height,
                };
                let line = from.min(height)..=from.max(height);
                let lowest = if is_filled { 0 } else { *line.start() };
                for y in lowest..=*line.end() {
                    let cell = &mut cells[rows - 1 - y / DOTS.1][x / DOTS.0];
                    let bit = BITS[x % DOTS.0][y % DOTS.1];
                    *cell = match (line.contains(&y), cell.0) {
                        (true, dots) => (dots | bit, curve.style),
                        (false, 0) => (bit, curve.style.add_modifier(Modifier::DIM)),
                        (false, dots) => (dots | bit, cell.1),
                    };
                }
            }
        }
        cells.into_iter().map(|row| spans(&row)).collect()
    }
}

/// Returns a row of cells, those of one style in one span.
fn spans(row: &[(u32, Style)]) -> Vec<Span<'static>> {
    let sign = |dots: u32| match dots {
        0 => ' ',
        dots => char::from_u32(0x2800 + dots).unwrap_or(' '),
    };
    let runs = row.chunk_by(|(_, one), (_, other)| one == other);
    let span = |run: &[(u32, Style)]| {
        let text: String = run.iter().map(|(dots, _)| sign(*dots)).collect();
        Span::styled(text, run[0].1)
    };
    runs.map(span).collect()
}

/// The times that a chart can show, in seconds.
const WINDOWS: [f64; 6] = [15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Returns the time that a chart of points since `seconds` shows: the first one into which they fit.
pub(crate) fn window(seconds: f64) -> f64 {
    let mut fitting = WINDOWS.into_iter().filter(|window| seconds <= *window);
    fitting.next().unwrap_or(WINDOWS[5])
}

/// Size of a chart among others, at least.
const MIN_GRID_CELL: (u16, u16) = (30, 4);
/// Height of a chart among others, at most.
const MAX_GRID_HEIGHT: u16 = 20;

/// Returns the columns of a grid of so many charts, and the height of each; `None` if they do not fit.
fn grid(count: usize, area: Rect) -> Option<(u16, u16)> {
    let count = u16::try_from(count).ok().filter(|count| *count > 0)?;
    let sizes = (1..=count).map(|rows| (count.div_ceil(rows), area.height / rows));
    let mut fitting = sizes.filter(|(columns, height)| {
        area.width / columns >= MIN_GRID_CELL.0 && *height >= MIN_GRID_CELL.1
    });
    fitting
        .next()
        .map(|(columns, height)| (columns, height.min(MAX_GRID_HEIGHT)))
}

/// Returns whether so many charts fit into `area`.
pub(crate) fn fit_charts(count: usize, area: Rect) -> bool {
    grid(count, area).is_some()
}

/// Draws charts in a grid; nothing if they do not fit.
pub(crate) fn draw_charts(charts: &[Chart], frame: &mut Frame, area: Rect, theme: &Theme) {
    let Some((columns, height)) = grid(charts.len(), area) else {
        return;
    };
    let width = area.width / columns;
    for (chart, at) in charts.iter().zip(0_u16..) {
        let cell = Rect {
            x: area.x + at % columns * width,
            y: area.y + at / columns * height,
            // A column between neighbours.
            width: width - 1,
            height,
        };
        chart.draw(frame, cell.intersection(area), theme);
    }
}

/// Returns the value at this age, between those of its neighbours; `None` before the first point and after the last.
fn value_at(points: &[(f64, f64)], age: f64) -> Option<f64> {
    let after = points.partition_point(|(point, _)| *point > age);
    let (to_age, to) = *points.get(after)?;
    let (from_age, from) = *points.get(after.checked_sub(1)?)?;
    Some(from + (to - from) * (from_age - age) / (from_age - to_age))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(curves: Vec<Vec<(f64, f64)>>, scale: Scale, size: (u16, u16)) -> String {
        let curve = |points| Curve {
            points,
            legend: "read".to_owned(),
            style: Style::new(),
        };
        let chart = Chart {
            title: "disk".to_owned(),
            curves: curves.into_iter().map(curve).collect(),
            scale,
            window: 60.0,
            end: "now",
        };
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        let theme = Theme::default();
        terminal
            .draw(|frame| chart.draw(frame, frame.area(), &theme))
            .unwrap();
        let cells = terminal.backend().buffer().content.chunks(size.0.into());
        let line = |row: &[ratatui::buffer::Cell]| -> String {
            let text: String = row.iter().map(|cell| cell.symbol()).collect();
            text.trim_end().to_owned()
        };
        cells.map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_chart_has_axes_with_labels_and_a_curve_without_gaps() {
        let points = vec![(60.0, 0.0), (30.0, 1.0), (0.0, 0.0)];
        let expected = "
 disk  read
 100 %│       ⣠⣶⣄
      │     ⣠⣾⣿⣿⣿⣷⣄
  50 %│   ⢀⣾⣿⣿⣿⣿⣿⣿⣿⣷⡄
      │ ⢀⣴⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣦⡀
      │⣴⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣦
     0└ 60 s ago ── now";
        let drawn = drawn(vec![points], Scale::Percent, (25, 7));
        assert_eq!(format!("\n{drawn}"), expected);
    }

    #[test]
    fn a_curve_at_zero_leaves_the_filled_one_its_colour() {
        let curve = |value: f64, style| Curve {
            points: vec![(60.0, value), (0.0, value)],
            legend: String::new(),
            style,
        };
        let (first, last) = (Style::new().red(), Style::new().green());
        let chart = |value| Chart {
            title: String::new(),
            curves: vec![curve(value, first), curve(1.0, last)],
            scale: Scale::Percent,
            window: 60.0,
            end: "now",
        };
        let has_first = |value: f64| {
            let rows = chart(value).dots(10, 4, 1.0).into_iter();
            rows.flatten().any(|span| span.style.fg == first.fg)
        };
        assert!(!has_first(0.0));
        assert!(has_first(0.5));
    }

    #[test]
    fn the_scale_of_rates_is_a_round_number_and_no_room_is_no_chart() {
        let rate = |most: f64| drawn(vec![vec![(60.0, most), (0.0, 0.0)]], Scale::Rate, (40, 7));
        for (most, top, half) in [
            (100.0 * 1048576.0, "128 MiB/s│", "64 MiB/s│"),
            (0.0, "64 KiB/s│", "32 KiB/s│"),
            (f64::MAX, "1 EiB/s│", "512 PiB/s│"),
        ] {
            let text = rate(most);
            assert!(text.contains(top) && text.contains(half), "{text}");
        }
        let gone = drawn(vec![vec![(1.0, 1.0)]], Scale::Percent, (21, 3));
        assert_eq!(gone.trim(), "");
    }

    #[test]
    fn charts_share_the_space_evenly_or_are_not_drawn() {
        let grid = |width, height| grid(4, Rect::new(0, 0, width, height));
        assert_eq!(grid(118, 7), None);
        assert_eq!(grid(120, 5), Some((4, 5)));
        assert_eq!(grid(118, 10), Some((2, 5)));
        assert_eq!(grid(70, 60), Some((2, 20)));
        assert_eq!(grid(40, 20), Some((1, 5)));
        assert_eq!(grid(40, 15), None);
        assert_eq!(super::grid(3, Rect::new(0, 0, 70, 8)), Some((2, 4)));
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let points = vec![(20.0, 1.0), (10.0, 1.0)];
        assert_eq!(value_at(&points, 25.0), None);
        assert_eq!(value_at(&points, 15.0), Some(1.0));
        assert_eq!(value_at(&points, 5.0), None);
        assert_eq!(value_at(&[(0.0, 1.0)], 0.0), None);
    }
}
