//! The host strip: every host with its link and load, the current one marked. If they do not all fit it shows the current
//! one, then the worst, and how many are hidden.

use std::cmp::Reverse;
use std::time::Instant;

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::app::App;
use crate::areas::Areas;
use crate::format::{share_short, short_size};
use crate::lookup;
use crate::pages::hosts::{HIGH_LOAD, load_style};
use crate::theme::Theme;
use crate::widgets::gauge::gauge;
use crate::widgets::link::{format_link, sign_and_words};
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{HostLoad, HostName, SandboxState};

/// The detail shown of each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostDetail {
    /// Name, sign, words, running sandboxes, and the load with bars.
    Bars,
    /// Name, sign, words, running sandboxes, and the load.
    Load,
    /// Name, sign, words, running sandboxes, and the load in percent.
    Brief,
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
    severity: Severity,
}

/// Severity of a host state, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    None,
    /// Memory or the file system of the snapshots is in high use.
    Full,
    Connecting,
    Unreachable,
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

    /// Returns a bar of as many hosts as fit into `room` columns: the current one, then the worst.
    pub(super) fn worst_first(app: &App, room: usize, now: Instant) -> Self {
        let mut chips = chips(app, HostDetail::Signs, now);
        // Hosts that are equally bad keep their order.
        chips.sort_by_key(|chip| (!chip.is_current, Reverse(chip.severity)));
        let hidden = |count: usize| hidden_hosts_text(&chips[count..]);
        let fits = |count: &usize| {
            let shown: usize = chips[..*count].iter().map(HostChip::width).sum();
            shown + hidden(*count).width() <= room
        };
        let more = (1..=chips.len()).take_while(fits).last();
        let count = more.unwrap_or(chips.len().min(1));
        let text = hidden(count);
        let next = chips.get(count).map(|chip| chip.host.clone());
        let mut bar = Self::default();
        for chip in chips.into_iter().take(count) {
            bar.push(chip);
        }
        bar.push_edge(text, next, &app.appearance().theme);
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
            severity: Severity::None,
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

/// Returns how many hosts are hidden, and how many of them are unreachable.
fn hidden_hosts_text(hidden: &[HostChip]) -> String {
    let unreachable = |chip: &&HostChip| chip.severity == Severity::Unreachable;
    let unreachable = match hidden.iter().filter(unreachable).count() {
        0 => String::new(),
        count => format!(" ✗{count}"),
    };
    match hidden.len() {
        0 => String::new(),
        count => format!(" {count} more{unreachable} › "),
    }
}

/// Returns the severity of a host state.
fn severity(host: &HostView, load: Option<HostLoad>) -> Severity {
    let is_full = |load: HostLoad| {
        let memory = load.memory_used_bytes as f64 / load.memory_total_bytes.max(1) as f64;
        let disk = match (load.snapshots_free_bytes, load.snapshots_total_bytes) {
            (Some(free), Some(total)) => 1.0 - free as f64 / total.max(1) as f64,
            _ => 0.0,
        };
        memory.max(disk) >= HIGH_LOAD
    };
    match host.link {
        _ if lookup::is_unreachable(&host.link) => Severity::Unreachable,
        Link::Connecting => Severity::Connecting,
        _ if load.is_some_and(is_full) => Severity::Full,
        _ => Severity::None,
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
            HostDetail::Bars => push_load(&mut spans, host, load, LoadText::Bars, theme),
            HostDetail::Load => push_load(&mut spans, host, load, LoadText::Numbers, theme),
            HostDetail::Brief => push_load(&mut spans, host, load, LoadText::Percent, theme),
            HostDetail::CurrentLoad if is_current => {
                push_load(&mut spans, host, load, LoadText::Numbers, theme);
            }
            _ => {}
        }
        spans.push(Span::raw(" "));
        HostChip {
            host: Some(host.name.clone()),
            spans,
            is_current,
            severity: severity(host, load),
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
            severity: Severity::None,
        });
    }
    chips
}

/// The form of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoadText {
    /// Numbers with bars.
    Bars,
    Numbers,
    /// Few columns.
    Percent,
}

/// Adds how many sandboxes run, and the load of the host if it is known.
fn push_load(
    spans: &mut Vec<Span<'static>>,
    host: &HostView,
    load: Option<HostLoad>,
    form: LoadText,
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
        let gap = if label.is_empty() { "" } else { " " };
        spans.push(Span::styled(format!(" {label}{gap}"), theme.label));
        let style = load_style(share, theme);
        let bar = match form {
            LoadText::Bars => gauge(share, 6) + " ",
            LoadText::Numbers | LoadText::Percent => String::new(),
        };
        spans.push(Span::styled(format!("{bar}{text}"), style));
    };
    let is_brief = form == LoadText::Percent;
    let percent = |share: f64| match is_brief {
        true => format!("{:.0}%", share * 100.0),
        false => format!("{:.0} %", share * 100.0),
    };
    if let Some(permille) = load.cpu_permille {
        let share = f64::from(permille / 10) / 100.0;
        push("cpu", f64::from(permille) / 1000.0, percent(share));
    }
    let (used, total) = (load.memory_used_bytes, load.memory_total_bytes);
    let share = used as f64 / total.max(1) as f64;
    let memory = match is_brief {
        true => percent(share),
        false => share_short(used, total),
    };
    push("mem", share, memory);
    if let (Some(free), Some(total)) = (load.snapshots_free_bytes, load.snapshots_total_bytes) {
        let used = 1.0 - free as f64 / total.max(1) as f64;
        let label = if is_brief { "" } else { "disk" };
        push(label, used, format!("{} free", short_size(free)));
    }
}
