//! Themes: a style for each role. The files of `config/themes` are compiled in; users put their own into `themes` beside
//! `config.toml`. Themes do not rely on colours alone: with `NO_COLOR` crossterm drops colours and keeps attributes
//! (reverse, bold, dim).

use std::path::Path;
use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};
use toml::de::DeTable;

use snapdeck_model::Result;
use snapdeck_settings::SourceText;

pub(crate) const THEMES: &[(&str, &str)] = &[
    ("dark", include_str!("../../config/themes/dark.toml")),
    ("light", include_str!("../../config/themes/light.toml")),
    (
        "high-contrast",
        include_str!("../../config/themes/high-contrast.toml"),
    ),
    ("mono", include_str!("../../config/themes/mono.toml")),
];

/// A style for each role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Theme {
    pub text: Style,
    /// Less important, stale or disabled.
    pub dim: Style,
    /// Headings and names.
    pub title: Style,
    /// The title of a pane without the focus.
    pub heading: Style,
    /// The label of a value.
    pub label: Style,
    /// A size or a count in a list.
    pub number: Style,
    pub border: Style,
    /// Border and title of the focused pane.
    pub focus: Style,
    /// The selected row of the focused list.
    pub selected: Style,
    /// The selected row of other lists.
    pub selected_inactive: Style,
    /// The header of a column.
    pub header: Style,
    pub running: Style,
    pub paused: Style,
    pub saved: Style,
    pub crashed: Style,
    /// A snapshot that is on the host and in the bucket.
    pub same: Style,
    pub only_here: Style,
    pub only_there: Style,
    pub differs: Style,
    pub good: Style,
    pub warn: Style,
    /// Failed or refused.
    pub bad: Style,
    /// A bar of what is in use.
    pub meter: Style,
    /// The curves of a chart.
    pub curves: [Style; 3],
    /// The name of a key.
    pub key: Style,
}

/// Theme and signs with which the console draws.
#[derive(Debug, Clone, Default)]
pub(crate) struct Appearance {
    pub theme: Theme,
    /// No borders and no graphs.
    pub plain: bool,
    /// Only ASCII characters.
    pub ascii: bool,
}

type Role = fn(&mut Theme) -> &mut Style;

const ROLES: &[(&str, Role)] = &[
    ("text", |theme| &mut theme.text),
    ("dim", |theme| &mut theme.dim),
    ("title", |theme| &mut theme.title),
    ("heading", |theme| &mut theme.heading),
    ("label", |theme| &mut theme.label),
    ("number", |theme| &mut theme.number),
    ("border", |theme| &mut theme.border),
    ("focus", |theme| &mut theme.focus),
    ("selected", |theme| &mut theme.selected),
    ("resting", |theme| &mut theme.selected_inactive),
    ("header", |theme| &mut theme.header),
    ("running", |theme| &mut theme.running),
    ("paused", |theme| &mut theme.paused),
    ("saved", |theme| &mut theme.saved),
    ("crashed", |theme| &mut theme.crashed),
    ("same", |theme| &mut theme.same),
    ("only-here", |theme| &mut theme.only_here),
    ("only-there", |theme| &mut theme.only_there),
    ("differs", |theme| &mut theme.differs),
    ("good", |theme| &mut theme.good),
    ("warn", |theme| &mut theme.warn),
    ("bad", |theme| &mut theme.bad),
    ("meter", |theme| &mut theme.meter),
    ("curve-1", |theme| &mut theme.curves[0]),
    ("curve-2", |theme| &mut theme.curves[1]),
    ("curve-3", |theme| &mut theme.curves[2]),
    ("key", |theme| &mut theme.key),
];

impl Theme {
    /// Returns a compiled-in theme.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (_, text) = THEMES.iter().find(|(other, _)| *other == name)?;
        Self::read(text, Path::new(name)).ok()
    }

    /// Reads `text`, the content of `path`: a style for each role, such as `"bold #ff8800 on black"`. Roles that are left out
    /// look like ordinary text.
    ///
    /// # Errors
    /// `InvalidInput` with the line: an unknown role, colour or attribute.
    pub(crate) fn read(text: &str, path: &Path) -> Result<Self> {
        let text = SourceText {
            error_summary: "cannot read the theme",
            path,
            text,
        };
        let root = DeTable::parse(text.text)
            .map_err(|error| text.syntax_error(error.span(), error.message()))?;
        let mut theme = Self::default();
        let mut named = Vec::new();
        for (name, value) in root.get_ref() {
            let role = ROLES.iter().find(|(role, _)| role == name.get_ref());
            let roles = || ROLES.iter().map(|(role, _)| (*role).to_owned());
            let (_, role) = role.ok_or_else(|| {
                text.unknown_name_error(name.span().start, "role", name.get_ref(), roles())
            })?;
            let at = value.span().start;
            let words = value.get_ref().as_str();
            let words = words.ok_or_else(|| {
                text.error_at(at, format!("{name} must be a text, such as \"bold cyan\""))
            })?;
            named.push(name.get_ref().as_ref());
            *role(&mut theme) = style(words).map_err(|word| {
                text.error_at(at, format!("{name}: unknown colour or attribute {word:?}")).hint(
                    "use red, light-red, ..., 0 to 255, #rrggbb; bold, dim, italic, underlined, reverse; \"on COLOUR\" for \
                     the background",
                )
            })?;
        }
        // Themes for earlier versions have fewer roles.
        let fallbacks: [(&str, Role, Style); 16] = [
            ("heading", |theme| &mut theme.heading, theme.text),
            ("label", |theme| &mut theme.label, theme.dim),
            ("number", |theme| &mut theme.number, theme.text),
            ("meter", |theme| &mut theme.meter, theme.text),
            ("curve-1", |theme| &mut theme.curves[0], theme.good),
            ("curve-2", |theme| &mut theme.curves[1], theme.focus),
            ("curve-3", |theme| &mut theme.curves[2], theme.warn),
            ("header", |theme| &mut theme.header, theme.dim),
            ("running", |theme| &mut theme.running, theme.good),
            ("paused", |theme| &mut theme.paused, theme.warn),
            ("saved", |theme| &mut theme.saved, theme.text),
            ("crashed", |theme| &mut theme.crashed, theme.bad),
            ("same", |theme| &mut theme.same, theme.good),
            ("only-here", |theme| &mut theme.only_here, theme.text),
            ("only-there", |theme| &mut theme.only_there, theme.dim),
            ("differs", |theme| &mut theme.differs, theme.warn),
        ];
        for (name, role, style) in fallbacks {
            if !named.contains(&name) {
                *role(&mut theme) = style;
            }
        }
        // A title is drawn over its border, which may be dim.
        if !theme.heading.add_modifier.contains(Modifier::DIM) {
            theme.heading = theme.heading.remove_modifier(Modifier::DIM);
        }
        Ok(theme)
    }
}

/// Parses a style. The error is the invalid word.
fn style(words: &str) -> std::result::Result<Style, String> {
    let mut style = Style::new();
    let mut is_background = false;
    for word in words.split_whitespace() {
        let attribute = match word {
            "bold" => Some(Modifier::BOLD),
            "dim" => Some(Modifier::DIM),
            "italic" => Some(Modifier::ITALIC),
            "underlined" => Some(Modifier::UNDERLINED),
            "reverse" => Some(Modifier::REVERSED),
            _ => None,
        };
        style = match (attribute, word, is_background) {
            (Some(attribute), _, false) => style.add_modifier(attribute),
            (None, "on", false) => {
                is_background = true;
                continue;
            }
            (_, color, is_background) => {
                let color = Color::from_str(color).map_err(|_| word.to_owned())?;
                match is_background {
                    true => style.bg(color),
                    false => style.fg(color),
                }
            }
        };
        is_background = false;
    }
    match is_background {
        true => Err("on".to_owned()),
        false => Ok(style),
    }
}

/// Returns whether a background of this red, green and blue is light, by its luminance (ITU-R BT.709).
pub(crate) fn is_light((red, green, blue): (u8, u8, u8)) -> bool {
    let [red, green, blue] = [red, green, blue].map(f64::from);
    0.2126 * red + 0.7152 * green + 0.0722 * blue > 127.5
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_theme_is_complete_documented_and_usable_without_colours() {
        for (name, text) in THEMES {
            let theme = Theme::named(name).unwrap_or_else(|| {
                panic!("{}", Theme::read(text, Path::new(name)).unwrap_err());
            });
            for (role, _) in ROLES {
                let lines: Vec<&str> = text.lines().collect();
                let line = lines
                    .iter()
                    .position(|line| line.starts_with(&format!("{role} = ")));
                let line = line.unwrap_or_else(|| panic!("{name} lacks {role}"));
                assert!(
                    lines[line - 1].starts_with("# "),
                    "{name}: {role} has no comment"
                );
            }
            // With NO_COLOR only attributes remain: they must distinguish these roles.
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
    fn a_style_has_colours_and_attributes() {
        let expected = Style::new()
            .fg(Color::Rgb(255, 136, 0))
            .bg(Color::Black)
            .add_modifier(Modifier::BOLD);
        assert_eq!(style("bold #ff8800 on black"), Ok(expected));
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
    fn an_invalid_theme_is_reported_with_its_line() {
        for (text, message) in [
            (
                "\nfokus = \"bold\"",
                "mine.toml line 2: unknown role \"fokus\"; did you mean focus?",
            ),
            (
                "text = \"pinkish\"",
                "line 1: text: unknown colour or attribute \"pinkish\"",
            ),
            ("text = 7", "text must be a text"),
        ] {
            let error = Theme::read(text, Path::new("mine.toml"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn light_and_dark_backgrounds_are_distinguished() {
        assert!(is_light((255, 255, 255)) && is_light((253, 246, 227)));
        assert!(!is_light((0, 0, 0)) && !is_light((0, 43, 54)));
    }
}
