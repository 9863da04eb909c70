//! Draws the hosts as a table with bars.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{HostItem, Hosts};
use crate::actions::Pane;
use crate::areas::Areas;
use crate::columns::{Column, HOST_COLUMNS, Row};
use crate::format::{self, Distinction, short_size, size, wrap};
use crate::lookup;
use crate::pages::frame::{empty_line, page_border};
use crate::pages::{DrawContext, Page};
use crate::theme::Theme;
use crate::widgets::chart::{Chart, Curve, Scale, window};
use crate::widgets::gauge::gauge;
use crate::widgets::link::format_link;
use crate::widgets::table::{RowStyle, TableLayout};
use crate::widgets::text;
use snapdeck_engine::Link;
use snapdeck_model::{HostLoad, HostName};

/// Width of a bar, in columns.
const BAR: usize = 8;
const DETAILS_BAR: usize = 30;
const SHORT_DETAILS_BAR: usize = 10;
/// The width from which on bars in the details have the whole length.
const WIDE: usize = 90;

pub(super) fn draw(
    page: &Hosts,
    context: &DrawContext<'_>,
    frame: &mut Frame,
    area: Rect,
    areas: &mut Areas,
) {
    let theme = &context.appearance.theme;
    let border = page_border(context, Pane::Hosts, &page.summary(Pane::Hosts), area.width);
    let inner = border.draw(frame, area);
    let [header, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    let table = TableLayout::new(
        HOST_COLUMNS,
        usize::from(inner.width),
        (page.widest(), 0),
        |_| true,
    );
    text::draw_lines(
        frame,
        header,
        &[table.header(page.sort(Pane::Hosts), theme)],
    );
    let headers = table.header_areas(header);
    let sortable = headers.filter(|(column, _)| column.is_sortable());
    areas
        .headers
        .extend(sortable.map(|(column, area)| (Pane::Hosts, column, area)));
    let window = page.list.window(usize::from(body.height));
    areas.panes.push((Pane::Hosts, body, window.start));
    let rows = window.filter_map(|row| Some((row, page.items.get(page.list.item(row)?)?)));
    let rows: Vec<(usize, &HostItem)> = rows.collect();
    let names: Vec<&str> = rows.iter().map(|(_, item)| item.text()).collect();
    let distinctions = Distinction::between(&names);
    let line = |((row, item), distinction): ((usize, &HostItem), Distinction)| {
        let is_selected = row == page.list.row();
        let mark = if is_selected && context.appearance.plain {
            ">"
        } else {
            " "
        };
        let style = RowStyle {
            selected: is_selected.then_some(match context.focus == Pane::Hosts {
                true => theme.selected,
                false => theme.selected_inactive,
            }),
            stale: lookup::is_stale(&item.host.link, item.host.last_scan).then_some(theme.dim),
        };
        table.row(
            mark,
            |column| cell(item, context, column),
            distinction,
            style,
        )
    };
    let mut lines: Vec<Line> = rows.into_iter().zip(distinctions).map(line).collect();
    if lines.is_empty() {
        lines.push(empty_line(
            context,
            page.items.is_empty(),
            " no host configured",
        ));
    }
    text::draw_lines(frame, body, &lines);
}

fn cell(item: &HostItem, context: &DrawContext<'_>, column: Column) -> (String, Style) {
    let theme = &context.appearance.theme;
    let host = &item.host;
    let since = context.world.link_since(&host.name);
    let (sign, words, link_style) =
        format_link(&host.link, host.last_scan, since, context.now, theme);
    let plain = context.appearance.plain;
    let unknown = || ("-".to_owned(), theme.dim);
    match column {
        Column::Sign => (sign.to_owned(), link_style),
        Column::Name => (host.name.to_string(), theme.title),
        Column::State => match words.is_empty() {
            true => ("reachable".to_owned(), link_style),
            false => (words, link_style),
        },
        Column::Dependents => (
            format!("{}/{}", item.running, host.sandboxes.len()),
            theme.number,
        ),
        Column::Cpus => match item
            .load
            .and_then(|load| Some((load.cpu_permille?, load.cpus)))
        {
            Some((permille, cpus)) => {
                let share = f64::from(permille) / 1000.0;
                bar(
                    share,
                    &format!("{:>3.0} % of {cpus}", share * 100.0),
                    plain,
                    theme,
                )
            }
            None => unknown(),
        },
        Column::Memory => match item.load {
            Some(load) => {
                let share = share(load.memory_used_bytes, load.memory_total_bytes);
                let text = format::share_short(load.memory_used_bytes, load.memory_total_bytes);
                bar(share, &text, plain, theme)
            }
            None => unknown(),
        },
        Column::Size => match item
            .load
            .and_then(|load| Some((load.snapshots_free_bytes?, load.snapshots_total_bytes?)))
        {
            Some((free, total)) => {
                let used = share(total.saturating_sub(free), total);
                bar(used, &format!("{} free", short_size(free)), plain, theme)
            }
            None => unknown(),
        },
        Column::Base => {
            let bytes = host.snapshots.iter().map(|snapshot| snapshot.size_bytes);
            let bytes = bytes.fold(0, u64::saturating_add);
            (
                format!("{} · {}", host.snapshots.len(), short_size(bytes)),
                theme.number,
            )
        }
        _ => (String::new(), theme.text),
    }
}

fn share(part: u64, total: u64) -> f64 {
    part as f64 / total.max(1) as f64
}

/// Returns a bar with a text after it, in the colour of how full it is.
fn bar(share: f64, text: &str, plain: bool, theme: &Theme) -> (String, Style) {
    let style = load_style(share, theme);
    match plain {
        true => (text.to_owned(), style),
        false => (format!("{} {text}", gauge(share, BAR)), style),
    }
}

/// The share from which a load is shown as high.
pub(crate) const HIGH_LOAD: f64 = 0.85;

/// Returns the style of a share that is in use.
pub(crate) fn load_style(share: f64, theme: &Theme) -> Style {
    match share {
        share if share >= 0.95 => theme.bad,
        share if share >= HIGH_LOAD => theme.warn,
        _ => theme.meter,
    }
}

/// Returns the style of a bar of a share that is in use. In a reversed style it would look empty.
pub(crate) fn bar_style(share: f64, theme: &Theme) -> Style {
    load_style(share, theme).remove_modifier(Modifier::REVERSED)
}

pub(super) fn details(
    item: &HostItem,
    context: &DrawContext<'_>,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &context.appearance.theme;
    let host = &item.host;
    let mut lines = vec![Line::from(vec![
        Span::styled(format!(" {}", host.name), theme.title),
        Span::styled(format!("  {}", host.uri), theme.dim),
    ])];
    if let Link::Down(error) = &host.link {
        for line in wrap(&format!("✗ {error}"), width.saturating_sub(1)) {
            lines.push(Line::styled(format!(" {line}"), theme.bad));
        }
    }
    let bar_width = match width {
        ..WIDE => SHORT_DETAILS_BAR,
        _ => DETAILS_BAR,
    };
    let mut push = |label: &str, share: Option<f64>, text: String| {
        let bar = share.filter(|_| !context.appearance.plain);
        let bar = bar.map_or(Span::raw(""), |share| {
            Span::styled(gauge(share, bar_width) + "  ", bar_style(share, theme))
        });
        lines.push(Line::from(vec![
            Span::styled(format!("   {label:<10}"), theme.label),
            bar,
            Span::raw(text),
        ]));
    };
    if let Some(load) = item.load {
        if let Some(permille) = load.cpu_permille {
            let cpus = format::count(load.cpus as usize, "CPU");
            let text = format!("{} % of {cpus}", permille / 10);
            push("CPU", Some(f64::from(permille) / 1000.0), text);
        }
        let (used, total) = (load.memory_used_bytes, load.memory_total_bytes);
        let text = format!("{} of {} in use", size(used), size(total));
        push("memory", Some(share(used, total)), text);
        if let (Some(free), Some(total)) = (load.snapshots_free_bytes, load.snapshots_total_bytes) {
            let text = format!("{} of {} free for snapshots", size(free), size(total));
            push("disk", Some(share(total.saturating_sub(free), total)), text);
        }
    }
    let running = format!("{}, {} running", host.sandboxes.len(), item.running);
    push("sandboxes", None, running);
    let snapshots = host.snapshots.iter();
    let bytes = snapshots.map(|snapshot| snapshot.size_bytes);
    let bytes = bytes.fold(0, u64::saturating_add);
    let snapshots = format!("{}, {}", host.snapshots.len(), size(bytes));
    push("snapshots", None, snapshots);
    for lock in host.locks.iter() {
        let holder = match lock.holder.is_empty() {
            true => String::new(),
            false => format!(", by {}", lock.holder),
        };
        push("busy", None, format!("{}{holder}", lock.job));
    }
    if let Some(method) = host.running_method {
        push(
            "running",
            None,
            format!("disks of running sandboxes are read by {}", method.as_str()),
        );
    }
    lines
}

/// Returns the charts of CPU and memory of a host; none if they were not sampled twice.
pub(crate) fn charts(context: &DrawContext<'_>, host: &HostName) -> Vec<Chart> {
    let history = context.world.load_history(host);
    let load = context.world.load(host).filter(|_| history.len() > 1);
    let Some(load) = load else {
        return Vec::new();
    };
    let style = context.appearance.theme.curves[0];
    let curve = |legend: String, value: &dyn Fn(&HostLoad) -> Option<f64>| Curve {
        points: history
            .iter()
            .filter_map(|(age, load)| Some((*age, value(load)?)))
            .collect(),
        legend,
        style,
    };
    let chart = |title: &str, scale, curve| Chart {
        title: format!("{title} of {host}"),
        curves: vec![curve],
        scale,
        window: window(history.first().map_or(0.0, |(age, _)| *age)),
        end: "now",
    };
    let cpu = load.cpu_permille.map(|permille| {
        let legend = format!("{} %", permille / 10);
        curve(legend, &|load| Some(f64::from(load.cpu_permille?) / 1000.0))
    });
    let cpu = cpu.map(|cpu| chart("CPU", Scale::Percent, cpu));
    let used = |load: &HostLoad| Some(load.memory_used_bytes as f64);
    let memory = curve(size(load.memory_used_bytes), &used);
    let total = Scale::Bytes(load.memory_total_bytes);
    let memory = chart("memory", total, memory);
    cpu.into_iter().chain([memory]).collect()
}
