//! Is the terminal's background dark or light? The terminal is asked (OSC 11) after the first frame; what it answers
//! comes among the keys, soon, late or never, and nothing waits for it.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::theme::is_light;

/// The question.
pub(crate) const BACKGROUND_QUERY: &str = "\x1b]11;?\x1b\\";
/// How an answer begins: crossterm knows no OSC and reads ESC ] as alt-], what follows as typed letters.
const RESPONSE_PREFIX: &str = "11;rgb";
/// Longer than any answer.
const MAX_RESPONSE: usize = 40;

/// Finds the answer among the events.
#[derive(Debug, Default)]
pub(crate) struct BackgroundProbe {
    is_pending: bool,
    buffered: Vec<Event>,
    text: String,
}

/// What an event came to.
#[derive(Debug, PartialEq)]
pub(crate) enum ProbeResult {
    /// These are for the console: the event, perhaps with some that looked like an answer.
    Events(Vec<Event>),
    /// It may be a part of the answer.
    Incomplete,
    /// The background is known now.
    IsLight(bool),
}

impl BackgroundProbe {
    /// The question was sent.
    pub(crate) fn mark_query_sent(&mut self) {
        self.is_pending = true;
    }

    /// Takes an event.
    pub(crate) fn on_event(&mut self, event: Event) -> ProbeResult {
        let begins = self.buffered.is_empty();
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
            Some((']', ALT)) if begins => {}
            // ST, or BEL.
            Some(('\\', ALT) | ('g', CTRL)) if !begins => {
                if let Some(color) = color(&self.text) {
                    *self = Self::default();
                    return ProbeResult::IsLight(is_light(color));
                }
                return self.release(event);
            }
            Some((c, modifiers)) if !begins && !modifiers.intersects(ALT | CTRL) => {
                self.text.push(c);
                let long = self.text.len().min(RESPONSE_PREFIX.len());
                if !RESPONSE_PREFIX.starts_with(&self.text[..long])
                    || self.text.len() > MAX_RESPONSE
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

/// Red, green and blue of `11;rgb:ffff/ffff/ffff` (xterm, "Operating System Commands"): one to four hexadecimal digits
/// each, of which the first two count.
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

/// Is the background light by what some terminals put into the environment (`COLORFGBG`, `15;0` on black)?
pub(crate) fn is_light_in_env(variable: impl Fn(&str) -> Option<String>) -> bool {
    let colors = variable("COLORFGBG").unwrap_or_default();
    matches!(colors.rsplit(';').next(), Some("7" | "15"))
}

/// May the terminal be asked? Some print the question.
pub(crate) fn can_query(variable: impl Fn(&str) -> Option<String>) -> bool {
    let term = variable("TERM").unwrap_or_default();
    !matches!(term.as_str(), "" | "dumb" | "linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events crossterm makes of what a terminal sends.
    fn events(sent: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let mut chars = sent.chars();
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

    fn feed(answer: &mut BackgroundProbe, sent: &str) -> (Vec<Event>, Option<bool>) {
        let (mut passed, mut light) = (Vec::new(), None);
        for event in events(sent) {
            match answer.on_event(event) {
                ProbeResult::Events(events) => passed.extend(events),
                ProbeResult::Incomplete => {}
                ProbeResult::IsLight(is_light) => light = Some(is_light),
            }
        }
        (passed, light)
    }

    #[test]
    fn the_answer_is_found_among_keys_and_none_of_it_is_one() {
        for (sent, light) in [
            ("j\x1b]11;rgb:ffff/ffff/ffff\x1b\\k", true),
            ("j\x1b]11;rgb:0000/2b2b/3636\x07k", false),
            ("j\x1b]11;rgba:fdfd/f6f6/e3e3/ffff\x1b\\k", true),
            ("j\x1b]11;rgb:0/0/0\x1b\\k", false),
        ] {
            let mut answer = BackgroundProbe::default();
            answer.mark_query_sent();
            assert_eq!(
                feed(&mut answer, sent),
                (events("jk"), Some(light)),
                "{sent:?}"
            );
        }
    }

    #[test]
    fn keys_that_are_no_answer_are_keys() {
        for sent in [
            "]11jk",
            "\x1b]j",
            "\x1b]11;j",
            "\x1b]11;rgb\x1b\\",
            "\x1b]11;rgb:x/y/z\x07",
            "\x1b]\x1b]q",
        ] {
            let mut answer = BackgroundProbe::default();
            answer.mark_query_sent();
            let (passed, light) = feed(&mut answer, sent);
            assert_eq!((passed, light), (events(sent), None), "{sent:?}");
            let mut unasked = BackgroundProbe::default();
            assert_eq!(feed(&mut unasked, sent).0, events(sent));
        }
    }

    #[test]
    fn the_environment_and_the_terminals_name_are_heeded() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        assert!(is_light_in_env(with("COLORFGBG", "0;15")));
        assert!(!is_light_in_env(with("COLORFGBG", "15;0")));
        assert!(can_query(with("TERM", "xterm-256color")));
        assert!(!can_query(with("TERM", "linux")) && !can_query(with("NOTHING", "")));
    }
}
