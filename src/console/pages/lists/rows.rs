//! Builds the visible rows of a list: items, and families of versions with their sums.

use ratatui::style::Style;
use ratatui::text::Line;

use crate::actions::Pane;
use crate::columns::{Column, Row, Value};
use crate::families::Family;
use crate::format::{self, Distinction, short_size};
use crate::list::List;
use crate::pages::DrawContext;
use crate::widgets::table::{RowStyle, TableLayout};

pub(super) struct RowBuilder<'a> {
    pub context: &'a DrawContext<'a>,
    pub pane: Pane,
    pub height: usize,
    pub table: TableLayout,
}

/// The content of a row.
enum Content<'a, R> {
    Item(&'a R),
    /// A version below the row of its family.
    Version(&'a R),
    Family(&'a Family, Vec<&'a R>),
}

impl<R: Row> Content<'_, R> {
    fn name(&self) -> String {
        match self {
            Self::Item(item) => item.text().to_owned(),
            Self::Version(item) => {
                let family = item.family().map_or(0, str::len);
                let version = item.text().get(family..).unwrap_or_default();
                let version = version.trim_start_matches(['-', '_', '.']);
                let version = if version.is_empty() {
                    item.text()
                } else {
                    version
                };
                format!("  {version}")
            }
            Self::Family(family, items) => {
                let sign = if family.is_folded { '+' } else { '-' };
                let count = format::number(items.len());
                format!("{sign} {} · {count}", family.name)
            }
        }
    }

    fn items(&self) -> &[&R] {
        match self {
            Self::Item(item) | Self::Version(item) => std::slice::from_ref(item),
            Self::Family(_, items) => items,
        }
    }
}

impl RowBuilder<'_> {
    /// Returns the index of the first visible row, and the visible rows.
    pub(super) fn rows<R: Row>(
        &self,
        items: &[R],
        list: &List<R::Key>,
        cell: impl Fn(&R, Column) -> (String, Style),
        is_stale: impl Fn(&R) -> bool,
    ) -> (usize, Vec<Line<'static>>) {
        let window = list.window(self.height);
        let content = |row: usize| {
            if let Some(family) = list.family(row) {
                let versions = family.items.iter();
                let versions = versions.filter_map(|item| items.get(*item as usize));
                return Some((row, Content::Family(family, versions.collect())));
            }
            let item = items.get(list.item(row)?)?;
            Some(match list.is_version(row) {
                true => (row, Content::Version(item)),
                false => (row, Content::Item(item)),
            })
        };
        let rows: Vec<(usize, Content<'_, R>)> = window.clone().filter_map(content).collect();
        let names: Vec<String> = rows.iter().map(|(_, content)| content.name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let distinctions = Distinction::between(&names);
        let lines = rows.iter().zip(&names).zip(distinctions);
        let line = |(((row, content), name), distinction): ((&(usize, _), &&str), _)| {
            let content: &Content<'_, R> = content;
            let is_selected = *row == list.row();
            let items = content.items();
            let is_marked = items.iter().all(|item| list.is_marked(item.key()));
            let style = RowStyle {
                selected: self.selection_style(is_selected),
                stale: items
                    .iter()
                    .all(|item| is_stale(item))
                    .then_some(self.context.appearance.theme.dim),
            };
            let cell = |column| {
                let (text, style) = match content {
                    Content::Item(item) | Content::Version(item) => cell(item, column),
                    Content::Family(_, items) => self.family_cell(items, column),
                };
                match column {
                    Column::Name => ((*name).to_owned(), style),
                    _ => (text, style),
                }
            };
            let mark = self.mark(is_marked, is_selected);
            self.table.row(mark, cell, distinction, style)
        };
        (window.start, lines.map(line).collect())
    }

    fn mark(&self, is_marked: bool, is_selected: bool) -> &'static str {
        match (is_marked, self.context.appearance.plain) {
            (true, false) => "▸",
            (false, false) => " ",
            // Without styles the selection and the marks are words.
            (true, true) if is_selected => "> marked ",
            (false, true) if is_selected => "> ",
            (true, true) => "  marked ",
            (false, true) => "  ",
        }
    }

    fn selection_style(&self, is_selected: bool) -> Option<Style> {
        let theme = &self.context.appearance.theme;
        match (is_selected, self.context.focus == self.pane) {
            (true, true) => Some(theme.selected),
            (true, false) if self.context.list == self.pane => Some(theme.selected_inactive),
            _ => None,
        }
    }

    /// Returns the sum of the versions in a column.
    fn family_cell<R: Row>(&self, items: &[&R], column: Column) -> (String, Style) {
        let theme = &self.context.appearance.theme;
        let text = match (column, sum(items, column)) {
            (Column::Size, sum) => short_size(sum),
            (Column::Dependents, 0) => return ("-".to_owned(), theme.dim),
            (Column::Dependents, sum) => format!("⌂{sum}"),
            _ => String::new(),
        };
        (text, theme.title)
    }
}

/// Returns the sum of the numbers in a column.
pub(super) fn sum<R: Row>(items: &[&R], column: Column) -> u64 {
    let numbers = items.iter().map(|item| match item.value(column) {
        Some(Value::Number(number)) => number,
        _ => 0,
    });
    numbers.fold(0, u64::saturating_add)
}
