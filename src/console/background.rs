//! Detects whether the terminal's background is dark or light. The query (OSC 11) is sent after the first frame; the
//! response arrives among the keys, late or never, so nothing waits for it.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::theme::is_light;

/// crossterm does not parse OSC: it reads ESC ] as alt-], and the rest of the response as typed letters.
const RESPONSE_PREFIX: &str = "11;rgb";
const MAX_RESPONSE: usize = 40;

/// Filters the response out of the events.
#[derive(Debug, Default)]
pub(crate) struct BackgroundProbe {
    is_pending: bool,
    buffered: Vec<Event>,
    text: String,
}

/// The result of one event.
#[derive(Debug, PartialEq)]
pub(crate) enum ProbeResult {
    /// Events for the console: this one, and earlier ones that were taken for a response.
    Events(Vec<Event>),
    /// The event may be part of a response.
    Incomplete,
    IsLight(bool),
}

impl BackgroundProbe {
    pub(crate) fn mark_query_sent(&mut self) {
        self.is_pending = true;
    }

    pub(crate) fn on_event(&mut self, event: Event) -> ProbeResult {
        let is_first = self.buffered.is_empty();
        if !self.is_pending {
            return ProbeResult::Events(vec![event]);
        }
        let key = match &event {
            Event::Key(KeyEvent {
                code: KeyCode::Char(c),
                modifiers,
                ..
            }) => Some((*c, *modifiers)),
            _ => None,
        };
        const ALT: KeyModifiers = KeyModifiers::ALT;
        const CTRL: KeyModifiers = KeyModifiers::CONTROL;
        match key {
            Some((']', ALT)) if is_first => {}
            // End of the sequence: ST or BEL.
            Some(('\\', ALT) | ('g', CTRL)) if !is_first => {
                if let Some(color) = color(&self.text) {
                    *self = Self::default();
                    return ProbeResult::IsLight(is_light(color));
                }
                return self.release(event);
            }
            Some((c, modifiers)) if !is_first && !modifiers.intersects(ALT | CTRL) => {
                self.text.push(c);
                let len = self.text.len().min(RESPONSE_PREFIX.len());
                if !RESPONSE_PREFIX.starts_with(&self.text[..len]) || self.text.len() > MAX_RESPONSE
                {
                    return self.release(event);
                }
            }
            _ => return self.release(event),
        }
        self.buffered.push(event);
        ProbeResult::Incomplete
    }

    fn release(&mut self, event: Event) -> ProbeResult {
        self.text.clear();
        let mut events = std::mem::take(&mut self.buffered);
        events.push(event);
        ProbeResult::Events(events)
    }
}

/// Returns red, green and blue of `11;rgb:ffff/ffff/ffff`.
///
/// One to four hexadecimal digits each, scaled to eight bits (xterm, "Operating System Commands").
fn color(text: &str) -> Option<(u8, u8, u8)> {
    let (_, values) = text.strip_prefix(RESPONSE_PREFIX)?.split_once(':')?;
    let mut values = values.split('/').map(|value| {
        let digits = u32::try_from(value.len())
            .ok()
            .filter(|digits| (1..=4).contains(digits))?;
        let value = u32::from_str_radix(value, 16).ok()?;
        u8::try_from(value * 255 / (16u32.pow(digits) - 1)).ok()
    });
    Some((values.next()??, values.next()??, values.next()??))
}

/// Returns whether `COLORFGBG`, which some terminals set (`15;0` on black), has a light background.
pub(crate) fn is_light_in_env(variable: impl Fn(&str) -> Option<String>) -> bool {
    let colors = variable("COLORFGBG").unwrap_or_default();
    matches!(colors.rsplit(';').next(), Some("7" | "15"))
}

/// Returns whether the query may be sent; some terminals print it.
pub(crate) fn can_query(variable: impl Fn(&str) -> Option<String>) -> bool {
    let term = variable("TERM").unwrap_or_default();
    !matches!(term.as_str(), "" | "dumb" | "linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the events that crossterm makes of `input`.
    fn events(input: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let mut chars = input.chars();
        while let Some(c) = chars.next() {
            let (c, modifiers) = match c {
                '\x1b' => (chars.next().unwrap_or(' '), KeyModifiers::ALT),
                '\x07' => ('g', KeyModifiers::CONTROL),
                c => (c, KeyModifiers::NONE),
            };
            events.push(Event::Key(KeyEvent::new(KeyCode::Char(c), modifiers)));
        }
        events
    }

    fn feed(probe: &mut BackgroundProbe, input: &str) -> (Vec<Event>, Option<bool>) {
        let (mut passed, mut light) = (Vec::new(), None);
        for event in events(input) {
            match probe.on_event(event) {
                ProbeResult::Events(events) => passed.extend(events),
                ProbeResult::Incomplete => {}
                ProbeResult::IsLight(is_light) => light = Some(is_light),
            }
        }
        (passed, light)
    }

    #[test]
    fn a_response_among_keys_is_detected_and_removed() {
        for (input, light) in [
            ("j\x1b]11;rgb:ffff/ffff/ffff\x1b\\k", true),
            ("j\x1b]11;rgb:0000/2b2b/3636\x07k", false),
            ("j\x1b]11;rgba:fdfd/f6f6/e3e3/ffff\x1b\\k", true),
            ("j\x1b]11;rgb:0/0/0\x1b\\k", false),
        ] {
            let mut probe = BackgroundProbe::default();
            probe.mark_query_sent();
            let result = feed(&mut probe, input);
            assert_eq!(result, (events("jk"), Some(light)), "{input:?}");
        }
    }

    #[test]
    fn other_sequences_are_passed_on() {
        for input in [
            "]11jk",
            "\x1b]j",
            "\x1b]11;j",
            "\x1b]11;rgb\x1b\\",
            "\x1b]11;rgb:x/y/z\x07",
            "\x1b]\x1b]q",
        ] {
            let mut probe = BackgroundProbe::default();
            probe.mark_query_sent();
            assert_eq!(feed(&mut probe, input), (events(input), None), "{input:?}");
            let mut idle = BackgroundProbe::default();
            assert_eq!(feed(&mut idle, input).0, events(input));
        }
    }

    #[test]
    fn environment_variables_decide_background_and_query() {
        let with = |name: &'static str, value: &'static str| {
            move |variable: &str| (variable == name).then(|| value.to_owned())
        };
        assert!(is_light_in_env(with("COLORFGBG", "0;15")));
        assert!(!is_light_in_env(with("COLORFGBG", "15;0")));
        assert!(can_query(with("TERM", "xterm-256color")));
        assert!(!can_query(with("TERM", "linux")) && !can_query(with("NOTHING", "")));
    }
}
