//! Colours and attributes by what they mean. The themes are files of `config/themes`, compiled in; a user's own stand
//! in `themes` beside `config.toml`. No meaning hangs on colour alone: crossterm drops colours under `NO_COLOR`,
//! attributes (reverse, bold, dim) stay.

use std::path::Path;
use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};
use toml::de::DeTable;

use snapdeck_model::Result;
use snapdeck_settings::SourceText;

/// The themes that are compiled in, by name.
pub(crate) const THEMES: &[(&str, &str)] = &[
    ("dark", include_str!("../../config/themes/dark.toml")),
    ("light", include_str!("../../config/themes/light.toml")),
    (
        "high-contrast",
        include_str!("../../config/themes/high-contrast.toml"),
    ),
    ("mono", include_str!("../../config/themes/mono.toml")),
];

/// One style for each role on screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Ordinary text.
    pub text: Style,
    /// Less important, stale or not possible.
    pub dim: Style,
    /// Headings and names.
    pub title: Style,
    /// Borders.
    pub border: Style,
    /// The border and title of what has the focus.
    pub focus: Style,
    /// The selected row of the focused list.
    pub selected: Style,
    /// The selected row of another list.
    pub selected_inactive: Style,
    /// All is well.
    pub good: Style,
    /// To be heeded.
    pub warn: Style,
    /// Failed or refused.
    pub bad: Style,
    /// The name of a key.
    pub key: Style,
}

type Role = fn(&mut Theme) -> &mut Style;

/// The roles by their name in a file.
const ROLES: &[(&str, Role)] = &[
    ("text", |theme| &mut theme.text),
    ("dim", |theme| &mut theme.dim),
    ("title", |theme| &mut theme.title),
    ("border", |theme| &mut theme.border),
    ("focus", |theme| &mut theme.focus),
    ("selected", |theme| &mut theme.selected),
    ("resting", |theme| &mut theme.selected_inactive),
    ("good", |theme| &mut theme.good),
    ("warn", |theme| &mut theme.warn),
    ("bad", |theme| &mut theme.bad),
    ("key", |theme| &mut theme.key),
];

impl Theme {
    /// The theme of that name of those that are compiled in.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (_, text) = THEMES.iter().find(|(known, _)| *known == name)?;
        Self::read(text, Path::new(name)).ok()
    }

    /// Reads `text`, the content of `path`: each role a text such as `"bold #ff8800 on black"`. A role that is left out
    /// looks like ordinary text.
    ///
    /// # Errors
    /// `InvalidInput` with the line: a role, a colour or an attribute that is not known.
    pub(crate) fn read(text: &str, path: &Path) -> Result<Self> {
        let text = SourceText {
            error_summary: "cannot read the theme",
            path,
            text,
        };
        let root = DeTable::parse(text.text)
            .map_err(|error| text.syntax_error(error.span(), error.message()))?;
        let mut theme = Self::default();
        for (name, value) in root.get_ref() {
            let role = ROLES.iter().find(|(known, _)| known == name.get_ref());
            let known = || ROLES.iter().map(|(known, _)| (*known).to_owned());
            let (_, role) = role.ok_or_else(|| {
                text.unknown_name_error(name.span().start, "role", name.get_ref(), known())
            })?;
            let at = value.span().start;
            let words = value.get_ref().as_str();
            let words = words.ok_or_else(|| {
                text.error_at(at, format!("{name} takes a text, such as \"bold cyan\""))
            })?;
            *role(&mut theme) = style(words).map_err(|word| {
                text.error_at(at, format!("{name}: there is no colour or attribute {word:?}")).hint(
                    "colours are red, light-red, ..., 0 to 255, #rrggbb; attributes bold, dim, italic, underlined, \
                     reverse; \"on COLOUR\" is the background",
                )
            })?;
        }
        Ok(theme)
    }
}

/// The style that `words` tell of; the word that is none.
fn style(words: &str) -> std::result::Result<Style, String> {
    let mut style = Style::new();
    let mut behind = false;
    for word in words.split_whitespace() {
        let attribute = match word {
            "bold" => Some(Modifier::BOLD),
            "dim" => Some(Modifier::DIM),
            "italic" => Some(Modifier::ITALIC),
            "underlined" => Some(Modifier::UNDERLINED),
            "reverse" => Some(Modifier::REVERSED),
            _ => None,
        };
        style = match (attribute, word, behind) {
            (Some(attribute), _, false) => style.add_modifier(attribute),
            (None, "on", false) => {
                behind = true;
                continue;
            }
            (_, color, behind) => {
                let color = Color::from_str(color).map_err(|_| word.to_owned())?;
                match behind {
                    true => style.bg(color),
                    false => style.fg(color),
                }
            }
        };
        behind = false;
    }
    match behind {
        true => Err("on".to_owned()),
        false => Ok(style),
    }
}

/// Is a background of that red, green and blue light? By its luminance (ITU-R BT.709).
pub(crate) fn is_light((red, green, blue): (u8, u8, u8)) -> bool {
    let [red, green, blue] = [red, green, blue].map(f64::from);
    0.2126 * red + 0.7152 * green + 0.0722 * blue > 127.5
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_theme_has_every_role_with_a_comment_and_a_selection_without_colours() {
        for (name, text) in THEMES {
            let theme = Theme::named(name).unwrap_or_else(|| {
                panic!("{}", Theme::read(text, Path::new(name)).unwrap_err());
            });
            for (role, _) in ROLES {
                let lines: Vec<&str> = text.lines().collect();
                let at = lines
                    .iter()
                    .position(|line| line.starts_with(&format!("{role} = ")));
                let at = at.unwrap_or_else(|| panic!("{name} lacks {role}"));
                assert!(
                    lines[at - 1].starts_with("# "),
                    "{name}: {role} has no comment"
                );
            }
            // Under NO_COLOR only the attributes are left: what is selected must still be told from the rest.
            for (role, attributes) in [
                ("selected", theme.selected.add_modifier),
                ("resting", theme.selected_inactive.add_modifier),
                ("bad", theme.bad.add_modifier),
                ("focus", theme.focus.add_modifier),
            ] {
                assert!(!attributes.is_empty(), "{name}: {role}");
                assert_ne!(attributes, theme.text.add_modifier, "{name}: {role}");
            }
            assert!(
                theme.selected.add_modifier.contains(Modifier::REVERSED),
                "{name}"
            );
        }
    }

    #[test]
    fn a_style_is_colours_and_attributes() {
        let wanted = Style::new()
            .fg(Color::Rgb(255, 136, 0))
            .bg(Color::Black)
            .add_modifier(Modifier::BOLD);
        assert_eq!(style("bold #ff8800 on black"), Ok(wanted));
        assert_eq!(style("light-red"), Ok(Style::new().fg(Color::LightRed)));
        for (words, wrong) in [
            ("bold oragne", "oragne"),
            ("red on", "on"),
            ("on bold", "bold"),
        ] {
            assert_eq!(style(words), Err(wrong.to_owned()), "{words}");
        }
    }

    #[test]
    fn a_theme_that_cannot_be_read_is_told_with_its_line() {
        for (text, told) in [
            (
                "\nfokus = \"bold\"",
                "mine.toml line 2: unknown role \"fokus\"; did you mean focus?",
            ),
            (
                "text = \"pinkish\"",
                "line 1: text: there is no colour or attribute \"pinkish\"",
            ),
            ("text = 7", "text takes a text"),
        ] {
            let error = Theme::read(text, Path::new("mine.toml"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn white_is_light_and_solarized_dark_is_not() {
        assert!(is_light((255, 255, 255)) && is_light((253, 246, 227)));
        assert!(!is_light((0, 0, 0)) && !is_light((0, 43, 54)));
    }
}
