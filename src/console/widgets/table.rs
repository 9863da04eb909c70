//! Tables: a header and rows of the columns that fit.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::columns::{Column, ColumnSpec};
use crate::format::{self, Distinction, fit};
use crate::list::Sort;
use crate::theme::Theme;

/// The columns that fit into a width.
#[derive(Debug)]
pub(crate) struct TableLayout {
    /// Each column with its width.
    columns: Vec<(&'static ColumnSpec, usize)>,
    width: usize,
}

/// Other columns are left out, or the name is cut: the name is never cut for a wider one.
const MAX_NAME_WIDTH: usize = 28;
/// Columns for names that are all shorter: the header with the sign of the sort order.
const LEAST_NAME_WIDTH: usize = 8;
/// The rank at which the name is cut.
const NAME_RANK: u8 = 4;
/// Columns before the first one: the mark.
const MARK_WIDTH: usize = 1;
/// Columns between two columns.
const GAP: usize = 1;

impl TableLayout {
    /// Chooses the columns of `specs` that are wanted and fit into `width`; the name takes what is left. It is not cut to
    /// less than the widest name for columns that are less important. A host is as wide as the widest one, `widest_host`.
    pub(crate) fn new(
        specs: impl IntoIterator<Item = &'static ColumnSpec>,
        width: usize,
        (widest_name, widest_host): (usize, usize),
        wanted: impl Fn(Column) -> bool,
    ) -> Self {
        let specs = specs.into_iter().filter(|spec| wanted(spec.column));
        let wide_name = widest_name.min(MAX_NAME_WIDTH);
        let least_name = |spec: &ColumnSpec| spec.width.min(widest_name.max(LEAST_NAME_WIDTH));
        let wanted_width = |spec: &ColumnSpec| match spec.column {
            Column::Name => least_name(spec).max(wide_name),
            Column::Host => spec.width.min(widest_host.max(spec.header.len())),
            _ => spec.width,
        };
        let columns = specs.map(|spec| (spec, wanted_width(spec)));
        let mut columns: Vec<(&ColumnSpec, usize)> = columns.collect();
        let used = |columns: &[(&ColumnSpec, usize)]| {
            MARK_WIDTH + columns.iter().map(|(_, width)| width + GAP).sum::<usize>()
        };
        while used(&columns) > width {
            let step = |(at, (spec, width)): (usize, &(&ColumnSpec, usize))| {
                let short = spec.short.filter(|(short, _)| short < width);
                match short {
                    Some((short, rank)) if rank > spec.rank => Some((rank, at, Some(short))),
                    _ if spec.column == Column::Name => {
                        let least = least_name(spec);
                        (*width > least).then_some((NAME_RANK, at, Some(least)))
                    }
                    _ => (spec.rank > 0).then_some((spec.rank, at, None)),
                }
            };
            let steps = columns.iter().enumerate().filter_map(step);
            match steps.max_by_key(|(rank, ..)| *rank) {
                Some((_, at, Some(short))) => columns[at].1 = short,
                Some((_, at, None)) => drop(columns.remove(at)),
                None => break,
            }
        }
        let others = columns
            .iter()
            .filter(|(spec, _)| spec.column != Column::Name);
        let others: usize = others.map(|(_, width)| width + GAP).sum();
        for (spec, name) in &mut columns {
            if spec.column == Column::Name {
                *name = width.saturating_sub(MARK_WIDTH + others + GAP);
            }
        }
        Self { columns, width }
    }

    /// Returns the header, with the sign of the sort order.
    pub(crate) fn header(&self, sort: Option<Sort>, theme: &Theme) -> Line<'static> {
        let cell = |(spec, width): &(&ColumnSpec, usize)| {
            let sign = match sort.filter(|sort| sort.column == spec.column) {
                Some(sort) if sort.descending => "▼",
                Some(_) => "▲",
                None => "",
            };
            let gap = if spec.is_right_aligned { "" } else { " " };
            let gap = if sign.is_empty() || spec.header.len() + 2 > *width {
                ""
            } else {
                gap
            };
            // The short form of a column has only a sign.
            let header = if is_short(spec, *width) {
                ""
            } else {
                spec.header
            };
            // The sign is never what is cut.
            let room = width.saturating_sub(sign.chars().count());
            let header = header.get(..room).unwrap_or(header);
            align(&format!("{header}{gap}{sign}"), spec, *width)
        };
        let text: String = self
            .columns
            .iter()
            .map(|column| cell(column) + " ")
            .collect();
        Line::styled(format!(" {text}"), theme.header)
    }

    /// Returns the areas of the header's columns in `area`, for clicks.
    pub(crate) fn header_areas(&self, area: Rect) -> impl Iterator<Item = (Column, Rect)> {
        let mut x = area.x + MARK_WIDTH as u16;
        self.columns.iter().map(move |(spec, width)| {
            let width = u16::try_from(*width).unwrap_or(u16::MAX);
            let column = Rect {
                x,
                width,
                height: area.height.min(1),
                ..area
            };
            x = x.saturating_add(width).saturating_add(GAP as u16);
            (spec.column, column.intersection(area))
        })
    }

    /// Returns a row: `mark`, then the text and style of each column. `name` is what distinguishes its name from others.
    pub(crate) fn row(
        &self,
        mark: &'static str,
        cell: impl Fn(Column) -> (String, Style),
        name: Distinction,
        style: RowStyle,
    ) -> Line<'static> {
        let mut spans = Vec::with_capacity(self.columns.len() + 1);
        spans.push(Span::styled(mark, style.apply(Style::new())));
        let mut used = mark.chars().count();
        for (spec, width) in &self.columns {
            let (text, cell_style) = cell(spec.column);
            let text = match spec.column {
                Column::Name => name.fit(&text, *width),
                Column::Base => format::fit_middle(&text, *width),
                _ if is_short(spec, *width) => {
                    let sign: String = text.chars().take(1).collect();
                    align(&sign, spec, *width)
                }
                _ => align(&text, spec, *width),
            };
            spans.push(Span::styled(format!("{text} "), style.apply(cell_style)));
            used += width + GAP;
        }
        // The selected row is a bar over the whole width.
        spans.push(Span::styled(
            " ".repeat(self.width.saturating_sub(used)),
            style.apply(Style::new()),
        ));
        Line::from(spans)
    }
}

/// Styles of a row that differ from those of others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowStyle {
    /// The style of the selected row.
    pub selected: Option<Style>,
    /// The style of a row that is only the last known state.
    pub stale: Option<Style>,
}

impl RowStyle {
    fn apply(self, style: Style) -> Style {
        let style = match self.selected {
            // Colours would make a patchwork of a reversed row.
            Some(selected) => selected,
            None => style,
        };
        self.stale.map_or(style, |stale| style.patch(stale))
    }
}

/// Returns whether a column has its short form.
fn is_short(spec: &ColumnSpec, width: usize) -> bool {
    spec.short.is_some() && width < spec.width && spec.column != Column::Name
}

fn align(text: &str, spec: &ColumnSpec, width: usize) -> String {
    let text = fit(text, width);
    match spec.is_right_aligned {
        true => {
            let trimmed = text.trim_end();
            format!("{}{trimmed}", " ".repeat(text.len() - trimmed.len()))
        }
        false => text,
    }
}
