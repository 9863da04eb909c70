//! Draws the thumbnails in a grid.

use ratatui::Frame;
use ratatui::layout::{Rect, Size};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui_image::Image;

use super::{Grid, Wall, WallItem};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::format::{age, clip, fit_middle};
use crate::pages::frame::{empty_line, page_border};
use crate::pages::lists::{state_sign, state_style};
use crate::pages::{DrawContext, Page};
use crate::widgets::text;

/// Width of a thumbnail with its border, at least.
const MIN_WIDTH: u16 = 30;

pub(super) fn draw(
    wall: &Wall,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let border = page_border(context, Pane::Wall, &wall.summary(Pane::Wall), area.width);
    let inner = border.draw(frame, area);
    let count = wall.list.len();
    let grid = divide(count, wall.list.row(), wall.list.offset, inner);
    wall.grid.set(grid);
    areas.panes.push((Pane::Wall, inner, grid.first));
    if count == 0 {
        let is_empty = wall.items.is_empty();
        text::draw_lines(
            frame,
            inner,
            &[empty_line(context, is_empty, " no guest is running")],
        );
        return;
    }
    let columns = u16::try_from(grid.columns).unwrap_or(1).max(1);
    let size = Size::new(inner.width / columns, grid.picture.height + 2);
    for at in 0..grid.count {
        let row = grid.first + at;
        let item = wall.list.item(row).and_then(|item| wall.items.get(item));
        let Some(item) = item else { break };
        let (x, y) = (at % grid.columns, at / grid.columns);
        let cell = Rect {
            x: inner.x + size.width * u16::try_from(x).unwrap_or(0),
            y: inner.y + size.height * u16::try_from(y).unwrap_or(0),
            width: size.width,
            height: size.height,
        };
        draw_thumbnail(
            context,
            frame,
            cell.intersection(inner),
            item,
            row == wall.list.row(),
        );
    }
}

/// Returns the grid that fits into `area`, with the selected thumbnail.
fn divide(count: usize, selected: usize, offset: usize, area: Rect) -> Grid {
    let most = usize::from((area.width / MIN_WIDTH).max(1));
    // Few guests get large pictures, but all rows fit if possible.
    let height_of = |columns: usize| {
        let width = area.width / u16::try_from(columns).unwrap_or(1).max(1);
        let inner = width.saturating_sub(2);
        // 16:9, and a cell is twice as high as wide.
        (width, (inner * 9).div_ceil(32).max(2))
    };
    let fits = |columns: &usize| {
        let rows = count.div_ceil(*columns);
        rows * usize::from(height_of(*columns).1 + 2) <= usize::from(area.height)
    };
    let columns = (1..=most).find(fits).unwrap_or(most);
    // One row uses the whole width.
    let columns = columns.min(count.max(1));
    let (width, height) = height_of(columns);
    let height = height.min(area.height.saturating_sub(2));
    let rows = usize::from(area.height / (height + 2).max(1)).max(1);
    let all_rows = count.div_ceil(columns);
    let current = selected / columns;
    let first = (offset / columns)
        .min(current)
        .min(all_rows.saturating_sub(rows));
    let first = first.max((current + 1).saturating_sub(rows));
    Grid {
        columns,
        first: first * columns,
        count: (rows * columns).min(count.saturating_sub(first * columns)),
        picture: Size::new(width.saturating_sub(2), height),
    }
}

fn draw_thumbnail(
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    item: &WallItem,
    is_selected: bool,
) {
    let theme = &context.appearance.theme;
    let (id, host) = &item.key;
    let style = match is_selected {
        true => theme.focus,
        false => theme.border,
    };
    let several = context.world.view().hosts.len() > 1;
    let name = match several {
        true => format!("{id} · {host}"),
        false => id.to_string(),
    };
    let room = usize::from(area.width).saturating_sub(6);
    let name = match name.len() > room {
        true => fit_middle(&name, room),
        false => name,
    };
    let mark = if is_selected && context.appearance.plain {
        ">"
    } else {
        ""
    };
    let title = Line::from(vec![
        Span::styled(
            format!(" {mark}{} ", state_sign(item.state)),
            // A title is drawn over its border, which may be dim.
            state_style(item.state, theme).remove_modifier(Modifier::DIM),
        ),
        Span::styled(
            format!("{name} "),
            if is_selected {
                theme.focus
            } else {
                theme.heading
            },
        ),
    ]);
    let inner = context
        .appearance
        .border(style)
        .title(title)
        .draw(frame, area);
    let key = (host.clone(), id.clone());
    let fits = |size: Size| size.width <= inner.width && size.height <= inner.height;
    let thumbnail = context.world.thumbnail(&key);
    if let Some(image) = thumbnail.filter(|image| fits(image.size)) {
        let place = Rect {
            x: inner.x + (inner.width - image.size.width) / 2,
            y: inner.y + (inner.height - image.size.height) / 2,
            width: image.size.width,
            height: image.size.height,
        };
        return frame.render_widget(Image::new(&image.protocol), place);
    }
    let text = match context.world.screens().get(&key) {
        Some(screen) if screen.error.is_some() => match screen.taken_at {
            Some(at) => {
                let span = context.now.saturating_duration_since(at);
                format!("no answer for {}", age(span))
            }
            None => "no picture".to_owned(),
        },
        _ => "screen…".to_owned(),
    };
    let middle = Rect {
        y: inner.y + inner.height / 2,
        height: inner.height.min(1),
        ..inner
    };
    let line = Line::styled(clip(&text, usize::from(inner.width)), theme.dim);
    frame.render_widget(line.centered(), middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_shows_all_guests_if_they_fit_and_the_selected_one_always() {
        let area = Rect::new(0, 0, 120, 36);
        let one = divide(1, 0, 0, area);
        assert_eq!((one.columns, one.count), (1, 1));
        let two = divide(2, 0, 0, Rect::new(0, 0, 118, 17));
        assert_eq!((two.columns, two.picture), (2, Size::new(57, 15)));
        let twelve = divide(12, 11, 0, area);
        assert_eq!((twelve.columns, twelve.first, twelve.count), (4, 0, 12));
        for count in 1..60 {
            for selected in 0..count {
                for height in [3, 10, 36, 90] {
                    let grid = divide(count, selected, 0, Rect::new(0, 0, 120, height));
                    let visible = grid.first..grid.first + grid.count;
                    assert!(visible.contains(&selected), "{count} {selected} {grid:?}");
                    assert!(grid.picture.height + 2 <= height.max(4));
                }
            }
        }
    }
}
