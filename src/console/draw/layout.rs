//! Divides the screen. Lists are as high as their rows need; the details and jobs below take what is left.

use ratatui::layout::Rect;

use crate::actions::Pane;
use crate::log_view::LogFilter;

/// From this height on, details, jobs and log have a border on each side.
const BOXED_HEIGHT: u16 = 30;

/// Minimum height of a page.
const MIN_PAGE: u16 = 4;

/// The facts that the division depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayoutInput {
    pub focus: Pane,
    pub list: Pane,
    pub is_zoomed: bool,
    pub plain: bool,
    /// Lines that the page needs to show all rows, borders included.
    pub page: usize,
    pub jobs: usize,
    pub log: LogFilter,
}

/// The areas of the screen; those of panes that are not shown are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ScreenLayout {
    pub header: Rect,
    pub page: Rect,
    pub details: Rect,
    pub jobs: Rect,
    pub log: Rect,
    pub footer: Rect,
    /// Details, jobs and log have a border on each side.
    pub is_boxed: bool,
}

impl ScreenLayout {
    pub(super) fn new(input: LayoutInput, area: Rect) -> Self {
        let is_boxed = area.height >= BOXED_HEIGHT && !input.plain;
        let available = area.height.saturating_sub(2);
        let heights = match input.is_zoomed {
            true => zoomed(input, available),
            false => divided(input, available, is_boxed),
        };
        let mut y = area.y;
        let mut next = |height: u16| {
            let part = Rect { y, height, ..area };
            y += height;
            part.intersection(area)
        };
        let header = next(1);
        let [page, details, jobs, log] = heights.map(&mut next);
        Self {
            header,
            page,
            details,
            jobs,
            log,
            footer: next(1),
            is_boxed,
        }
    }
}

/// Returns the heights of page, details, jobs and log if the focused one has the whole screen.
fn zoomed(input: LayoutInput, available: u16) -> [u16; 4] {
    match input.focus {
        Pane::Details => [0, available, 0, 0],
        Pane::Jobs => [0, 0, available, 0],
        Pane::Log => [0, 0, 0, available],
        _ => [available, 0, 0, 0],
    }
}

fn divided(input: LayoutInput, available: u16, is_boxed: bool) -> [u16; 4] {
    let edge = if is_boxed { 2 } else { 1 };
    let height = available + 2;
    let job_count = u16::try_from(input.jobs).unwrap_or(u16::MAX);
    let (jobs, most_jobs) = match job_count {
        0 => (0, 0),
        _ if input.list == Pane::JobsPage => (0, 0),
        count => {
            let most = count.saturating_add(edge);
            let usual = match input.focus == Pane::Jobs {
                true => available / 2,
                false => (height / 6).max(2) + edge - 1,
            };
            (usual.min(most), most)
        }
    };
    let log = match input.log {
        LogFilter::Hidden => 0,
        _ if height < 16 => 0,
        LogFilter::Auto if height < 30 => 0,
        _ if input.focus == Pane::Log => (available / 2).max(6 + edge),
        LogFilter::Auto => 5 + edge,
        _ => (5 + edge).min(height / 3),
    };
    let jobs = jobs.min(available.saturating_sub(log + MIN_PAGE + 2));
    let rest = available.saturating_sub(jobs + log);
    // The selection moves through details of all lengths: what they need must not move the lists.
    let reserved = match height {
        _ if input.focus == Pane::Details && height >= 14 => rest / 2,
        20.. => (rest / 3).max(6),
        14.. => 3,
        _ => 2,
    };
    let wanted = u16::try_from(input.page).unwrap_or(u16::MAX);
    let page = wanted
        .min(rest.saturating_sub(reserved))
        .max(MIN_PAGE)
        .min(rest);
    let details = rest - page;
    // Jobs that were cut get what the details have to spare.
    let spare = details.saturating_sub(reserved.max(12));
    let more = spare.min(most_jobs.saturating_sub(jobs));
    [page, details - more, jobs + more, log]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> LayoutInput {
        LayoutInput {
            focus: Pane::Sandboxes,
            list: Pane::Sandboxes,
            is_zoomed: false,
            plain: false,
            page: 8,
            jobs: 0,
            log: LogFilter::Hidden,
        }
    }

    fn heights(input: LayoutInput, height: u16) -> [u16; 4] {
        let layout = ScreenLayout::new(input, Rect::new(0, 0, 120, height));
        [layout.page, layout.details, layout.jobs, layout.log].map(|area| area.height)
    }

    #[test]
    fn lists_take_what_their_rows_need_to_two_thirds() {
        assert_eq!(heights(input(), 40), [8, 30, 0, 0]);
        let many = LayoutInput {
            page: 5000,
            ..input()
        };
        assert_eq!(heights(many, 40), [26, 12, 0, 0]);
        let in_details = LayoutInput {
            focus: Pane::Details,
            ..many
        };
        assert_eq!(heights(in_details, 40), [19, 19, 0, 0]);
    }

    #[test]
    fn a_zoomed_pane_has_the_whole_screen() {
        for (focus, expected) in [
            (Pane::Snapshots, [38, 0, 0, 0]),
            (Pane::Details, [0, 38, 0, 0]),
            (Pane::Jobs, [0, 0, 38, 0]),
            (Pane::Log, [0, 0, 0, 38]),
        ] {
            let zoomed = LayoutInput {
                focus,
                is_zoomed: true,
                ..input()
            };
            assert_eq!(heights(zoomed, 40), expected);
        }
    }

    #[test]
    fn every_size_is_divided_without_overlap() {
        for height in 10..80 {
            for page in [0, 3, 10, 1000] {
                for jobs in [0, 1, 7, 500] {
                    for focus in [Pane::Sandboxes, Pane::Details, Pane::Jobs, Pane::Log] {
                        let log = LogFilter::Info;
                        let input = LayoutInput {
                            focus,
                            page,
                            jobs,
                            log,
                            ..input()
                        };
                        let heights = heights(input, height);
                        assert_eq!(heights.iter().sum::<u16>(), height - 2, "{input:?}");
                        assert!(heights[0] >= 4, "{height} {input:?}");
                    }
                }
            }
        }
    }
}
