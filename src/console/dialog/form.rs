//! Forms: fields with a tab order, for dialogs that only declare fields and read their values.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::control::{Control, rotate};
use super::{Content, TextInput};

#[derive(Debug)]
struct Field<F> {
    id: F,
    label: String,
    control: Control,
    is_shown: bool,
    is_enabled: bool,
}

/// A form, with an id for each field.
#[derive(Debug)]
pub(super) struct Form<F> {
    fields: Vec<Field<F>>,
    focus: usize,
}

/// A form's reply to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FormReply<F> {
    Ignored,
    Handled,
    /// The value of this field has changed.
    Changed(F),
    /// Enter was pressed.
    Submit,
}

impl<F: Clone + PartialEq> Form<F> {
    /// Returns a form of these fields in tab order; the first one has the focus.
    pub(super) fn new(fields: impl IntoIterator<Item = (F, &'static str, Control)>) -> Self {
        let mut form = Self {
            fields: Vec::new(),
            focus: 0,
        };
        for (id, label, control) in fields {
            form.add(id, label, control);
        }
        form
    }

    fn add(&mut self, id: F, label: &str, control: Control) {
        self.fields.push(Field {
            id,
            label: label.to_owned(),
            control,
            is_shown: true,
            is_enabled: true,
        });
    }

    /// Adds a field before the last one.
    pub(super) fn insert_before_last(&mut self, id: F, control: Control) {
        self.add(id, "", control);
        let last = self.fields.len() - 1;
        if last > 0 {
            self.fields.swap(last - 1, last);
            self.focus += usize::from(self.focus == last - 1);
        }
    }

    fn field(&self, id: &F) -> Option<&Field<F>> {
        self.fields.iter().find(|field| field.id == *id)
    }

    fn field_mut(&mut self, id: &F) -> Option<&mut Field<F>> {
        self.fields.iter_mut().find(|field| field.id == *id)
    }

    pub(super) fn contains(&self, id: &F) -> bool {
        self.field(id).is_some()
    }

    pub(super) fn show(&mut self, id: &F, is_shown: bool) {
        if let Some(field) = self.field_mut(id) {
            field.is_shown = is_shown;
        }
    }

    /// Shows a field with this label, dimmed if it is not `enabled`.
    pub(super) fn set_label(&mut self, id: &F, label: String, enabled: bool) {
        if let Some(field) = self.field_mut(id) {
            (field.label, field.is_enabled) = (label, enabled);
        }
    }

    /// Sets what must be typed to confirm; `None` hides the field.
    pub(super) fn set_phrase(&mut self, id: &F, wanted: Option<String>) {
        if let Some(field) = self.field_mut(id) {
            field.is_shown = wanted.is_some();
            if let (Control::Phrase { phrase, .. }, Some(wanted)) = (&mut field.control, wanted) {
                *phrase = wanted;
            }
        }
    }

    /// Sets the number of matches of a search.
    pub(super) fn set_match_count(&mut self, id: &F, number: usize) {
        if let Some(Control::Search { at, count, .. }) =
            self.field_mut(id).map(|field| &mut field.control)
        {
            *count = number;
            *at = (*at).min(number.saturating_sub(1));
        }
    }

    /// Proposes a text if the field is empty or has only a proposed one.
    pub(super) fn propose(&mut self, id: &F, text: &str) {
        let input = self
            .field_mut(id)
            .and_then(|field| field.control.input_mut());
        if let Some(input) = input.filter(|input| input.is_selected() || input.text().is_empty()) {
            *input = TextInput::proposed(text);
        }
    }

    pub(super) fn check(&mut self, id: &F, checked: bool) {
        if let Some(Control::CheckBox(value)) = self.field_mut(id).map(|field| &mut field.control) {
            *value = checked;
        }
    }

    pub(super) fn is_checked(&self, id: &F) -> bool {
        let control = self.field(id).map(|field| &field.control);
        matches!(control, Some(Control::CheckBox(true)))
    }

    pub(super) fn text(&self, id: &F) -> &str {
        let input = self.field(id).and_then(|field| field.control.input());
        input.map_or("", TextInput::text)
    }

    /// Returns the number of a field, or `None` if it is empty.
    ///
    /// # Errors
    /// If the number is 0 or too large.
    pub(super) fn number(&self, id: &F) -> Result<Option<u32>, ()> {
        match self.text(id).trim() {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(()),
            },
        }
    }

    /// Returns the chosen option or match.
    pub(super) fn chosen(&self, id: &F) -> usize {
        match self.field(id).map(|field| &field.control) {
            Some(Control::Choice { at, .. } | Control::Search { at, .. }) => *at,
            _ => 0,
        }
    }

    /// Returns whether a shown phrase was typed.
    pub(super) fn is_confirmed(&self, id: &F) -> bool {
        self.field(id).is_some_and(|field| match &field.control {
            Control::Phrase { phrase, input } => field.is_shown && input.text().trim() == phrase,
            _ => false,
        })
    }

    pub(super) fn focus_on(&mut self, id: &F) {
        let found = self.fields.iter().position(|field| field.id == *id);
        self.focus = found.unwrap_or(self.focus);
    }

    pub(super) fn focused(&self) -> Option<&F> {
        Some(&self.fields.get(self.focus_index()?)?.id)
    }

    /// Returns the field with the focus: the first shown one if it is hidden.
    fn focus_index(&self) -> Option<usize> {
        let is_shown = |index: &usize| self.fields.get(*index).is_some_and(|field| field.is_shown);
        let first = || self.fields.iter().position(|field| field.is_shown);
        Some(self.focus).filter(is_shown).or_else(first)
    }

    /// Moves the focus to the next or the previous shown field; returns false if there is only one.
    fn move_focus(&mut self, by: isize) -> bool {
        let fields = self.fields.iter().enumerate();
        let shown: Vec<usize> = fields
            .filter(|(_, field)| field.is_shown)
            .map(|(index, _)| index)
            .collect();
        let focus = self.focus_index();
        let at = shown.iter().position(|index| Some(*index) == focus);
        match at {
            Some(at) if shown.len() > 1 => self.focus = shown[rotate(at, by, shown.len())],
            _ => return false,
        }
        true
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> FormReply<F> {
        let moved = match key.code {
            KeyCode::Enter => return FormReply::Submit,
            KeyCode::Tab | KeyCode::Down => self.move_focus(1),
            KeyCode::BackTab | KeyCode::Up => self.move_focus(-1),
            _ => false,
        };
        if moved {
            return FormReply::Handled;
        }
        let Some(field) = self
            .focus_index()
            .and_then(|index| self.fields.get_mut(index))
        else {
            return FormReply::Ignored;
        };
        let changed = FormReply::Changed(field.id.clone());
        let by = match key.code {
            KeyCode::Left => -1,
            _ => 1,
        };
        let is_typed = !key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        match (&mut field.control, key.code) {
            (Control::Search { .. } | Control::Choice { .. }, KeyCode::Left | KeyCode::Right)
            | (Control::CheckBox(_) | Control::Choice { .. }, KeyCode::Char(' ')) => {
                field.control.step(by);
                changed
            }
            (Control::CheckBox(_) | Control::Choice { .. }, code) => match code {
                KeyCode::Char('j') if is_typed && self.move_focus(1) => FormReply::Handled,
                KeyCode::Char('k') if is_typed && self.move_focus(-1) => FormReply::Handled,
                _ => FormReply::Ignored,
            },
            // They scroll, as in a form without a text.
            (Control::Number(_), KeyCode::Char('g' | 'G')) if is_typed => FormReply::Ignored,
            (Control::Number(_), KeyCode::Char(c)) if is_typed && !c.is_ascii_digit() => {
                FormReply::Handled
            }
            (control, _) => {
                let Some(input) = control.input_mut() else {
                    return FormReply::Ignored;
                };
                let before = input.text().to_owned();
                match input.on_key(key) {
                    false => FormReply::Ignored,
                    true if before == input.text() => FormReply::Handled,
                    true => {
                        if let Control::Search { at, .. } = control {
                            *at = 0;
                        }
                        changed
                    }
                }
            }
        }
    }

    /// Pastes into the focused text field; returns the field.
    pub(super) fn paste(&mut self, text: &str) -> Option<F> {
        let index = self.focus_index()?;
        let field = self.fields.get_mut(index)?;
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        match &mut field.control {
            Control::Number(input) => input.paste(&digits),
            Control::Search { input, at, .. } => {
                *at = 0;
                input.paste(text.trim());
            }
            control => control.input_mut()?.paste(text.trim()),
        }
        Some(field.id.clone())
    }

    /// Focuses the field that was clicked; a click also toggles a check box and chooses the next option.
    pub(super) fn on_click(&mut self, target: usize) -> FormReply<F> {
        let Some(field) = self.fields.get_mut(target) else {
            return FormReply::Ignored;
        };
        self.focus = target;
        match field.control.input().is_none() && field.control.step(1) {
            true => FormReply::Changed(field.id.clone()),
            false => FormReply::Handled,
        }
    }

    /// Adds a field to `content` if it is shown.
    pub(super) fn push(&self, content: &mut Content<'_>, id: &F) {
        let index = self.fields.iter().position(|field| field.id == *id);
        let Some((index, field)) = index.and_then(|index| Some((index, self.fields.get(index)?)))
        else {
            return;
        };
        if !field.is_shown {
            return;
        }
        let focused = self.focus_index() == Some(index);
        let label = field.label.as_str();
        match &field.control {
            Control::CheckBox(is_checked) => {
                let sign = if *is_checked { "[x]" } else { "[ ]" };
                content.push_target(index);
                content.push_choice(&format!("{sign} {label}"), focused, field.is_enabled);
            }
            Control::Choice { options, at } => {
                let option = options.get(*at).map_or("", String::as_str);
                content.push_target(index);
                content.push_choice(&format!("{label}‹ {option} ›"), focused, field.is_enabled);
            }
            Control::Phrase { phrase, input } => {
                let text = format!("Type {phrase} to confirm:");
                content.push_wrapped(&text, 0, content.theme.text);
                content.push_target(index);
                content.push_text_input("> ", input, focused);
            }
            Control::Text(input) | Control::Number(input) | Control::Search { input, .. } => {
                content.push_target(index);
                content.push_text_input(label, input, focused);
            }
        }
    }

    /// Adds the keys of the form: enter with `label`, and those of the focused field.
    pub(super) fn push_keys(&self, content: &mut Content<'_>, label: &'static str, possible: bool) {
        content.push_key("enter", label, possible);
        if self.fields.iter().filter(|field| field.is_shown).count() > 1 {
            content.push_key("tab", "next", true);
        }
        let focus = self.focus_index().and_then(|index| self.fields.get(index));
        match focus.map(|field| &field.control) {
            Some(Control::CheckBox(_)) => content.push_key("space", "toggle", true),
            Some(Control::Choice { .. }) => content.push_key("← →", "change", true),
            Some(Control::Search { .. }) => content.push_key("← →", "next match", true),
            _ => {}
        }
        content.push_key("esc", "cancel", true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Id {
        Name,
        Count,
        Is,
        Where,
        Phrase,
    }

    fn form() -> Form<Id> {
        let options = vec!["here".to_owned(), "there".to_owned()];
        Form::new([
            (Id::Name, "Name: ", Control::text("app-v1")),
            (Id::Count, "Count: ", Control::number("")),
            (Id::Is, "is", Control::CheckBox(false)),
            (Id::Where, "Where: ", Control::choice(options, 0)),
            (Id::Phrase, "", Control::phrase()),
        ])
    }

    fn press(form: &mut Form<Id>, code: KeyCode) -> FormReply<Id> {
        form.on_key(KeyEvent::from(code))
    }

    fn typed(form: &mut Form<Id>, text: &str) {
        for c in text.chars() {
            press(form, KeyCode::Char(c));
        }
    }

    #[test]
    fn typing_replaces_a_proposed_text_and_a_cursor_key_accepts_it() {
        let mut form = form();
        assert_eq!(press(&mut form, KeyCode::End), FormReply::Handled);
        typed(&mut form, "x");
        assert_eq!(form.text(&Id::Name), "app-v1x");
        let mut form = self::form();
        typed(&mut form, "xy");
        assert_eq!(form.text(&Id::Name), "xy");
        let mut form = self::form();
        press(&mut form, KeyCode::Backspace);
        assert_eq!(form.text(&Id::Name), "");
        let mut form = self::form();
        assert_eq!(form.paste("new\n"), Some(Id::Name));
        assert_eq!(form.text(&Id::Name), "new");
    }

    #[test]
    fn tab_and_arrows_visit_the_shown_fields() {
        let mut form = form();
        form.set_phrase(&Id::Phrase, None);
        form.show(&Id::Is, false);
        let mut visited = Vec::new();
        for key in [KeyCode::Tab, KeyCode::Down, KeyCode::Char('j'), KeyCode::Up] {
            press(&mut form, key);
            visited.push(*form.focused().unwrap_or(&Id::Phrase));
        }
        assert_eq!(visited, [Id::Count, Id::Where, Id::Name, Id::Where]);
        // A field that disappears loses the focus.
        form.show(&Id::Where, false);
        assert_eq!(form.focused(), Some(&Id::Name));
    }

    #[test]
    fn values_change_by_keys_and_clicks() {
        let mut form = form();
        assert_eq!(press(&mut form, KeyCode::Enter), FormReply::Submit);
        form.focus_on(&Id::Count);
        typed(&mut form, "x0");
        assert_eq!(form.number(&Id::Count), Err(()));
        typed(&mut form, "1g");
        assert_eq!(form.number(&Id::Count), Ok(Some(1)));
        assert_eq!(form.on_click(2), FormReply::Changed(Id::Is));
        assert!(form.is_checked(&Id::Is) && form.focused() == Some(&Id::Is));
        typed(&mut form, " ");
        assert!(!form.is_checked(&Id::Is));
        press(&mut form, KeyCode::Tab);
        assert_eq!(
            press(&mut form, KeyCode::Left),
            FormReply::Changed(Id::Where)
        );
        assert_eq!(form.chosen(&Id::Where), 1);
        typed(&mut form, " ");
        assert_eq!(form.chosen(&Id::Where), 0);
        form.set_phrase(&Id::Phrase, Some("remove 2".to_owned()));
        form.on_click(4);
        typed(&mut form, "remove 2");
        assert!(form.is_confirmed(&Id::Phrase));
        form.set_phrase(&Id::Phrase, Some("remove 3".to_owned()));
        assert!(!form.is_confirmed(&Id::Phrase));
        form.set_phrase(&Id::Phrase, None);
        assert!(!form.is_confirmed(&Id::Phrase));
    }

    #[test]
    fn keys_without_a_use_are_left_for_scrolling() {
        let mut form = form();
        form.focus_on(&Id::Is);
        for key in [
            KeyCode::Home,
            KeyCode::End,
            KeyCode::PageDown,
            KeyCode::Char('G'),
        ] {
            assert_eq!(press(&mut form, key), FormReply::Ignored, "{key}");
        }
        form.focus_on(&Id::Count);
        assert_eq!(press(&mut form, KeyCode::End), FormReply::Ignored);
        typed(&mut form, "12");
        assert_eq!(press(&mut form, KeyCode::End), FormReply::Ignored);
        assert_eq!(press(&mut form, KeyCode::Home), FormReply::Handled);
        assert_eq!(press(&mut form, KeyCode::PageUp), FormReply::Ignored);
    }
}
