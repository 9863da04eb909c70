//! The host strip: every host with its link and load, the current one marked. If they do not all fit it shows those around
//! the current one, and how many are hidden at each end.

use std::time::Instant;

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::app::App;
use crate::areas::Areas;
use crate::format::{share_short, short_size};
use crate::lookup;
use crate::pages::hosts::load_style;
use crate::theme::Theme;
use crate::widgets::gauge::gauge;
use crate::widgets::link::{format_link, sign_and_words};
use snapdeck_engine::HostView;
use snapdeck_model::{HostLoad, HostName, SandboxState};

/// The detail shown of each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostDetail {
    /// Name, sign, words, running sandboxes, and the load with bars.
    Bars,
    /// Name, sign, words, running sandboxes, and the load.
    Load,
    /// Name, sign and words; running sandboxes and the load of the current host.
    CurrentLoad,
    /// Name, sign, words and the current one's URI.
    Uris,
    /// Name, sign and words.
    Words,
    /// Name and sign, words of the current one.
    CurrentWords,
    /// Name and sign.
    Signs,
}

struct HostChip {
    /// `None`: the chip of all hosts.
    host: Option<HostName>,
    spans: Vec<Span<'static>>,
    is_current: bool,
    is_unreachable: bool,
}

impl HostChip {
    fn width(&self) -> usize {
        self.spans.iter().map(|span| span.content.width()).sum()
    }
}

/// The bar, with the hosts that a click on its columns selects.
#[derive(Default)]
pub(super) struct HostBar {
    spans: Vec<Span<'static>>,
    width: usize,
    click_targets: Vec<(Option<HostName>, usize, usize)>,
}

impl HostBar {
    pub(super) fn all_hosts(app: &App, detail: HostDetail, now: Instant) -> Self {
        let mut bar = Self::default();
        for chip in chips(app, detail, now) {
            bar.push(chip);
        }
        bar
    }

    /// Returns a bar of as many hosts as fit into `room` columns, the current one among them.
    pub(super) fn around_current(app: &App, room: usize, now: Instant) -> Self {
        let chips = chips(app, HostDetail::Signs, now);
        let current = chips.iter().position(|chip| chip.is_current).unwrap_or(0);
        let unreachable =
            |chips: &[HostChip]| chips.iter().filter(|chip| chip.is_unreachable).count();
        let (mut start, mut end) = (current, (current + 1).min(chips.len()));
        let edges = |start: usize, end: usize| {
            let (before, after) = (&chips[..start], &chips[end..]);
            [
                hidden_hosts_text(before.len(), unreachable(before), true),
                hidden_hosts_text(after.len(), unreachable(after), false),
            ]
        };
        let fits = |start: usize, end: usize| {
            let inner: usize = chips[start..end].iter().map(HostChip::width).sum();
            let edges = edges(start, end);
            inner + edges[0].width() + edges[1].width() <= room
        };
        loop {
            if end < chips.len() && fits(start, end + 1) {
                end += 1;
            } else if start > 0 && fits(start - 1, end) {
                start -= 1;
            } else {
                break;
            }
        }
        let theme = &app.appearance().theme;
        let [left, right] = edges(start, end);
        let host_at = |at: Option<usize>| {
            at.and_then(|at| chips.get(at))
                .map(|chip| chip.host.clone())
        };
        let (before, after) = (host_at(start.checked_sub(1)), host_at(Some(end)));
        let mut bar = Self::default();
        bar.push_edge(left, before, theme);
        for chip in chips.into_iter().skip(start).take(end - start) {
            bar.push(chip);
        }
        bar.push_edge(right, after, theme);
        bar
    }

    fn push_edge(&mut self, text: String, target: Option<Option<HostName>>, theme: &Theme) {
        let Some(host) = target.filter(|_| !text.is_empty()) else {
            return;
        };
        self.push(HostChip {
            host,
            spans: vec![Span::styled(text, theme.key)],
            is_current: false,
            is_unreachable: false,
        });
    }

    fn push(&mut self, chip: HostChip) {
        let width = chip.width();
        self.click_targets.push((chip.host, self.width, width));
        self.width += width;
        self.spans.extend(chip.spans);
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Returns the bar as a line for `area` and registers the visible hosts for clicks.
    pub(super) fn into_line(self, area: Rect, areas: &mut Areas) -> Line<'static> {
        for (host, from, width) in self.click_targets {
            let column = |at: usize| area.x.saturating_add(u16::try_from(at).unwrap_or(u16::MAX));
            let columns = Rect {
                x: column(from),
                width: column(from + width) - column(from),
                ..area
            };
            areas.hosts.push((host, columns.intersection(area)));
        }
        Line::from(self.spans)
    }
}

/// Returns how many hosts are hidden at one end, and how many of them are unreachable.
fn hidden_hosts_text(count: usize, unreachable: usize, left: bool) -> String {
    let unreachable = match unreachable {
        0 => String::new(),
        count => format!(" ✗{count}"),
    };
    match (count, left) {
        (0, _) => String::new(),
        (_, true) => format!(" ‹{count}{unreachable} "),
        (_, false) => format!(" {count}{unreachable}› "),
    }
}

fn chips(app: &App, detail: HostDetail, now: Instant) -> Vec<HostChip> {
    let theme = &app.appearance().theme;
    let several = app.view().hosts.len() > 1;
    let scope = app.world().scope();
    let current = scope.as_ref();
    let name = |name: &str, is_current: bool| {
        let style = match is_current && several {
            true => theme.selected,
            false => theme.title,
        };
        vec![Span::raw(" "), Span::styled(name.to_owned(), style)]
    };
    let chip = |host: &HostView| {
        let is_current = current == Some(&host.name);
        let mut spans = name(host.name.as_str(), is_current);
        let since = app.world().link_since(&host.name);
        let (sign, words, style) = format_link(&host.link, host.last_scan, since, now, theme);
        let words = match detail {
            HostDetail::CurrentWords if !is_current => "",
            HostDetail::Signs => "",
            _ => &words,
        };
        spans.extend(sign_and_words(sign, words, style));
        if detail == HostDetail::Uris && is_current {
            spans.push(Span::styled(format!(" {}", host.uri), theme.dim));
        }
        let load = app.world().load(&host.name);
        match detail {
            HostDetail::Bars => push_load(&mut spans, host, load, true, theme),
            HostDetail::Load => push_load(&mut spans, host, load, false, theme),
            HostDetail::CurrentLoad if is_current => {
                push_load(&mut spans, host, load, false, theme)
            }
            _ => {}
        }
        spans.push(Span::raw(" "));
        HostChip {
            host: Some(host.name.clone()),
            spans,
            is_current,
            is_unreachable: lookup::is_unreachable(&host.link),
        }
    };
    let mut chips: Vec<HostChip> = app.view().hosts.iter().map(|host| chip(host)).collect();
    if several {
        let is_current = app.world().shows_all_hosts();
        let mut spans = name("all", is_current);
        spans.push(Span::raw(" "));
        chips.push(HostChip {
            host: None,
            spans,
            is_current,
            is_unreachable: false,
        });
    }
    chips
}

/// Adds how many sandboxes run, and the load of the host if it is known.
fn push_load(
    spans: &mut Vec<Span<'static>>,
    host: &HostView,
    load: Option<HostLoad>,
    bars: bool,
    theme: &Theme,
) {
    if !host.sandboxes.is_empty() {
        let sandboxes = host.sandboxes.iter();
        let running = sandboxes.filter(|sandbox| sandbox.state == SandboxState::Running);
        let text = format!(" {}/{}", running.count(), host.sandboxes.len());
        spans.push(Span::styled(text, theme.text));
    }
    let Some(load) = load else { return };
    let mut push = |label: &str, share: f64, text: String| {
        spans.push(Span::styled(format!(" {label} "), theme.dim));
        let style = load_style(share, theme);
        let bar = if bars {
            gauge(share, 6) + " "
        } else {
            String::new()
        };
        spans.push(Span::styled(format!("{bar}{text}"), style));
    };
    if let Some(permille) = load.cpu_permille {
        push(
            "cpu",
            f64::from(permille) / 1000.0,
            format!("{} %", permille / 10),
        );
    }
    let (used, total) = (load.memory_used_bytes, load.memory_total_bytes);
    push(
        "mem",
        used as f64 / total.max(1) as f64,
        share_short(used, total),
    );
    if let (Some(free), Some(total)) = (load.snapshots_free_bytes, load.snapshots_total_bytes) {
        let used = 1.0 - free as f64 / total.max(1) as f64;
        push("disk", used, format!("{} free", short_size(free)));
    }
}
