//! Prune: takes a rule, shows what it removes, what that reclaims and what is kept and why, then removes it.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogAnswer, DialogQuery, DialogReply};
use crate::command::Command;
use crate::format::{self, count, size, timestamp};
use crate::theme::Theme;
use snapdeck_engine::{Partials, PruneRequest, leftover_label};
use snapdeck_model::{Candidate, Error, HostName, Leftover, PrunePlan, PruneRule};

const PLACE_WIDTH: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PruneField {
    Keep,
    Days,
    Unused,
    Leftovers,
    Partials,
    Hosts,
    Bucket,
    /// Confirms the plan.
    Confirmation,
}

#[derive(Debug)]
enum PruneStage {
    /// The rule is being edited.
    Rule,
    /// The plan is being computed.
    Planning(PruneRequest),
    /// The plan is shown for confirmation.
    Review(PruneRequest, Box<PrunePlan>),
    Failed(Error),
}

#[derive(Debug)]
pub(crate) struct PruneDialog {
    /// The hosts of each choice.
    scopes: Vec<Vec<HostName>>,
    form: Form<PruneField>,
    stage: PruneStage,
    /// The phrase that confirms the plan; shown once the operator continues.
    confirmation: Form<PruneField>,
}

impl PruneDialog {
    /// Returns a form for a rule on the `current` host; other hosts and the bucket at `location` can be added.
    pub(crate) fn new(
        hosts: Vec<HostName>,
        current: Option<&HostName>,
        location: Option<&str>,
    ) -> Self {
        let mut scopes = Vec::new();
        scopes.extend(current.map(|host| vec![host.clone()]));
        if hosts.len() > 1 {
            scopes.push(hosts);
        }
        scopes.push(Vec::new());
        let label = |hosts: &Vec<HostName>| match hosts.as_slice() {
            [] => "no host".to_owned(),
            [host] => host.to_string(),
            hosts => count(hosts.len(), "host"),
        };
        let labels = scopes.iter().map(label).collect();
        let mut form = Form::new([
            (
                PruneField::Keep,
                "Keep newest N versions of each name: ",
                Control::number(""),
            ),
            (PruneField::Days, "Older than (days): ", Control::number("")),
            (
                PruneField::Unused,
                "unused: no sandbox on any host is based on it",
                Control::CheckBox(false),
            ),
            (
                PruneField::Leftovers,
                "also leftovers of interrupted jobs, older than a day",
                Control::CheckBox(true),
            ),
            (
                PruneField::Partials,
                "also partial pulls of any age (pulls then start again)",
                Control::CheckBox(false),
            ),
            (PruneField::Hosts, "on ", Control::choice(labels, 0)),
            (PruneField::Bucket, "", Control::CheckBox(false)),
        ]);
        let label = location.map(|location| format!("in {location}"));
        form.show(&PruneField::Bucket, label.is_some());
        form.set_label(&PruneField::Bucket, label.unwrap_or_default(), true);
        Self {
            scopes,
            form,
            stage: PruneStage::Rule,
            confirmation: confirmation(),
        }
    }

    /// Returns the request, or why the form is not complete.
    fn request(&self) -> Result<PruneRequest, String> {
        let number = |field, label: &str| {
            let number = self.form.number(&field);
            number.map_err(|()| format!("{label} must be a number from 1"))
        };
        let keep = number(PruneField::Keep, "the number of versions to keep")?;
        let days = number(PruneField::Days, "the age")?;
        let day = Duration::from_secs(24 * 60 * 60);
        let scope = self.scopes.get(self.form.chosen(&PruneField::Hosts));
        let request = PruneRequest {
            rule: PruneRule {
                keep_newest: keep.map(|keep| keep as usize),
                older_than: days.map(|days| day.saturating_mul(days)),
                unused: self.form.is_checked(&PruneField::Unused),
            },
            hosts: scope.cloned().unwrap_or_default(),
            include_bucket: self.form.is_checked(&PruneField::Bucket),
            include_leftovers: self.form.is_checked(&PruneField::Leftovers),
            include_foreign: false,
            partials: match self.form.is_checked(&PruneField::Partials) {
                true => Partials::All,
                false => Partials::None,
            },
        };
        if request.hosts.is_empty() && !request.include_bucket {
            return Err("no location is selected".to_owned());
        }
        let has_files = request.include_leftovers || request.partials != Partials::None;
        if request.rule == PruneRule::default() && !has_files {
            return Err("nothing to remove yet: set a condition".to_owned());
        }
        Ok(request)
    }

    fn rule_key(&mut self, key: KeyEvent) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit => {
                if let Ok(request) = self.request() {
                    self.stage = PruneStage::Planning(request);
                }
                DialogReply::Stay
            }
            FormReply::Ignored => DialogReply::Ignored,
            FormReply::Handled | FormReply::Changed(_) => DialogReply::Stay,
        }
    }

    fn push_rule_form(&self, content: &mut Content<'_>) {
        let theme = content.theme;
        let text = "Removes snapshots that match all conditions. Never removes one that is in use, pinned, or the \
            last good copy of one in use.";
        content.push_wrapped(text, 0, theme.dim);
        content.push_blank();
        self.form.push(content, &PruneField::Keep);
        self.form.push(content, &PruneField::Days);
        self.form.push(content, &PruneField::Unused);
        content.push_blank();
        self.form.push(content, &PruneField::Leftovers);
        self.form.push(content, &PruneField::Partials);
        content.push_blank();
        self.form.push(content, &PruneField::Hosts);
        self.form.push(content, &PruneField::Bucket);
        let request = self.request();
        if let Err(error) = &request {
            content.push_blank();
            content.push_wrapped(&format!("✗ {error}"), 0, theme.warn);
        }
        self.form.push_keys(content, "search", request.is_ok());
    }

    fn push_plan<'a>(&'a self, content: &mut Content<'a>, plan: &'a PrunePlan) {
        let (theme, width) = (content.theme, content.width);
        for warning in &plan.warnings {
            content.push_wrapped(&format!("! {warning}"), 0, theme.warn);
        }
        if plan.is_empty() {
            content.push_wrapped("Nothing to remove.", 0, theme.text);
        } else {
            let text = format!("To remove, reclaims {}:", size(plan.reclaimed_bytes()));
            content.push_wrapped(&text, 0, theme.text);
        }
        content.push_rows(plan.to_remove.len(), move |row| {
            let snapshot = &plan.to_remove[row];
            let note = match snapshot.is_last_copy {
                true => "no other copy known".to_owned(),
                false => snapshot.created.map(timestamp).unwrap_or_default(),
            };
            snapshot_line(snapshot, &note, &theme, width)
        });
        content.push_rows(plan.leftovers.len(), move |row| {
            let leftover = &plan.leftovers[row];
            let modified = leftover.modified.map(|at| format!(", {}", timestamp(at)));
            let label = leftover_label(leftover.kind);
            let until = leftover.continuable_until.map(timestamp);
            let note = match until {
                Some(until) => format!("{label}, can be continued until {until}"),
                None => format!("{label}{}", modified.unwrap_or_default()),
            };
            leftover_line(leftover, &note, &theme, width)
        });
        if !plan.foreign_leftovers.is_empty() {
            content.push_blank();
            let text =
                "Of other installations, kept (snapdeck prune --leftovers --foreign removes them):";
            content.push_wrapped(text, 0, theme.text);
            content.push_rows(plan.foreign_leftovers.len(), move |row| {
                let leftover = &plan.foreign_leftovers[row];
                let creator = leftover.creator.as_deref().unwrap_or("unknown");
                let modified = leftover.modified.map(timestamp).unwrap_or_default();
                leftover_line(
                    leftover,
                    &format!("{modified}, by {creator}"),
                    &theme,
                    width,
                )
            });
        }
        if !plan.kept.is_empty() {
            content.push_blank();
            content.push_wrapped("Kept although it matches:", 0, theme.text);
            content.push_rows(plan.kept.len(), move |row| {
                let snapshot = &plan.kept[row];
                snapshot_line(snapshot, &snapshot.keep_reasons.join("; "), &theme, width)
            });
        }
        if self.is_confirming() {
            content.push_blank();
            self.confirmation.push(content, &PruneField::Confirmation);
            let is_confirmed = self.confirmation.is_confirmed(&PruneField::Confirmation);
            content.push_key("enter", "remove", is_confirmed);
        } else {
            let label = match phrase(plan) {
                Some(_) => "continue (type to confirm)",
                None => "remove",
            };
            content.push_key("y", label, !plan.is_empty());
            content.push_key("b", "back", true);
        }
    }

    /// Returns whether the confirmation is being typed.
    fn is_confirming(&self) -> bool {
        self.confirmation.focused().is_some()
    }
}

impl Dialog for PruneDialog {
    fn pending_query(&self) -> Option<DialogQuery> {
        match &self.stage {
            PruneStage::Planning(request) => Some(DialogQuery::PrunePlan(request.clone())),
            _ => None,
        }
    }

    /// Shows the plan, unless another request was made since.
    fn on_answer(&mut self, answer: DialogAnswer) {
        let DialogAnswer::PrunePlan(request, plan) = answer else {
            return;
        };
        if matches!(&self.stage, PruneStage::Planning(current) if *current == request) {
            self.stage = match plan {
                Ok(plan) => PruneStage::Review(request, Box::new(plan)),
                Err(error) => PruneStage::Failed(error),
            };
        }
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match &self.stage {
            PruneStage::Rule => return self.rule_key(key),
            PruneStage::Review(request, plan) if self.confirmation.focused().is_some() => {
                return match self.confirmation.on_key(key) {
                    FormReply::Submit
                        if self.confirmation.is_confirmed(&PruneField::Confirmation) =>
                    {
                        submit(request, plan)
                    }
                    FormReply::Ignored => DialogReply::Ignored,
                    _ => DialogReply::Stay,
                };
            }
            PruneStage::Review(request, plan)
                if key.code == KeyCode::Char('y') && !plan.is_empty() =>
            {
                match phrase(plan) {
                    None => return submit(request, plan),
                    phrase => self
                        .confirmation
                        .set_phrase(&PruneField::Confirmation, phrase),
                }
                return DialogReply::Stay;
            }
            _ => {}
        }
        match key.code {
            KeyCode::Char('b') => {
                self.stage = PruneStage::Rule;
                self.confirmation = confirmation();
            }
            KeyCode::Char('n' | 'q') => return DialogReply::close(),
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        if matches!(self.stage, PruneStage::Rule) {
            self.form.on_click(target);
        }
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        match &self.stage {
            PruneStage::Rule => drop(self.form.paste(text)),
            PruneStage::Review(..) => drop(self.confirmation.paste(text)),
            PruneStage::Planning(_) | PruneStage::Failed(_) => {}
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let mut content = Content::new("prune", context, width);
        match &self.stage {
            PruneStage::Rule => {
                self.push_rule_form(&mut content);
                return content;
            }
            PruneStage::Planning(_) => {
                content.push_wrapped("◌ Searching…", 0, content.theme.text);
                content.push_key("b", "back", true);
            }
            PruneStage::Failed(error) => {
                content.push_refusal(&error.to_string());
                content.push_key("b", "back", true);
            }
            PruneStage::Review(_, plan) => self.push_plan(&mut content, plan),
        }
        content.push_key("esc", "cancel", true);
        content
    }
}

/// Returns the form that confirms a plan, with its field hidden.
fn confirmation() -> Form<PruneField> {
    let mut form = Form::new([(PruneField::Confirmation, "", Control::phrase())]);
    form.set_phrase(&PruneField::Confirmation, None);
    form
}

fn snapshot_line(snapshot: &Candidate, note: &str, theme: &Theme, width: usize) -> Line<'static> {
    let (name, bytes) = (snapshot.name.as_str(), snapshot.size_bytes);
    plan_line(&snapshot.host, name, bytes, note, theme, width)
}

fn leftover_line(leftover: &Leftover, note: &str, theme: &Theme, width: usize) -> Line<'static> {
    let file = leftover.path.rsplit('/').next().unwrap_or(&leftover.path);
    plan_line(
        &leftover.host,
        file,
        leftover.size_bytes,
        note,
        theme,
        width,
    )
}

fn plan_line(
    host: &Option<HostName>,
    name: &str,
    bytes: u64,
    note: &str,
    theme: &Theme,
    width: usize,
) -> Line<'static> {
    let place = host.as_ref().map_or("bucket", HostName::as_str);
    let room = width.saturating_sub(PLACE_WIDTH + 14);
    let name_width = room / 2;
    let place = format::fit_middle(place, PLACE_WIDTH);
    let name = format::fit_middle(name, name_width);
    let note = format::clip(note, room.saturating_sub(name_width));
    Line::from(vec![
        Span::styled(format!("  {place}"), theme.title),
        Span::raw(format!("{name} {:>9}  ", size(bytes))),
        Span::styled(note, theme.dim),
    ])
}

/// Returns what must be typed to confirm; `None` if only leftovers are removed.
fn phrase(plan: &PrunePlan) -> Option<String> {
    (!plan.to_remove.is_empty()).then(|| format!("remove {}", plan.to_remove.len()))
}

fn submit(request: &PruneRequest, plan: &PrunePlan) -> DialogReply {
    DialogReply::Close(vec![Command::Prune(request.clone(), plan.clone())])
}
